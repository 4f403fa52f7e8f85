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
NUMBERED, NUMBER = 56, 20  # pixels: narrower columns have numbers instead of names, which are so wide
PAIRS = 12  # that are listed
OPACITY = {"right": (0.3, 1.0), "wrong": (0.1, 0.55), "others": (0.3, 0.6)}  # of a cell, by its share of the row


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


class Grid(NamedTuple):
    """Where the cells of a drawn matrix are, in pixels, and whether columns have names or numbers."""

    shown: Matrix
    left: float
    top: float
    column: float
    named: bool

    @classmethod
    def of(cls, shown: Matrix, width: int) -> Grid:
        """Return the grid for a width: columns have names where these can be read."""
        widest = max(pixels(label) for label in shown.names)
        left = min(NAMES[width], widest + 6) + NUMBER + 8
        column = min(BROADEST, (width - left - 2) / len(shown.names))
        return cls(shown, left, LINE * 2 + 10, column, column >= NUMBERED or widest <= column - 6)

    def y(self, index: int) -> float:
        """Return where the text of a row stands."""
        return self.top + ROW * (index + 0.5) + 4

    def number(self, index: int) -> str:
        """Return the number of a class, which the others have none of."""
        is_rest = self.shown.others and index == len(self.shown.names) - 1
        return "…" if is_rest else str(index + 1)


def draw(found: Matrix, width: int, name: str) -> Markup:
    """Return the matrix: each cell is as dark as its share of the rows of the true class."""
    shown = bounded(found, MOST[width])
    grid = Grid.of(shown, width)
    parts = [
        text(grid.left, LINE - 2, "predicted →", "tick"),
        text(grid.left - 8, grid.top - 6, "true ↓", "tick", "end"),
        *_heads(grid),
    ]
    for index in range(len(shown.names)):
        parts += _label(grid, index)
        parts += _cells(grid, index)
    said = f"{len(found.names):,} classes; rows: the true class, columns: the predicted one."
    return svg.svg(name, width, grid.top + ROW * len(shown.names) + 4, "Confusion matrix", said, *parts)


def _heads(grid: Grid) -> Iterator[Markup]:
    for index, label in enumerate(grid.shown.names):
        head = fitted(label, grid.column - 6) if grid.named else grid.number(index)
        style = "name" if grid.named else "tick"
        yield text(grid.left + grid.column * (index + 0.5), grid.top - 6, head, style, "middle")


def _label(grid: Grid, index: int) -> Iterator[Markup]:
    """Yield the name of a true class, with its number where columns have only those."""
    end = grid.left - 8 - (0 if grid.named else NUMBER)
    yield text(end, grid.y(index), fitted(grid.shown.names[index], end - 4), "name", "end")
    if not grid.named:
        yield text(grid.left - 6, grid.y(index), grid.number(index), "tick", "end")


def _cells(grid: Grid, index: int) -> Iterator[Markup]:
    shown, row = grid.shown, grid.shown.rows[index]
    top, wide, total = grid.top + ROW * index + 1, grid.column - 2, sum(row)
    for other, value in enumerate(row):
        left = grid.left + grid.column * other + 1
        if not value:
            yield box(left, top, wide, ROW - 2, "cell none")
            continue
        style = "wrong" if index != other else "others" if grid.number(index) == "…" else "right"
        faint, dark = OPACITY[style]
        yield element(
            "rect", element("title", f"{shown.names[index]} taken for {shown.names[other]}: {value:,} of {total:,}"),
            x=left, y=top, width=wide, height=ROW - 2.0, class_=f"cell {style}",
            fill_opacity=f"{faint + (dark - faint) * value / total:.2f}",
        )  # fmt: skip
        number = words.compact(value, max(1, int(wide / CHARACTER)))
        yield text(left + wide / 2, grid.y(index), number, "count", "middle")


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
    least = wrong[min(PAIRS, len(wrong)) - 1][0]
    more = (
        f"And {len(wrong) - PAIRS:,} more pairs, of at most {words.plural(least, 'row')} each."
        if len(wrong) > PAIRS
        else ""
    )
    return Table("pairs", "Most often confused", heads, rows, left=2, note=more)
