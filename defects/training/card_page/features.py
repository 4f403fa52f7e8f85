"""List the features: what they are, what training saw of them, and how their values are distributed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from defects.features import Feature
from defects.kinds import BOOLEAN, NUMBER
from defects.pages.axes import percent
from defects.pages.html import element
from defects.pages.svg import box, fitted
from defects.pages.tables import Cell, Table
from defects.schema import Schema
from defects.training.card_page import reading, words

WIDTH, HEIGHT = 120, 24  # pixels of a distribution
MOST = 40  # features that are listed openly; more are folded
FOLDED = 2_000  # that are listed at all
CATEGORIES, BARS = 8, 24  # that are named, and that are drawn
NAME = 260  # pixels
HEADS = ("feature", "kind", "range or values in training", "missing", "distribution", "what it is")


def table(schema: Schema, reference: Mapping[str, Any], features: Sequence[Feature]) -> Table:
    """Return the table of some features of a schema."""
    rows = reading.number(reference, "rows")
    found = [_row(feature, reading.mapping(reference, "features", feature.name), rows) for feature in features]
    described = any(feature.description for feature in schema.features)
    shown = len(HEADS) if described else len(HEADS) - 1
    return Table("features", "Features", HEADS[:shown], [row[:shown] for row in found], left=1)


def _row(feature: Feature, found: Mapping[str, Any], rows: float | None) -> list[Cell]:
    missing = reading.number(found, "missing")
    share = missing / rows if missing is not None and rows else None
    kind = f"{feature.kind}, {feature.unit}" if feature.unit else feature.kind
    return [
        Cell(element("bdi", fitted(feature.name, NAME)), outside=True),
        Cell(fitted(kind, NAME)),
        Cell(_values(feature, found), outside=True),
        Cell(percent(share), share),
        Cell(distribution(feature, found)),
        Cell(feature.description, outside=True),
    ]


def _values(feature: Feature, found: Mapping[str, Any]) -> str:
    """Return the range of a number, or the values of anything else, in words."""
    if feature.kind == BOOLEAN:
        share = reading.number(found, "mean")
        return "true or false" if share is None else f"true in {percent(share)}"
    if feature.kind != NUMBER:
        names = [fitted(name, NAME / 2) for name in feature.categories[: CATEGORIES + 1]]
        more = len(feature.categories) - CATEGORIES
        return words.listed(names) if more <= 1 else f"{', '.join(names[:-1])} and {more:,} more"
    ends = (words.quantity(feature.observed_low), words.quantity(feature.observed_high))
    allowed = "" if feature.low is None and feature.high is None else f" ({_limits(feature)} allowed)"
    return f"{ends[0]} to {ends[1]}{allowed}"


def _limits(feature: Feature) -> str:
    match feature.low, feature.high:
        case None, high:
            return f"at most {words.quantity(high)}"
        case low, None:
            return f"at least {words.quantity(low)}"
        case low, high:
            return f"{words.quantity(low)} to {words.quantity(high)}"


def distribution(feature: Feature, found: Mapping[str, Any]) -> Markup:
    """Return a small drawing of a feature's values in training; nothing where they are not known."""
    if categories := reading.mapping(found, "categories"):
        bars = [*_categories(categories)]
    elif feature.kind == BOOLEAN:
        bars = [*_shares(reading.number(found, "mean"))]
    else:
        bars = [*_density(reading.numbers(found, "edges"), reading.numbers(found, "counts"))]
    if not bars:
        return Markup("")
    return element(
        "svg", element("title", f"Distribution of {feature.name}"), *bars,
        box(0, HEIGHT - 1, WIDTH, 1, "ground"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", width=WIDTH, height=HEIGHT, role="img", class_="spark",
    )  # fmt: skip


def _categories(found: Mapping[str, Any]) -> Iterator[Markup]:
    """Yield a bar for each category, the most frequent first."""
    counts = sorted(((reading.number(found, name) or 0.0, name) for name in found), key=lambda item: -item[0])[:BARS]
    most = max(count for count, _ in counts) or 1.0
    step = min(WIDTH / len(counts), 20.0)
    for index, (count, name) in enumerate(counts):
        height = max(1.0, (HEIGHT - 2) * count / most)
        title = element("title", f"{fitted(name, NAME)}: {words.plural(count, 'row')}")
        yield element("rect", title, x=step * index, y=HEIGHT - 1 - height, width=step - 1, height=height, class_="bar")


def _shares(share: float | None) -> Iterator[Markup]:
    """Yield how many are true and how many are false."""
    if share is not None:
        yield box(0, 7, WIDTH, 10, "cell none")
        yield box(0, 7, WIDTH * min(1.0, max(0.0, share)), 10, "bar")


def _density(edges: Sequence[float], counts: Sequence[float]) -> Iterator[Markup]:
    """Yield bins with about equal counts as bars whose areas are their counts; the highest fill the height."""
    if len(counts) != len(edges) - 1 or not counts:
        return
    low, whole = edges[0], edges[-1] - edges[0]
    if whole <= 0:
        yield box(WIDTH / 2 - 1.5, 2, 3, HEIGHT - 3, "bar")
        return
    bars = [
        (WIDTH * (a - low) / whole, max(1.0, WIDTH * (b - a) / whole), count)
        for (a, b), count in zip(pairwise(edges), counts, strict=True)
    ]
    most = max(count / width for _, width, count in bars) or 1.0
    for left, width, count in bars:
        height = max(0.6, (HEIGHT - 2) * count / width / most)
        yield box(min(left, WIDTH - width), HEIGHT - 1 - height, width, height, "bar")
