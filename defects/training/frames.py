"""Make a pandas data frame of a table's columns, as a pipeline from a notebook was fitted on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from defects.training.categories import category_texts
from defects.training.columns import Texts, is_boolean, numbers, numbers_of, parsed_numbers, texts
from defects.training.tables import Column

if TYPE_CHECKING:
    import pandas as pd


def frame(columns: Iterable[Column]) -> pd.DataFrame:
    """Return the columns as `pandas.read_csv` would: numbers as int64 or float64, true and false as bool, else text.

    Text has no spaces around it, and NaN where it is missing, as numbers have. What the command says are categories is
    text. Raises `BadData` for a type that is none of these.
    """
    import pandas as pd

    return pd.DataFrame({column.name: _cells(column) for column in columns})


def _cells(column: Column) -> Any:
    if column.categorical or column.name in column.reading.category:
        return _objects(category_texts(column))
    if not pa.types.is_large_string(column.cells.type):
        found = numbers(column)
        whole = pa.types.is_integer(column.cells.type)
    else:
        text = texts(column)
        if _is_text(column, text):
            return _objects(text)
        found = numbers_of(column, text)
        whole = not any(sign in name for name in text.distinct.to_pylist() for sign in ".,eE")
    missing = np.isnan(found.values)
    if found.boolean:
        truths = found.values == 1
        return np.where(missing, np.nan, truths.astype(object)) if missing.any() else truths
    return found.values.astype(np.int64) if whole and not missing.any() else found.values


def _is_text(column: Column, found: Texts) -> bool:
    if column.name in column.reading.number:
        return False
    return bool(np.isnan(parsed_numbers(column, found.distinct)).any()) and not is_boolean(found)


def _objects(found: Texts) -> Any:
    """Return the texts as objects `[rows]`, NaN where missing."""
    return np.array([*found.distinct.to_pylist(), np.nan], object)[found.codes]
