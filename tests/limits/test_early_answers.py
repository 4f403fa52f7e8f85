"""An answer that comes before the whole request was sent reaches a client that sends everything before it reads."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from attacks import (
    MIB,
    Answer,
    assert_error,
    attack,
    beside_others,
    chunk,
    chunked_head,
    connect,
    head,
    metric,
    repeated,
)
from conftest import Serve, Server, until

TRIES = 20
SIZES = [1_500_000, 5_000_000]
BODY_BYTES = 400_000  # the limit of this server, and more than comes in one piece
JSON = {"content-type": "application/json"}
KINDS = {
    "413 by its length": (413, "/classify_batch", JSON, False),
    "413 by its chunks": (413, "/classify_batch", JSON, True),
    "415": (415, "/classify_batch", {"content-type": "text/csv"}, False),
    "415 in chunks": (415, "/classify_batch", {"content-type": "text/csv"}, True),
    "400 of a header": (400, "/classify_batch", JSON | {"x-request-timeout-ms": "soon"}, False),
    "400 of a header, in chunks": (400, "/classify_batch", JSON | {"x-request-timeout-ms": "soon"}, True),
    "400 of a malformed head": (400, "/classify", JSON | {"a b": "c"}, False),
    "431": (431, "/classify", JSON | {"x-long": "v" * 70_000}, False),
    "431 in chunks": (431, "/classify", JSON | {"x-long": "v" * 70_000}, True),
    "414": (414, "/classify?" + "q" * 9_000, JSON, False),
    "404": (404, "/nowhere", JSON, False),
    "404 in chunks": (404, "/nowhere", JSON, True),
    "405": (405, "/livez", JSON, False),
    "405 in chunks": (405, "/livez", JSON, True),
}


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    settings = {"DEFECTS_MAX_BODY_BYTES": BODY_BYTES, "DEFECTS_MAX_BODIES_BYTES": 2 * BODY_BYTES}
    with serve(MODEL_DIR=model_dir, **settings) as running:
        yield running


def by_urllib(server: Server, path: str, headers: dict[str, str], body: bytes, in_chunks: bool) -> Answer:
    """Post by urllib, which asks to close, and sends everything before it reads."""
    data: object = (body[start : start + 8192] for start in range(0, len(body), 8192)) if in_chunks else body
    request = urllib.request.Request(server.url + path, data, headers)  # type: ignore[arg-type]  # noqa: S310 - the server's own
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the server's own
            return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())
    except urllib.error.HTTPError as problem:
        with problem:
            return Answer(problem.code, {n.lower(): v for n, v in problem.headers.items()}, problem.read())


def by_http_client(server: Server, path: str, headers: dict[str, str], body: bytes, in_chunks: bool) -> Answer:
    """Post by http.client, which keeps the connection, and sends everything before it reads."""
    data: object = (body[start : start + 8192] for start in range(0, len(body), 8192)) if in_chunks else body
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request("POST", path, data, headers, encode_chunked=in_chunks)  # type: ignore[arg-type]
        answer = connection.getresponse()
        return Answer(answer.status, {n.lower(): v for n, v in answer.getheaders()}, answer.read())


@pytest.mark.parametrize("post", [by_urllib, by_http_client], ids=["urllib", "http.client"])
@pytest.mark.parametrize(("status", "path", "headers", "in_chunks"), KINDS.values(), ids=KINDS)
def test_an_early_answer_is_read(
    server: Server, post: Callable[..., Answer], status: int, path: str, headers: dict[str, str], in_chunks: bool
) -> None:
    for size in SIZES:
        body = b" " * size
        for _ in range(TRIES // len(SIZES)):
            assert_error(post(server, path, headers, body, in_chunks), status)


@pytest.mark.parametrize("post", [by_urllib, by_http_client], ids=["urllib", "http.client"])
def test_a_refusal_because_of_all_bodies_is_read(server: Server, post: Callable[..., Answer]) -> None:
    with beside_others(server), ExitStack() as held:
        for _ in range(6):  # more than all bodies together may have
            opened = held.enter_context(closing(connect(server)))
            opened.sendall(head("/classify_batch", length=BODY_BYTES) + b" " * (BODY_BYTES - 1))
        until(lambda: metric(server, "defects_bodies_bytes") == 2 * (BODY_BYTES - 1))  # so there is no room for more
        for _ in range(TRIES):
            answer = post(server, "/classify_batch", JSON, b" " * (BODY_BYTES - 1), False)
            assert_error(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("in_chunks", [False, True], ids=["length", "chunks"])
def test_a_client_that_never_stops_sending_is_cut(server: Server, in_chunks: bool) -> None:
    """It would send 1 GB."""
    start = chunked_head("/classify_batch") if in_chunks else head("/classify_batch", length=10**9)
    piece = chunk(b" " * 60_000) if in_chunks else b" " * 60_000

    def endless() -> Iterator[bytes]:
        yield start
        yield from repeated(piece, 10**9)

    with beside_others(server):
        outcome = attack(server, endless(), seconds=60, relentless=True)
    assert outcome.sent < 128 * MIB, "nobody stopped it"
    assert outcome.seconds < 50
    assert_error(outcome.answers[0], 413)


def test_what_is_dropped_is_not_answered_again(server: Server) -> None:
    """What follows a refused head or a body that is too large is no request."""
    for start in (head("/classify_batch", length=10**8), chunked_head("/classify", "a b: c")):
        outcome = attack(server, [start, head("/livez", method="GET") * 100], seconds=3)
        assert len(outcome.answers) == 1, outcome


def test_a_large_refused_upload_is_told_before_it_is_sent(server: Server) -> None:
    """As curl does with what is larger than 1 MB."""
    with closing(connect(server)) as opened:
        opened.sendall(head("/classify_batch", "expect: 100-continue", length=10**7))
        answer = opened.recv(1000)
    assert answer.startswith(b"HTTP/1.1 413 "), answer


def test_answers_that_are_not_early_keep_the_connection(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for _ in range(3):
            for path, status in (("/classify", 400), ("/nowhere", 404), ("/livez", 405)):
                answer = client.post(path, content=b"{}", headers=JSON)
                assert (answer.status_code, "connection" in answer.headers) == (status, False)
                assert json.loads(answer.content)["error"]


def test_a_client_that_trickles_on_after_its_answer_is_cut(server: Server) -> None:
    def trickle() -> Iterator[bytes]:
        yield chunked_head("/classify", "a b: c")
        for _ in range(400):
            time.sleep(0.1)
            yield b"1\r\n \r\n"

    outcome = attack(server, trickle(), seconds=45, relentless=True)
    assert outcome.ended
    assert outcome.seconds < 35
    assert_error(outcome.answers[0], 400)
