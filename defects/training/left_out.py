"""Find columns that are no features and need not be: a data frame's index, and columns without any value."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa

from defects.training.bad_data import BadData
from defects.training.columns import numbers
from defects.training.inferring import all_missing
from defects.training.tables import Column

# What data frames' indices are called in files, by pandas and by R.
_INDEX = re.compile(r"Unnamed: \d+(\.\d+)*|(index|level_\d+|row[_. ]?(names?|numbers?|ids?|index)?)", re.IGNORECASE)


def reason(column: Column) -> str | None:
    """Return why a column is left out, in words; `None` where it is a feature."""
    if all_missing(column):
        return f"column {column.name!r} is empty in every row and is left out"
    if _INDEX.fullmatch(column.name) and _counts(column):
        return f"column {column.name!r} counts the rows, is taken for a data frame's index and left out"
    return None


def _counts(column: Column) -> bool:
    """Whether the column is 0, 1, 2… or 1, 2, 3…"""
    if not (pa.types.is_integer(column.cells.type) or pa.types.is_large_string(column.cells.type)):
        return False
    try:
        values = numbers(column).values
    except BadData:
        return False
    return bool(values[0] in (0, 1) and np.array_equal(values, values[0] + np.arange(len(values))))
