"""Whether this replica should get traffic, and if not, why not."""

from __future__ import annotations


class Health:
    """Not ready until verified: `problem` says why, in words that may be shown to anyone; `None` means ready."""

    def __init__(self) -> None:
        self.problem: str | None = "starting: the golden inputs have not been replayed yet"

    @property
    def ready(self) -> bool:
        return self.problem is None
