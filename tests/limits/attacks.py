"""What attacks on a real server are made of, and what the others felt beside them: latencies, and the server's memory.

`beside_others` measures and asserts around an attack, `pour` sends one, `parsed` reads the answers to it.
"""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import httpx
import psutil

from conftest import BENTOML, MODULE, Command, Server
from defects import simulator
from tools import prometheus

EXAMPLE = json.dumps(simulator.SCHEMA.example).encode()
BATCH = json.dumps([simulator.SCHEMA.example] * 1024).encode()
ENTRY_POINTS: dict[str, Command] = {"bentoml serve": BENTOML, "defects.serve": MODULE}
SLOWER_SECONDS = 2.0  # by which the others' slowest answer may exceed the quiet case's; the aim is 0.1
HEAD_BYTES, HEAD_FIELDS, URL_BYTES = 65_536, 100, 8_192  # most that a head may have
HEAD_SECONDS = 10.0  # for a head to arrive
MIB = 2**20


# --- requests and answers --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """One answer, with the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def head(path: str = "/classify", *more: str, method: str = "POST", length: int | None = None) -> bytes:
    """Return the head of a request, with a body of `length` bytes to come."""
    fields = ["host: x", *more]
    if length is not None:
        fields += ["content-type: application/json", f"content-length: {length}"]
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", *fields, "")).encode("latin-1")


def get(path: str, *more: str) -> bytes:
    return head(path, *more, method="GET")


def post(body: bytes = EXAMPLE, path: str = "/classify", *more: str) -> bytes:
    return head(path, *more, length=len(body)) + body


def chunked_head(path: str = "/classify", *more: str) -> bytes:
    return head(path, "content-type: application/json", "transfer-encoding: chunked", *more)


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


