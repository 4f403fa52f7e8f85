"""Callers that stall: in a head, in a body, or in reading their answer. All at once, because each takes ten seconds."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from attacks import (
    EXAMPLE,
    MIB,
    Answer,
    Outcome,
    ask,
    ask_on,
    assert_error,
    attack,
    beside_others,
    chunk,
    chunked_head,
    connect,
    get,
    head,
    metric,
    parsed,
    post,
    pour,
)
from conftest import Serve, Server, until

EARLIEST, LATEST = 9.0, 30.0  # seconds after which what stalls is ended: 10, on a machine that is not busy
STEADY_SECONDS = 15.0  # longer than a stall may last
MANY = 50  # connections that stall alike
HALF_HEAD = b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY = b"[" + b", ".join([EXAMPLE] * 1024) + b"]"
BACKLOG = 400  # large answers on one connection: 8 MB, more than the kernel's buffers hold
MUCH = get("/docs.json") * (BACKLOG - 1) + get("/docs.json", "connection: close")
UNREAD, SLOWLY_READ = 20, 5  # connections


def trickle(start: bytes, piece: bytes, seconds: float, pause: float = 0.5) -> Iterator[bytes]:
    """Yield the start, then the piece again and again with pauses, for so long."""
    yield start
    until_ = time.monotonic() + seconds
    while time.monotonic() < until_:
        time.sleep(pause)
        yield piece


def stalled(server: Server, start: bytes) -> list[Outcome]:
    """Send the start of a request on many connections, and nothing more."""
    with ExitStack() as held:
        began = time.monotonic()
        opened = [held.enter_context(closing(connect(server))) for _ in range(MANY)]
        for connection in opened:
            connection.sendall(start)
        outcomes = [pour(connection, [], LATEST - (time.monotonic() - began)) for connection in opened]
        outcomes[0].seconds = time.monotonic() - began
        return outcomes


def after_an_answer(server: Server) -> Outcome:
    with closing(connect(server)) as opened:
        assert ask_on(opened, post()).status == 200
        return pour(opened, [HALF_HEAD], LATEST)


def idle(server: Server, request: bytes) -> list[int]:
    """Send a request, or nothing, then nothing for 15 s, then a request; return the statuses of the answers."""
    with closing(connect(server)) as opened:
        statuses = [ask_on(opened, request).status] if request else []
        time.sleep(15)
        return [*statuses, ask_on(opened, post()).status]


def steadily(server: Server, rate: int) -> Answer:
    """Upload a batch with so many bytes a second."""
    with closing(connect(server)) as opened:
        opened.sendall(head("/classify_batch", "x-request-timeout-ms: 60000", length=len(BODY)))
        for start in range(0, len(BODY), rate // 10):
            opened.sendall(BODY[start : start + rate // 10])
            time.sleep(0.1)
        return ask_on(opened)


def unread(server: Server) -> float:
    """Ask for much on many connections and read nothing; return the seconds until all of them were ended."""
    with ExitStack() as held:
        began = time.monotonic()
        for _ in range(UNREAD):
            held.enter_context(closing(connect(server, receive_buffer=4096))).sendall(MUCH)
        for _ in range(SLOWLY_READ):
            opened = held.enter_context(closing(connect(server, receive_buffer=4096)))
            opened.sendall(MUCH)
            reader = Thread(target=read_slowly, args=(opened, 1_000, LATEST), daemon=True)
            reader.start()
            held.callback(reader.join)
        until(lambda: stalled_writes(server) >= UNREAD, LATEST)
        seconds = time.monotonic() - began
        until(lambda: stalled_writes(server) >= UNREAD + SLOWLY_READ, LATEST)
        return seconds


def stalled_writes(server: Server) -> float:
    return metric(server, "defects_connections_ended_total", reason="stalled_write")


def read_slowly(opened: socket.socket, rate: int, seconds: float) -> bytes:
    """Read so many bytes a second for so long, or until the connection ends."""
    received, until_ = bytearray(), time.monotonic() + seconds
    with suppress(OSError):
        while time.monotonic() < until_ and (came := opened.recv(rate // 10)):
            received += came
            time.sleep(0.1)
    return bytes(received)


def steady_reader(server: Server, rate: int) -> int:
    """Ask for much and read it slowly for a while, then the rest; return the number of complete answers."""
    with closing(connect(server, receive_buffer=4096)) as opened:
        opened.sendall(MUCH)
        received = read_slowly(opened, rate, STEADY_SECONDS)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
        with suppress(OSError):
            while came := opened.recv(1 << 20):
                received += came
        return len(parsed(received))


def stop_and_go(serve: Serve, model_dir: Path, seconds: float) -> list[int]:
    """Stop a server while it is idle; return the statuses of what is asked during the stop, and afterwards."""
    with serve(MODEL_DIR=model_dir) as server, closing(connect(server)) as opened:
        for _ in range(20):
            assert ask_on(opened, post()).status == 200
        server.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds - 0.2)
        opened.sendall(post())
        time.sleep(0.2)
        server.process.send_signal(signal.SIGCONT)
        statuses = [ask_on(opened).status, *(ask_on(opened, post()).status for _ in range(100))]
        until(lambda: ask(server, get("/livez")).status == 200, 5)
        return statuses


ATTACKS: dict[str, Callable[[Server], Any]] = {
    "half heads": lambda server: stalled(server, HALF_HEAD),
    "half request lines": lambda server: stalled(server, b"GET /li"),
    "a trickled head": lambda server: attack(server, trickle(HALF_HEAD, b"a: b\r\n", LATEST), LATEST),
    "a trickled value": lambda server: attack(server, trickle(HALF_HEAD + b"a: ", b"v", LATEST), LATEST),
    "half a head after an answer": after_an_answer,
    "half a head after another's request": lambda server: attack(server, [post() + HALF_HEAD], LATEST),
    "missing bodies": lambda server: stalled(server, head(length=100) + b"{"),
    "missing bodies in chunks": lambda server: stalled(server, chunked_head() + chunk(EXAMPLE)),
    "missing trailers": lambda server: stalled(server, chunked_head() + chunk(EXAMPLE) + b"0\r\nx: y\r\n"),
    "missing bodies of no prediction": lambda server: stalled(server, head("/nowhere", length=100) + b"{"),
    "a trickled body": lambda server: attack(server, trickle(head(length=100_000), b" ", LATEST), LATEST),
    "a trickled body in chunks": lambda server: attack(server, trickle(chunked_head(), chunk(b" "), LATEST), LATEST),
    "a body trickled after its answer": lambda server: attack(
        server, trickle(chunked_head("/classify", "a b: c"), chunk(b" "), LATEST), LATEST, relentless=True
    ),
    "idle and new": lambda server: idle(server, b""),
    "idle after an answer": lambda server: idle(server, post()),
    "a steady upload": lambda server: steadily(server, len(BODY) // 14),
    "unread answers": unread,
    "a reader of 100 kB a second": lambda server: steady_reader(server, 100_000),
    "a reader of 16 kB a second": lambda server: steady_reader(server, 16_000),
}


class Seen:
    """What each attack saw, the others' complaint, and the numbers of ended connections."""

    def __init__(
        self, server: Server, results: dict[str, Future[Any]], complaint: AssertionError | None, ended: dict[str, float]
    ):
        self.server, self.results, self.complaint, self.ended = server, results, complaint, ended

    def __getitem__(self, name: str) -> Any:
        return self.results[name].result()


