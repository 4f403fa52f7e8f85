"""Write the elements of an SVG picture."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from defects.pages import axes
from defects.pages.axes import Scale
from defects.pages.html import element, plain

LINE, CHARACTER = 14, 6.4  # height of a line of text and width of a character, in pixels
BOLD = 1.2  # how much wider bold letters, and those of names, may be
AXIS = 34  # under the last panel
BROAD = "mwMW@%&—…"  # letters and signs that are broader than others
JOINERS = "\u200c\u200d\ufe0e\ufe0f"  # between the parts of an emoji


# --- parts ----------------------------------------------------------------------------------------------------------


def text(x: float, y: float, content: object, style: str = "", anchor: str = "start") -> Markup:
    return element("text", content, x=x, y=y, class_=style or None, text_anchor=None if anchor == "start" else anchor)


def rule(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return element("path", d=f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", class_=style)


def box(x: float, y: float, width: float, height: float, style: str) -> Markup:
    return element("rect", x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=style)


def svg(name: str, width: int, height: float, title: str, description: str, *content: Markup, **more: object) -> Markup:
    """Return a whole drawing, with a title and a description for those who don't see it."""
    labels = element("title", title, id=f"{name}-title"), element("desc", description, id=f"{name}-desc")
    return element(
        "svg", *labels, *content,
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height:.0f}", width=width, height=f"{height:.0f}",
        role="img", aria_labelledby=f"{name}-title {name}-desc", class_="chart", **more,
    )  # fmt: skip


def hatch(name: str) -> Markup:
    """Return a pattern of slanted lines."""
    return element(
        "pattern", element("path", d="M0 0V6", class_="hatch"), id=f"{name}-hatch", width=6, height=6,
        patternUnits="userSpaceOnUse", patternTransform="rotate(45)",
    )  # fmt: skip


def shortened(name: str, most: int) -> str:
    """Return a name with at most `most` characters, without its middle: names often differ at their end."""
    name = plain(name)
    start = (most - 1) // 3
    return name if len(name) <= most else f"{name[:start]}…{name[len(name) - (most - 1 - start) :]}"


def pixels(content: str) -> float:
    """Return about how wide a text is: never less than it is in most fonts."""
    return sum(_pixels(character) for character in content)


def _pixels(character: str) -> float:
    if unicodedata.combining(character) or character in JOINERS:
        return 0.0
    if unicodedata.east_asian_width(character) in "WF" or ord(character) > 0x2FFF:
        return 2.4 * CHARACTER
    return CHARACTER * (1.8 if character in BROAD else 1.5 if unicodedata.category(character) == "Lu" else 1.0)


def fitted(name: str, most: float) -> str:
    """Return a name that takes at most so many pixels, without its middle where it is too long."""
    whole = found = plain(name)
    length = len(whole)
    while pixels(found) > most and length > 1:
        length = min(length - 1, int(length * most / pixels(found)) + 1)
        found = shortened(whole, length)
    return found


def numbers(x: Scale, ticks: Sequence[float], bottom: float, width: int) -> Iterator[Markup]:
    """Yield the numbers under a drawing, none of them beyond its edges."""
    for tick in ticks:
        half = CHARACTER * len(axes.mark(tick)) / 2
        yield text(min(max(x(tick), half), width - half), bottom + 16, axes.mark(tick), "tick", "middle")
