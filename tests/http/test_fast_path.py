"""However a request comes in, in one piece or in many, it is checked and answered alike. Raw sockets, a real server."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import BENTOML, BIN, WAIT_SECONDS, Serve, Server, until
from defects import simulator

EXAMPLE = json.dumps(simulator.SCHEMA.example).encode()
BATCH = json.dumps([simulator.SCHEMA.example] * 1024).encode()
BOMB = gzip.compress(b" " * 10_000_000)
FICKLE = ("date", "server-timing", "x-request-id", "x-prediction-id")


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(command=[BIN / "python", "-m", "defects.serve"], MODEL_DIR=model_dir) as running:
        yield running


@pytest.fixture(scope="module", params=["bentoml serve", "defects.serve"])
def either(request: pytest.FixtureRequest, serve: Serve, model_dir: Path) -> Iterator[Server]:
    """Both entry points, one after the other."""
    if request.param == "defects.serve":
        yield request.getfixturevalue("server")
        return
    with serve(command=BENTOML, MODEL_DIR=model_dir) as running:
        yield running


@contextmanager
def connection(server: Server) -> Iterator[socket.socket]:
    address = ("127.0.0.1", httpx.URL(server.url).port or 0)
    with closing(socket.create_connection(address, timeout=WAIT_SECONDS)) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


def head(body: bytes = EXAMPLE, path: str = "/classify", more: str = "", version: str = "1.1") -> bytes:
    fields = f"host: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
    return f"POST {path} HTTP/{version}\r\n{fields}\r\n".encode()


def answer(opened: socket.socket) -> tuple[int, dict[str, str], bytes]:
    response = HTTPResponse(opened)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return response.status, headers, response.read()


def lasting(status: int, headers: dict[str, str], body: bytes) -> Any:
    """What has to be the same of two answers to the same request."""
    without_id = re.sub(rb'"prediction_id":"\w+"', b"", body)
    return status, {n: v for n, v in headers.items() if n not in FICKLE}, without_id


PIECES = {
    "whole": [head() + EXAMPLE],
    "head, then body": [head(), EXAMPLE],
    "cut in the head": [head()[:25], head()[25:] + EXAMPLE],
    "cut in the body": [head() + EXAMPLE[:9], EXAMPLE[9:300], EXAMPLE[300:]],
    "chunked": [
        head().replace(f"content-length: {len(EXAMPLE)}".encode(), b"transfer-encoding: chunked")
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(EXAMPLE), EXAMPLE)
    ],
}
# What comes after the body is no header, whatever it is called.
PIECES["trailers"] = [PIECES["chunked"][0][:-2] + b"content-type: text/csv\r\nx-request-timeout-ms: soon\r\n\r\n"]
# As Java's client does with every first request.
OFFER = head(more="connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n")
PIECES["offers HTTP/2"] = [OFFER + EXAMPLE]
PIECES["offers HTTP/2, in pieces"] = [OFFER[:50], OFFER[50:] + EXAMPLE[:100], EXAMPLE[100:]]
PIECES["trailers, in two pieces"] = [PIECES["trailers"][0][:400], PIECES["trailers"][0][400:]]


@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES)
def test_an_answer_does_not_depend_on_how_the_request_is_cut(either: Server, pieces: list[bytes]) -> None:
    with connection(either) as opened:
        opened.sendall(PIECES["whole"][0])
        whole = lasting(*answer(opened))
        for _ in range(2):  # the connection goes on after either
            for piece in pieces:
                opened.sendall(piece)
                time.sleep(0.05)
            assert lasting(*answer(opened)) == whole
    assert whole[0] == 200
    assert b'"defect":"punctured"' in whole[2]


MISTAKES = {
    "invalid": (head(b"{}"), b"{}", 400),
    "not JSON": (head(b"{"), b"{", 400),
    "NaN": (head(b'{"weight_g": NaN}'), b'{"weight_g": NaN}', 400),
    "type": (head().replace(b"application/json", b"text/csv"), EXAMPLE, 415),
    "encoding": (head(more="content-encoding: br\r\n"), EXAMPLE, 415),
    "not gzip": (head(more="content-encoding: gzip\r\n"), EXAMPLE, 400),
    "timeout": (head(more="x-request-timeout-ms: soon\r\n"), EXAMPLE, 400),
    "too large": (head(BOMB, more="content-encoding: gzip\r\n"), BOMB, 413),
}


@pytest.mark.parametrize(("start", "body", "status"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_explained_alike(server: Server, start: bytes, body: bytes, status: int) -> None:
    answers = []
    for pieces in ([start + body], [start, body]):
        with connection(server) as opened:
            for piece in pieces:
                opened.sendall(piece)
                time.sleep(0.05)
            answers.append(lasting(*answer(opened)))
    assert answers[0] == answers[1]
    assert answers[0][0] == status
    assert "error" in json.loads(answers[0][2])


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    ids = [f"x-request-id: r{number}\r\n" for number in range(20)]
    with connection(server) as opened:
        opened.sendall(b"".join(head(more=more) + EXAMPLE for more in ids))
        reader = opened.makefile("rb")
        seen = []
        for _ in ids:
            fields = [*iter(reader.readline, b"\r\n")]
            assert fields[0] == b"HTTP/1.1 200 OK\r\n"
            named = dict(field.strip().split(b": ", 1) for field in fields[1:])
            reader.read(int(named[b"content-length"]))
            seen.append(f"x-request-id: {named[b'x-request-id'].decode()}\r\n")
    assert seen == ids


@pytest.mark.parametrize("start", [head(version="1.0"), head(more="connection: close\r\n")], ids=["1.0", "close"])
def test_a_connection_is_closed_as_asked(server: Server, start: bytes) -> None:
    with connection(server) as opened:
        opened.sendall(start + EXAMPLE)
        status, headers, _ = answer(opened)
        assert (status, headers["connection"]) == (200, "close")
        assert opened.recv(1) == b""


def test_a_client_that_waits_to_be_told_to_go_on_is_told(server: Server) -> None:
    with connection(server) as opened:
        opened.sendall(head(more="expect: 100-continue\r\n"))
        assert opened.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        opened.sendall(EXAMPLE)
        assert answer(opened)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        head().replace(b"content-length: ", b"content-length: x") + EXAMPLE,
        head().replace(f"content-length: {len(EXAMPLE)}".encode(), b"transfer-encoding: chunked") + b"zz\r\n",
    ],
    ids=["TLS", "length", "chunk"],
)
def test_what_is_no_http_is_refused_and_closed(server: Server, sent: bytes) -> None:
    with connection(server) as opened:
        opened.sendall(sent)
        assert answer(opened)[0] == 400
        assert opened.recv(1) == b""
    assert httpx.post(
        f"{server.url}/classify", content=EXAMPLE, headers={"content-type": "application/json"}
    ).is_success


def test_an_idle_connection_is_closed_and_an_active_one_is_not(serve: Serve, model_dir: Path) -> None:
    short = "from defects import serve; from defects.serving import drain; drain.KEEP_ALIVE_SECONDS = 1; serve.main()"

    def is_kept(opened: socket.socket) -> bool:
        """Whether every request was answered; where the machine made a pause too long, that proves nothing."""
        asked = time.monotonic()
        for pause in (0.0, 0.6, 0.6, 0.6):
            time.sleep(pause)
            before, asked = asked, time.monotonic()
            try:
                opened.sendall(PIECES["whole"][0])
                status = answer(opened)[0]
            except (OSError, HTTPException):
                assert time.monotonic() - before >= 1, "an active connection was closed"
                return False
            assert status == 200
        return True

    with serve(command=[BIN / "python", "-c", short], MODEL_DIR=model_dir) as server:
        while True:
            with connection(server) as opened:
                if is_kept(opened):
                    since = time.monotonic()
                    assert opened.recv(1) == b""
                    assert time.monotonic() - since < 60  # it is 75 s otherwise
                    break


BREAKING = """
from defects import serve
from defects.http.responses import Responses

