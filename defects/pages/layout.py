"""Lay out pages: drawings for the widths of screens, figures in tiles, lists, and the style that all pages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from markupsafe import Markup

from defects.pages import charts
from defects.pages.html import element
from defects.pages.tables import Cell, shown

WIDTHS = {"wide": 1112, "medium": 700, "narrow": 358}  # of a desktop, of a tablet and of paper, of a phone


def style_sheet() -> str:
    """Return the style sheet of all pages, with that of charts."""
    return charts.style_sheet() + Path(__file__).with_name("page.css").read_text("utf-8")


def figure(
    name: str, title: str, draw: Callable[[int, str], Markup], readout: object = "", caption: str = ""
) -> Markup:
    """Return one drawing in all widths, of which the style shows one; nothing where there is nothing to draw."""
    drawings = [(style, draw(width, f"{name}-{style}")) for style, width in WIDTHS.items()]
    shown = [element("div", drawing, class_=style) for style, drawing in drawings if drawing]
    if not shown:
        return Markup("")
    under = [element("figcaption", caption)] if caption else []
    return element("section", element("h2", title), element("figure", readout, *shown, *under), class_=name)


def tiles(found: Iterable[tuple[str, Cell, object]]) -> Markup:
    """Return what matters most: the name of each number, the number, and what stands under it."""
    return element(
        "dl",
        *(
            element("div", element("dt", what), element("dd", element("b", shown(cell)), under),
                    class_="bad" if cell.bad else None)
            for what, cell, under in found
        ),
        class_="tiles",
    )  # fmt: skip


def bullets(texts: Iterable[object], style: str) -> Markup:
    """Return a list with a point for each text."""
    return element("ul", *(element("li", text) for text in texts), class_=style)
