"""Estimate how far the API server's clock is from this one."""

from __future__ import annotations

import time

from loadtests.cluster import observations

CLOCK_SECONDS = 5.0


# --- clocks ----------------------------------------------------------------------------------------------------------


class Clock:
    """What must be added to `time.monotonic` to have the API server's clock, from the `Date` of its answers.

    A server that says `d` for an answer between `asked` and `came` had a time in [d, d + 1) then, so that the offset
    lies between d - came and d + 1 - asked. All answers together leave what these intervals have in common. Where
    they have nothing in common, a clock was set (or several servers answer), and it begins anew.
    """

    def __init__(self) -> None:
        self._low, self._high, self._answers = -float("inf"), float("inf"), 0

    def hear(self, date: float, asked: float, came: float) -> bool:
        """Take an answer; whether the offset is better known now."""
        before, self._answers = self._high - self._low, self._answers + 1
        low, high = max(self._low, date - came), min(self._high, date + 1 - asked)
        self._low, self._high = (low, high) if low < high else (date - came, date + 1 - asked)
        return self._high - self._low != before

    def observation(self) -> observations.Clock:
        now, offset = time.monotonic(), (self._low + self._high) / 2
        return observations.Clock(
            at=now,
            offset=offset,
            error=(self._high - self._low) / 2,
            skew=now + offset - time.time(),
            answers=self._answers,
        )
