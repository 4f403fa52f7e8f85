"""One HTTP/1.1 exchange over connections that are kept, on gevent.

Nothing is ever sent twice: a client that quietly retries would hide that a replica lost a request. A kept connection
that the server has closed meanwhile is noticed before it is used, as far as that can be known by then.
"""

from __future__ import annotations

import errno
import math
import select
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent.monkey
from gevent import socket, ssl
from geventhttpclient.response import HTTPParseError, HTTPResponse

from loadtests.results import CLOSED, CONNECT, NOT_HTTP, NOT_SENT, TIMEOUT, TOO_LARGE

RECEIVE_BYTES = 65_536
HEAD_BYTES, FIELDS, INFORMATIONAL = 65_536, 100, 20  # at most, of an answer: the latter two with informational answers
MOST_BYTES = 16 << 20  # of an answer whose size is not known better
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM}  # our side's fault
Address = tuple[int, Any]  # family, and what `connect` takes
_poll = gevent.monkey.get_original("select", "poll")  # gevent's own would go through its event loop


class TooLarge(HTTPParseError):
    """An answer has more than any right one."""


class Answer(HTTPResponse):
    """An answer that is read as it comes, with few headers and few informational answers before it.

    Each of them costs the generator time, which would make everything else late.
    """

    def __init__(self) -> None:
        super().__init__("POST")
        self._received, self._informational, self._is_final = 0, 0, False

    def take(self, data: bytes, most: int) -> None:
        """Take what came of the answer, which may have `most` bytes; raises `HTTPParseError` or `ValueError`."""
        self.feed(data)
        self._received += len(data)
        if self._received > (most if self.headers_complete else HEAD_BYTES):
            raise TooLarge

    def _on_message_begin(self) -> None:
        if self._is_final:
            raise HTTPParseError("more than one answer came")
        super()._on_message_begin()

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self._is_final = self.status_code >= 200
        self._informational += not self._is_final
        if self._informational > INFORMATIONAL:
            raise TooLarge

    def _flush_header(self) -> None:
        super()._flush_header()
        if self._header_position > FIELDS:
            raise TooLarge


class ServerReply(NamedTuple):
    """An answer, or the index in `results.ERRORS` of what came instead."""

    error: int
    response: HTTPResponse | None = None

    @property
    def body(self) -> bytes:
        return bytes(self.response._body_buffer) if self.response else b""


class Kept(NamedTuple):
    """A connection, and since when there is one, on `time.perf_counter`."""

    connection: socket.socket
    since: float


class Connections:
    """Connections to one server, kept for at most `keep` seconds. Raises `OSError`.

    Its name is looked up once, when this is made. Of several addresses, as `localhost` may have, the first that can be
    connected to then is used.
    """

    def __init__(self, url: str, timeout: float, keep: float | None = None):
        parts = urlsplit(url)
        self._timeout, self._name, self._keep = timeout, parts.hostname, math.inf if keep is None else keep
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        port = parts.port or (443 if self._tls else 80)
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        self._family, self._address = reachable([(family, address) for family, _, _, _, address in found], timeout)
        self._idle: list[Kept] = []

    def exchange(self, request: bytes, most: int = MOST_BYTES) -> ServerReply:
        """Send a request and wait for its answer of at most so many bytes, at most until the timeout."""
        until = time.perf_counter() + self._timeout
        try:
            kept = self._take(until)
        except TimeoutError:
            return ServerReply(TIMEOUT)
        except OSError as error:
            return ServerReply(NOT_SENT if error.errno in EXHAUSTED else CONNECT)
        reply = self._converse(kept.connection, request, until, most)
        if reply.response is None or reply.response.should_close():
            kept.connection.close()
        else:
            self._idle.append(kept)
        return reply

    def _converse(self, connection: socket.socket, request: bytes, until: float, most: int) -> ServerReply:
        response = Answer()
        try:
            connection.settimeout(left(until))
            connection.sendall(request)
            while not response.message_complete or response.status_code < 200:
                connection.settimeout(left(until))
                data = connection.recv(RECEIVE_BYTES)
                response.take(data, most)
                if not data and not response.message_complete:
                    return ServerReply(CLOSED)
        except (HTTPParseError, ValueError) as error:  # the latter for headers that are no text
            return ServerReply(TOO_LARGE if isinstance(error, TooLarge) else NOT_HTTP)
        except OSError as error:
            return ServerReply(TIMEOUT if isinstance(error, TimeoutError) else CLOSED)
        return ServerReply(0, response)

    def _take(self, until: float) -> Kept:
        while self._idle:
            kept = self._idle.pop()
            if time.perf_counter() - kept.since < self._keep and not _readable(kept.connection):
                return kept
            kept.connection.close()
        return Kept(self._connect(until), time.perf_counter())

    def _connect(self, until: float) -> socket.socket:
        connection = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            connection.settimeout(left(until))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.connect(self._address)
            connection.settimeout(left(until))
            return self._tls.wrap_socket(connection, server_hostname=self._name) if self._tls else connection
        except OSError:
            connection.close()
            raise

    def close(self) -> None:
        while self._idle:
            self._idle.pop().connection.close()


def left(until: float) -> float:
    """Return the seconds until then on `time.perf_counter`; raises `TimeoutError` where none are left."""
    seconds = until - time.perf_counter()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def reachable(addresses: Sequence[Address], timeout: float) -> Address:
    """Return the first address that can be connected to; the first of all where none can, or there is only one."""
    for family, address in addresses if len(addresses) > 1 else ():
        with suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(address)
            return family, address
    return addresses[0]


def _readable(connection: socket.socket) -> bool:
    """Return whether something can be read from an idle connection: that can only be its end."""
    poll = _poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
