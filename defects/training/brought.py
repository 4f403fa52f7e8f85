"""Make of a fitted model and a file of labelled rows what is needed to serve the model: a schema, and the rows as the
model is asked about them.

What the model takes is found by asking it: whether a value may be missing, and what it does with an unknown category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.decoding import FRAME, OBJECTS, ROWS, Decoder
from defects.features import Codes, Feature
from defects.kinds import BOOLEAN, CATEGORY, MISSING, NUMBER, REFUSE
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.training import tables
from defects.training.bad_data import BadData, Problems, shown
from defects.training.categories import category_texts
from defects.training.conversion import classifier_of
from defects.training.dataset import Table, refuse_unknown, source_of, title_of
from defects.training.encoders import categories_of
from defects.training.ensembles import sees_32_bits
from defects.training.fitted import Fitted
from defects.training.fitting import are_probabilities
from defects.training.given_labels import GivenLabels, better_order, given_labels
from defects.training.importing import PANDAS_CATEGORIES, Loaded, takes_pandas_categories
from defects.training.inferring import all_missing, infer
from defects.training.reading import Reading
from defects.training.tables import Choice, Column, Contents

ASKED = 32  # rows with which it is found out what a model takes
SAME = 1e-12  # probabilities that are not further apart are the same answer
UNKNOWN = "a category that no model knows"
NO_CATEGORY = 0.123456789  # a number that is none, either


@dataclass(frozen=True)
class Brought:
    """A fitted model, and the labelled rows on which it is assessed."""

    fitted: Fitted
    table: Table


@dataclass(frozen=True)
class _Part:
    """A column as a feature, its values in rows, and what the model knows its categories by."""

    feature: Feature
    values: NDArray[np.float64]
    known: tuple[Any, ...] = ()


def read(loaded: Loaded, data: Path, label: str, reading: Reading) -> Brought:
    """Read the rows for a fitted model; raises `BadData`."""
    contents, columns = _columns(loaded, data, label, reading)
    known = categories_of(loaded.model, len(columns))
    problems, parts, needed = Problems(str(data)), [], _names(loaded.model) is not None
    for place, column in enumerate(columns):
        with problems.collected(needed=needed):
            parts.append(_part(column, known.get(place)))
    problems.refuse()
    labels = given_labels(loaded, contents.columns[label])
    asked = _asked(loaded, labels, parts, data, label)
    numbered = [place for place in known if parts[place].feature.kind == NUMBER and asked.refuses(place)]
    if numbered:  # the encoder refuses other numbers than those that it knows
        for place in numbered:
            parts[place] = _category(columns[place], known[place])
        asked = _asked(loaded, labels, parts, data, label)
    settled = asked.settled()
    notes = (*loaded.notes, *contents.notes, *labels.notes)
    held = settled.schema.held(np.column_stack([part.values for part in parts]))
    table = Table(held, labels.indices, settled.schema, source_of(contents, label, len(held)), notes=notes)
    if labels.sorted:
        _check_order(loaded, settled, table)
    return Brought(settled, table)


def _check_order(loaded: Loaded, fitted: Fitted, table: Table) -> None:
    """Raise `BadData` where a model that numbers its classes seems to number the labels in another order."""
    names = fitted.schema.class_names
    predicted = fitted.predict(table.features.astype(np.float64))
    order = better_order(table.labels, predicted, len(names))
    if order is not None:
        said, better = (", ".join(shown(name) for name in kind) for kind in (names, [names[place] for place in order]))
        raise loaded.bad(
            f"numbers its classes, and its answers agree with far more rows if 0, 1, … are {better} than if they are "
            f"the sorted labels, {said}; expected labels in the file that are the model's own numbers, or a model that "
            "was fitted on the labels"
        )


def _asked(loaded: Loaded, labels: GivenLabels, parts: Sequence[_Part], data: Path, label: str) -> _Asked:
    """Return the model with the schema of its columns; raises `BadData` where it can't answer the rows."""
    rows = np.column_stack([part.values for part in parts])
    features = tuple(_wide(loaded.model, part.feature, part.values) for part in parts)
    schema = _schema(labels, features, title_of(data), label)
    decode = Decoder(schema, _input(loaded, parts), {part.feature.name: part.known for part in parts if part.known})
    fitted = Fitted(loaded.model, decode)
    try:
        _answer(fitted, rows)
    except Exception as error:  # what a model raises is its own affair
        if takes_pandas_categories(loaded.model):
            raise loaded.bad(PANDAS_CATEGORIES) from None
        reason = (str(error).splitlines() or [""])[0][:300]
        raise loaded.bad(f"can't answer the rows of {data}: {type(error).__name__}: {reason}") from None
    complete = np.isnan(rows).sum(axis=1).argsort(kind="stable")[:ASKED]
    return _Asked(fitted, rows[complete])


