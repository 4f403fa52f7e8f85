"""Convert the steps of a pipeline that prepare rows for its classifier.

A step takes a matrix of the graph, float64, and gives another. What a column of it comes from is kept beside it: a
column that holds text, or other categories, in the pipeline holds codes in the graph until an encoder makes numbers of
it; and whoever probes a threshold has to know which value of a row comes to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils import check_array

from defects.schema import Schema
from defects.training.graph import Graph
from defects.training.trees import Floats, NotConvertible

NOWHERE = -1.0  # a code that no row has


@dataclass(frozen=True)
class Column:
    """A column of a matrix in the pipeline: what it makes of a row's value at `source`.

    That is `value * scale + offset`, nearly; or, of an encoded column, what `encoded` has for the value, else `other`.
    `categories`, of a column that is still to be encoded, has what each code stands for.
    """

    source: int
    categories: tuple[Any, ...] = ()
    scale: float = 1.0
    offset: float = 0.0
    encoded: tuple[tuple[float, float], ...] = ()
    other: float = 0.0

    def scaled(self, scale: float, offset: float) -> Column:
        """Return this column, multiplied and moved."""
        return replace(
            self,
            scale=self.scale * scale,
            offset=self.offset * scale + offset,
            encoded=tuple((value, number * scale + offset) for value, number in self.encoded),
            other=self.other * scale + offset,
        )


@dataclass(frozen=True)
class Matrix:
    """A value of the graph, float64 `[n, columns]`."""

    name: str
    columns: tuple[Column, ...]

    def numbers(self, step: Any) -> Matrix:
        """Return this matrix where it holds numbers only; else raise `NotConvertible` for the step."""
        if any(column.categories for column in self.columns):
            raise NotConvertible(f"{type(step).__name__} of a text column")
        return self


def numbers(schema: Schema) -> tuple[Column, ...]:
    """Return the columns of a pipeline that gets rows as they are."""
    return tuple(map(Column, range(len(schema.features))))


def shift(offsets: Floats) -> FunctionTransformer:
    """Make a step that subtracts `offsets` `[features]`, of parts that scikit-learn's own loader trusts."""
    return FunctionTransformer(partial(np.add, -offsets))


def convert(graph: Graph, step: Any, matrix: Matrix) -> Matrix:
    """Add a fitted step to the graph; raises `NotConvertible`."""
    if step == "passthrough":
        return matrix
    if type(step) not in _STEPS:
        raise NotConvertible(type(step).__name__)
    return _STEPS[type(step)](graph, step, matrix)


def chain(graph: Graph, steps: Iterable[Any], matrix: Matrix) -> Matrix:
    """Add fitted steps, one after the other."""
    for step in steps:
        matrix = convert(graph, step, matrix)
    return matrix


def select(graph: Graph, matrix: Matrix, chosen: Sequence[int]) -> Matrix:
    """Choose columns of a matrix, by number."""
    if [*chosen] == [*range(len(matrix.columns))]:
        return matrix
    return Matrix(graph.columns(matrix.name, chosen), tuple(matrix.columns[i] for i in chosen))


# --- numbers -------------------------------------------------------------------------------------------------------


def _function(graph: Graph, step: FunctionTransformer, matrix: Matrix) -> Matrix:
    function = step.func
    if function is None or (isinstance(function, partial) and function.func is check_array):
        return matrix
    matrix = matrix.numbers(step)
    if not isinstance(function, partial) or function.func is not np.add or len(function.args) != 1 or step.kw_args:
        raise NotConvertible(f"FunctionTransformer({function})")
    return _moved(graph, matrix, np.asarray(function.args[0], np.float64))


def _moved(graph: Graph, matrix: Matrix, offsets: Floats) -> Matrix:
    return _scaled(matrix, graph.add("Add", matrix.name, offsets), 1.0, offsets)


def _scaled(matrix: Matrix, name: str, scale: Any, offset: Any) -> Matrix:
    width = len(matrix.columns)
    scales, offsets = (np.broadcast_to(part, width).tolist() for part in (scale, offset))
    return Matrix(name, tuple(map(Column.scaled, matrix.columns, scales, offsets)))


def _standard(graph: Graph, step: StandardScaler, matrix: Matrix) -> Matrix:
    return _centred(graph, step, matrix, step.mean_ if step.with_mean else None, step.scale_)


def _robust(graph: Graph, step: RobustScaler, matrix: Matrix) -> Matrix:
    return _centred(graph, step, matrix, step.center_, step.scale_)


def _max_abs(graph: Graph, step: MaxAbsScaler, matrix: Matrix) -> Matrix:
    if getattr(step, "clip", False):
        raise NotConvertible("MaxAbsScaler that clips")
    return _centred(graph, step, matrix, None, step.scale_)


def _centred(graph: Graph, step: Any, matrix: Matrix, centre: Any, scale: Any) -> Matrix:
    matrix = matrix.numbers(step)
    if centre is not None:
        centre = np.asarray(centre, np.float64)
        matrix = _scaled(matrix, graph.add("Sub", matrix.name, centre), 1.0, -centre)
    if scale is not None:
        scale = np.asarray(scale, np.float64)
        matrix = _scaled(matrix, graph.add("Div", matrix.name, scale), 1 / scale, 0.0)
    return matrix


def _min_max(graph: Graph, step: MinMaxScaler, matrix: Matrix) -> Matrix:
    if step.clip:
        raise NotConvertible("MinMaxScaler that clips")
    scale = np.asarray(step.scale_, np.float64)
    matrix = matrix.numbers(step)
    matrix = _scaled(matrix, graph.add("Mul", matrix.name, scale), scale, 0.0)
    return _moved(graph, matrix, np.asarray(step.min_, np.float64))


