"""Draw how much each feature matters: what shuffling it costs on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from defects.pages import axes, svg
from defects.pages.axes import Scale
from defects.pages.charts import WIDE
from defects.pages.html import element
from defects.pages.layout import WIDTHS
from defects.pages.svg import AXIS, fitted, numbers, pixels, rule, text
from defects.training.card_page import reading, words

MOST, ROW = 20, 22  # features that are drawn, and pixels of each
NAMES = {WIDTHS["wide"]: 300.0, WIDTHS["medium"]: 220.0, WIDTHS["narrow"]: 130.0}  # pixels of names, at most


class Importance(NamedTuple):
    """How much the log loss grows when a feature is shuffled."""

    feature: str
    mean: float
    deviation: float


def importances(card: Any) -> list[Importance]:
    """Return what the card has, the highest first."""
    found = [
        Importance(reading.text(item, "feature"), mean, reading.number(item, "standard_deviation") or 0.0)
        for item in reading.items(card, "importances")
        if (mean := reading.number(item, "mean")) is not None and reading.text(item, "feature")
    ]
    return sorted(found, key=lambda item: -item.mean)


def draw(found: Sequence[Importance], width: int, name: str) -> Markup:
    """Return a bar for each of the first features; a line at its end is as long as two standard deviations."""
    shown = found[:MOST]
    left = min(NAMES[width], max(pixels(item.feature) for item in shown)) + 10
    right = width - 52
    x = _axis(shown, left, right, 8 if width > WIDE else 4)
    ticks, top = x.ticks(8 if width > WIDE else 4), 4.0
    bottom = top + ROW * len(shown)
    parts = [rule(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    for number, item in enumerate(shown):
        parts += _bar(item, x, left, top + ROW * number, width)
    parts.append(rule(x(0), top, x(0), bottom, "base"))
    parts += numbers(x, ticks, bottom, width)
    parts.append(
        text((left + right) / 2, bottom + 32, "log loss that it costs to shuffle the feature", "tick", "middle")
    )
    said = "; ".join(f"{item.feature}: {words.metric(item.mean)}" for item in shown)
    return svg.svg(name, width, bottom + AXIS + 4, "Importance of features", said, *parts)


def _axis(shown: Sequence[Importance], left: float, right: float, most: int) -> Scale:
    """Return the axis of all bars, which has 0; below it only where a bar can be seen there."""
    high = max(0.0, *(item.mean + item.deviation for item in shown))
    low = min(item.mean for item in shown)
    if low >= -0.02 * high:
        return axes.even([high], left, right, most=most)
    x = axes.even([high - low], left, right, most=most)
    step = x.ticks(most)[1] - x.ticks(most)[0]
    return Scale(step * (low // step), step * math.ceil(high / step), left, right)


def _bar(item: Importance, x: Scale, left: float, top: float, width: int) -> Iterator[Markup]:
    middle, ends = top + ROW / 2, sorted((x(0.0), x(item.mean)))
    yield text(left - 8, middle + 4, fitted(item.feature, left - 10), "name", "end")
    said = f"{item.feature}: {words.metric(item.mean)}, standard deviation {words.metric(item.deviation)}"
    yield element(
        "rect", element("title", said), x=ends[0], y=middle - 7, width=max(1.0, ends[1] - ends[0]), height=14,
        class_="bar",
    )  # fmt: skip
    far = max(x(item.mean), x(item.mean + item.deviation), x(0.0))
    if item.deviation:
        yield rule(x(item.mean - item.deviation), middle, x(item.mean + item.deviation), middle, "whisker")
    yield text(min(far + 6, width - 44), middle + 4, words.metric(item.mean), "tick")
