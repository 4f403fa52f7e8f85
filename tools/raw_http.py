"""Send one HTTP request over a connection of its own."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from typing import NamedTuple


class RawResponse(NamedTuple):
    status: int
    headers: Mapping[str, str]  # by name in lower case
    body: bytes


def get(path: str) -> bytes:
    """Return a GET request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


def post(path: str, body: bytes, /, *, host: str = "127.0.0.1", **headers: str) -> bytes:
    """Return a POST request as it goes over the wire; in names of headers, `_` stands for `-`."""
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def ask(port: int, request: bytes, timeout: float) -> RawResponse:
    """Send a request over its own connection; return the answer. Raises `OSError` or `http.client.HTTPException`."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return RawResponse(response.status, headers, response.read())
