"""Say whether this replica should get traffic, and whether it can make progress.

Readiness: the golden inputs were answered correctly, it is not draining, and where answers have to be recorded, they
can be. Liveness: the event loop runs on time and the scorer finishes its batches. How a replica drains is in
`drain.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

LOOP_LAG_SECONDS = 5.0  # an event loop that was blocked for so long is not alive
SCORER_SECONDS = 60.0  # nor is a scorer that takes so long for a batch
BEAT_SECONDS = 0.5

Verification = Literal["starting", "ready", "wrong_answers", "no_model"]


class Health:
    """The state of this replica: what its verification gave, whether it drains, and whether it is stuck.

    `batch_seconds` returns how long the scorer has been at a batch. A request may take at most `finish_seconds` while
    the replica is draining.
    """

    def __init__(self, finish_seconds: float, batch_seconds: Callable[[], float]) -> None:
        self.draining = False
        self.finish_seconds = finish_seconds
        self._verification: Verification = "starting"
        self._problem = "the golden inputs have not been answered yet"
        self._batch_seconds = batch_seconds
        self.history_problem: Callable[[], str | None] = lambda: None  # why answers can't be given, for want of records
        self._beat: float | None = None

    @property
    def reason(self) -> str:
        """Why this replica is ready or not, as one of a few words."""
        if self.draining:
            return "draining"
        if self.serving and self.stuck():
            return "stuck"
        return "history" if self.serving and self.history_problem() else self._verification

    @property
    def problem(self) -> str | None:
        """Why this replica is not ready, in words that anyone may see; `None` when it is."""
        if self.draining:
            return "this replica is shutting down"
        return self.stuck() or self.history_problem() if self.serving else self._problem

    @property
    def ready(self) -> bool:
        """Whether this replica should get traffic."""
        return self.reason == "ready"

    @property
    def serving(self) -> bool:
        """Whether predictions are answered: also while draining, but never where they would be wrong."""
        return self._verification == "ready"

    def set_verification(self, result: Verification, problem: str = "") -> None:
        """Set what the verification gave; `problem` says why it is not `ready`."""
        self._verification, self._problem = result, problem

    def stuck(self) -> str | None:
        """Return why this process can't make progress; `None` when it can."""
        late = 0.0 if self._beat is None else time.monotonic() - self._beat - BEAT_SECONDS
        if late > LOOP_LAG_SECONDS:
            return f"the event loop was blocked for {late:.1f} s"
        if self._batch_seconds() > SCORER_SECONDS:
            return f"the scorer has been at one batch for {self._batch_seconds():.0f} s"
        return None

    async def beat(self) -> None:
        """Note every `BEAT_SECONDS` that the event loop runs, until cancelled."""
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
