"""A scripted server whose behaviour is known, to prove the load test's own numbers.

python -m loadtests.load.stub_server --port 3999 --service-ms 2 --stall 10:2

It answers every prediction after a fixed time, the same for each row, without a model; with --capacity, one after the
other. In a stall it answers nothing, and everything that waited when the stall is over, as a server does that stops to
collect garbage. Times in scripts are seconds since the first prediction. `/model` describes the built-in data's model;
answers carry Server-Timing and x-revision as real ones do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple, cast

import numpy as np
import uvloop

from defects.protocols import v2
from defects.simulator import SCHEMA
from tools.processes import ROOT, START_SECONDS, STOP_SECONDS, free_port
from tools.raw_http import ask, get

MODEL = {"name": "defect-classifier", "version": "stub", "digest": "sha256:" + "0" * 64, "engine": "none"}
DESCRIPTION = json.dumps({**MODEL, "schema": SCHEMA.to_json()}).encode()
PROBABILITIES = [1.0] + [0.0] * (len(SCHEMA.classes) - 1)  # of every row
PREDICTION = {
    SCHEMA.label_name: SCHEMA.labels[0],
    "confidence": 1.0, "prediction_id": "0" * 32, "model_version": MODEL["version"],
    "probabilities": dict(zip(SCHEMA.class_names, PROBABILITIES, strict=True)),
}  # fmt: skip
V2_MODEL = {"model_name": MODEL["name"], "model_version": MODEL["version"]}
_ROWS = re.compile(rb'"shape":\s*\[\s*(\d{1,6})')


class Stall(NamedTuple):
    """Nothing is answered from `start` on for `seconds`."""

    start: float
    seconds: float


@dataclass(frozen=True)
class Script:
    """What the server does."""

    service_ms: float = 0.0
    queue_ms: float = 0.0  # what Server-Timing says of its queue; the rest of service_ms is scoring
    capacity: float = 0.0  # answers per second, one after the other; 0: all at the same time
    stalls: tuple[Stall, ...] = ()
    refuse_share: float = 0.0
    fail_share: float = 0.0
    slow_share: float = 0.0
    slow_ms: float = 0.0
    drop_share: float = 0.0  # of requests whose connection ends without an answer
    hang_after: float = 0.0  # predictions; those after it are never answered; 0: all are
    revisions: dict[str, float] = field(default_factory=lambda: {"stub": 1.0})  # name -> share
    seed: int = 1
    name: str = ""  # of which requests must be, as those through an ingress; others get 404


def _respond(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", b""]) + body


@cache
def _prediction(route: str, rows: int, *, binary: bool) -> tuple[bytes, bytes]:
    """Return the body of a prediction of so many rows, and a header that it needs, if it does."""
    if route != "infer":
        return json.dumps(PREDICTION if route == "classify" else [PREDICTION] * rows).encode(), b""
    outputs = tuple(v2.Output(name, binary) for name in v2.OUTPUTS)
    query = v2.Query(np.empty((rows, 0)), None, outputs)
    probabilities = np.tile(np.array(PROBABILITIES, np.float32), (rows, 1))
    body, length = v2.encode(V2_MODEL, SCHEMA.class_names, query, probabilities, [0] * rows)
    return body, b"inference-header-content-length: %d" % length if length else b""


def predicted(path: str, body: bytes) -> tuple[bytes, bytes]:
    """Return the body of the answer to a prediction, and a header that it needs, if it does."""
    route = path.rpartition("/")[2]
    if route != "infer":
        return _prediction(route, body.count(b"}"), binary=False)
    shape = _ROWS.search(body)
    return _prediction(route, int(shape[1]) if shape else 1, binary=b'"binary_data_output":true' in body[:4096])


def answer(method: str, path: str, body: bytes, *headers: bytes, predictions: int = 0) -> bytes:
    """Return the right answer to a request, of a server that has answered so many `predictions`."""
    if method == "POST" and path:
        said, needed = predicted(path, body)
        return _respond(b"200 OK", said, *filter(None, (needed, *headers)))
    if path == "/model":
        return _respond(b"200 OK", DESCRIPTION)
    if path == "/readyz":
        return _respond(b"200 OK", b'{"ready": true}')
    if path == "/metrics":
        return _respond(b"200 OK", b"defects_queue_rows 0\nstub_predictions_total %d\n" % predictions)
    return _respond(b"404 Not Found", b'{"error": "no such path"}')


class Behaviour:
    """Decides what each request is answered and when, in the order in which they come."""

    def __init__(self, script: Script):
        self._script, self._random, self._first = script, random.Random(script.seed), -1.0  # noqa: S311 - a script
        self._names, self._free = [name.encode() for name in script.revisions], 0.0
        self._shares = list(script.revisions.values())
        self.predictions = 0
        self._refusal = _respond(b"503 Service Unavailable", b'{"error": "overloaded"}', b"retry-after: 1")
        self._failure = _respond(b"500 Internal Server Error", b'{"error": "a scripted failure"}')

    def next(self, path: str = "/classify", body: bytes = b"") -> tuple[float, bytes]:
        """Return the seconds until the next request's answer, and the answer; empty: the connection ends.

        Where there is never to be one, the seconds are infinite.
        """
        now, s = time.perf_counter(), self._script
        self.predictions += 1
        if self._first < 0:
            self._first = now
        if s.hang_after and self.predictions > s.hang_after:
            return math.inf, b""
        at, fate = now - self._first, self._random.random()
        delay = max((stall.start + stall.seconds - at for stall in s.stalls if stall.start <= at), default=0.0)
        delay = max(0.0, delay)
        for share, bad in ((s.refuse_share, self._refusal), (s.fail_share, self._failure), (s.drop_share, b"")):
            if fate < share:
                return delay, bad
            fate -= share
        slow = self._random.random() < s.slow_share
        name = self._random.choices(self._names, self._shares)[0] if len(self._names) > 1 else self._names[0]
        service = (s.slow_ms if slow else s.service_ms) / 1e3
        queue = self._queued(now) if s.capacity else s.queue_ms / 1e3
        timing = b"server-timing: queue;dur=%.3f, score;dur=%.3f" % (1e3 * queue, 1e3 * service - s.queue_ms)
        wait = delay + service + (queue if s.capacity else 0.0)
        return wait, answer("POST", path, body, timing, b"x-revision: " + name)

    def _queued(self, now: float) -> float:
        """Return the seconds until those before this request are answered."""
        waiting = max(0.0, self._free - now)
        self._free = now + waiting + 1 / self._script.capacity
        return waiting


class Connection(asyncio.Protocol):
    """One connection, with one request at a time on it."""

    def __init__(self, behaviour: Behaviour, name: str):
        self._behaviour, self._buffer, self._host = behaviour, b"", f"\r\nhost: {name}\r\n".encode() if name else b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = 0
        for line in head.split(b"\r\n"):
            if line[:15].lower() == b"content-length:":
                length = int(line[15:])
        if len(rest) >= length:
            self._buffer = rest[length:]
            method, path = head.decode("latin-1").split(" ", 2)[:2]
            self._answer(method, path if self._host in head.lower() + b"\r\n" else "", rest[:length])

    def _answer(self, method: str, path: str, body: bytes) -> None:
        if method != "POST" or not path:
            self._write(answer(method, path, body, predictions=self._behaviour.predictions))
            return
        delay, found = self._behaviour.next(path, body)
        if math.isinf(delay):
            return
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, self._write, found)
        else:
            self._write(found)

    def _write(self, found: bytes) -> None:
        if found:
            self._transport.write(found)
        else:
            self._transport.abort()


async def serve(script: Script, port: int) -> None:
    """Serve on loopback until SIGTERM or SIGINT."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    behaviour = Behaviour(script)
    async with await loop.create_server(lambda: Connection(behaviour, script.name), "127.0.0.1", port, backlog=4096):
        await over.wait()


