"""Read the columns that are no features: which rows belong together, when each was made, and how much it counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defects.training.bad_data import shown
from defects.training.columns import Codes, Floats, check_type, encoded, numbers, parsed_numbers, texts
from defects.training.dates import seconds
from defects.training.tables import Column

# How many of a type's units are a second.
UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
DAY_SECONDS = 86_400.0


def groups(column: Column) -> Codes:
    """Return the group of each row, int64 `[rows]`: equal values are one group; raises `BadData`."""
    kind = column.cells.type
    if pa.types.is_large_string(kind):
        codes = texts(column).codes
    elif pa.types.is_floating(kind):
        values = column.cells.to_numpy()
        codes = np.where(np.isnan(values), -1, np.unique(values, return_inverse=True)[1])
    else:
        if not pa.types.is_temporal(kind):
            check_type(column)
        codes = encoded(column.cells)[1]
    _refuse_missing(column, codes < 0, "group")
    if codes.max(initial=0) == 0:
        raise column.bad(None, "has one group only; expected at least two", ())
    return codes


def times(column: Column) -> Floats:
    """Return the time of each row, float64 `[rows]`: numbers as they are, dates and times as seconds.

    Raises `BadData` for text that is neither a number nor a date of ISO 8601.
    """
    kind = column.cells.type
    if pa.types.is_temporal(kind):
        values = _from_temporal(column)
    elif pa.types.is_large_string(kind):
        values = _from_text(column)
    else:
        values = numbers(column).values
    _refuse_missing(column, np.isnan(values), "time")
    return values


def _from_temporal(column: Column) -> Floats:
    kind, types = column.cells.type, pa.types
    if types.is_interval(kind):
        check_type(column)
    integers = column.cells.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    unit = UNITS[kind.unit] if not types.is_date(kind) else 1 / DAY_SECONDS if types.is_date32(kind) else UNITS["ms"]
    values: Floats = pc.fill_null(integers, 0).to_numpy().astype(np.float64) / unit
    return np.where(pc.is_null(column.cells).to_numpy(), np.nan, values)


def _from_text(column: Column) -> Floats:
    found = texts(column)
    parsed = parsed_numbers(column, found.distinct)
    if len(parsed) and np.isnan(parsed).all():
        parsed = np.array([_seconds(text) for text in found.distinct.to_pylist()])
    wrong = np.isnan(parsed) | np.isinf(parsed)
    if wrong.any():
        place = int(wrong.argmax())
        text = shown(found.distinct[place].as_py())
        expected = "expected numbers, or dates and times such as 2026-01-31 or 2026-01-31T08:00:00, in all rows"
        raise column.bad(found.row(place), f"{text!r} is no time; {expected}", ())
    return np.append(parsed, np.nan)[found.codes]


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except (ValueError, OverflowError):
        return np.nan


def weights(column: Column) -> Floats:
    """Return how much each row counts, float64 `[rows]`; raises `BadData` for what is not finite or below zero."""
    found = numbers(column)
    _refuse_missing(column, np.isnan(found.values), "weight")
    if found.boolean:
        raise column.bad(0, "is true or false; expected a weight, a number from 0", ())
    if (found.values < 0).any():
        row = int((found.values < 0).argmax())
        raise column.bad(row, f"{found.values[row]:g} is below 0; expected a weight, a number from 0", ())
    if not found.values.any():
        raise column.bad(None, "is 0 in every row; expected a weight above 0 in some", ())
    return found.values


def _refuse_missing(column: Column, missing: NDArray[np.bool_], what: str) -> None:
    if missing.any():
        raise column.bad(int(missing.argmax()), f"has no {what}; expected one for every row", ())
