"""Read a column of a table as labels: their type, the classes in scikit-learn's order, and each row's class.

That order is of values, not of their text: numbers from the smallest, false before true, text by code points.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defects.kinds import BOOLEAN, INTEGER, NUMBER, TEXT
from defects.training.bad_data import shown
from defects.training.columns import TRUTHS, check_type, encoded, merged
from defects.training.tables import Column

FEW_CLASSES = 5  # are classes, also where one has one row; more where they come twice on average
FEW_NUMBERS = 20  # are classes, however few rows each of them has,
FEW_ROWS = 10  # and more are with as many rows for each,
MOST_NUMBERS = 1_000  # up to so many
INT64 = range(-(2**63), 2**63)

_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_COMMA = re.compile(r"-?\d*,?\d*", re.ASCII)
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)?(\.\d*)?", re.ASCII)  # and at least one digit


@dataclass(frozen=True)
class Labels:
    """The class of each row as an index `[rows]` into `classes`, which are the labels as text, in order."""

    indices: NDArray[np.int64]
    classes: tuple[str, ...]
    type: str


def labels(column: Column) -> Labels:
    """Read the labels; raises `BadData` for a row without one, for unusable ones, and for a class with one row."""
    found, codes, kind = distinct_labels(column)
    missing = codes < 0
    if missing.any():
        rest = f" ({int(missing.sum()):,} rows have none: leave them out of the file)" if missing.sum() > 1 else ""
        raise column.bad(int(missing.argmax()), f"has no label; expected one for every row{rest}")
    ordered = sorted(set(found))
    index = {label: place for place, label in enumerate(ordered)}
    indices = np.array([index[label] for label in found], np.int64)[codes]
    classes = tuple(map(str, ordered))
    if kind in (INTEGER, NUMBER):
        _refuse_regression(column, len(classes))
    _refuse_rare(column, indices, classes)
    return Labels(indices, classes, kind)


def distinct_labels(column: Column) -> Found:
    """Return the distinct labels, each row's place among them, -1 where it has none, and their type."""
    check_type(column)
    return _typed(column) if column.typed else _from_text(column)


def _refuse_rare(column: Column, indices: NDArray[np.int64], classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise column.bad(None, f"has only the class {shown(classes[0])!r}; expected at least two classes")
    counts = np.bincount(indices)
    if counts.min() < 2:
        rare = int(counts.argmin())
        problem = f"class {shown(classes[rare])!r} has one example; expected at least two for each class"
        raise column.bad(int((indices == rare).argmax()), problem)


def _refuse_regression(column: Column, count: int) -> None:
    """Raise `BadData` for numbers that are measured rather than classes: many different ones, each in few rows."""
    rows = len(column.cells)
    repeated = count <= FEW_CLASSES or count * 2 <= rows
    if not repeated or count > MOST_NUMBERS or (count > FEW_NUMBERS and count * FEW_ROWS > rows):
        what = f"has {count:,} different numbers in {rows:,} rows, as a target of regression has"
        raise column.bad(None, f"{what}; expected classes: put the numbers into bins first, such as low and high")


Found = tuple[
    Sequence[Any], NDArray[np.int64], str
]  # distinct labels, the place of each row's, -1 if missing, the type


def _stripped(column: Column) -> tuple[Any, NDArray[np.int64]]:
    """Return the texts without spaces around them; only empty ones are missing, and those of `--na`."""
    text = pc.utf8_trim_whitespace(column.cells)
    markers = pa.array(["", *column.reading.na], pa.large_string())
    return encoded(pc.if_else(pc.is_in(text, value_set=markers), pa.scalar(None, pa.large_string()), text))


def _from_text(column: Column) -> Found:
    """Read labels without a type: integers if all are, else numbers if all are, else booleans if all are, else text."""
    distinct, codes = _stripped(column)
    if column.reading.decimal == "," and all(map(_COMMA.fullmatch, distinct.to_pylist())):
        distinct = pc.replace_substring(distinct, ",", ".")
    texts: list[str] = distinct.to_pylist()
    if all(map(_is_integer, texts)):
        return list(map(int, texts)), codes, INTEGER
    if all(map(_is_decimal, texts)) and not all(text.lstrip("-").isdigit() for text in texts):
        values = np.array(list(map(float, texts))) + 0.0  # so that -0.0 is 0.0
        if np.isfinite(values).all() and not merged(distinct, values):
            return values.tolist(), codes, NUMBER
    if TRUTHS.keys() >= set(texts):
        return [TRUTHS[text] for text in texts], codes, BOOLEAN
    return texts, codes, TEXT


def _is_integer(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and int(text) in INT64


def _is_decimal(text: str) -> bool:
    """Whether text is a plain number, or one as Python writes it; not with leading zeros, which identifiers have."""
    if _DECIMAL.fullmatch(text):
        return any(map(str.isdigit, text))
    return "e" in text and _is_written_so(text)


def _is_written_so(text: str) -> bool:
    try:
        return repr(float(text)) == text
    except ValueError:
        return False


def _typed(column: Column) -> Found:
    """Read labels of the type that the file gives them."""
    kind, types = column.cells.type, pa.types
    if types.is_large_string(kind):
        distinct, codes = _stripped(column)
        return distinct.to_pylist(), codes, TEXT
    if types.is_null(kind):
        return [], np.full(len(column.cells), -1), TEXT
    if types.is_floating(kind):
        return _from_floats(column)
    distinct, codes = encoded(column.cells)
    found: list[Any] = distinct.to_pylist()
    if types.is_boolean(kind):
        return found, codes, BOOLEAN
    if types.is_decimal(kind) and kind.scale > 0:
        values = np.array(list(map(float, found))) + 0.0
        for _, other in merged(distinct.cast(pa.large_string()), values):
            problem = f"{found[other]} has more digits than a 64-bit float; expected fewer, or text"
            raise column.bad(int((codes == other).argmax()), problem)
        return values.tolist(), codes, NUMBER
    for place, value in enumerate(found):
        if int(value) not in INT64:
            problem = f"{value} is larger than a 64-bit integer; expected a smaller one, or text"
            raise column.bad(int((codes == place).argmax()), problem)
    return list(map(int, found)), codes, INTEGER


def _from_floats(column: Column) -> Found:
    """Read floats, NaN as a missing one; those of fewer than 64 bits by their shortest text, such as 0.1 of float32."""
    values = column.cells.to_numpy()  # NaN for null
    if (infinite := np.isinf(values)).any():
        row = int(infinite.argmax())
        raise column.bad(row, f"{values[row]:g}; expected a finite number")
    distinct, codes = np.unique(values, return_inverse=True)
    codes = np.where(np.isnan(values), -1, codes)
    return [float(str(value)) + 0.0 for value in distinct], codes, NUMBER
