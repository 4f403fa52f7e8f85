"""Describe what a benchmark runs on, and what else keeps it busy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable
from importlib.metadata import version

import psutil

from benchmarks import wrk
from tools.computer import computer

LIBRARIES = ("bentoml", "onnxruntime", "scikit-learn", "numpy", "uvicorn", "uvloop", "httptools", "fastapi", "pydantic")


def describe() -> dict[str, str]:
    """Return processor, kernel, Python and the versions of everything that is compared."""
    return {**computer(), **{name: version(name) for name in LIBRARIES}, "wrk": _wrk()}


def _wrk() -> str:
    done = subprocess.run(  # noqa: S603 - our own command
        [wrk.executable(), "-v"], capture_output=True, text=True, timeout=10, check=False
    )
    words = done.stdout.split()
    return words[1] if len(words) > 1 else "unknown"


class Busy:
    """How busy some cores are with something else than what is being measured, from when this is made."""

    def __init__(self, cores: Iterable[int]):
        self._cores = tuple(cores)
        self._started, self._before = time.perf_counter(), self._seconds()

    def _seconds(self) -> float:
        """Return the seconds that programs, the kernel and other machines on the same processor took of the cores."""
        each = psutil.cpu_times(percpu=True) if self._cores else []
        idle = ("idle", "iowait", "guest", "guest_nice")  # a guest's time is in the user's too
        busy = [name for name in each[0]._fields if name not in idle] if each else []
        return sum((float(getattr(each[core], name)) for core in self._cores for name in busy), 0.0)

    def others(self, measured: float) -> float:
        """Return the share of the cores' time that others took, when `measured` CPU seconds were not theirs."""
        passed = (time.perf_counter() - self._started) * max(1, len(self._cores))
        return max(0.0, (self._seconds() - self._before - measured) / passed)
