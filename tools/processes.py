"""Start processes on chosen cores, and end them."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 90.0
STOP_SECONDS = 15.0
PORTS = range(15_000, 32_000)  # below those that the kernel gives to connections: from 32768 on Linux


class Cores(NamedTuple):
    """Where servers and generator run; the same where there is but one core, or none can be chosen."""

    server: frozenset[int]
    generator: frozenset[int]

    @property
    def both(self) -> frozenset[int]:
        return self.server | self.generator

    @property
    def text(self) -> str:
        if self.server == self.generator:
            return "servers and generator share one core"
        return f"servers pinned to core {min(self.server)}, generator to core {min(self.generator)}"


@cache
def cores() -> Cores:
    """Return one core for servers and another for the generator, of those that this process had at the first call."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return Cores(frozenset(), frozenset())
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(allowed[-1:]), frozenset(allowed[:1]))


@contextmanager
def pinned(to: frozenset[int]) -> Iterator[None]:
    """Run the block, and the processes that it starts, on these cores."""
    if not to:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, to)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """Return a port of loopback that is free, and that nobody else gets from here while this process lives.

    Otherwise a process that looked at the same time, or any connection, could have it before the server that it is for.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with suppress(OSError), socket.socket() as s:
            if port not in _given:
                fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # until this process ends
                s.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise RuntimeError(f"every port from {PORTS.start} to {PORTS.stop - 1} is taken")


_given: set[int] = set()  # a process does not lock itself out


@cache
def _port_locks() -> int:
    """Return the descriptor of a file whose byte at the offset of a port is locked by whoever has got the port."""
    return os.open(Path(tempfile.gettempdir()) / f"ports-of-{os.getuid()}.lock", os.O_RDWR | os.O_CREAT, 0o600)


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """End a process, if it has not ended; kill it when it takes longer than `seconds`."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.wait()


def end_on_sigterm() -> None:
    """End as after an error on SIGTERM, so that servers are stopped too."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
