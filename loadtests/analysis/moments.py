"""Put moments of the cluster on the run's clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loadtests import results
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation, Stamp

Interval = tuple[float, float]  # of time, from and to


class Series:
    """A number that changes in steps; `at` the same time, the last one counts."""

    def __init__(self, steps: Iterable[tuple[float, Any]]):
        found = sorted(steps, key=lambda step: step[0])
        self.times, self.values = [at for at, _ in found], [value for _, value in found]

    def at(self, time: float, before: Any = None) -> Any:
        index = bisect_right(self.times, time)
        return self.values[index - 1] if index else before

    def first(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """The first time from `since` on at which it holds; None: never."""
        if holds(self.at(since, before)):
            return since
        later = (at for at, value in zip(self.times, self.values, strict=True) if at > since and holds(value))
        return next(later, None)

    def settled(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """From when on it holds to the end, not before `since`; None: not at the end."""
        found = since if holds(self.at(since, before)) else None
        for at, value in zip(self.times, self.values, strict=True):
            if at > since:
                found = (at if found is None else found) if holds(value) else None
        return found


# --- clocks ----------------------------------------------------------------------------------------------------------


def clock_of(found: Sequence[AnyObservation]) -> results.ClusterClock | None:
    """The best that is known of the API server's clock."""
    heard = [fact for fact in found if isinstance(fact, observations.Clock)]
    if not heard:
        return None
    best = min(heard, key=lambda fact: fact.error)
    return results.ClusterClock(
        zero=best.offset, error_seconds=best.error, skew_seconds=best.skew, answers=max(f.answers for f in heard)
    )


def moment(fact: AnyObservation, stamp: Stamp, clock: results.ClusterClock | None) -> tuple[float, bool]:
    """When what a fact says came to be, and whether that is by its stamp."""
    if fact.live or stamp is None or clock is None:
        return fact.at, False
    return min(stamp - clock.zero, fact.at), True