# --- missing values ------------------------------------------------------------------------------------------------


def _imputed(graph: Graph, step: SimpleImputer, matrix: Matrix) -> Matrix:
    if step.add_indicator or not is_missing(step.missing_values) or any(map(is_missing, step.statistics_)):
        raise NotConvertible("SimpleImputer with an empty column, an indicator, or a marker other than NaN")
    columns, values = zip(*map(_filled, matrix.columns, step.statistics_), strict=True)
    return Matrix(graph.add("Where", graph.add("IsNaN", matrix.name), np.array(values), matrix.name), columns)


def _filled(column: Column, value: Any) -> tuple[Column, float]:
    """Return the column and what stands in it for a missing value: of text, its code."""
    if not column.categories:
        return column, float(value)
    if value not in column.categories:
        column = replace(column, categories=(*column.categories, value))
    return column, float(column.categories.index(value))


def is_missing(value: Any) -> bool:
    """Whether a category, or a marker, is a missing one as a frame has it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


# --- categories ----------------------------------------------------------------------------------------------------


def _one_hot(graph: Graph, step: OneHotEncoder, matrix: Matrix) -> Matrix:
    if step.min_frequency is not None or step.max_categories is not None:
        raise NotConvertible("OneHotEncoder with infrequent categories")
    dropped = [None] * len(matrix.columns) if step.drop_idx_ is None else step.drop_idx_
    chosen, codes, columns = [], [], []
    for number, (column, categories) in enumerate(zip(matrix.columns, step.categories_, strict=True)):
        for place, category in enumerate(categories):
            if place != dropped[number]:
                code = code_of(column, category)
                chosen.append(number)
                codes.append(code)
                columns.append(Column(column.source, encoded=((code, 1.0),)))
    return Matrix(graph.cast(_equal(graph, graph.columns(matrix.name, chosen), codes), TensorProto.DOUBLE), (*columns,))


def _equal(graph: Graph, values: str, codes: Sequence[float]) -> str:
    """Compare each column of `values` with its code; NaN is like NaN here."""
    expected = np.array(codes)
    same = graph.add("Equal", values, expected)
    if not np.isnan(expected).any():
        return same
    return graph.add("Or", same, graph.add("And", graph.add("IsNaN", values), np.isnan(expected)))


def code_of(column: Column, category: Any) -> float:
    """Return the number that rows have for a category of an encoder; raises `NotConvertible` for text among numbers."""
    if is_missing(category):
        return math.nan
    if column.categories:
        return float(column.categories.index(category)) if category in column.categories else NOWHERE
    if isinstance(category, str):
        raise NotConvertible("text as a category of a column of numbers")
    return float(category)


def _ordinal(graph: Graph, step: OrdinalEncoder, matrix: Matrix) -> Matrix:
    if step.min_frequency is not None or step.max_categories is not None:
        raise NotConvertible("OrdinalEncoder with infrequent categories")
    unknown = math.nan if step.unknown_value is None else float(step.unknown_value)
    made = [
        _ranked(graph, select(graph, matrix, [number]), categories, unknown, float(step.encoded_missing_value))
        for number, categories in enumerate(step.categories_)
    ]
    return join(graph, made)


def _ranked(graph: Graph, matrix: Matrix, categories: NDArray[Any], unknown: float, missing: float) -> Matrix:
    """Number one column by its place among the categories; a sum of one number and zeros is that number."""
    (column,) = matrix.columns
    codes = [code_of(column, category) for category in categories]
    ranks = np.array([missing if math.isnan(code) else rank for rank, code in enumerate(codes)], np.float64)
    same = _equal(graph, matrix.name, codes)
    terms = graph.add("Where", same, ranks, np.zeros(1))
    known = graph.add("ReduceMax", graph.cast(same, TensorProto.DOUBLE), np.array([1]), keepdims=1)
    ranked = graph.add("ReduceSum", terms, np.array([1]), keepdims=1)
    name = graph.add("Where", graph.cast(known, TensorProto.BOOL), ranked, np.array([unknown]))
    return Matrix(name, (Column(column.source, encoded=tuple(zip(codes, ranks.tolist(), strict=True)), other=unknown),))


# --- columns that go different ways --------------------------------------------------------------------------------


def _column_transformer(graph: Graph, step: ColumnTransformer, matrix: Matrix) -> Matrix:
    if step.transformer_weights:
        raise NotConvertible("ColumnTransformer with weights")
    made = []
    for name, transformer, _ in step.transformers_:
        chosen = step._transformer_to_input_indices[name]
        if len(chosen) and not (isinstance(transformer, str) and transformer == "drop"):
            made.append(convert(graph, transformer, select(graph, matrix, [*map(int, chosen)])))
    return join(graph, made)


def join(graph: Graph, parts: Sequence[Matrix]) -> Matrix:
    """Put matrices side by side."""
    if len(parts) == 1:
        return parts[0]
    columns = tuple(column for part in parts for column in part.columns)
    return Matrix(graph.add("Concat", *(part.name for part in parts), axis=1), columns)


_STEPS: dict[type, Callable[[Graph, Any, Matrix], Matrix]] = {
    Pipeline: lambda graph, step, matrix: chain(graph, (part for _, part in step.steps), matrix),
    ColumnTransformer: _column_transformer,
    FunctionTransformer: _function,
    SimpleImputer: _imputed,
    StandardScaler: _standard,
    RobustScaler: _robust,
    MinMaxScaler: _min_max,
    MaxAbsScaler: _max_abs,
    OneHotEncoder: _one_hot,
    OrdinalEncoder: _ordinal,
}
