"""Time the phases of the start. Imported before anything heavy: the first phase ends with this import."""

from __future__ import annotations

import os
import time
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
