"""Describe this computer."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path


def computer() -> dict[str, str]:
    """Return processor, kernel and Python of this computer, by name."""
    return {
        "cpu": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def caption(machine: Mapping[str, str]) -> str:
    """Return what `computer` returned, in one line."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, Python {machine['python']}"
