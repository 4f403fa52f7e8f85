"""Draw the confusion matrix, and list what is most often taken for what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from defects.pages import svg
from defects.pages.html import element
from defects.pages.layout import WIDTHS
from defects.pages.svg import CHARACTER, LINE, box, fitted, pixels, text
from defects.pages.tables import Cell, Table, outside
from defects.training.card_page import reading, words

MOST = {WIDTHS["wide"]: 20, WIDTHS["medium"]: 14, WIDTHS["narrow"]: 8}  # classes that are drawn
ROW, BROADEST = 26, 104  # pixels: height of a row, and the largest width of a column
NAMES = {WIDTHS["wide"]: 220.0, WIDTHS["medium"]: 150.0, WIDTHS["narrow"]: 104.0}  # pixels of names of rows, at most
NUMBERED = 56  # pixels: narrower columns have numbers instead of names
PAIRS = 12  # that are listed
FAINTEST, DARKEST = 0.1, 0.8


class Matrix(NamedTuple):
    """`rows[true][predicted]` held-out rows, by classes; the last one may stand for several others."""

    names: list[str]
    rows: list[list[int]]
    others: int = 0


def matrix(card: Any, names: Sequence[str]) -> Matrix | None:
    """Return the card's matrix; `None` where there is none that fits these classes."""
    found = [reading.numbers(row) for row in reading.items(card, "metrics", "confusion")]
    if len(found) != len(names) or any(len(row) != len(names) for row in found):
        return None
    return Matrix([*names], [[int(value) for value in row] for row in found])


def wrong(found: Matrix, index: int) -> int:
    """Return how many rows were of a class and taken for another one, or the other way round."""
    return sum(found.rows[index]) + sum(row[index] for row in found.rows) - 2 * found.rows[index][index]


def bounded(found: Matrix, most: int) -> Matrix:
    """Return a matrix of at most so many classes: those that are confused most often, and all others as one."""
    if len(found.names) <= most:
        return found
    order = sorted(range(len(found.names)), key=lambda index: (-wrong(found, index), index))
    kept, rest = sorted(order[: most - 1]), order[most - 1 :]
    groups = [*([index] for index in kept), rest]
    rows = [[sum(found.rows[a][b] for a in true for b in predicted) for predicted in groups] for true in groups]
    return Matrix([*(found.names[index] for index in kept), f"{len(rest):,} others"], rows, len(rest))


def draw(found: Matrix, width: int, name: str) -> Markup:
    """Return the matrix: each cell is as dark as its share of the rows of the true class."""
    shown = bounded(found, MOST[width])
    labels = [pixels(label) for label in shown.names]
    left = min(NAMES[width], max(labels) + 6) + 3 * CHARACTER + 8
    column = min(BROADEST, (width - left - 2) / len(shown.names))
    named = column >= NUMBERED or max(labels) <= column - 6
    top = LINE * 2 + 10
    parts = [
        text(left, LINE - 2, "predicted →", "tick"),
        text(left - 8, top - 6, "true ↓", "tick", "end"),
        *_heads(shown, left, top - 6, column, named),
    ]
    for index, row in enumerate(shown.rows):
        parts += _row(shown, index, left, top + ROW * index, column, numbered=not named)
        parts += _cells(shown, index, row, left, top + ROW * index, column)
    said = f"{len(found.names):,} classes; rows: the true class, columns: the predicted one."
    return svg.svg(name, width, top + ROW * len(shown.names) + 4, "Confusion matrix", said, *parts)


def _heads(shown: Matrix, left: float, y: float, column: float, named: bool) -> Iterator[Markup]:
    for index, label in enumerate(shown.names):
        is_rest = shown.others and index == len(shown.names) - 1
        head = fitted(label, column - 6) if named else "…" if is_rest else str(index + 1)
        yield text(left + column * (index + 0.5), y, head, "name" if named else "tick", "middle")


def _row(
    shown: Matrix, index: int, left: float, top: float, column: float, *, numbered: bool
) -> Iterator[Markup]:
    """Yield the name of a true class, with its number where columns have only those."""
    label, y = shown.names[index], top + ROW / 2 + 4
    is_rest = shown.others and index == len(shown.names) - 1
    room = left - 14 - (3 * CHARACTER if numbered else 0)
    yield text(left - 8 - (3 * CHARACTER if numbered else 0), y, fitted(label, room), "name", "end")
    if numbered:
        yield text(left - 6, y, "…" if is_rest else index + 1, "tick", "end")


def _cells(
    shown: Matrix, index: int, row: Sequence[int], left: float, top: float, column: float
) -> Iterator[Markup]:
    total = sum(row) or 1
    rest = len(row) - 1 if shown.others else -1
    for other, value in enumerate(row):
        x, share = left + column * other, value / total
        style = "others" if index == other == rest else "right" if index == other else "wrong"
        said = f"{shown.names[index]} taken for {shown.names[other]}: {value:,} of {sum(row):,}"
        yield box(x + 1, top + 1, column - 2, ROW - 2, "cell")
        if value:
            opacity = FAINTEST + (DARKEST - FAINTEST) * share
            yield element(
                "rect", element("title", said), x=x + 1, y=top + 1, width=column - 2, height=ROW - 2.0,
                class_=f"cell {style}", fill_opacity=f"{opacity:.2f}",
            )  # fmt: skip
            number = words.compact(value, max(1, int((column - 2) / CHARACTER)))
            yield text(x + column / 2, top + ROW / 2 + 4, number, "count", "middle")


def pairs(found: Matrix) -> Table | None:
    """Return what is most often taken for what; `None` where nothing is."""
    wrong = [
        (value, true, predicted)
        for true, row in enumerate(found.rows)
        for predicted, value in enumerate(row)
        if value and true != predicted
    ]
    if not wrong:
        return None
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [
        [
            outside(fitted(found.names[true], 300)),
            outside(fitted(found.names[predicted], 300)),
            Cell(words.count(value), value),
            Cell(f"{value / sum(found.rows[true]):.0%}", value / sum(found.rows[true])),
        ]
        for value, true, predicted in wrong[:PAIRS]
    ]
    heads = ("true class", "taken for", "rows", "of the class")
    more = f"{len(wrong) - PAIRS:,} more pairs have fewer rows." if len(wrong) > PAIRS else ""
    return Table("pairs", "Most often confused", heads, rows, left=2, note=more)
