"""Read a column of a table as categories: its distinct texts in order, and each row's code, its category's place."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from defects.features import INTEGER, Codes, Feature
from defects.problems import field_name
from defects.training.bad_data import shown
from defects.training.columns import Floats, Texts, check_type, encoded, texts
from defects.training.tables import Column

_WHOLE = re.compile(r"(0|-?[1-9]\d{0,14})(\.0*)?", re.ASCII)


def category_texts(column: Column) -> Texts:
    """Return a column's values as the texts that categories have; raises `BadData` for a type that has none.

    Whole numbers are integers, such as "2" for 2.0: a data frame makes floats of integers where one is missing.
    """
    check_type(column)
    kind = column.cells.type
    found = texts(column) if pa.types.is_large_string(kind) else _from_typed(column)
    names = found.distinct.to_pylist()
    if not (any("." in name for name in names) and all(map(_WHOLE.fullmatch, names))):
        return found
    return _merged([name.partition(".")[0] for name in names], found)


def _from_typed(column: Column) -> Texts:
    """Return numbers and booleans as text: the shortest that means them."""
    kind, cells = column.cells.type, column.cells
    if pa.types.is_floating(kind):
        distinct, codes = encoded(pc.if_else(pc.is_nan(cells), pa.scalar(None, kind), cells))
        value_of = kind.to_pandas_dtype()
        names = [str(value_of(value) + value_of(0)) for value in distinct.to_pylist()]  # no -0.0
        return Texts(pa.array(names, pa.large_string()), codes)
    distinct, codes = encoded(cells)
    if pa.types.is_null(kind):
        return Texts(pa.array([], pa.large_string()), codes)
    return Texts(pa.array([str(value) for value in distinct.to_pylist()], pa.large_string()), codes)


def _merged(names: Sequence[str], found: Texts) -> Texts:
    """Return the texts with these names, each once."""
    unique = list(dict.fromkeys(names))
    places = {name: place for place, name in enumerate(unique)}
    new = np.array([places.get(name, -1) for name in names] + [-1], np.int64)
    return Texts(pa.array(unique, pa.large_string()), new[found.codes])


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return categories in order: by value where all are integers, else by code points."""
    integers = all(map(INTEGER.fullmatch, names))
    return tuple(sorted(names, key=int) if integers else sorted(names))


def codes(found: Texts, categories: Sequence[str]) -> Floats:
    """Return each row's code, float64 `[rows]`, NaN where missing; every text is one of the categories."""
    places = {name: float(code) for code, name in enumerate(categories)}
    return np.array([places[name] for name in found.distinct.to_pylist()] + [np.nan])[found.codes]


def known_codes(column: Column, feature: Feature) -> Floats:
    """Return each row's code for a feature whose categories are known; raises `BadData` for one that is none of them.

    An unknown one is missing where the feature says so. Missing ones are not refused here.
    """
    found = category_texts(column)
    code = Codes(feature)
    known: list[float] = []
    for place, name in enumerate(found.distinct.to_pylist()):
        try:
            value = code(name)
        except KeyError:
            problem = feature.problem_with_category(name, field_name(0, feature.name, True), suggest=True)
            text = f"{shown(name)!r} is unknown; expected {problem.expected}"
            raise column.bad(found.row(place), text) from None
        known.append(np.nan if value is None else value)
    return np.array([*known, np.nan])[found.codes]
