"""Fetch what is at a URL, in a bounded time and of a bounded size, whatever the server does.

A timeout of each read would be none in all: a server that sends a byte now and then would never be given up. Works on
plain sockets, and on those that gevent has put in their place.
"""

from __future__ import annotations

import http.client
import io
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import Any
from urllib import request as urllib
from urllib.error import HTTPError

from tools.urls import NO_HEADERS, RequestHeaders, is_loopback

MOST_BYTES = 16 << 20  # of an answer with its head, and with those of redirections
HEAD_BYTES = 1 << 18  # of its head, with informational answers before it
PIECE = 1 << 16
SHOWN = 200  # characters of an error
UNREADABLE = (OSError, ValueError, http.client.HTTPException)  # what reading an answer may raise


class TooLarge(OSError):
    """An answer is larger than any that is expected; one line says so."""


def shown(error: Exception) -> str:
    """Return what an error says, in one line that may be shown: much of it may be the server's own words."""
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in text[:SHOWN])


class Budget:
    """What an answer may take: `seconds` from when this is made, and `most` bytes."""

    def __init__(self, seconds: float, most: int = MOST_BYTES):
        self._seconds, self._until, self._most, self._spent = seconds, time.monotonic() + seconds, most, 0
        self._sockets: list[socket.socket] = []

    def left(self) -> float:
        """Return the seconds that are left; raises `TimeoutError` where there are none."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise self.timeout
        return left

    @property
    def timeout(self) -> TimeoutError:
        """The error that says that the time is over."""
        return TimeoutError(f"no complete answer within {self._seconds:g} s")

    def spend(self, count: int) -> None:
        """Take bytes that came; raises `TooLarge` where they are too many, `TimeoutError` where it is too late."""
        self._spent += count
        if self._spent > self._most:
            raise TooLarge(f"the answer has more than {self._most} bytes")
        self.left()

    def connected(self, address: tuple[str, int], *_options: object) -> socket.socket:
        """Return a connection; of several addresses, to the first that can be connected to. Raises `OSError`."""
        problem = OSError(f"{address[0]} has no address")
        for family, kind, protocol, _, found in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(self.left())
                connection.connect(found)
                connection.settimeout(self.left())
                self._sockets.append(connection.dup())  # TLS will take the other one over
            except OSError as error:
                connection.close()
                problem = error
            else:
                return connection
        raise problem

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Cut the connections that are made in the block when the time is over, however steadily a little more comes.

        A timeout of each operation would not do: in TLS, one of them waits for many bytes.
        """
        timer = threading.Timer(self.left(), self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            for connection in self._sockets:
                connection.close()

    def _cut(self) -> None:
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def fetch(
    url: str, seconds: float, headers: RequestHeaders = NO_HEADERS, *, by_proxy: bool = False, most: int = MOST_BYTES
) -> bytes:
    """Send a GET request, and return its answer's body; it may take `seconds`, and have `most` bytes with its head.

    It goes directly to the server. `by_proxy`: through the proxy that the environment names, if it names one for this
    URL; never to this machine. Redirections are followed. Raises one of `UNREADABLE`: `HTTPError` where the status is
    not 2xx, `TimeoutError`, `TooLarge`, or what else is wrong.
    """
    budget = Budget(seconds, most)
    opener = _opener(budget, by_proxy=by_proxy and not is_loopback(url))
    request = urllib.Request(url, headers=dict(headers))  # noqa: S310 - only http and https have a handler
    try:
        with budget.kept(), opener.open(request, timeout=seconds) as answer:
            body: bytes = answer.read()
    except HTTPError as error:
        error.close()
        raise
    except TimeoutError:
        raise budget.timeout from None
    except UNREADABLE:
        budget.left()  # once that is over, it is the reason for everything
        raise
    budget.left()  # a body whose end is that of the connection was cut then
    return body


def _opener(budget: Budget, *, by_proxy: bool) -> urllib.OpenerDirector:
    """Return what opens a URL within the budget; in contrast to urllib's own, it knows no files and no FTP."""
    opener = urllib.OpenerDirector()
    for handler in (
        urllib.ProxyHandler(None if by_proxy else {}),
        urllib.UnknownHandler(),
        _HTTPHandler(budget),
        _HTTPSHandler(budget),
        urllib.HTTPDefaultErrorHandler(),
        urllib.HTTPRedirectHandler(),
        urllib.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


class _HTTPHandler(urllib.HTTPHandler):
    def __init__(self, budget: Budget):
        super().__init__()
        self._budget = budget

    def http_open(self, req: urllib.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_within, http.client.HTTPConnection, self._budget), req)


class _HTTPSHandler(urllib.HTTPSHandler):
    def __init__(self, budget: Budget):
        super().__init__()
        self._budget = budget

    def https_open(self, req: urllib.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_within, http.client.HTTPSConnection, self._budget), req, context=_tls())


def _within(
    kind: Callable[..., http.client.HTTPConnection], budget: Budget, host: str, **options: Any
) -> http.client.HTTPConnection:
    """Return a connection within a budget."""
    connection = kind(host, **options)
    connection._create_connection = budget.connected  # type: ignore[attr-defined]
    connection.response_class = partial(_Response, budget=budget)  # type: ignore[assignment]
    return connection


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Response(http.client.HTTPResponse):
    """An answer within a budget. No memory is taken for what is only announced."""

    def __init__(self, sock: socket.socket, *arguments: Any, budget: Budget, **options: Any):
        super().__init__(sock, *arguments, **options)
        self._source = _Source(self.fp.detach(), budget)
        self.fp = io.BufferedReader(self._source, PIECE)

    def begin(self) -> None:
        """Read the head, and the informational answers before it."""
        super().begin()
        self._source.allow_body()

    def read(self, amt: int | None = None) -> bytes:
        if amt is not None:
            return super().read(amt)
        pieces = list(iter(partial(super().read, PIECE), b""))
        if self.length:  # `read` with a size does not say so
            raise http.client.IncompleteRead(b"".join(pieces), self.length)
        return b"".join(pieces)


class _Source(io.RawIOBase):
    """The bytes of a socket, counted."""

    def __init__(self, raw: io.RawIOBase, budget: Budget):
        self._raw, self._budget, self._head = raw, budget, 0.0

    def allow_body(self) -> None:
        self._head = -math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        time.sleep(0)  # with gevent, who sends without a pause would keep everything else from running
        count = self._raw.readinto(buffer)
        self._budget.spend(count or 0)
        self._head += count or 0
        if self._head > HEAD_BYTES:
            raise TooLarge(f"the answer's head has more than {HEAD_BYTES} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
