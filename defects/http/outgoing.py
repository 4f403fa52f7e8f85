"""What leaves by a connection: whether its caller reads it, and how the connection is closed.

A caller that is still sending when it has its answer is listened to for a while: to close at once would reset the
connection, and the answer would be lost.

A head leaves together with what follows it. Proxies written in Go, such as Knative's queue-proxy, may close a
connection as soon as they pass on an answer's head. Of an answer in one piece they have read 4 KiB by then.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from defects.http.messages import Headers

WRITE_SECONDS, WRITE_RATE = 10.0, 4_096  # a caller reads at least so many bytes a second, over so many seconds
LINGER_SECONDS, LINGER_BYTES = 10.0, 1 << 26  # of what a caller sends that has its answer


class Outgoing:
    """A connection's transport, which counts what is written. `lingers` says whether its caller may still be sending.

    Times are those of `time.perf_counter`, in seconds.
    """

    __slots__ = (
        "_dropped",
        "_head",
        "_lingers",
        "_lingers_since",
        "_taken",
        "_transport",
        "_written",
        "_written_before",
        "closed",
    )

    def __init__(self, transport: Any, lingers: Callable[[], bool]):
        self._transport, self._lingers = transport, lingers
        self.closed, self._written = False, 0
        self._head = b""  # of an answer, until what follows it is written, or the event loop goes on
        self._taken = 0  # of what was written, when nothing of it was waiting
        self._written_before: tuple[float, int] | None = None  # when it was looked at last, and the bytes that had left
        self._lingers_since: float | None = None
        self._dropped = 0  # bytes that came since

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._head and data.startswith(b"HTTP/1."):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._flush(data)

    def _flush(self, data: bytes = b"") -> None:
        """Write what was held back, and `data`."""
        data, self._head = self._head + data, b""
        # Of several requests, uvicorn tells only the last that the caller is gone.
        if data and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    def respond(self, status: int, headers: Headers, body: bytes, server: ServerState) -> None:
        """Write an answer, with the headers that the server adds to all."""
        if self._head:
            self._flush()
        fields = map(b": ".join, (*server.default_headers, *headers))
        answer = b"".join((STATUS_LINE[status], b"\r\n".join(fields), b"\r\n\r\n", body))
        self._written += len(answer)
        self._transport.write(answer)

    def is_closing(self) -> bool:
        return self.closed or bool(self._transport.is_closing())

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._transport.is_closing():  # a caller may have gone away without anybody being told as yet
            self._transport.resume_reading()

    def close(self) -> None:
        """Close, now or when the caller has stopped sending; a second time: now."""
        self._flush()
        again, self.closed = self.closed, True
        if again or self._transport.is_closing() or not self._lingers():
            self._transport.close()
            return
        self._lingers_since = time.perf_counter()
        self._transport.write_eof()
        if not self._transport.is_reading():
            self._transport.resume_reading()

    def drop(self, size: int) -> None:
        """Drop what comes after the last answer."""
        self._dropped += size
        if self._dropped > LINGER_BYTES:
            self._transport.abort()

    def overstays(self, now: float) -> bool:
        """Whether the caller has not stopped sending for too long after the last answer."""
        return self._lingers_since is not None and now - self._lingers_since > LINGER_SECONDS

    def stalls(self, now: float) -> bool:
        """Whether the caller reads its answers more slowly than `WRITE_RATE`; to be asked regularly."""
        if self._written == self._taken:
            return False
        waiting = self._transport.get_write_buffer_size() + self._held_by_the_kernel()
        if not waiting:
            self._written_before, self._taken = None, self._written
            return False
        left = self._written - waiting
        if self._written_before is None:
            self._written_before = (now, left)
        since, before = self._written_before
        if now - since < WRITE_SECONDS:
            return False
        self._written_before = (now, left)
        return bool(left - before < WRITE_RATE * WRITE_SECONDS)

    def _held_by_the_kernel(self) -> int:
        """Return how many bytes the kernel still has, which may be megabytes: the caller has not taken them."""
        size = bytearray(4)
        with suppress(OSError, ValueError):  # not on this system, or closed just now
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, size)
        return int.from_bytes(size, sys.byteorder)
