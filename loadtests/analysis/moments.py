"""Put moments of the cluster on the run's axis of time, and follow numbers that change in steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from loadtests import results
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation, Stamp

Interval = tuple[float, float]  # of time, in seconds: from and to


class StepFunction:
    """A number that changes in steps; of several steps at the same time, the last one counts."""

    def __init__(self, steps: Iterable[tuple[float, Any]]):
        found = sorted(steps, key=lambda step: step[0])
        self.times, self.values = [at for at, _ in found], [value for _, value in found]

    def at(self, time: float, before: Any = None) -> Any:
        """Return the value at a time; `before` if that is before the first step."""
        index = bisect_right(self.times, time)
        return self.values[index - 1] if index else before

    def first(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """Return the first time from `since` on at which `holds` is true; `None` if it never is."""
        if holds(self.at(since, before)):
            return since
        later = (at for at, value in zip(self.times, self.values, strict=True) if at > since and holds(value))
        return next(later, None)

    def settled(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """Return from when on `holds` is true to the end, at the earliest `since`; `None` if it is not at the end."""
        found = since if holds(self.at(since, before)) else None
        for at, value in zip(self.times, self.values, strict=True):
            if at > since:
                found = (at if found is None else found) if holds(value) else None
        return found


def value_at(steps: StepFunction | None, time: float, before: Any = None) -> Any:
    """Return the value at a time, as `StepFunction.at`; `None` where the number is not known."""
    return None if steps is None else steps.at(time, before)


def step_times(*numbers: StepFunction | None) -> list[float]:
    """Return the times at which any of the numbers that are known has a step, in order."""
    return sorted({at for steps in numbers if steps is not None for at in steps.times})


# --- clocks ----------------------------------------------------------------------------------------------------------


def clock_of(found: Sequence[AnyObservation]) -> results.ClusterClock | None:
    """Return the most exact observation of the API server's clock; `None` without any."""
    heard = [observed for observed in found if isinstance(observed, observations.ClockReading)]
    if not heard:
        return None
    best = min(heard, key=lambda observed: observed.error)
    return results.ClusterClock(
        zero=best.offset, error_seconds=best.error, skew_seconds=best.skew, answers=max(f.answers for f in heard)
    )


def moment(observed: AnyObservation, stamp: Stamp, clock: results.ClusterClock | None) -> tuple[float, bool]:
    """Return when a change that was observed took place, and whether the object itself says so by its stamp."""
    if observed.live or stamp is None or clock is None:
        return observed.at, False
    return min(stamp - clock.zero, observed.at), True
