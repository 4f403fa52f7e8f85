"""The bodies that have come in part have one bound together, and no body costs more than a valid one of its size."""

from __future__ import annotations

import gzip
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Thread

import pytest

from attacks import (
    BATCH,
    ENTRY_POINTS,
    EXAMPLE,
    MIB,
    Answer,
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
    kill,
    metric,
    parsed,
    post,
)
from conftest import Command, Serve, Server, free_port, run, until

BODY_BYTES, BODIES_BYTES = 1_000_000, 8_000_000
PART = 900_000  # of a body that is sent and goes on
SMALL = 4 * MIB  # what a full bound may be exceeded by: what was read at once
VALID = b"[" + EXAMPLE + b" " * (BODY_BYTES - len(EXAMPLE) - 2) + b"]"


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    settings = {"DEFECTS_MAX_BODY_BYTES": BODY_BYTES, "DEFECTS_MAX_BODIES_BYTES": BODIES_BYTES}
    settings["DEFECTS_REQUEST_TIMEOUT_MS"] = 60_000  # uploads take their time here
    with serve(MODEL_DIR=model_dir, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def usual(serve: Serve, model_dir: Path) -> Iterator[Server]:
    """A server whose bodies together have the default bound, of 128 MiB."""
    with serve(MODEL_DIR=model_dir) as running:
        yield running


def bodies_bytes(server: Server) -> float:
    return metric(server, "defects_bodies_bytes")


def refused(server: Server) -> float:
    return metric(server, "defects_refused_total", reason="bodies")


def start_upload(server: Server, start: bytes) -> socket.socket:
    """Send the start of a request, as far as anybody takes it."""
    opened = connect(server)
    with suppress(OSError):
        opened.sendall(start)
    return opened


def come(opened: socket.socket) -> Answer | None:
    """Return the answer, if there is one."""
    received = b""
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    with suppress(OSError):
        while poll.poll(0) and (piece := opened.recv(1 << 16)):
            received += piece
    return next(iter(parsed(received)), None)


UPLOADS = {
    "by its length": head("/classify_batch", length=BODY_BYTES) + VALID[:PART],
    "in chunks": chunked_head("/classify_batch") + chunk(VALID[:PART]),
}


@pytest.mark.parametrize("start", UPLOADS.values(), ids=UPLOADS)
def test_uploads_together_have_a_bound(server: Server, start: bytes) -> None:
    """300 of them, 270 MB, none of which ends."""
    until(lambda: bodies_bytes(server) == 0)
    counted = refused(server)
    with beside_others(server, growth=BODIES_BYTES + 48 * MIB), ExitStack() as held:
        uploads = [held.enter_context(closing(start_upload(server, start))) for _ in range(300)]
        until(lambda: refused(server) > counted)
        assert 0 < bodies_bytes(server) <= BODIES_BYTES + SMALL
        answers: list[Answer | None] = [None] * len(uploads)

        def settled() -> bool:
            """Whether each is refused, or received as far as it was sent: what the kernel still has may be refused."""
            answers[:] = [answer or come(opened) for opened, answer in zip(uploads, answers, strict=True)]
            return bodies_bytes(server) == PART * answers.count(None)

        until(settled)
        refusals = [answer for answer in answers if answer]
        for answer in refusals:
            assert_error(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1
        going_on = [opened for opened, answer in zip(uploads, answers, strict=True) if answer is None]
        assert 1 <= len(going_on) <= BODIES_BYTES // PART + SMALL // PART
        assert refused(server) - counted >= len(refusals) >= 300 - len(going_on)
        assert ask(server, post()).status == 200
        rest = VALID[PART:]
        for opened in going_on:
            answer = ask_on(opened, chunk(rest) + b"0\r\n\r\n" if b"chunked" in start else rest)
            assert answer.status == 200, answer
    until(lambda: bodies_bytes(server) == 0)


def test_an_upload_that_waits_to_be_told_is_refused_before_its_body(server: Server) -> None:
    until(lambda: bodies_bytes(server) == 0)
    with ExitStack() as held:
        for _ in range(12):
            held.enter_context(closing(start_upload(server, UPLOADS["by its length"])))
        until(lambda: bodies_bytes(server) == BODIES_BYTES // PART * PART)  # so there is no room for another one
        opened = held.enter_context(closing(connect(server)))
        opened.sendall(head("/classify_batch", "expect: 100-continue", length=BODY_BYTES))
        assert opened.recv(1000).startswith(b"HTTP/1.1 503 ")
    until(lambda: bodies_bytes(server) == 0)


WAYS: dict[str, tuple[str, Callable[[socket.socket], None]]] = {
    "closed": ("by its length", lambda opened: opened.close()),
    "killed": ("by its length", kill),
    "cut": ("by its length", lambda opened: opened.shutdown(socket.SHUT_WR)),
    "complete": ("by its length", lambda opened: opened.sendall(VALID[PART:])),
    "wrong": ("by its length", lambda opened: opened.sendall(b"x" * (BODY_BYTES - PART))),
    "closed in chunks": ("in chunks", lambda opened: opened.close()),
    "killed in chunks": ("in chunks", kill),
    "complete in chunks": ("in chunks", lambda opened: opened.sendall(b"0\r\n\r\n")),
    "too large in chunks": ("in chunks", lambda opened: opened.sendall(chunk(b" " * BODY_BYTES))),
    "malformed chunk": ("in chunks", lambda opened: opened.sendall(b"zz\r\n")),
    "endless trailer": ("in chunks", lambda opened: opened.sendall(b"0\r\n" + b"a: b\r\n" * 5000)),
}


@pytest.mark.parametrize(("kind", "end"), WAYS.values(), ids=WAYS)
def test_an_upload_frees_what_it_held_however_it_ends(
    server: Server, kind: str, end: Callable[[socket.socket], None]
) -> None:
    until(lambda: bodies_bytes(server) == 0)
    with ExitStack() as held:
        uploads = [held.enter_context(closing(start_upload(server, UPLOADS[kind]))) for _ in range(4)]
        until(lambda: bodies_bytes(server) >= len(uploads) * PART)
        for opened in uploads:
            with suppress(OSError):  # closed already by the server
                end(opened)
        until(lambda: bodies_bytes(server) == 0)
    assert ask(server, post(VALID, "/classify_batch")).status == 200


def test_uploads_to_what_takes_no_body_are_held_by_nobody(server: Server) -> None:
    """Whatever comes for a path that is none, or a GET, is dropped as it comes."""
    with beside_others(server, growth=32 * MIB), ExitStack() as held:
        for number in range(100):
            path, method = (("/nowhere", "POST"), ("/livez", "GET"), ("/", "PUT"))[number % 3]
            start = head(path, method=method, length=BODY_BYTES) + b" " * PART
            held.enter_context(closing(start_upload(server, start)))
        assert bodies_bytes(server) <= SMALL


def test_a_body_of_tiny_chunks_takes_no_more_than_its_size(server: Server) -> None:
    """800,000 bytes, each a chunk: as many objects would take 40 MB."""
    tiny = chunk(b" ") * 1000

    def send() -> None:
        opened = held.enter_context(closing(connect(server)))
        opened.sendall(chunked_head("/classify_batch"))
        for _ in range(200):
            opened.sendall(tiny)

    with beside_others(server, growth=24 * MIB), ExitStack() as held:
        senders = [Thread(target=send) for _ in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        until(lambda: bodies_bytes(server) >= 800_000, 60)
    until(lambda: bodies_bytes(server) == 0)


def test_the_default_bound_holds(usual: Server) -> None:
    """300 uploads of 1.2 MB, 360 MB, of which 128 MiB are taken."""
    start = head("/classify_batch", length=1_250_000) + b" " * 1_200_000
    with beside_others(usual, growth=200 * MIB), ExitStack() as held:
        for _ in range(300):
            held.enter_context(closing(start_upload(usual, start)))
        until(lambda: refused(usual) > 0)
        assert ask(usual, post(BATCH[:300_000] + b"]", "/classify_batch")).status in {200, 400, 503}
        assert 100 * MIB < bodies_bytes(usual) <= 128 * MIB + SMALL
    until(lambda: bodies_bytes(usual) == 0)


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_bound_below_one_bodys_is_a_bad_setting(model_dir: Path, tmp_path: Path, command: Command) -> None:
    settings = {"DEFECTS_MAX_BODY_BYTES": 1000, "DEFECTS_MAX_BODIES_BYTES": 999}
    done = run(tmp_path, *command, MODEL_DIR=model_dir, HOST="127.0.0.1", PORT=free_port(), **settings)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("defects: ")]
    assert (done.returncode, "DEFECTS_MAX_BODIES_BYTES" in line, "1000" in line) == (78, True, True), line
    assert "Traceback" not in done.stderr


FROZEN = {
    "NaN": b"[" + b"1," * 645_000 + b"NaN]",
    "an infinity": b"[" + b"1," * 645_000 + b"1e999]",
    "a broken end": b"[" + b"1," * 645_000 + b"1",
    "NaN in text": b'["' + b"NaN," * 320_000 + b'",1]',
    "many NaN": b"[" + b"NaN," * 320_000 + b"1]",
    "deep": b"[" * 645_000 + b"]" * 645_000,
    "a number of a million digits": b"[" + b"1" * 1_290_000 + b"]",
    "a million escapes": b'["' + b"\\u0041" * 215_000 + b'"]',
    "a million names": b"{" + b'"":1,' * 258_000 + b'"":1}',
}


@pytest.mark.parametrize("document", FROZEN.values(), ids=FROZEN)
def test_no_document_freezes_the_server(usual: Server, document: bytes) -> None:
    """1.3 kB on each of 16 connections, which took 5 s of everybody's time."""
    body = gzip.compress(document)
    sent = post(body, "/classify_batch", "content-encoding: gzip", "x-request-timeout-ms: 60000")
    statuses: list[int] = []

    def send() -> None:
        statuses.extend(answer.status for answer in attack(usual, [sent, get("/livez", "connection: close")]).answers)

    with beside_others(usual, growth=160 * MIB):
        attackers = [Thread(target=send) for _ in range(16)]
        for attacker in attackers:
            attacker.start()
        for attacker in attackers:
            attacker.join()
    assert sorted(statuses) == [200] * 16 + [400] * 16
