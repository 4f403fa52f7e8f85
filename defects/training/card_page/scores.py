"""Draw, for each class, which probability its own rows were given, and which of them were right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from markupsafe import Markup

from defects.pages import svg
from defects.pages.axes import Scale
from defects.pages.svg import BOLD, LINE, box, fitted, pixels, rule, text
from defects.training.card_page import reading, words

WIDTH, LEFT, HEIGHT = 344, 6, 52  # pixels
MOST = 12  # classes that are drawn: those with the most wrong rows


class Scores(NamedTuple):
    """How many rows of a class were given a probability from `edges[i]` to `edges[i + 1]`, right and wrong ones."""

    name: str
    edges: list[float]
    right: list[float]
    wrong: list[float]


def scores(card: Any, names: Sequence[str]) -> list[Scores]:
    """Return the histograms of classes that have one, in the order of classes; of many, those with the most errors."""
    found = []
    for name in names:
        of = reading.mapping(card, "metrics", "scores", name)
        item = Scores(name, *(reading.numbers(of, key) for key in ("edges", "right", "wrong")))
        if len(item.right) == len(item.wrong) == len(item.edges) - 1 and sum(item.right) + sum(item.wrong) > 0:
            found.append(item)
    worst = sorted(found, key=lambda item: -sum(item.wrong))[:MOST]
    return [item for item in found if item in worst]


def draw(found: Scores, name: str) -> Markup:
    """Return the histogram of a class: right rows at the bottom, wrong ones on top of them."""
    x, top = Scale(min(0.0, found.edges[0]), max(1.0, found.edges[-1]), LEFT, WIDTH - LEFT), LINE + 8.0
    bottom = top + HEIGHT
    errors, rows = sum(found.wrong), sum(found.right) + sum(found.wrong)
    said = f"{errors:,.0f} of {rows:,.0f} wrong"
    parts = [
        text(LEFT, LINE, fitted(found.name, (WIDTH - 2 * LEFT - pixels(said) - 12) / BOLD), "title"),
        text(WIDTH - LEFT, LINE, said, "tick", "end"),
        *_bars(found, x, bottom),
        rule(x.start, bottom, x.end, bottom, "base"),
        *(
            text(x(tick), bottom + 14, f"{tick:g}", "tick", at)
            for tick, at in ((0, "start"), (0.5, "middle"), (1, "end"))
        ),
    ]
    return svg.svg(name, WIDTH, bottom + 20, f"Scores of {found.name}", f"{said}.", *parts)


def _bars(found: Scores, x: Scale, bottom: float) -> Iterator[Markup]:
    most = max(a + b for a, b in zip(found.right, found.wrong, strict=True))
    for (low, high), right, wrong in zip(pairwise(found.edges), found.right, found.wrong, strict=True):
        left, width, under = x(low) + 0.5, max(0.8, x(high) - x(low) - 1), 0.0
        for value, style in ((right, "right"), (wrong, "wrong")):
            if value:
                height = max(1.5, HEIGHT * value / most)
                yield box(left, bottom - under - height, width, height, f"score {style}")
                under += height


def caption(card: Any, shown: int) -> str:
    """Return what the drawings show."""
    all_of = len(reading.mapping(card, "metrics", "scores"))
    more = f" The {shown} classes with the most wrong rows, of {words.count(all_of)}." if shown < all_of else ""
    return (
        "Each held-out row by the probability that its own class was given. Blue: the class was predicted; red: "
        f"another one was.{more}"
    )
