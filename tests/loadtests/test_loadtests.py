"""Parts of the load test, each by itself."""

from __future__ import annotations

import itertools
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import gevent
import numpy as np
import pytest

from conftest import WAIT_SECONDS, free_port, undisturbed
from defects.simulator import SCHEMA
from loadtests import results, scenario
from loadtests.load import dispatcher as dispatch
from loadtests.load import server_monitor, stub_server
from loadtests.load.connections import Connections, reachable
from loadtests.load.dispatcher import Dispatcher, RequestListener
from tools import payloads, served
from tools.raw_http import post


@contextmanager
def saying(*words: bytes | float | threading.Event) -> Iterator[str]:
    """A server that answers each connection with these bytes, after these seconds or once these events are set, and
    closes it; gives its URL."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            with suppress(OSError):  # the other side may have given up
                for word in words:
                    if isinstance(word, bytes):
                        self.request.sendall(word)
                    elif isinstance(word, threading.Event):
                        word.wait(WAIT_SECONDS)
                    else:
                        time.sleep(word)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the monitor wait for what a server says."""
    monkeypatch.setattr(server_monitor, "ASK_SECONDS", WAIT_SECONDS)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("said", [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", b"no answer\r\n\r\n"])
def test_answers_that_break_off_or_are_none_are_problems_that_are_reported(said: bytes) -> None:
    with saying(said) as url:
        sample = server_monitor.ServerMonitor(url, {}).sample()
        assert (sample.ready, sample.queue_rows) == (None, None)
        assert (sample.problem or "").startswith("/readyz: ")
        with pytest.raises(payloads.BadPayload, match="no model answers at"):
            payloads.ask_model(url)


@pytest.mark.usefixtures("patient")
def test_malformed_metrics_are_a_problem_that_is_reported() -> None:
    with saying(b'HTTP/1.1 200 OK\r\n\r\nother 1\ndefects_queue_rows{a="} 3\n') as url:
        sample = server_monitor.ServerMonitor(url, {}).sample()
    assert (sample.ready, sample.queue_rows) == (True, None)
    assert (sample.problem or "").startswith("/metrics: malformed exposition: 'defects_queue_rows{")


def test_a_request_is_given_up_when_its_time_is_over_whatever_came_until_then(tmp_path: Path) -> None:
    """Each wait is shorter than the timeout, all together are longer."""
    head, body = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"{}"

    def error(timeout: float) -> int:
        with saying(0.4, head, 0.4, body) as url, closing(Connections(url, timeout)) as connections:
            return connections.exchange(post("/", b"")).error

    assert undisturbed(lambda _: error(0.6), tmp_path) == results.TIMEOUT
    assert error(WAIT_SECONDS) == 0


@pytest.mark.parametrize(("keep", "opened"), [(None, 1), (0.2, 2)])
def test_a_connection_is_used_for_so_long(keep: float | None, opened: int) -> None:
    """An answer says which of the server's connections it came by."""
    count = itertools.count(1)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            mine = b"%d" % next(count)
            while self.request.recv(65_536):
                self.request.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n" + mine)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with closing(Connections(url, WAIT_SECONDS, keep)) as connections:
            said = [connections.exchange(post("/", b"")).body]
            time.sleep(0.3)
            said.append(connections.exchange(post("/", b"")).body)
        server.shutdown()
    assert said == [b"1", b"%d" % opened]


def test_a_connection_that_takes_too_long_is_a_timeout() -> None:
    """Its backlog is full, so that Linux leaves further connections unanswered."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        connections = Connections(f"http://127.0.0.1:{full.getsockname()[1]}", 0.3)
        assert connections.exchange(post("/", b"")).error == results.TIMEOUT


def test_the_first_address_that_can_be_connected_to_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed, there = ((socket.AF_INET, ("127.0.0.1", port)) for port in (free_port(), server.getsockname()[1]))
        assert reachable([closed, there], 5) == there
        assert reachable([there, closed], 5) == there
        assert reachable([closed, closed], 5) == closed


def dispatcher(url: str, times: list[float], report: RequestListener, limit: int = 100) -> Dispatcher:
    """Sends requests without a body at these times."""
    prepared = payloads.Prepared("x", 1, (post("/", b""),), lambda body, _: body == b"{}", 1000)
    return Dispatcher(
        np.array(times), np.zeros(len(times), np.int8), [prepared], Connections(url, WAIT_SECONDS), report, limit=limit
    )


def test_garbage_is_collected_before_the_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    collected: list[float] = []
    monkeypatch.setattr("gc.collect", lambda: collected.append(time.perf_counter()))

    def begin(_: Path) -> float:
        collected.clear()
        begin = time.perf_counter() + 0.5
        with saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as url:
            dispatcher(url, [0.0], lambda *_: None).run(begin, patience=WAIT_SECONDS)
        return begin

    begun = undisturbed(begin, tmp_path)
    assert len(collected) == 1
    assert collected[0] < begun


def test_requests_that_nobody_answered_have_taken_until_they_were_given_up() -> None:
    over = threading.Event()
    with saying(over) as url:
        sending = dispatcher(url, [0.0, 0.01], lambda *_: None)
        sending.run(time.perf_counter(), patience=0)
        over.set()
        gevent.wait(timeout=WAIT_SECONDS)  # then the server has closed the connections
    assert sending.requests["error"].tolist() == [results.UNANSWERED] * 2
    assert (sending.requests["end"] - sending.requests["sent"] >= dispatch.GRACE_SECONDS - 0.1).all()


def test_the_generators_busiest_second_counts_and_not_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is busy for 0.7 s, once, and idle for the rest of 3 s: by a clock of its own, as on a busy machine 0.7 s of
    a processor may be spread over all of them."""
    cpu, busy = [0.0], iter([0.7, 0.0])
    monkeypatch.setattr(dispatch, "_clocks", lambda: (cpu[0], time.perf_counter()))

    def burn(*_: object) -> None:
        cpu[0] += next(busy)

    with saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}") as url:
        sending, started = dispatcher(url, [0.0, 3.0], burn), time.perf_counter()
        sending.run(started, patience=WAIT_SECONDS)
        average = 0.7 / (time.perf_counter() - started)
    assert (sending.requests["error"] == 0).all()
    assert sending.cpu_share > 1.2 * average


def test_a_hung_server_does_not_use_up_what_may_be_in_flight() -> None:
    """The burst's 500/s, none of which is answered in 10 s."""
    plan = scenario.Plan(scenario.load("burst"), 50, 1)
    assert dispatch.most_in_flight(plan, 1) > 500 * 10
    assert dispatch.most_in_flight(plan, 2) == dispatch.IN_FLIGHT
    sent = []
    for limit in (2, 3):
        with saying(b"") as url:
            sending = dispatcher(url, [0.0, 0.0, 0.0], lambda *_: None, limit=limit)
            sending.run(time.perf_counter(), patience=WAIT_SECONDS)
        sent.append(int((sending.requests["error"] != results.NOT_SENT).sum()))
    assert sent == [2, 3]


def test_every_row_is_sent_unless_they_are_too_many_for_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = served.Served.from_json({**stub_server.MODEL, "schema": SCHEMA.to_json()})
    rows = payloads.rows_for(model.schema, 1000, seed=1)

    def prepare() -> payloads.Prepared:
        return payloads.prepare("json", 1, "http://127.0.0.1:3000", model, rows, deadline_ms=None)

    whole = prepare()
    assert whole.rows == len(set(whole.requests)) == 1000
    monkeypatch.setattr(payloads, "MOST_BYTES", 50 * len(whole.requests[0]))
    cut = prepare()
    assert cut.rows == len(cut.requests) == pytest.approx(50, abs=5)


def test_samples_that_were_missed_are_not_made_up_for() -> None:
    with saying(b"HTTP/1.1 200 OK\r\n\r\n") as url:
        samples = server_monitor.watch(url, 3, {})
        seen = [next(samples)]
        time.sleep(2.1)
        seen += samples
    assert len(seen) <= 2, "of those at 0, 1, 2 and 3 s, the middle ones were missed"