complete = Responses.complete

def breaking(self, reply, request):
    if request.id == b"break":
        raise ValueError("broken on purpose")
    return complete(self, reply, request)

Responses.complete = breaking
serve.main()
"""


def test_an_answer_that_cant_be_sent_harms_nobody_else(serve: Serve, model_dir: Path) -> None:
    with serve(command=[BIN / "python", "-c", BREAKING], MODEL_DIR=model_dir) as server:
        for _ in range(3):
            with connection(server) as opened:
                opened.sendall(head(more="x-request-id: break\r\n") + EXAMPLE)
                assert opened.recv(1) == b""
        with connection(server) as opened:
            opened.sendall(PIECES["whole"][0])
            assert answer(opened)[0] == 200
        assert httpx.get(f"{server.url}/readyz").is_success
        until(lambda: "defects_requests_in_flight 0.0" in httpx.get(f"{server.url}/metrics").text)
        until(lambda: "an answer could not be sent" in server.log.read_text())


def test_a_slow_reader_is_waited_for_and_holds_nobody_up(server: Server) -> None:
    """Requests go out and answers are not read, until the server stops reading: then all of them come."""
    path, sent = "/classify_batch", 0
    request = head(BATCH, path) + BATCH
    with connection(server) as opened:
        opened.settimeout(1)
        rest, blocked = b"", 0
        while sent < 200 and blocked < 3:
            rest = rest or request
            try:
                rest = rest[opened.send(rest) :]
                sent, blocked = sent + (not rest), 0
            except TimeoutError:
                blocked += 1
                assert httpx.get(f"{server.url}/readyz").is_success  # so it is not the machine that stopped
        assert 0 < sent < 200, "nobody ever waited"
        opened.settimeout(WAIT_SECONDS)
        reader = opened.makefile("rb")
        for _ in range(sent):
            fields = [*iter(reader.readline, b"\r\n")]
            assert fields[0] == b"HTTP/1.1 200 OK\r\n"
            named = dict(field.strip().split(b": ", 1) for field in fields[1:])
            assert len(json.loads(reader.read(int(named[b"content-length"])))) == 1024


def test_requests_leave_nothing_to_collect(either: Server) -> None:
    """No reference cycles: else the garbage collector would have to look for them, and everybody would wait for it."""

    def collected() -> float:
        text = httpx.get(f"{either.url}/metrics").text
        return sum(map(float, re.findall(r"^python_gc_objects_collected_total\{.*\} (.*)$", text, re.MULTILINE)))

    before = collected()
    with connection(either) as opened:
        for body, status in [(EXAMPLE, 200), (b"{}", 400)] * 2000:
            opened.sendall(head(body) + body)
            assert answer(opened)[0] == status
    assert collected() - before < 2000
