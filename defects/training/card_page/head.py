"""The top of the page: what the model is for, what to beware of, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from defects.pages.axes import Scale
from defects.pages.html import element, join
from defects.pages.layout import bullets
from defects.pages.svg import box, rule
from defects.pages.tables import Cell
from defects.schema import Schema
from defects.training.card_page import reading, words
from defects.training.card_page.tables import METRICS

MOST_WARNINGS = 30
CLASSES, NAME = 8, 60  # names of classes in the first sentence, and characters of each
GAUGE, HIGH = 140, 14  # pixels of the drawing of an interval


def banner(card: Any, schema: Schema) -> Markup:
    """Return the title, what the model is for, and whether there is something to beware of."""
    found = _warnings(card)
    label = schema.label_name.replace("_", " ")
    title = element("h1", element("bdi", schema.title), ": which ", element("bdi", label), "?")
    kind = "Model card"
    parts = [element("p", kind, class_="kicker"), title, element("p", schema.purpose, class_="about")]
    parts.append(element("p", *_classes(schema), class_="about"))
    parts.append(element("p", " · ".join(_made(card)), class_="about"))
    if found:
        points = [element("span", text) for text in found[:MOST_WARNINGS]]
        more = [f"and {len(found) - MOST_WARNINGS} more"] if len(found) > MOST_WARNINGS else []
        parts.append(element("h2", words.plural(len(found), "warning"), class_="warned"))
        parts.append(bullets([*points, *more], "reasons"))
    return element("header", *parts, class_="warned" if found else "fine")


def _warnings(card: Any) -> list[str]:
    return [text for item in reading.items(card, "warnings") if (text := reading.text(item, "text"))]


def _classes(schema: Schema) -> Iterator[object]:
    """Yield the answers that it can give, as a sentence."""
    shown = [name if len(name) <= NAME else f"{name[:NAME]}…" for name in schema.class_names[:CLASSES]]
    more = len(schema.class_names) - len(shown)
    yield f"{words.plural(len(schema.class_names), 'class')}: "
    for number, name in enumerate(shown):
        yield join(", " if number else "", element("b", element("bdi", name)))
    yield f" and {more:,} more." if more else "."


def _made(card: Any) -> Iterator[str]:
    """Yield what kind of model it is, when it was made and of what, and its version."""
    yield reading.text(card, "estimator", "name") or "a model"
    rows, source = reading.number(card, "data", "rows"), reading.text(card, "data", "source")
    if rows is not None:
        yield f"{words.count(rows)} rows" + (f" of {source}" if source else "")
    if created := reading.text(card, "created"):
        yield f"made {created.replace('T', ' ').replace('Z', ' UTC')}"
    if version := reading.text(card, "version"):
        yield f"version {version}"


# --- how good it is --------------------------------------------------------------------------------------------------


def metrics(card: Any) -> Iterator[tuple[str, Cell, Markup]]:
    """Yield each of the main metrics with its interval, beside what always saying the most frequent class reaches."""
    for key, name in METRICS.items():
        value = reading.number(card, "metrics", key)
        if value is None:
            continue
        base = reading.number(card, "metrics", "baseline", key)
        ends = reading.interval(card, "metrics", "intervals", key)
        worse = base is not None and (value >= base if key == "log_loss" else value <= base)
        under = [element("span", text) for text in _under(base, ends)]
        drawn = [_gauge(key, value, base, ends)] if base is not None or ends else []
        yield name, Cell(words.metric(value), value, bad=worse), join(*under, *drawn)


def _under(base: float | None, ends: tuple[float, float] | None) -> Iterator[str]:
    if ends:
        yield f"95 %: {words.span(ends)}"
    if base is not None:
        yield f"baseline: {words.metric(base)}"


def _gauge(key: str, value: float, base: float | None, ends: tuple[float, float] | None) -> Markup:
    """Return a line from 0 to 1, or to beyond the worst log loss, with the interval, the value and the baseline."""
    worst = max(1e-9, *(number for number in (value, base or 0, *(ends or ()))))
    x = Scale(0.0, 1.15 * worst if key == "log_loss" else max(1.0, worst), 2, GAUGE - 2)
    level = HIGH / 2
    parts = [rule(x.start, level, x.end, level, "base")]
    if ends:
        parts.append(box(x(ends[0]), level - 2.5, max(2.0, x(ends[1]) - x(ends[0])), 5, "interval"))
    if base is not None:
        parts.append(rule(x(base), 1, x(base), HIGH - 1, "baseline"))
    parts.append(element("circle", cx=x(value), cy=level, r=3.5, class_="value"))
    return element(
        "svg", *parts, viewBox=f"0 0 {GAUGE} {HIGH}", width=GAUGE, height=HIGH, class_="gauge", aria_hidden="true"
    )


def explained(card: Any) -> str:
    """Return what the numbers are, in a sentence or two."""
    rows = reading.number(card, "split", "held_out_rows")
    kept = reading.text(card, "metrics", "baseline", "class")
    base = f"The baseline always says “{kept[:NAME]}”, the most frequent class: the upright line. " if kept else ""
    given = reading.text(card, "split", "how") == "given"
    which = "that came with the model, so it may have been fitted on some" if given else "that it was not fitted on"
    on = f"On {words.plural(rows, 'row')} {which}. " if rows is not None else ""
    return f"{on}{base}Log loss: the lower, the better; of the others, the higher."
