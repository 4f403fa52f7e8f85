"""Measure how long it took from a burst's start until the SLO held again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from loadtests.analysis.measures import Floats, Mask, Run, over
from loadtests.analysis.method import HOLD_SECONDS, WINDOW_REQUESTS, WINDOW_SECONDS, WINDOW_STEP, WINDOWS_APART
from loadtests.results import ANSWERED, Recovery

NOTHING = Recovery(breached_at=None, recovered_at=None, seconds=None, after_burst_seconds=None, broken_again_at=[])


class Breach(NamedTuple):
    """A time in which the SLO was broken.

    `at`: the first request over the limit. `ended`: the start of the first of the windows that hold after it; `None`
    if none do. `held`: for how many seconds the SLO held from there on, as far as is known.
    """

    at: float
    ended: float | None
    held: float


def recovery(run: Run) -> Recovery:
    """Return when the SLO was broken since the burst's start, and how long it took until it held again.

    A rolling window breaks the SLO if the p95 of its requests, by intended time, is over the limit. Refused and failed
    requests count as infinitely slow. The SLO is recovered at the end of the first breach after which it holds for
    `HOLD_SECONDS` and is not broken again in the same phase. Without a burst, or where steps are meant to break the
    SLO, everything is `None`.
    """
    burst = run.burst
    if burst is None or any(span.phase.steps for span in run.plan.spans if span.end > burst.start):
        return NOTHING
    found = breaches(run, burst.start)
    if not found:
        return NOTHING.model_copy(update={"seconds": 0.0, "after_burst_seconds": 0.0})
    recovered = next((breach.ended for number, breach in enumerate(found) if _is_last(run, found, number)), None)
    last = found[-1]
    return Recovery(
        breached_at=found[0].at,
        recovered_at=recovered,
        seconds=None if recovered is None else round(recovered - burst.start, 3),
        after_burst_seconds=None if recovered is None else max(0.0, round(recovered - burst.end, 3)),
        broken_again_at=[breach.at for breach in found[1:]],
        held_at_end_seconds=last.held if recovered is None and last.ended is not None else None,
    )


def _is_last(run: Run, found: list[Breach], number: int) -> bool:
    """Return whether the SLO recovered with the end of this breach."""
    breach = found[number]
    if breach.ended is None or breach.held < HOLD_SECONDS - 1e-6:
        return False
    phases = run.plan.phase_of(np.array([breach.ended, *(later.at for later in found[number + 1 :])]))
    return not (phases[1:] == phases[0]).any()


def breaches(run: Run, since: float) -> list[Breach]:
    """Return each time from `since` seconds on in which the SLO was broken, in order.

    Between two of them it held for at least `WINDOWS_APART` windows in a row.
    """
    starts, width, broken = windows(run, since)
    ends = np.append(np.flatnonzero(broken), len(broken))  # what comes after the run's end is not known
    held = ends[np.searchsorted(ends, np.arange(len(broken)))] - np.arange(len(broken))  # windows in a row, from each
    slow = run.intended[over_limit(run)]
    found, begin = list[Breach](), int(ends[0])
    while begin < len(broken):
        at = round(float(slow[np.searchsorted(slow, starts[begin])]), 3)
        after = np.flatnonzero((held >= WINDOWS_APART) & (starts >= at))
        if not len(after):
            return [*found, Breach(at, None, 0.0)]
        first = int(after[0])
        seconds = (held[first] - 1) * WINDOW_STEP + width
        found.append(Breach(at, round(float(starts[first]), 3), round(float(seconds), 3)))
        begin = first + int(held[first])
    return found


def over_limit(run: Run) -> Mask:
    """Return which requests were slower than the SLO's p95, refused or failed, `[requests]`."""
    slow: Mask = ~((run.outcome == ANSWERED) & (run.latency <= run.plan.scenario.slo.p95_ms))
    return slow


def windows(run: Run, since: float) -> tuple[Floats, float, Mask]:
    """Return the starts of the rolling windows `[windows]`, their width in seconds, and whether each breaks the SLO."""
    width = max(WINDOW_SECONDS, WINDOW_REQUESTS / run.plan.base)
    starts = np.arange(since, run.seconds - width + 1e-9, WINDOW_STEP)
    total = np.concatenate([[0], np.cumsum(over_limit(run))])
    first, last = np.searchsorted(run.intended, starts), np.searchsorted(run.intended, starts + width)
    return starts, width, over(total[last] - total[first], last - first)
