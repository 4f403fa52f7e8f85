"""Write HTML and SVG elements whose text can't become markup, whatever it says."""

from __future__ import annotations

import base64
import hashlib
import re

from markupsafe import Markup, escape

MAX_TEXT = 1000  # characters of a text that came from outside; more is cut off
VOID = frozenset({"meta", "br", "col"})
# Control characters, which XML forbids; those that turn the direction of text around; halves of surrogate pairs.
_UNSHOWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: object) -> str:
    """Return any value as one line of text that can be shown, cut off after `MAX_TEXT` characters."""
    line = _clean(text)
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}…"


def _clean(text: object) -> str:
    return _UNSHOWABLE.sub("\ufffd", re.sub(r"\s+", " ", str(text)))


def element(name: str, /, *content: object, **attributes: object) -> Markup:
    """Return one element. The attribute `class_` is class, `aria_label` aria-label; `None` leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Markup(f"<{name}{written}>")  # noqa: S704 - every value is escaped
    return Markup(f"<{name}{written}>{join(*content)}</{name}>")  # noqa: S704 - likewise


def join(*content: object) -> Markup:
    """Return parts side by side; what is not markup is shown as text."""
    return Markup("").join(part if isinstance(part, Markup) else plain(part) for part in content)


def document(title: str, style: str, script: str, *content: Markup) -> str:
    """Return a whole page that needs nothing else, with our own style sheet and script, which may be empty.

    Nothing is loaded and nothing else runs, whatever the texts in the page say.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", trusted(style)),
    )
    body = element("body", *content, *([element("script", trusted(script))] if script else []))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _policy(style: str, script: str) -> str:
    parts = [f"{kind}-src 'sha256-{_digest(text)}'" for kind, text in (("style", style), ("script", script)) if text]
    return "; ".join(["default-src 'none'", *parts, "base-uri 'none'"])


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def trusted(text: str) -> Markup:
    """Return a text of our own, such as a style sheet, as markup."""
    return Markup(text)  # noqa: S704 - not from outside


def _attribute(value: object) -> str:
    """Return an attribute's value; numbers without digits that no screen shows."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else _clean(value)
