"""Requests that come together on one connection, with offers of HTTP/2 and without, are answered one by one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from attacks import (
    EXAMPLE,
    HEAD_FIELDS,
    Answer,
    attack,
    beside_others,
    chunk,
    chunked_head,
    connect,
    get,
    head,
    log_lines,
    parsed,
    post,
)
from conftest import Serve, Server

OFFER = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__")


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    settings = {"DEFECTS_ACCESS_LOG_SHARE": 0, "DEFECTS_REQUEST_TIMEOUT_MS": 60_000}
    with serve(MODEL_DIR=model_dir, **settings) as running:
        yield running


def mixed(count: int, *more: str) -> list[tuple[bytes, int]]:
    """Return requests of every kind in turns, each with a number as its id, and the status of its answer."""

    def requests(*fields: str) -> list[tuple[bytes, int]]:
        return [
            (post(EXAMPLE, "/classify", *fields), 200),
            (get("/livez", *fields), 200),
            (
                chunked_head("/classify", *fields) + chunk(EXAMPLE[:50]) + chunk(EXAMPLE[50:]) + b"0\r\nx: y\r\n\r\n",
                200,
            ),
            (post(b"{}", "/classify", *fields), 400),
            (get("/nowhere", *fields), 404),
            (post(b'{"instances":[%b]}' % EXAMPLE, "/v1/models/defect-classifier:predict", *fields), 200),
            (head("/livez", *fields, method="DELETE"), 405),
            (post(EXAMPLE, "/nowhere", *fields), 404),
        ]

    kinds = len(requests())
    return [requests(f"x-request-id: r{number}", *more)[number % kinds] for number in range(count)]


def answers(server: Server, sent: bytes, count: int, seconds: float = 50.0) -> list[Answer]:
    """Return the answers to what is sent at once, as soon as there are so many."""
    with closing(connect(server)) as opened:
        received, deadline = bytearray(), time.monotonic() + seconds
        opened.settimeout(0.05)
        rest = memoryview(sent)
        while received.count(b"HTTP/1.1 ") < count or len(parsed(bytes(received))) < count:
            assert time.monotonic() < deadline, f"{len(parsed(bytes(received)))} answers in {seconds} s"
            with suppress(TimeoutError):
                rest = rest[opened.send(rest) :] if rest else rest
            try:
                came = opened.recv(1 << 20)
            except TimeoutError:
                continue
            assert came, f"closed after {len(parsed(bytes(received)))} answers"
            received += came
        return parsed(bytes(received))


@pytest.mark.parametrize("count", [340, 2000])
@pytest.mark.parametrize("offer", [(), OFFER], ids=["plain", "with an offer"])
def test_many_requests_at_once_are_answered_in_order(server: Server, offer: tuple[str, ...], count: int) -> None:
    requests, lines = mixed(count, *offer), len(log_lines(server))
    with beside_others(server):
        got = answers(server, b"".join(sent for sent, _ in requests), count)
    assert [answer.headers["x-request-id"] for answer in got] == [f"r{number}" for number in range(count)]
    assert [answer.status for answer in got] == [status for _, status in requests]
    wrong = sum(status >= 400 for _, status in requests)  # each of which has its line in the log
    assert len(log_lines(server)) - lines <= wrong


@pytest.mark.parametrize("sent", [get("/livez", *OFFER), post(EXAMPLE, "/classify", *OFFER)], ids=["GET", "POST"])
def test_offers_alone_leave_no_line_in_the_log(server: Server, sent: bytes) -> None:
    lines = len(log_lines(server))
    with beside_others(server):
        got = answers(server, sent * 900, 900)
    assert {answer.status for answer in got} == {200}
    time.sleep(0.2)  # for the log's writer
    assert log_lines(server)[lines:] == []


def test_offers_cut_anywhere_are_answered(server: Server) -> None:
    requests = mixed(24, *OFFER)
    whole = b"".join(sent for sent, _ in requests)
    for size in (1, 7, 100, 1_000):
        pieces = (whole[start : start + size] for start in range(0, len(whole), size))
        outcome = attack(server, [*pieces, get("/livez", "connection: close")], seconds=20)
        assert [answer.status for answer in outcome.answers] == [*(status for _, status in requests), 200], size


CLOSING = {
    "an offer and close": head(
        "/classify", "connection: close, Upgrade, HTTP2-Settings", *OFFER[1:], length=len(EXAMPLE)
    ),
    "close in a field of its own": head("/classify", "connection: close", *OFFER, length=len(EXAMPLE)),
    "close after the offer": head("/classify", *OFFER, "connection: close", length=len(EXAMPLE)),
    "an offer by HTTP/1.0": head("/classify", *OFFER, length=len(EXAMPLE)).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "close": head("/classify", "connection: close", length=len(EXAMPLE)),
    "HTTP/1.0": head("/classify", length=len(EXAMPLE)).replace(b"HTTP/1.1", b"HTTP/1.0"),
}


@pytest.mark.parametrize("start", CLOSING.values(), ids=CLOSING)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_connection_closes_as_asked_whatever_else_is_offered(server: Server, start: bytes, method: str) -> None:
    sent = start + EXAMPLE
    if method == "GET":
        length = f"content-length: {len(EXAMPLE)}\r\n".encode()
        sent = start.replace(b"POST /classify", b"GET /livez").replace(length, b"")
    (answer,) = got = attack(server, [sent], seconds=5).answers
    assert (len(got), answer.status, answer.headers["connection"]) == (1, 200, "close")
    outcome = attack(server, [sent + get("/livez")], seconds=5)
    assert (len(outcome.answers), bool(outcome.ended)) == (1, True), outcome


def test_a_connection_goes_on_after_an_offer(server: Server) -> None:
    outcome = attack(server, [get("/livez", *OFFER), post(EXAMPLE, "/classify", *OFFER), post()], seconds=2)
    assert [answer.status for answer in outcome.answers] == [200, 200, 200]
    assert "connection" not in outcome.answers[0].headers
    assert not outcome.ended


def test_connect_and_websockets_are_answered_and_do_no_harm(server: Server) -> None:
    websocket = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: YWJj")
    for sent in (
        head("x:443", method="CONNECT"),
        get("/livez", *websocket),
        get("/", "upgrade: TLS/1.0", "connection: upgrade"),
    ):
        answer = attack(server, [sent], seconds=2).answers[0]
        assert answer.status in {200, 400, 404, 405}, answer


def test_fields_of_an_offer_count(server: Server) -> None:
    """What is read a second time, without the offer, is not counted anew."""
    fields = [f"x-{number}: 1" for number in range(HEAD_FIELDS - 1 - len(OFFER))]
    assert attack(server, [get("/livez", *OFFER, *fields)], seconds=1).answers[0].status == 200
    attack(server, [get("/livez", *OFFER, *fields, "x: 1")], seconds=5).assert_refused(431)
