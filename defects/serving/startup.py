"""Time the phases of the start, and end it on signals.

Imported before anything heavy: the first phase ends with this import.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def _age() -> float:
    """Return the seconds since this process was started, as the kernel counts them (in ticks of usually 10 ms)."""
    try:
        ticks = int(Path("/proc/self/stat").read_text("utf-8").rsplit(")", 1)[1].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # not Linux
        return 0.0


_process_started = time.monotonic() - _age()
_last = time.monotonic()

seconds: dict[str, float] = {"interpreter": _last - _process_started}


def done(phase: str, at: float | None = None) -> None:
    """End `phase`, which began when the one before it ended; now, or `at` an earlier moment of `time.monotonic`.

    `ready` counts from the start of the process.
    """
    global _last  # noqa: PLW0603 - there is one start
    end = time.monotonic() if at is None else at
    seconds[phase] = end - (_process_started if phase == "ready" else _last)
    _last = end


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """End the process with 0 on SIGTERM, Ctrl-C and the end of a terminal: nothing was accepted that could be lost.

    `bentoml serve` has no handlers of its own yet while it imports the service.
    """
    numbers = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may set them
    before = [(number, signal.signal(number, lambda *_: os._exit(0))) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
