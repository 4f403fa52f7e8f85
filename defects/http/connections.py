"""All connections of a listener: how many there may be, and what becomes of those whose callers keep them waiting.

A connection beyond the limit is not refused without a word, and health is answered on it as always: it gets one answer.
`SPARE` of such are open at a time, so that file descriptors never run out; one more takes the place of the oldest that
is not being answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from defects.settings import BadSetting

SPARE = 16  # connections beyond the limit, each for one answer
OTHER_FILES = 16  # descriptors for everything else, besides those that are open when a replica is built
LOOK_SECONDS = 1.0  # between looks at all connections
SHARE = 1_000  # connections that are looked at before others have their turn

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """What is looked at."""

    transport: Any

    @property
    def busy(self) -> bool: ...
    def look(self, now: float) -> None: ...


class Connections:
    """The open connections, at most `most` and `SPARE` more; `ended` is told why one was closed before its time."""

    def __init__(self, most: int, ended: Callable[[str], None]):
        self.most, self.ended = most, ended
        self.open: set[Connection] = set()
        self._crowd: dict[Connection, None] = {}  # those beyond the limit, in their order
        self._full = False

    def add(self, connection: Connection) -> bool:
        """Add a new connection; return whether it is beyond the limit."""
        self.open.add(connection)
        if len(self.open) <= self.most:
            return False
        self._log_full()
        self._crowd[connection] = None
        if len(self._crowd) > SPARE:
            oldest = next((other for other in self._crowd if not other.busy), connection)
            del self._crowd[oldest]
            self.end(oldest, "crowded")
        return True

    def end(self, connection: Connection, reason: str) -> None:
        """Close a connection at once, and tell why."""
        self.ended(reason)
        connection.transport.abort()

    def discard(self, connection: Connection) -> None:
        """Take out a connection that was closed."""
        self.open.discard(connection)
        self._crowd.pop(connection, None)
        if self._full and len(self.open) < 0.9 * self.most:
            self._full = False

    def _log_full(self) -> None:
        if self.most and not self._full:
            self._full = True
            fields = {"connections": len(self.open), "most": self.most}
            logger.warning("too many connections: others than health are refused", extra={"fields": fields})

    async def watch(self) -> None:
        """Look after every connection once a second, until cancelled.

        Not after a stall, when what callers have sent is still to be read.
        """
        while True:
            due = time.perf_counter() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            if time.perf_counter() > due + LOOK_SECONDS:
                continue
            for number, connection in enumerate([*self.open], 1):
                self._look(connection)
                if number % SHARE == 0:
                    await asyncio.sleep(0)

    @staticmethod
    def _look(connection: Connection) -> None:
        try:
            connection.look(time.perf_counter())
        except Exception:  # one connection's trouble must not leave all others unwatched
            logger.exception("a connection could not be looked after")
            connection.transport.abort()

    def abort(self) -> None:
        """Close all of them at once."""
        for connection in [*self.open]:
            connection.transport.abort()


def most_connections(wanted: int | None) -> int:
    """Return how many connections there may be: `wanted`, or what the limit of open files allows.

    Raises `BadSetting` where that is less.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = min(allowed, 1 << 20) - _open_files() - OTHER_FILES - 2 * SPARE  # one share for the health listener
    if wanted is None and most >= 1:
        return most
    if wanted is None or wanted > most:
        expected = f"expected a limit (ulimit -n) of at least {allowed - most + (wanted or 1)}"
        fewer = f", or at most {most} connections" if most >= 1 else ""
        raise BadSetting(
            f"DEFECTS_MAX_CONNECTIONS: {wanted or 1} exceed the limit of {allowed} open files; {expected}{fewer}"
        )
    return wanted


def _open_files() -> int:
    with suppress(OSError):  # not on this system
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    return 32


def raise_file_limit() -> None:
    """Allow this process as many open files as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