# --- columns -------------------------------------------------------------------------------------------------------


def _columns(loaded: Loaded, data: Path, label: str, reading: Reading) -> tuple[Contents, list[Column]]:
    """Read the columns that the model takes, in its order, and the labels."""
    names = _names(loaded.model)
    if names is None:
        return _unnamed(loaded, data, label, reading)
    header = tables.read_contents(data, Choice(names=[label]), reading).header
    refuse_unknown(data, reading.said(label), header)
    there = {name.replace(" ", "_"): name for name in header} | {name: name for name in header}  # as LightGBM has them
    wanted = [there.get(name, name) for name in names]
    if ignored := [name for name in wanted if name in reading.ignore]:
        raise loaded.bad(f"was fitted on a column {ignored[0]!r}; expected it, and not --ignore")
    if label in wanted:
        raise loaded.bad(f"was fitted on a column {label!r}, which is the label here; expected another label")
    contents = tables.read_contents(data, Choice(names=[*wanted, label]), reading)
    others = [name for name in contents.header if name not in wanted and name != label]
    if others:
        note = f"{data}: left out, as the model was fitted without them: {', '.join(others)}"
        contents = replace(contents, notes=(*contents.notes, note))
    return contents, [contents.columns[name] for name in wanted]


def _unnamed(loaded: Loaded, data: Path, label: str, reading: Reading) -> tuple[Contents, list[Column]]:
    contents = tables.read_contents(data, Choice(without=reading.ignore, kept=[label]), reading)
    refuse_unknown(data, reading.said(label), contents.header)
    columns = [column for name, column in contents.columns.items() if name != label]
    width = getattr(loaded.model, "n_features_in_", len(columns))
    if len(columns) != width:
        raise BadData(
            f"{data}: has {len(columns)} columns besides the label, and the model was fitted on {width}, without their "
            "names; expected them in the same order, and --ignore for others"
        )
    note = f"{loaded.path}: was fitted without names of columns; they are taken in the order of {data}"
    return replace(contents, notes=(*contents.notes, note)), columns


def _names(model: Any) -> list[str] | None:
    """Return the names of the columns that a model was fitted on; LightGBM makes some up for those without."""
    booster = getattr(model, "booster_", None)  # of LightGBM, which has names where its classifier has none
    names = getattr(model, "feature_names_in_", None) if booster is None else booster.feature_name()
    if names is None:
        return None
    names = [*map(str, names)]
    return None if names == [f"Column_{place}" for place in range(len(names))] else names


def _input(loaded: Loaded, parts: Sequence[_Part]) -> str:
    if _names(loaded.model) is not None:
        return FRAME
    return ROWS if all(part.feature.kind == NUMBER for part in parts) else OBJECTS


def _part(column: Column, known: tuple[Any, ...] | None) -> _Part:
    """Return a column as a feature: of the categories that the model's encoder knows, or of what its cells show.

    It is optional as yet, and has one category more, which no model knows.
    """
    if all_missing(column):
        raise column.bad(None, "is empty in every row, and the model takes it; expected at least one value", [])
    if known and all(type(value) is str for value in known):
        return _category(column, known)
    found = infer(column)
    if found.kind == CATEGORY and known:
        return _category(column, known)
    if found.kind == CATEGORY:
        names = found.categories
        feature = Feature(column.name, kind=CATEGORY, categories=(*names, UNKNOWN), optional=True)
        return _Part(feature, found.values, feature.categories)
    if found.kind == BOOLEAN:
        return _Part(Feature(column.name, low=0, high=1, kind=BOOLEAN, optional=True), found.values)
    return _Part(Feature(column.name, optional=True), found.values)