@pytest.fixture(scope="module")
def seen(serve: Serve, model_dir: Path) -> Iterator[Seen]:
    """Let all of them loose on one server, and stop another for 30 s meanwhile."""
    complaint, reasons = None, ("slow_head", "slow_body", "stalled_write")
    with ThreadPoolExecutor(len(ATTACKS) + 1) as pool, serve(MODEL_DIR=model_dir) as server:
        results = {"stopped for 30 s": pool.submit(stop_and_go, serve, model_dir, 30)}
        try:
            with beside_others(server, growth=96 * MIB, name="stalls"):
                results |= {name: pool.submit(attack, server) for name, attack in ATTACKS.items()}
                wait(results.values())
        except AssertionError as problem:
            complaint = problem
        ended = {r: metric(server, "defects_connections_ended_total", reason=r) for r in reasons}
        yield Seen(server, results, complaint, ended)


def assert_told(outcome: Outcome) -> None:
    """Assert that the connection was closed with a 408."""
    assert_error(outcome.answers[-1], 408)
    assert outcome.answers[-1].headers["connection"] == "close"
    assert outcome.ended


def assert_in_time(outcome: Outcome) -> None:
    assert EARLIEST <= outcome.seconds <= LATEST, outcome.seconds


MANY_STALL = ("half heads", "half request lines", "missing bodies", "missing bodies in chunks", "missing trailers")
ONE_STALLS = [
    "a trickled head",
    "a trickled value",
    "half a head after an answer",
    "half a head after another's request",
    "a trickled body",
    "a trickled body in chunks",
]


