"""HTML and SVG elements whose text can't become markup, whatever it says."""

from __future__ import annotations

import html
import re

MOST_TEXT = 1000  # characters of a text that came from outside; more is cut off
VOID = frozenset({"meta", "br", "col"})
# Control characters, which XML forbids; those that turn the direction of text around; halves of surrogate pairs.
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def plain(text: object) -> str:
    """Any value as one line of text that can be shown."""
    line = _clean(text)
    return line if len(line) <= MOST_TEXT else f"{line[:MOST_TEXT]}…"


def _clean(text: object) -> str:
    return _UNSHOWABLE.sub("\ufffd", re.sub(r"\s+", " ", str(text)))


def element(name: str, /, *content: object, **attributes: object) -> Markup:
    """One element. `class_` is class, `aria_label` aria-label; None leaves an attribute out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")


def join(*content: object) -> Markup:
    """Parts side by side; what is not markup is shown as text."""
    return Markup("".join(part if isinstance(part, Markup) else html.escape(plain(part)) for part in content))


def _written(value: object) -> str:
    """An attribute's value; numbers without digits that no screen shows."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else _clean(value)
