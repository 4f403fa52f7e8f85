"""Callers that read slowly, or not at all, hold little; how long they may is in `test_stalls.py`."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from attacks import BATCH, MIB, ask, beside_others, connect, get, kill, metric, parsed, post
from conftest import Serve, Server, until

REQUEST = post(BATCH, "/classify_batch", "x-request-timeout-ms: 60000")
LARGE = get("/docs.json")


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(MODEL_DIR=model_dir) as running:
        yield running


def send_until_full(opened: socket.socket, request: bytes, times: int) -> int:
    """Send a request so many times, or until nobody takes any more for a second; return the bytes that were sent."""
    rest = memoryview(request * times)
    opened.settimeout(1)
    with suppress(OSError):
        while rest:
            rest = rest[opened.send(rest[:100_000]) :]
    return len(request) * times - len(rest)


def test_who_asks_and_never_reads_is_not_read_from(server: Server) -> None:
    """Ten connections with 100 batches of 1,024 rows each: 500 MB of requests, 300 MB of answers."""
    with beside_others(server, growth=96 * MIB), ExitStack() as held:
        sent = 0
        for _ in range(10):
            opened = held.enter_context(closing(connect(server, receive_buffer=4096)))
            sent += send_until_full(opened, REQUEST, 100)
        assert sent < 250 * MIB, "everything was taken"
        assert ask(server, REQUEST).status == 200


def test_thousands_of_small_questions_that_nobody_reads_the_answers_of(server: Server) -> None:
    """36 kB on each of ten connections ask for 160 MB."""
    with beside_others(server, growth=32 * MIB), ExitStack() as held:
        for _ in range(10):
            send_until_full(held.enter_context(closing(connect(server, receive_buffer=4096))), LARGE, 1000)
        for _ in range(20):
            assert ask(server, LARGE).status == 200


@pytest.mark.parametrize("end", [socket.socket.close, kill], ids=["closed", "killed"])
def test_who_leaves_amid_an_answer_leaves_nothing_behind(server: Server, end: object) -> None:
    assert callable(end)
    with beside_others(server, growth=64 * MIB):
        for number in range(30):
            opened = connect(server, receive_buffer=4096)
            opened.sendall((REQUEST if number % 2 else LARGE) * 2)
            opened.recv(1000)
            end(opened)
    until(lambda: metric(server, "defects_connections") <= 1)  # the one that asks
    until(lambda: metric(server, "defects_requests_in_flight") == 0)
    broken = [line for line in server.log.read_text().splitlines() if "Traceback" in line]
    assert broken == []


def test_a_small_window_gets_large_answers_whole(server: Server) -> None:
    with closing(connect(server, receive_buffer=4096)) as opened:
        opened.sendall(LARGE * 50 + get("/docs.json", "connection: close"))
        received = b"".join(iter(lambda: opened.recv(1 << 16), b""))
    answers = parsed(received)
    assert len(answers) == 51
    assert len({answer.body for answer in answers}) == 1
