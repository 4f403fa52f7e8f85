"""Draw distributions on one logarithmic axis, a row of bars for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from defects.pages import axes
from defects.pages.axes import Scale, figure
from defects.pages.charts import GAP, WIDE
from defects.pages.html import element, join
from defects.pages.svg import AXIS, LINE, box, numbers, rule, svg, text

HEIGHT = 46  # of the bars of a row


class Distribution(NamedTuple):
    """`counts[i]` values lie from `edges[i]` to `edges[i + 1]`; of percentiles, those that are known are marked."""

    name: str
    edges: Sequence[float]
    counts: Sequence[int]
    percentiles: dict[str, float | None]
    limit: float

    def extent(self) -> tuple[float, float]:
        """Return the first and the last edge around a value."""
        there = [index for index, count in enumerate(self.counts) if count]
        return self.edges[there[0]], self.edges[there[-1] + 1]


def draw(rows: Sequence[Distribution], name: str, width: int, *, title: str, description: str, unit: str) -> Markup:
    """Return distributions below each other, each as high as its highest bar; nothing where there are none."""
    rows = [row for row in rows if any(row.counts)]
    if not rows:
        return Markup("")
    left, right = (16, width - 16)
    x = axes.logarithmic([edge for row in rows for edge in (*row.extent(), row.limit)], left, right)
    ticks, top, step = x.ticks(12 if width > WIDE else 6), 4.0, HEIGHT + GAP
    bottom = top + step * len(rows)
    parts = [rule(x(tick), top + LINE, x(tick), bottom, "grid") for tick in ticks]
    for number, row in enumerate(rows):
        parts += _bars(row, x, top + step * number)
    parts += numbers(x, ticks, bottom, width)
    parts.append(text((left + right) / 2, bottom + 32, unit, "tick", "middle"))
    return svg(name, width, bottom + AXIS + 6, title, description, *parts)


def _bars(row: Distribution, x: Scale, top: float) -> Iterator[Markup]:
    """Yield a row: its percentiles in words and as marks, and its bars; none is too low to be seen."""
    bottom, most = top + GAP + HEIGHT - 10, max(row.counts)
    yield text(x.start, top + LINE, join(element("tspan", row.name, class_="title"), *_words(row)), "tag")
    for count, (low, high) in zip(row.counts, pairwise(row.edges), strict=True):
        if count:
            height = max(1.5, HEIGHT * count / most)
            yield box(x(low), bottom - height, max(0.8, x(high) - x(low) - 0.6), height, "bar")
    yield rule(x.start, bottom, x.end, bottom, "base")
    for key, value in row.percentiles.items():
        if value is not None:
            yield rule(x(value), bottom - HEIGHT - 2, x(value), bottom + 4, f"line {key}")
    yield rule(x(row.limit), bottom - HEIGHT - 2, x(row.limit), bottom + 4, "line slo")


def _words(row: Distribution) -> Iterator[Markup]:
    for key, value in row.percentiles.items():
        yield element("tspan", f"{key} {figure(value)}", dx=12, class_=f"word {key}")