def repeated(piece: bytes, total: int) -> Iterator[bytes]:
    """Yield `piece` over and over, in blocks, until they have about `total` bytes."""
    block = piece * max(1, 65_536 // len(piece))
    for _ in range(-(-total // len(block))):
        yield block


def parsed(received: bytes) -> list[Answer]:
    """Return the complete answers in what was received; each has a `content-length`."""
    answers = []
    while b"\r\n\r\n" in received:
        start, _, rest = received.partition(b"\r\n\r\n")
        status, *fields = start.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in fields)}
        code, length = int(status.split()[1]), int(headers.get("content-length", 0))
        if len(rest) < length:
            break
        if code != 100:
            answers.append(Answer(code, headers, rest[:length]))
        received = rest[length:]
    return answers


def assert_error(answer: Answer, status: int) -> None:
    """Assert that this is an error with that status, in the one shape, and complete."""
    assert answer.status == status, answer
    content = json.loads(answer.body)
    assert content["error"]
    assert set(content) <= {"error", "fields"}
    assert answer.headers["content-type"] == "application/json"
    assert_common_headers(answer)


def assert_common_headers(answer: Answer) -> None:
    """Assert that the answer has what every answer has."""
    assert {"x-request-id", "x-model-version", "x-revision"} <= answer.headers.keys(), answer
    assert answer.headers["x-content-type-options"] == "nosniff", answer


# --- connections -----------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What became of bytes that were sent: how many left, what came back, and how the connection ended, if it did."""

    sent: int = 0
    received: bytearray = field(default_factory=bytearray)
    ended: str = ""  # "closed" or "reset"
    seconds: float = 0.0  # until then

    @property
    def answers(self) -> list[Answer]:
        return parsed(bytes(self.received))

    def assert_refused(self, *statuses: int) -> Answer:
        """Assert that the last answer is an error with one of these statuses, and that the connection was closed."""
        answers = self.answers
        assert answers, f"no answer, {self}"
        answer = answers[-1]
        assert answer.status in statuses, answer
        assert_error(answer, answer.status)
        if answer.status != 404:  # which needs no body, so it may leave before there is anything to refuse
            assert answer.headers["connection"] == "close"
        assert self.ended
        return answer


def connect(server: Server, port: int | None = None, receive_buffer: int | None = None) -> socket.socket:
    """Return a connection to the server; `receive_buffer` bytes make one that holds little of what it doesn't read."""
    opened = socket.socket()
    if receive_buffer is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.settimeout(20)
    try:
        opened.connect(("127.0.0.1", port or httpx.URL(server.url).port or 0))
    except BaseException:
        opened.close()
        raise
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return opened


def attack(
    server: Server, pieces: Iterable[bytes], seconds: float = 15.0, *, relentless: bool = False, port: int | None = None
) -> Outcome:
    """Send the pieces on a connection of their own; see `pour`."""
    with closing(connect(server, port)) as opened:
        return pour(opened, pieces, seconds, relentless=relentless)


def pour(opened: socket.socket, pieces: Iterable[bytes], seconds: float, *, relentless: bool = False) -> Outcome:
    """Send the pieces, reading what comes, until the other side ends the connection or `seconds` are over.

    A `relentless` sender goes on after the other side has closed its half, until it is reset.
    """
    outcome, started = Outcome(), time.monotonic()
    waiting, rest = filter(None, pieces), b""
    opened.setblocking(False)
    with suppress(TimeoutError):
        while not outcome.ended or (relentless and outcome.ended == "closed"):
            rest = rest or next(waiting, b"")
            reading = not outcome.ended
            if not rest and not reading:
                break
            _wait(opened, reading, bool(rest), started + seconds - time.monotonic())
            try:
                _read(opened, outcome)
                if rest and (count := _sent(opened, rest)):
                    outcome.sent += count
                    rest = rest[count:]
            except (ConnectionResetError, BrokenPipeError):
                outcome.ended = "reset"
    outcome.seconds = time.monotonic() - started
    return outcome


def _wait(opened: socket.socket, reading: bool, writing: bool, seconds: float) -> None:
    poll = select.poll()
    poll.register(opened, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
    if seconds <= 0 or not poll.poll(seconds * 1e3):
        raise TimeoutError


def _read(opened: socket.socket, outcome: Outcome) -> None:
    with suppress(BlockingIOError):
        while came := opened.recv(1 << 20):
            outcome.received += came
        outcome.ended = "closed"


def _sent(opened: socket.socket, rest: bytes) -> int:
    with suppress(BlockingIOError):
        return opened.send(rest)
    return 0


def ask(server: Server, request: bytes, port: int | None = None, seconds: float = 20.0) -> Answer:
    """Return the one answer to a request on a connection of its own, which may be kept open afterwards."""
    with closing(connect(server, port)) as opened:
        return ask_on(opened, request, seconds)


def ask_on(opened: socket.socket, request: bytes = b"", seconds: float = 20.0) -> Answer:
    """Send a request, or what is left of one, and return the next answer."""
    opened.settimeout(seconds)
    opened.sendall(request)
    received = b""
    while not (answers := parsed(received)):
        came = opened.recv(1 << 16)
        assert came, f"closed after {received!r}"
        received += came
    return answers[0]


def kill(opened: socket.socket) -> None:
    """End a connection with a reset, as a killed process does whose data was not read."""
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    opened.close()


def ended(opened: socket.socket) -> bool:
    """Tell whether the other side has ended a connection on which nothing is expected."""
    opened.setblocking(False)
    try:
        while opened.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def many_files(count: int) -> Iterator[int]:
    """Raise this process's limit of open files to at least `count`, if it may; give the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, min(hard, count)) if hard != resource.RLIM_INFINITY else max(soft, count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield wanted
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the server from outside -----------------------------------------------------------------------------------------


def metric(server: Server, name: str, port: int | None = None, **labels: str) -> float:
    """Return the sum of a metric's series with these labels; of a counter that has none, 0."""
    url = f"http://127.0.0.1:{port}" if port else server.url
    exposition = httpx.get(f"{url}/metrics", timeout=20).text
    found = [s.value for s in prometheus.series(exposition, [name]) if labels.items() <= s.labels.items()]
    assert found or name.endswith("_total"), f"no metric {name}"
    return sum(found)


def log_lines(server: Server) -> list[str]:
    return server.log.read_text().splitlines()


def serving_process(server: Server) -> psutil.Process:
    """Return the process that answers: the server itself, or the worker of `bentoml serve`."""
    leader = psutil.Process(server.process.pid)
    workers = (child for child in leader.children() if "worker.service" in " ".join(child.cmdline()))
    return next(workers, leader)


class Memory(threading.Thread):
    """Looks at the resident memory of a process until it is told to stop; in bytes."""

    def __init__(self, process: psutil.Process):
        super().__init__(daemon=True)
        self._process, self._done = process, threading.Event()
        self.before = self.highest = self.after = process.memory_info().rss

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.after = self._process.memory_info().rss
            self.highest = max(self.highest, self.after)

    def stop(self) -> None:
        self._done.set()
        self.join()

    @property
    def growth(self) -> int:
        return self.highest - self.before

    def __str__(self) -> str:
        return f"memory {self.before / MIB:.0f} MiB, highest {self.highest / MIB:.0f}, then {self.after / MIB:.0f}"


# --- the others ------------------------------------------------------------------------------------------------------


class Felt(TypedDict):
    """What `others.py` reports, in milliseconds."""

    quiet: list[float]
    beside: list[float]
    failures: list[str]
    gap: float


@contextmanager
def beside_others(server: Server, growth: int | None = 64 * MIB, name: str = "") -> Iterator[None]:
    """Measure around an attack what others feel and what memory the server takes; print it, and assert little of it.

    The others get 200s only, none of them much later than in the quiet case. The server's memory grows by `growth`
    bytes at most.
    """
    address = httpx.URL(server.url)
    program = str(Path(__file__).with_name("others.py"))
    command = [sys.executable, "-S", "-E", program, address.host, str(address.port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as others:
        try:
            _begin(others)
            memory = Memory(serving_process(server))
            memory.start()
            try:
                yield
            finally:
                memory.stop()
            felt = _felt(others)
        finally:
            others.kill()
    slowest, quiet = max(felt["beside"], default=0.0), max(felt["quiet"])
    report(
        f"others: {_shown(felt['beside'])}; quiet: {_shown(felt['quiet'])}; gap {felt['gap']:.0f} ms; {memory}", name
    )
    assert not felt["failures"], felt["failures"][:10]
    assert slowest <= quiet + SLOWER_SECONDS * 1e3, f"the others waited {slowest:.0f} ms, {quiet:.0f} ms before"
    if growth is not None:
        assert memory.growth <= growth, f"memory grew by {memory.growth / MIB:.0f} MiB"


def _begin(others: subprocess.Popen[bytes]) -> None:
    assert others.stdin is not None
    assert others.stdout is not None
    others.stdin.write(EXAMPLE)
    others.stdin.close()
    others.stdin = None
    assert others.stdout.readline() == b"quiet\n"


def _felt(others: subprocess.Popen[bytes]) -> Felt:
    time.sleep(0.1)  # for what the attack left behind
    others.terminate()
    output, _ = others.communicate(timeout=90)
    felt: Felt = json.loads(output)
    return felt


def _shown(milliseconds: list[float]) -> str:
    if not milliseconds:
        return "no answers"
    return f"{len(milliseconds)} answers, p50 {statistics.median(milliseconds):.1f}, max {max(milliseconds):.0f} ms"


def report(text: str, name: str = "") -> None:
    """Print what was measured, for `pytest -s`, after the name of the attack: by default, of the test."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[2].rpartition(" ")[0]
    print(f"\n{name or test}: {text}")