@contextmanager
def running(*options: object) -> Iterator[str]:
    """Run a stub in a process of its own, with these options; yield its URL once it answers."""
    port = free_port()
    command = [sys.executable, "-m", "loadtests.load.stub_server", "--port", str(port), *map(str, options)]
    process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - our own command
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError):
            ask(port, get("/readyz"), 1.0)
            return
        time.sleep(0.02)
    raise RuntimeError(f"the stub did not answer on port {port} in {START_SECONDS:g} s")


def _stall(text: str) -> Stall:
    start, _, seconds = text.partition(":")
    try:
        return Stall(float(start), float(seconds))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected START:SECONDS, such as 10:2") from None


def parse(arguments: list[str] | None = None) -> tuple[int, Script]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=3999, help="(default: %(default)s)")
    for name, text in {
        "service-ms": "time of an answer",
        "queue-ms": "of that, what it says was its queue",
        "capacity": "answers per second, one after the other; 0: all at the same time",
        "refuse-share": "answered 503 with Retry-After",
        "fail-share": "answered 500",
        "drop-share": "whose connection ends without an answer",
        "hang-after": "so many predictions, none is answered any more; 0: all are",
        "slow-share": "answered after --slow-ms",
        "slow-ms": "time of a slow answer",
    }.items():
        parser.add_argument(f"--{name}", type=float, default=0.0, help=text)
    parser.add_argument("--stall", type=_stall, action="append", default=[], help="START:SECONDS without answers")
    parser.add_argument("--canary-share", type=float, default=0.0, help="answered by a second revision, canary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", default="", help="host that requests must be for; others get 404")
    options = vars(parser.parse_args(arguments))
    port, share, stalls = options.pop("port"), options.pop("canary_share"), tuple(options.pop("stall"))
    revisions = {"stub": 1 - share, "canary": share} if share else {"stub": 1.0}
    return port, Script(**options, stalls=stalls, revisions=revisions)


def main() -> None:
    port, script = parse()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(script, port))


if __name__ == "__main__":
    main()
