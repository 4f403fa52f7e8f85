"""Heads and trailers are bounded in bytes and in number, so that no caller takes memory or time with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from attacks import (
    ENTRY_POINTS,
    EXAMPLE,
    HEAD_BYTES,
    HEAD_FIELDS,
    URL_BYTES,
    ask,
    ask_on,
    attack,
    beside_others,
    chunk,
    chunked_head,
    connect,
    get,
    head,
    metric,
    post,
    repeated,
)
from conftest import Serve, Server

MB = 10**6
CHUNKED = chunked_head() + chunk(EXAMPLE)
# Each as it was measured: 30 MB of short fields took 720 MiB, and one value of 87 MB took 9.4 s.
ENDLESS: dict[str, tuple[Callable[[], Iterable[bytes]], tuple[int, ...]]] = {
    "short fields": (lambda: after(b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"a: \r\n", 30), (431,)),
    "short fields of a prediction": (lambda: after(head()[:-2], b"a: \r\n", 30), (431,)),
    "one value": (lambda: after(b"GET /livez HTTP/1.1\r\nhost: x\r\na: ", b"v", 87), (431,)),
    "one name": (lambda: after(b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"n", 87), (431,)),
    "a URL": (lambda: after(b"GET /", b"u", 87), (414,)),
    "a query": (lambda: after(b"POST /classify?", b"q=1&", 87), (414,)),
    "a method": (lambda: after(b"", b"GET", 30), (400,)),
    "empty lines before a request": (lambda: after(b"", b"\r\n", 30), (400, 431)),
    "trailers": (lambda: after(CHUNKED + b"0\r\n", b"a: \r\n", 30), (431,)),
    "a trailer": (lambda: after(CHUNKED + b"0\r\na: ", b"v", 87), (431,)),
    "trailers of what predicts nothing": (
        lambda: after(chunked_head("/nowhere") + b"0\r\n", b"a: \r\n", 30),
        (404, 431),
    ),
    "chunk extensions": (lambda: after(chunked_head() + b"5;", b"a=1;", 30), (400, 431)),
    "chunk extensions of small chunks": (
        lambda: after(chunked_head(), b"1;" + b"e" * 4000 + b"\r\n \r\n", 87),
        (400, 413, 431),
    ),
    "zeros of a chunk's size": (lambda: after(chunked_head(), b"0", 30), (400, 431)),
    "a request before": (lambda: after(get("/livez") + b"GET /livez HTTP/1.1\r\nhost: x\r\n", b"a: \r\n", 30), (431,)),
    "an offer of HTTP/2": (
        lambda: after(head("/classify", "connection: upgrade", "upgrade: h2c")[:-2], b"a: \r\n", 30),
        (431,),
    ),
}


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(MODEL_DIR=model_dir) as running:
        yield running


def after(start: bytes, piece: bytes, megabytes: int) -> Iterable[bytes]:
    return itertools.chain([start], repeated(piece, megabytes * MB))


@pytest.mark.parametrize(("pieces", "statuses"), ENDLESS.values(), ids=ENDLESS)
def test_a_head_without_end_is_refused(
    server: Server, pieces: Callable[[], Iterable[bytes]], statuses: tuple[int, ...]
) -> None:
    with beside_others(server, growth=24 * MB):
        outcome = attack(server, pieces())
    outcome.assert_refused(*statuses)
    assert outcome.sent < 20 * MB, "refused only after most of it"


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_many_heads_without_end_at_once_take_nothing(serve: Serve, model_dir: Path, command: list[str | Path]) -> None:
    """Sixteen in turns, 30 MB each."""
    with serve(command=command, MODEL_DIR=model_dir) as server, beside_others(server, growth=32 * MB):
        for _ in range(16):
            attack(server, after(head()[:-2], b"a: \r\n", 30)).assert_refused(431)


def fields(count: int) -> list[str]:
    return [f"x-{number}: {number}" for number in range(count)]


def of_bytes(start: bytes, size: int) -> bytes:
    """Return a head that goes on with one field, and has so many bytes with the empty line at its end."""
    start = start.removesuffix(b"\r\n") + b"x-long: "
    return start + b"v" * (size - len(start) - 4) + b"\r\n\r\n"


FIELDS_OF_POST = post().split(b"\r\n\r\n")[0].count(b"\r\n")


@pytest.mark.parametrize("size", [1, 1000, 1_000_000], ids="cut every {} bytes".format)
@pytest.mark.parametrize(
    ("good", "bad", "status"),
    [
        (get("/livez", *fields(HEAD_FIELDS - 1)), get("/livez", *fields(HEAD_FIELDS)), 431),
        (
            post(EXAMPLE, "/classify", *fields(HEAD_FIELDS - FIELDS_OF_POST)),
            post(EXAMPLE, "/classify", *fields(HEAD_FIELDS - FIELDS_OF_POST + 1)),
            431,
        ),
        (of_bytes(get("/livez"), HEAD_BYTES), of_bytes(get("/livez"), HEAD_BYTES + 8), 431),
        (
            of_bytes(head(length=len(EXAMPLE)), HEAD_BYTES) + EXAMPLE,
            of_bytes(head(length=len(EXAMPLE)), HEAD_BYTES + 8) + EXAMPLE,
            431,
        ),
        (get("/livez?".ljust(URL_BYTES, "q")), get("/livez?".ljust(URL_BYTES + 1, "q")), 414),
    ],
    ids=["fields", "fields of a prediction", "bytes", "bytes of a prediction", "URL"],
)
def test_the_bounds_of_a_head_are_exact(server: Server, good: bytes, bad: bytes, status: int, size: int) -> None:
    if size == 1 and len(good) > URL_BYTES:
        size = 333  # single bytes would take long
    with closing(connect(server)) as opened:
        for _ in range(2):  # each head counts alone
            for piece in cut(good, size):
                opened.sendall(piece)
            assert ask_on(opened).status == 200
    attack(server, cut(bad, size)).assert_refused(status)


def cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def trailing(*trailers: str) -> bytes:
    return CHUNKED + b"".join(f"{line}\r\n".encode() for line in ("0", *trailers, ""))


@pytest.mark.parametrize("path", ["/classify", "/nowhere"])
def test_the_bounds_of_trailers_are_exact(server: Server, path: str) -> None:
    def request(*trailers: str) -> bytes:
        return trailing(*trailers).replace(b"/classify", path.encode())

    fitting = "x: ".ljust(HEAD_BYTES - 8, "v")
    status = 200 if path == "/classify" else 404
    with closing(connect(server)) as opened:
        for trailers in (fields(HEAD_FIELDS), [fitting], fields(HEAD_FIELDS)):
            assert ask_on(opened, request(*trailers)).status == status
    for trailers in (fields(HEAD_FIELDS + 1), ["x: ".ljust(HEAD_BYTES + 8, "v")]):
        attack(server, [request(*trailers)]).assert_refused(431, status)
        ask(server, get("/livez"))


def test_trailers_beyond_the_bounds_are_refused_before_anything_is_predicted(server: Server) -> None:
    attack(server, [trailing(*fields(HEAD_FIELDS + 1))]).assert_refused(431)
    attack(server, [trailing("x: ".ljust(HEAD_BYTES + 8, "v"))]).assert_refused(431)


def test_what_was_asked_before_a_head_without_end_is_answered(server: Server) -> None:
    endless = b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 1000
    outcome = attack(server, [post() * 3 + get("/model") + endless])
    assert [answer.status for answer in outcome.answers] == [200, 200, 200, 200, 431]
    assert outcome.ended


def test_a_refused_head_is_counted_and_explained(server: Server) -> None:
    before = counted(server)
    answer = attack(server, [get("/livez", *fields(HEAD_FIELDS))]).assert_refused(431)
    assert b"100" in answer.body
    answer = attack(server, [get("/", "x: ".ljust(HEAD_BYTES, "v"))]).assert_refused(431)
    assert b"65536" in answer.body
    answer = attack(server, [get("/".ljust(URL_BYTES + 1, "u"))]).assert_refused(414)
    assert b"8192" in answer.body
    assert [now - then for now, then in zip(counted(server), before, strict=True)] == [2, 1]


def counted(server: Server) -> list[float]:
    return [metric(server, "defects_requests_total", route="malformed", code=code) for code in ("431", "414")]


def test_a_usual_client_of_an_ingress_fits(server: Server) -> None:
    """Cookies, tokens and traces of a mesh: 40 fields, 16 kB."""
    answer = ask(server, post(EXAMPLE, "/classify", *fields(39), "cookie: ".ljust(16_000, "c")))
    assert answer.status == 200
