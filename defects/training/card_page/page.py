"""Write a model's card as one HTML page that needs nothing else, with pictures and without scripts."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from defects.pages import layout
from defects.pages.html import document, element
from defects.pages.layout import bullets, figure, tiles
from defects.pages.tables import Table, html
from defects.schema import Schema
from defects.training.card_page import confusion, features, head, importances, reading, reliability, scores, tables

CONFUSION = (
    "Rows: the class that was right; columns: what the model said. Blue: right; red: wrong; the darker, the larger the "
    "share of the row."
)
RELIABILITY = (
    "Of the rows to which the model gave a probability of 0.8, 80 % should be right: then the line is on the diagonal. "
    "Under it the model is too sure of itself. Bars: how many rows."
)
IMPORTANCES = (
    "Each feature was shuffled on the held-out rows. The more the log loss grows, the more the model needs the "
    "feature. Lines: one standard deviation. Of two features that say the same, each can look unimportant."
)
HOW = (
    "Accuracy: the share of rows whose class was said. Balanced accuracy: the mean over the classes of the share of "
    "their rows that was found, so that rare classes count as much as frequent ones. Macro-F1: the mean of the "
    "classes' F1, which is high only where a class is both found and not said wrongly.",
    "Log loss: the mean surprise (natural logarithm) at the class that was right. It judges the probabilities, not "
    "only the class: 0 is perfect, and being sure and wrong costs most.",
    "95 % intervals: how far the number would move on other rows like the held-out ones. Two models whose intervals "
    "overlap by much may be equally good.",
    "Precision: of the rows that were said to be of the class, the share that was. Recall: of the rows of the class, "
    "the share that was found.",
    "Probes: rows that were made from the model itself, at which an engine that is nearly right would be wrong.",
)


def page(card: Mapping[str, Any], schema: Schema, reference: Mapping[str, Any]) -> str:
    """Return the whole page, the same for the same model. What the card or the reference lacks is left out."""
    style = layout.style_sheet() + Path(__file__).with_name("card.css").read_text("utf-8")
    title = f"Model card: {schema.label_name} of {schema.title}, {reading.text(card, 'version')}"
    return document(title, style, "", *_content(card, schema, reference))


def _content(card: Any, schema: Schema, reference: Any) -> Iterator[Markup]:
    yield head.banner(card, schema)
    yield from _metrics(card)
    matrix = confusion.matrix(card, schema.class_names)
    if matrix:
        yield _confusion(matrix)
    pairs = confusion.pairs(matrix) if matrix else None
    yield element("div", *_table(pairs), *_classes(card, schema), class_="beside")
    yield from _probabilities(card)
    yield from _scores(card, schema)
    yield from _validation(card)
    yield from _comparison(card)
    if found := importances.importances(card):
        caption = IMPORTANCES
        if len(found) > importances.MOST:
            caption += f" The first {importances.MOST} of {len(found):,}."
        yield figure(
            "importances", "What the model looks at", lambda *at: importances.draw(found, *at), caption=caption
        )
    yield from _features(schema, reference, [item.feature for item in importances.importances(card)])
    yield from _data(card)
    yield from _proof(card)
    yield from _again(card)
    yield element("section", element("h2", "How to read it"), bullets(HOW, "how"), class_="reading")


def _section(style: str, title: str, *parts: object) -> Markup:
    return element("section", element("h2", title), *parts, class_=style)


def _table(table: Table | None) -> Iterator[Markup]:
    """Yield a table in a section of its own, where there is one."""
    if table is not None:
        yield element("section", html(table), class_=table.name)


def _folded(table: Table) -> Markup:
    return element("details", element("summary", table.caption), html(table, exact=False))


def _note(text: str, style: str = "note") -> Markup:
    return element("p", text, class_=style)


# --- how good it is --------------------------------------------------------------------------------------------------


def _metrics(card: Any) -> Iterator[Markup]:
    found = [*head.metrics(card)]
    if found:
        yield element("section", tiles(found), _note(head.explained(card)), class_="metrics")


def _confusion(found: confusion.Matrix) -> Markup:
    few, most = min(confusion.MOST.values()), max(confusion.MOST.values())
    caption = CONFUSION
    if len(found.names) > most:
        caption += f" Of {len(found.names):,} classes, those that are confused most often; the others count as one."
    elif len(found.names) > few:
        caption += " On small screens only the classes that are confused most often; the others count as one."
    return figure("confusion", "What is taken for what", lambda *at: confusion.draw(found, *at), caption=caption)


def _probabilities(card: Any) -> Iterator[Markup]:
    curves = reliability.curves(card)
    table = tables.calibration(card)
    parts = [element("figure", reliability.draw(curves, "reliability-chart"))] if curves else []
    side = [_note(RELIABILITY)] if curves else []
    side += [html(table)] if table else []
    if parts or side:
        yield _section(
            "probabilities", "Whether its probabilities hold",
            element("div", *parts, element("div", *side, class_="aside"), class_="pair"),
        )  # fmt: skip


def _scores(card: Any, schema: Schema) -> Iterator[Markup]:
    found = scores.scores(card, schema.class_names)
    if found:
        drawn = (element("figure", scores.draw(item, f"scores-{number}")) for number, item in enumerate(found))
        yield _section(
            "scores", "Score by class",
            element("div", *drawn, class_="multiples"), _note(scores.caption(card, len(found))),
        )  # fmt: skip


def _classes(card: Any, schema: Schema) -> Iterator[Markup]:
    """Yield the classes' scores; of many, those of the worst, and all of them folded."""
    names = [*schema.class_names]
    if len(names) <= tables.MOST_CLASSES:
        yield from _table(tables.classes(card, names, "Class by class"))
        return
    of = reading.mapping(card, "metrics", "classes")
    worst = sorted(names, key=lambda name: reading.number(of, name, "f1") or 0.0)[: tables.MOST_CLASSES // 2]
    yield from _table(tables.classes(card, worst, f"Class by class: the {len(worst)} with the lowest F1"))
    shown = names[: tables.FOLDED_CLASSES]
    all_of = "All" if len(shown) == len(names) else f"{len(shown):,} of"
    if whole := tables.classes(card, shown, f"{all_of} {len(names):,} classes"):
        yield _folded(whole._replace(name="all-classes"))


def _validation(card: Any) -> Iterator[Markup]:
    yield from _table(tables.cross_validation(card))


def _comparison(card: Any) -> Iterator[Markup]:
    found = reading.mapping(card, "comparison")
    if not found:
        return
    yield from _table(tables.comparison(card))
    champion = reading.text(found, "champion", "version") or "the champion"
    passed = "passed" if found.get("passed") is True else "not passed" if found.get("passed") is False else ""
    said = [f"Champion: {champion}."]
    if passed:
        margin = reading.number(found, "margin")
        said.append(f"The gate was {passed}{'' if margin is None else f', with a margin of {margin:g}'}.")
    only = [reading.number(found, "mcnemar", key) for key in ("only_candidate", "only_champion", "p")]
    if None not in only:
        said.append(
            f"Rows that only this model gets right: {only[0]:,.0f}; only the champion: {only[1]:,.0f} "
            f"(McNemar's test: p = {only[2]:.2g})."
        )
    reasons = [text for text in reading.items(found, "reasons") if isinstance(text, str)]
    yield element(
        "section", _note(" ".join(said)), *([bullets(reasons, "reasons")] if reasons else []), class_="champion"
    )
    yield from _table(tables.compared_classes(card))


# --- what it is made of ----------------------------------------------------------------------------------------------


def _features(schema: Schema, reference: Any, ranked: Sequence[str]) -> Iterator[Markup]:
    """Yield the features; of many, the most important ones, and all of them folded."""
    if len(schema.features) <= features.MOST:
        yield from _table(features.table(schema, reference, schema.features))
        return
    order = {name: place for place, name in enumerate(ranked)}
    first = sorted(schema.features, key=lambda feature: order.get(feature.name, len(order)))[: features.MOST // 2]
    title = f"Features: {'the most important' if ranked else 'the first'} {len(first)} of {len(schema.features):,}"
    yield from _table(features.table(schema, reference, first)._replace(caption=title))
    whole = features.table(schema, reference, schema.features[: features.FOLDED])
    all_of = "All" if len(schema.features) <= features.FOLDED else f"{features.FOLDED:,} of"
    yield _folded(whole._replace(name="all-features", caption=f"{all_of} {len(schema.features):,} features"))


def _data(card: Any) -> Iterator[Markup]:
    table = tables.data(card)
    notes = [text for text in reading.items(card, "data", "notes") if isinstance(text, str)]
    if table.rows or notes:
        parts = [html(table)] if table.rows else []
        yield element("section", *parts, *([bullets(notes, "how")] if notes else []), class_="data")


def _proof(card: Any) -> Iterator[Markup]:
    table = tables.proof(card)
    engine = reading.mapping(card, "engine")
    name, reason = reading.text(engine, "name"), reading.text(engine, "reason")
    said = f"Served by {tables.ENGINES.get(name, name)}{': ' + reason if reason else ''}." if name else ""
    parts = [html(table)] if table else [element("h2", "How it is served")] if said else []
    if parts:
        yield element("section", *parts, *([_note(said)] if said else []), class_="proof")


def _again(card: Any) -> Iterator[Markup]:
    """Yield how the model can be made again: the command, the libraries, the parameters."""
    command = [text for text in reading.items(card, "command") if isinstance(text, str)]
    libraries, parameters = tables.libraries(card), tables.parameters(card)
    parts: list[Markup] = []
    if "command" in card:  # also where it is empty
        parts.append(element("pre", shlex.join(["python", "train.py", *command])))
        parts.append(_note("With the same data, seed and libraries it makes the same model file."))
    if parts or libraries:
        yield _section("again", "How to make it again", *parts, *([html(libraries)] if libraries else []))
    if parameters:
        yield _folded(parameters)
