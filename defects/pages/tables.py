"""Hold tables as data, and write them as HTML or as aligned Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from defects.pages.axes import figure
from defects.pages.html import element, join


class Cell(NamedTuple):
    """What is shown, and the number behind it. `bad`: over what was allowed; `outside`: a text from outside."""

    text: str
    value: float | None = None
    bad: bool = False
    outside: bool = False


class Table(NamedTuple):
    """A table whose first `left` columns are text."""

    name: str
    caption: str
    heads: Sequence[str]
    rows: list[list[Cell]]
    left: int = 1
    note: str = ""


def outside(text: str) -> Cell:
    """Return a cell with a text that came from outside; where there is none, it says so."""
    return Cell(text.strip() or "(nothing)", outside=True)


def number(value: float | None, limit: float | None = None, show: Callable[[float | None], str] = figure) -> Cell:
    """Return a cell with a number, which is bad above the limit."""
    return Cell(show(value), value, bad=value is not None and limit is not None and value > limit)


def html(table: Table, *, exact: bool = True) -> Markup:
    """Return a table that scrolls by itself where it is too wide; `exact`: with the numbers behind the texts."""
    is_text = [_is_text(column) for column in zip(*table.rows, strict=True)]
    heads = (
        element("th", head, scope="col", class_="word" if text else None)
        for text, head in zip(is_text, table.heads, strict=True)
    )
    rows = (
        element("tr", *(_cell(cell, text, exact) for text, cell in zip(is_text, row, strict=True)))
        for row in table.rows
    )
    whole = element(
        "table", element("caption", table.caption), element("thead", element("tr", *heads)), element("tbody", *rows),
        id=table.name,
    )  # fmt: skip
    scrolled = element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=table.caption)
    return join(scrolled, *([element("p", table.note, class_="note")] if table.note else []))


def _is_text(column: Sequence[Cell]) -> bool:
    """Return whether a column has texts and no numbers."""
    return all(cell.value is None for cell in column) and any(cell.text not in ("–", "") for cell in column)


def _cell(cell: Cell, text: bool, exact: bool) -> Markup:
    found = (("word", text), ("bad", cell.bad), ("outside", cell.outside))
    style = " ".join(name for name, applies in found if applies)
    return element("td", shown(cell) if exact else cell.text, class_=style or None)


def shown(cell: Cell) -> Markup:
    """Return a cell's text, with the exact number for who reads the page by machine."""
    return join(cell.text) if cell.value is None else element("data", cell.text, value=repr(cell.value))


def grid(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table whose first `left` columns are text; nothing where there are no rows."""
    lines = [" | ".join(row) for row in rows]
    if not lines:
        return ""
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(
        [f"## {title}", "", f"| {' | '.join(head)} |", f"| {' | '.join(rule)} |", *(f"| {x} |" for x in lines)]
    )
