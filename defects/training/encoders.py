"""Find the categories that a fitted pipeline's own encoders know of the columns that it gets."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_array

from defects.training.steps import is_missing


def categories_of(pipeline: Any, width: int) -> dict[int, tuple[Any, ...]]:
    """Return the categories of each column, by number, that goes to an encoder as it is, in the encoder's order.

    Missing ones are left out.
    """
    found: dict[int, tuple[Any, ...]] = {}
    _walk(pipeline, range(width), found)
    return found


def _walk(step: Any, columns: Sequence[int], found: dict[int, tuple[Any, ...]]) -> Sequence[int]:
    """Follow the columns through a step; returns those that come out of it as they went in, or none."""
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            columns = _walk(part, columns, found) if columns else columns
        return columns
    if isinstance(step, ColumnTransformer):
        for name, part, _ in step.transformers_:
            _walk(part, [columns[place] for place in step._transformer_to_input_indices[name]], found)
        return ()
    if isinstance(step, FeatureUnion):
        for _, part in step.transformer_list:
            _walk(part, columns, found)
        return ()
    if (inner := getattr(step, "_preprocessor", None)) is not None:  # of boosted trees with categories
        return _walk(inner, columns, found)
    if isinstance(step, SimpleImputer | FunctionTransformer):
        return columns if _keeps_values(step) else ()
    for column, categories in zip(columns, getattr(step, "categories_", ()), strict=False):
        found.setdefault(column, tuple(_plain(value) for value in categories if not is_missing(value)))
    return columns if step == "passthrough" else ()


def _keeps_values(step: Any) -> bool:
    if isinstance(step, SimpleImputer):
        return not step.add_indicator and not any(map(is_missing, step.statistics_))
    return step.func is None or (isinstance(step.func, partial) and step.func.func is check_array)


def _plain(value: Any) -> Any:
    """Return a category of NumPy's type as one of Python's."""
    return value.item() if hasattr(value, "item") else value
