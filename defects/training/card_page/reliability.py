"""Draw how often the model is right, by the probability that it gives: whether it knows what it knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from defects.pages import svg
from defects.pages.axes import Scale
from defects.pages.html import element
from defects.pages.svg import LINE, box, rule, text
from defects.training.card_page import reading, words

SIZE, LEFT, TOP, BARS = 344, 40, 26, 44  # pixels: width, of the axis, above it, and of the bars under it
PLOT = SIZE - LEFT - 12
TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class Bin(NamedTuple):
    """Held-out rows whose highest probability lies from `low` to `high`: their mean of it, and how many were right."""

    low: float
    high: float
    rows: float
    confidence: float
    accuracy: float


class Curve(NamedTuple):
    """The bins of a model, its name, and its style."""

    name: str
    style: str
    bins: list[Bin]


def bins(found: Sequence[Any]) -> list[Bin]:
    """Return the bins that have rows; none where one lacks a number."""
    made = []
    for item in found:
        values = [reading.number(item, key) for key in Bin._fields]
        if values[2] and None not in values:
            made.append(Bin(*(value for value in values if value is not None)))
    return made


def curves(card: Any) -> list[Curve]:
    """Return the model's curve, and the one before it was calibrated where it was."""
    after = bins(
        reading.items(card, "metrics", "reliability") or reading.items(card, "calibration", "after", "reliability")
    )
    before = bins(reading.items(card, "calibration", "before", "reliability"))
    found = [
        Curve("before calibration", "before", before),
        Curve("after calibration" if before else "", "after", after),
    ]
    return [curve for curve in found if curve.bins]


def draw(found: Sequence[Curve], name: str) -> Markup:
    """Return the diagram; a model that knows what it knows is on the diagonal."""
    x, y = Scale(0, 1, LEFT, LEFT + PLOT), Scale(0, 1, TOP + PLOT, TOP)
    low = TOP + PLOT + 12 + BARS
    parts = [*_grid(x, y, low), rule(x(0), y(0), x(1), y(1), "ideal")]
    parts += _bars(found[-1].bins, x, low)
    for curve in found:
        parts += _curve(curve, x, y)
    parts += _legend(found, x)
    parts.append(text(LEFT + PLOT / 2, low + 32, "highest probability that the model gave", "tick", "middle"))
    parts.append(text(LEFT, TOP - 12, "share of these rows that was right", "tick"))
    return svg.svg(name, SIZE, low + 38, "Reliability", _said(found), *parts)


def _said(found: Sequence[Curve]) -> str:
    return "; ".join(
        f"{curve.name + ': ' if curve.name else ''}"
        + ", ".join(f"{words.metric(b.confidence)} → {words.metric(b.accuracy)}" for b in curve.bins)
        for curve in found
    )


def _grid(x: Scale, y: Scale, low: float) -> Iterator[Markup]:
    for tick in TICKS:
        yield rule(x(0), y(tick), x(1), y(tick), "grid" if tick else "base")
        yield rule(x(tick), y(0), x(tick), y(1), "grid")
        yield text(LEFT - 6, y(tick) + 4, f"{tick:.1f}", "tick", "end")
        yield text(x(tick), low + 16, f"{tick:.1f}", "tick", "middle")
    yield rule(x(0), low, x(1), low, "base")


def _bars(found: Sequence[Bin], x: Scale, low: float) -> Iterator[Markup]:
    """Yield how many rows each bin has."""
    most = max(item.rows for item in found)
    for item in found:
        height = max(1.5, BARS * item.rows / most)
        yield element(
            "rect", element("title", f"{item.low:.2f} to {item.high:.2f}: {words.plural(item.rows, 'row')}"),
            x=x(item.low) + 0.6, y=low - height, width=max(0.8, x(item.high) - x(item.low) - 1.2), height=height,
            class_="bar",
        )  # fmt: skip


def _curve(curve: Curve, x: Scale, y: Scale) -> Iterator[Markup]:
    most = max(item.rows for item in curve.bins)
    path = "L".join(f"{x(item.confidence):.1f} {y(item.accuracy):.1f}" for item in curve.bins)
    yield element("path", d=f"M{path}", class_=f"line {curve.style}")
    for item in curve.bins:
        said = f"{words.metric(item.confidence)} given, {words.metric(item.accuracy)} right, {item.rows:,.0f} rows"
        radius = 2.5 + 3.5 * (item.rows / most) ** 0.5
        yield element(
            "circle", element("title", said), cx=x(item.confidence), cy=y(item.accuracy), r=radius,
            class_=f"point {curve.style}",
        )  # fmt: skip


def _legend(found: Sequence[Curve], x: Scale) -> Iterator[Markup]:
    """Yield the names of curves where there are two, in the corner that good models leave empty."""
    named = [curve for curve in found if curve.name]
    for number, curve in enumerate(named):
        level = TOP + PLOT - 12 - LINE * (len(named) - 1 - number)
        yield box(x(1) - 128, level - 11, 126, LINE + 1, "paper")
        yield rule(x(1) - 124, level - 4, x(1) - 110, level - 4, f"line {curve.style}")
        yield text(x(1) - 105, level, curve.name, "tag")
