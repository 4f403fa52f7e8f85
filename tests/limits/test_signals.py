"""SIGHUP drains as SIGTERM does, and time in which the process could not run is charged to nobody who came after it."""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import faulty_values as faulty
import httpx
import orjson
import pytest

from attacks import (
    ENTRY_POINTS,
    EXAMPLE,
    ask,
    ask_on,
    assert_error,
    connect,
    get,
    head,
    metric,
    post,
    serving_process,
)
from conftest import BIN, MODULE, Command, Serve, Server, until
from defects import simulator

CLIENTS = 8
STOPPED_SECONDS = 3.0
JSON = {"content-type": "application/json"}


class KeepAlive(threading.Thread):
    """A client that sends one request after another, on a connection that it keeps, until nobody listens."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self._address = server.url.removeprefix("http://")
        self.statuses: list[int] = []
        self.lost: list[Exception] = []  # of requests that were sent and never answered

    def run(self) -> None:
        refused = 0
        while refused < 3:
            connection = http.client.HTTPConnection(self._address, timeout=20)
            try:
                connection.connect()
            except OSError:
                refused += 1
                time.sleep(0.05)
                continue
            with closing(connection):
                self._ask(connection)

    def _ask(self, connection: http.client.HTTPConnection) -> None:
        try:
            while True:
                connection.request("POST", "/classify", EXAMPLE, JSON)
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
                if answer.getheader("connection") == "close":
                    return
                time.sleep(0.01)
        except (OSError, http.client.HTTPException) as problem:
            self.lost.append(problem)


def leader(server: Server, number: int) -> None:
    server.process.send_signal(number)


def worker(server: Server, number: int) -> None:
    serving_process(server).send_signal(number)


def group(server: Server, number: int) -> None:
    """As a terminal that is closed, or Ctrl-C, does."""
    os.killpg(server.process.pid, number)


RECEIVERS: dict[str, tuple[Command, Callable[[Server, int], None]]] = {
    "defects.serve": (MODULE, leader),
    "defects.serve's group": (MODULE, group),
    "the arbiter": (ENTRY_POINTS["bentoml serve"], leader),
    "the worker": (ENTRY_POINTS["bentoml serve"], worker),
    "bentoml's group": (ENTRY_POINTS["bentoml serve"], group),
}
HUP, TERM = signal.SIGHUP, signal.SIGTERM
SENT = [
    ("defects.serve", [HUP, TERM, HUP]),
    ("defects.serve", [TERM, HUP]),
    ("defects.serve's group", [HUP, HUP]),
    ("the arbiter", [HUP, HUP]),
    ("the arbiter", [TERM, HUP]),
    ("the worker", [HUP, HUP]),
    ("bentoml's group", [HUP, TERM, HUP]),
]


def named(value: object) -> str | None:
    return ", ".join(number.name for number in value) if isinstance(value, list) else None


@pytest.mark.parametrize(("receiver", "numbers"), SENT, ids=named)
def test_a_hangup_drains_without_losing_a_request(
    serve: Serve, model_dir: Path, receiver: str, numbers: list[int]
) -> None:
    command, send = RECEIVERS[receiver]
    with serve(command=command, MODEL_DIR=model_dir, DEFECTS_DRAIN_SECONDS=1.5) as server:
        clients = [KeepAlive(server) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        until(lambda: all(client.statuses for client in clients))
        began = time.monotonic()
        for number in numbers:
            send(server, number)
            answer = until(lambda: (got := httpx.get(f"{server.url}/readyz")).status_code == 503 and got)
            assert answer.headers["connection"] == "close"
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert server.process.wait(25) == 0
        assert time.monotonic() - began > 1.4, "it hurried"
        for client in clients:
            client.join(30)
    assert [client.lost for client in clients] == [[]] * CLIENTS
    assert {status for client in clients for status in client.statuses} == {200}
    assert "Traceback" not in server.log.read_text()


def test_a_hangup_before_the_start_is_over_ends_with_0(model_dir: Path, serve: Serve) -> None:
    code = (
        "import os, signal\n"
        "from defects import serve\n"
        "def build():\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    raise AssertionError('it went on')\n"
        "serve.main(build)\n"
    )
    with (
        pytest.raises(AssertionError, match=r"the server ended: $"),
        serve(command=[BIN / "python", "-c", code], MODEL_DIR=model_dir),
    ):
        pass


# --- standstill ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stoppable(serve: Serve, model_dir: Path) -> Iterator[Server]:
    """A server with a scorer that takes its time for a row that says so."""
    with serve(command=[BIN / "python", "tests/faulty.py"], MODEL_DIR=model_dir) as running:
        yield running


class Stopped:
    """A server that stands still for a while: nothing of it runs, and what it is sent waits in the kernel."""

    def __init__(self, server: Server):
        self._process = serving_process(server)

    def __enter__(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGCONT)


def test_a_standstill_is_charged_to_nobody_who_comes_after_it(stoppable: Server) -> None:
    """Default deadline, 1 s; a request that waits in the kernel during the standstill is answered too."""
    opened = [connect(stoppable) for _ in range(3)]
    for connection in opened:
        for _ in range(10):
            assert ask_on(connection, post()).status == 200
    with Stopped(stoppable):
        time.sleep(STOPPED_SECONDS / 2)
        opened[0].sendall(post())  # in one piece, answered below ASGI
        opened[1].sendall(head(length=len(EXAMPLE)))
        time.sleep(STOPPED_SECONDS / 2)
        opened[1].sendall(EXAMPLE)  # in two pieces
    statuses = [ask_on(opened[2], post()).status, ask_on(opened[0]).status, ask_on(opened[1]).status]
    assert statuses == [200] * 3
    assert [ask_on(connection, post()).status for _ in range(34) for connection in opened] == [200] * 102
    until(lambda: ask(stoppable, get("/livez")).status == 200, 5)
    until(lambda: ask(stoppable, get("/readyz")).status == 200, 5)
    for connection in opened:
        connection.close()


def test_a_standstill_amid_a_batch_poisons_no_estimate(stoppable: Server) -> None:
    """The batch seems to take seconds: who comes after it is not refused for that."""
    slow = orjson.dumps([simulator.SCHEMA.example | {"weight_g": faulty.SLOW}] * 512)
    with closing(connect(stoppable)) as batch, closing(connect(stoppable)) as opened:
        assert ask_on(batch, post(slow, "/classify_batch", "x-request-timeout-ms: 60000")).status == 200
        for _ in range(10):
            assert ask_on(opened, post()).status == 200
        batch.sendall(post(slow, "/classify_batch", "x-request-timeout-ms: 60000"))
        until(lambda: metric(stoppable, "defects_requests_in_flight") >= 1)
        with Stopped(stoppable):
            opened.sendall(post())
            time.sleep(STOPPED_SECONDS)
        assert ask_on(opened).status == 200
        assert [ask_on(opened, post()).status for _ in range(100)] == [200] * 100
        assert ask_on(batch).status == 200
    until(lambda: ask(stoppable, get("/livez")).status == 200, 5)


def test_what_was_read_before_a_standstill_counts_it(stoppable: Server) -> None:
    """Its head was read, so its deadline is over when its body is."""
    with closing(connect(stoppable)) as opened:
        opened.sendall(head("/classify", "x-request-timeout-ms: 1000", length=len(EXAMPLE)))
        time.sleep(0.3)  # until it was read
        with Stopped(stoppable):
            time.sleep(STOPPED_SECONDS)
        answer = ask_on(opened, EXAMPLE)
    assert_error(answer, 503)
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/classify", "/classify_batch"])
def test_a_deadline_counts_from_the_first_byte(stoppable: Server, path: str) -> None:
    """Whose body comes a second later has no time left, and is told so at once."""
    body = EXAMPLE if path == "/classify" else b"[" + EXAMPLE + b"]"
    refused = metric(stoppable, "defects_refused_total", reason="deadline")
    start = head(path, "x-request-timeout-ms: 300", length=len(body))
    for pieces in ([start, body], [start[:30], start[30:] + body], [start + body[:50], body[50:]]):
        with closing(connect(stoppable)) as opened:
            opened.sendall(pieces[0])
            time.sleep(1)
            began = time.monotonic()
            assert_error(ask_on(opened, pieces[1]), 503)
            assert time.monotonic() - began < 5
            assert ask_on(opened, post(body, path)).status == 200  # the next one counts anew
    assert metric(stoppable, "defects_refused_total", reason="deadline") == refused + 3


def test_an_idle_connection_is_no_late_request(stoppable: Server) -> None:
    """A deadline does not count from the connection's beginning, nor from the answer before."""
    with closing(connect(stoppable)) as opened:
        for _ in range(2):
            time.sleep(0.6)
            answer = ask_on(opened, post(EXAMPLE, "/classify", "x-request-timeout-ms: 300"))
            assert answer.status == 200, answer
