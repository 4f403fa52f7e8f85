"""The values of `weight_g` that `faulty.py` reacts to, and the gate at which it holds a batch."""

from __future__ import annotations

import time
from pathlib import Path

WEDGE = 6661.0  # blocks the event loop until the test lets it go on
DIE = 6662.0  # ends the scorer
SLOW = 6663.0  # takes its time
BREAK = 6665.0  # from now on every batch fails
HELD = 6666.0  # takes until the test lets it go on


class Gate:
    """Holds a batch in the server's scorer until the test opens it. Both have the directory."""

    def __init__(self, directory: Path):
        self._directory = directory

    @property
    def reached(self) -> bool:
        """Whether a batch is held, or was."""
        return (self._directory / "reached").exists()

    def open(self) -> None:
        (self._directory / "open").touch()

    def hold(self) -> None:
        """Wait until the gate is open."""
        (self._directory / "reached").touch()
        while not (self._directory / "open").exists():
            time.sleep(0.005)