def _category(column: Column, known: Sequence[Any]) -> _Part:
    """Return a column with the categories that an encoder knows, and then those that only the file has."""
    named = {_text(value): value for value in known}
    if len(named) < len(known):
        raise column.bad(None, "has categories in the model that differ by spaces only; expected different ones", [])
    texts = category_texts(column)
    named |= {text: text for text in sorted(texts.distinct.to_pylist()) if text not in named}
    feature = Feature(column.name, kind=CATEGORY, categories=(*named, UNKNOWN), optional=True)
    code = Codes(feature)
    values = np.array([*map(code, texts.distinct.to_pylist()), np.nan], np.float64)[texts.codes]
    return _Part(feature, values, (*named.values(), UNKNOWN if any(type(v) is str for v in known) else NO_CATEGORY))


def _text(value: Any) -> str:
    """Return a category as callers send it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _schema(labels: GivenLabels, features: tuple[Feature, ...], title: str, label: str) -> Schema:
    try:
        return Schema(features, labels.classes, title, label_type=labels.type, label_name=label)
    except ValueError as error:
        raise BadData(f"the label {label!r}: {error}") from None


def _wide(model: Any, feature: Feature, values: NDArray[np.float64]) -> Feature:
    """Return the feature, wide where 32 bits would give the model another number than it was fitted on."""
    if feature.kind != NUMBER or (model is classifier_of(model) and sees_32_bits(model)):
        return feature
    given = values[~np.isnan(values)]
    return replace(feature, wide=bool((given.astype(np.float32) != given).any()))


# --- what the model takes ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """A model, and some rows that it answers, with as few missing values as there are."""

    fitted: Fitted
    rows: Rows

    def settled(self) -> Fitted:
        """Return the model with a schema of what it takes: what may be missing, and which categories."""
        schema, decode = self.fitted.schema, self.fitted.decode
        encoded = categories_of(self.fitted.pipeline, len(schema.features))
        features = tuple(self._feature(place, place in encoded) for place in range(len(schema.features)))
        known = {f.name: tuple(decode.known_as(f)[:-1]) for f in schema.features if f.kind == CATEGORY}
        others = {f.name: known[f.name] for f in features if f.name in known and known[f.name] != f.categories}
        return Fitted(self.fitted.pipeline, Decoder(replace(schema, features=features), decode.input, others))

    def refuses(self, place: int) -> bool:
        """Whether the model refuses a number that none of its rows has."""
        return self._with(place, NO_CATEGORY) is None

    def _feature(self, place: int, encoded: bool) -> Feature:
        """Return a feature without the category that was only there to ask the model."""
        feature = self.fitted.schema.features[place]
        missing = self._with(place, np.nan)
        optional = missing is not None
        if feature.kind != CATEGORY:
            return replace(feature, optional=optional)
        unknown = self._with(place, len(feature.categories) - 1)
        same = missing is not None and unknown is not None and bool((np.abs(missing - unknown) <= SAME).all())
        handling = MISSING if same and encoded else REFUSE
        return replace(feature, categories=feature.categories[:-1], optional=optional, unknown=handling)

    def _with(self, place: int, value: float) -> Probabilities | None:
        """Return the model's answers with another value at a place; `None` where it has none."""
        changed = self.rows.copy()
        changed[:, place] = value
        try:
            return _answer(self.fitted, changed)
        except Exception:  # what a model raises is its own affair
            return None


def _answer(fitted: Fitted, rows: Rows) -> Probabilities:
    answered = fitted.predict_proba(rows)
    width = len(fitted.schema.classes)
    if len(answered) != len(rows) or not are_probabilities(answered, width):
        raise ValueError(f"predict_proba gives no probabilities of {width} classes, which add up to 1 in each row")
    return answered