def test_others_feel_nothing_of_those_who_stall(seen: Seen) -> None:
    assert seen.complaint is None, seen.complaint


@pytest.mark.parametrize("name", MANY_STALL)
def test_what_does_not_come_is_not_waited_for(seen: Seen, name: str) -> None:
    outcomes = seen[name]
    assert len(outcomes) == MANY
    assert_in_time(outcomes[0])
    for outcome in outcomes:
        assert_told(outcome)


@pytest.mark.parametrize("name", ONE_STALLS)
def test_what_comes_in_drops_is_not_waited_for(seen: Seen, name: str) -> None:
    assert_told(seen[name])
    assert_in_time(seen[name])


def test_what_was_asked_before_half_a_head_is_answered(seen: Seen) -> None:
    assert [answer.status for answer in seen["half a head after another's request"].answers] == [200, 408]


def test_a_body_that_nobody_wants_is_not_waited_for(seen: Seen) -> None:
    for outcome in seen["missing bodies of no prediction"]:
        assert_error(outcome.answers[0], 404)
        assert outcome.ended


def test_who_trickles_on_after_the_answer_is_cut(seen: Seen) -> None:
    outcome = seen["a body trickled after its answer"]
    assert_error(outcome.answers[0], 400)
    assert outcome.ended
    assert outcome.seconds < LATEST


def test_an_idle_connection_is_not_a_slow_one(seen: Seen) -> None:
    assert seen["idle and new"] == [200]
    assert seen["idle after an answer"] == [200, 200]


def test_a_steady_upload_has_the_time_it_needs(seen: Seen) -> None:
    """For longer than the 10 s that a body may take which doesn't come."""
    answer = seen["a steady upload"]
    assert (answer.status, answer.body.count(b"prediction_id")) == (200, 1024)


def test_unread_answers_end_the_connection(seen: Seen) -> None:
    assert EARLIEST <= seen["unread answers"] <= LATEST


@pytest.mark.parametrize("rate", [100, 16])
def test_a_slow_but_steady_reader_gets_everything(seen: Seen, rate: int) -> None:
    """At many times the least rate; what the kernel holds of an answer is no progress and no stall."""
    assert seen[f"a reader of {rate} kB a second"] == BACKLOG


def test_who_was_ended_is_counted(seen: Seen) -> None:
    assert seen.ended["slow_head"] >= 2 * MANY
    assert seen.ended["slow_body"] >= 2 * MANY
    assert seen.ended["stalled_write"] == UNREAD + SLOWLY_READ


def test_nothing_stays_of_those_who_stalled(seen: Seen) -> None:
    until(lambda: metric(seen.server, "defects_connections") <= 1)  # the one that asks
    until(lambda: metric(seen.server, "defects_bodies_bytes") == 0)
    assert metric(seen.server, "defects_requests_in_flight") == 0


def test_the_first_request_after_half_a_minute_of_standstill_is_answered(seen: Seen) -> None:
    assert seen["stopped for 30 s"] == [200] * 101
