"""Lay out axes: round numbers to mark, where values lie, and texts that keep apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ROUND = (1, 2, 5)


class Scale(NamedTuple):
    """An axis whose values from `low` to `high` lie at pixels from `start` to `end`; logarithmic ones are above 0."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return a value's pixel; values beyond an end lie at that end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Return at least two and at most `most` (3 or more) round numbers, ascending."""
        return (_log_ticks if self.log else _even_ticks)(self.low, self.high, most)


def even(values: Iterable[float | None], start: float, end: float, *, most: int, whole: bool = False) -> Scale:
    """Return an axis from 0 to a round number above all values, whose even parts `most` ticks can mark; `whole`: only
    whole numbers.
    """
    top = 1.02 * (max((value for value in values if value is not None), default=0.0) or 1.0)
    step = max(1.0, _step(top, most)) if whole else _step(top, most)
    return Scale(0.0, step * math.ceil(top / step), start, end)


def logarithmic(values: Iterable[float | None], start: float, end: float) -> Scale:
    """Return an axis between round numbers around all values above 0, of at least a decade."""
    above = [value for value in values if value is not None and value > 0] or [1.0]
    low, high = _round_down(min(above)), _round_up(max(above))
    while high < 9.99 * low:
        low, high = (low, _round_up(1.01 * high)) if high / max(above) < min(above) / low else (
            _round_down(0.99 * low), high)  # fmt: skip
    return Scale(low, high, start, end, log=True)


def _step(span: float, most: int) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten of which at most `most` - 1 make the span."""
    return _round_up(span / (most - 1))


def _even_ticks(low: float, high: float, most: int) -> list[float]:
    step = _step(high - low, most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first < 1:  # a round number that is close to either end hides the others
        return [low, high]
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1
    for factors, every in ((ROUND, 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 5)):
        found = [factor * 10.0**power for power in range(first, last) if power % every == 0 for factor in factors]
        found = [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(found) <= most:
            return found if len(found) > 1 else [low, high]
    return [low, high]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (*ROUND, 10) if factor * power >= value * (1 - 1e-9))


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (10, *reversed(ROUND)) if factor * power <= value * (1 + 1e-9))


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places moved to be `gap` apart, and between `low` and `high` where there is room; their order stays."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved, least = list(places), low
    for index in order:
        moved[index] = least = max(places[index], least)
        least += gap
    most = high
    for index in reversed(order):
        moved[index] = most = min(moved[index], most)
        most -= gap
    return moved


def rows_for(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Return, for each span (left, right), the first row from 0 in which it overlaps none before it."""
    ends: list[float] = []
    found = []
    for left, right in spans:
        row = next((number for number, end in enumerate(ends) if end <= left), len(ends))
        ends[row:] = [right, *ends[row + 1 :]]
        found.append(row)
    return found


def figure(value: float | None) -> str:
    """Return a number with about three digits: enough to compare by, no more than is known."""
    if value is None:
        return "–"
    size = abs(value)
    digits = 0 if size >= 99.95 or value == int(value) else 1 if size >= 9.995 else 2 if size >= 0.995 else 3
    return f"{value:,.{digits}f}"


def mark(tick: float) -> str:
    """Return a round number as it stands beside an axis."""
    return f"{tick:,.10g}"


def percent(share: float | None) -> str:
    """Return a share in percent; small ones with two digits, and never 0 % where there is something."""
    if share is None:
        return "–"
    return f"{100 * share:.2g} %" if share and abs(share) < 0.095 else f"{figure(round(100 * share, 1))} %"
