"""When requests leave: a schedule that is computed beforehand from a rate profile and a seed.

Poisson arrivals come from the exact inversion of the cumulative rate (Çinlar, Introduction to Stochastic Processes,
1975): if E1, E2, … arrive at rate 1, then the times at which the expected number of arrivals reaches them are arrivals
at the given rate. Evenly spaced ones are the times at which it reaches 0, 1, 2, ….
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]  # seconds since the begin, ascending
Spacing = Literal["poisson", "even"]


class Segment(NamedTuple):
    """A stretch in which the rate, in requests per second, changes evenly from `first` to `last`."""

    seconds: float
    first: float
    last: float

    @property
    def expected(self) -> float:
        """Expected number of arrivals."""
        return self.seconds * (self.first + self.last) / 2


Profile = Sequence[Segment]


def steps(first: float, last: float, factor: float, seconds: float) -> list[Segment]:
    """Return segments with rates from `first`, each `factor` times the one before, up to `last`; `seconds` each."""
    rates = [first]
    while rates[-1] * factor <= last * (1 + 1e-9):
        rates.append(rates[-1] * factor)
    return [Segment(seconds, rate, rate) for rate in rates]


def spikes(seconds: float, rate: float, high: float, every: float, wide: float) -> list[Segment]:
    """Return segments with `rate`, and with `high` for `wide` seconds at the begin of every `every` seconds."""
    return list(_spikes(seconds, rate, high, every, wide))


def _spikes(seconds: float, rate: float, high: float, every: float, wide: float) -> Iterator[Segment]:
    number = 0
    while (left := seconds - number * every) > 1e-9:
        yield Segment(min(wide, left), high, high)
        if left > wide:
            yield Segment(min(every, left) - wide, rate, rate)
        number += 1


def schedule(profile: Profile, spacing: Spacing, seed: int) -> Times:
    """Return the intended times of all requests. The same profile, spacing and seed give the same times."""
    expected = sum(segment.expected for segment in profile)
    levels = np.arange(0.0, expected) if spacing == "even" else _unit_poisson(expected, np.random.default_rng(seed))
    return times_at(profile, levels)


def _unit_poisson(until: float, random: np.random.Generator) -> Times:
    """Return arrivals at rate 1 before `until`."""
    levels = np.cumsum(random.exponential(size=int(until + 6 * until**0.5) + 16))
    while levels[-1] < until:
        levels = np.concatenate([levels, levels[-1] + np.cumsum(random.exponential(size=64))])
    return levels[levels < until]


def times_at(profile: Profile, levels: Times) -> Times:
    """Return when the expected number of arrivals since the begin reaches each of the ascending `levels`."""
    ends = np.cumsum([segment.expected for segment in profile])
    starts = np.concatenate([[0.0], np.cumsum([segment.seconds for segment in profile])[:-1]])
    # Which segment a level falls into; one in which nothing arrives has none.
    index = np.minimum(np.searchsorted(ends, levels, side="right"), len(profile) - 1)
    first = np.array([segment.first for segment in profile])[index]
    seconds = np.array([segment.seconds for segment in profile])[index]
    slope = np.array([(s.last - s.first) / s.seconds for s in profile])[index]
    within = levels - (ends - [segment.expected for segment in profile])[index]
    # The positive solution of first * x + slope / 2 * x² = within, in the form that no subtraction makes inexact.
    root = first + np.sqrt(np.maximum(first**2 + 2 * slope * within, 0.0))
    x = np.divide(2 * within, root, out=np.zeros_like(within), where=root > 0)
    return np.maximum.accumulate(starts[index] + np.minimum(x, seconds)) if len(levels) else np.empty(0)


def part(index: int, of: int) -> slice:
    """Return the slice that worker `index` of `of` sends: every `of`-th request."""
    return slice(index, None, of)
