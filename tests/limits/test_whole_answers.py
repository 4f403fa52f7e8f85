"""The head of an answer leaves together with its body, whichever way the request goes.

Knative's queue-proxy, which is written in Go, may close its connection to the server as soon as it passes on an
answer's head. If the body leaves later, it is lost then. `long_go_proxy.py` shows that with such a proxy.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from contextlib import closing

import pytest

from attacks import EXAMPLE, chunk, chunked_head, connect, get, head, parsed, post
from conftest import Server

TRIES = 5  # the kernel may send a piece twice, when the machine stood still
DATA_SEGMENTS_IN = 152  # where Linux has `tcpi_data_segs_in` in its `struct tcp_info`
ROWS = json.dumps([json.loads(EXAMPLE)] * 64).encode()
KINDS = {
    "in one piece": post(),
    "with a query": post(EXAMPLE, "/classify?a=b"),
    "of many rows": post(ROWS, "/classify_batch?a=b"),
    "in chunks": chunked_head("/classify?a=b") + chunk(EXAMPLE) + chunk(b""),
    "refused": post(b"{}", "/classify?a=b"),
    "health": get("/livez"),
    "nowhere": get("/nowhere"),
    "no HTTP": b"GET /livez HTTP/1.1\r\na b: c\r\n\r\n",
    "last one": post(EXAMPLE, "/classify", "connection: close"),
}


def pieces(opened: socket.socket) -> int:
    """Return how many segments with data have come."""
    state = opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("=I", state, DATA_SEGMENTS_IN)[0])


def receive(opened: socket.socket, is_all: Callable[[bytes], object]) -> bytes:
    """Return what comes until it is all."""
    received = b""
    while not is_all(received):
        came = opened.recv(1 << 20)
        assert came, received
        received += came
    return received


@pytest.mark.parametrize("request_bytes", KINDS.values(), ids=KINDS)
def test_an_answer_leaves_in_one_piece(server: Server, request_bytes: bytes) -> None:
    counted = []
    for _ in range(TRIES):
        with closing(connect(server)) as opened:
            opened.sendall(request_bytes)
            receive(opened, parsed)
            counted.append(pieces(opened))
    assert min(counted) == 1, counted


def test_an_answer_without_a_body_leaves_too(server: Server) -> None:
    """Nothing follows the head of an answer to HEAD; the next answers come after it."""
    asked = head("/livez", method="HEAD")
    with closing(connect(server)) as opened:
        opened.sendall(asked)
        alone = receive(opened, lambda received: b"\r\n\r\n" in received)
        assert alone.startswith(b"HTTP/1.1 200 ")
        assert alone.endswith(b"\r\n\r\n")
        opened.sendall(asked + post() + get("/livez"))
        received = receive(opened, lambda received: received.endswith(b'{"live":true}'))
    first, second, third = received.split(b"HTTP/1.1 200 ")[1:]
    assert first.endswith(b"\r\n\r\n")
    assert b"probabilities" in second
    assert third.endswith(b"}")
