"""Make labelled tables to train on: of the built-in data, or of a user's CSV or Parquet file, which is checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import simulator
from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN
from defects.schema import ANSWER_FIELDS, ModelRows, Schema
from defects.training import tables
from defects.training.columns import Numbers, numbers
from defects.training.labels import labels
from defects.training.precision import is_wide
from defects.training.tables import BadData, Column
from defects.values import CONTROL

__all__ = ["BadData", "Table", "builtin", "read"]


@dataclass(frozen=True)
class Table:
    """Features `[rows, features]` as `Schema.held` has them, NaN where missing; labels as class indices `[rows]`.

    Rows of one group belong together, times tell which are later, and weights how much each counts: all `[rows]`.
    `notes` say what was left out, or taken for something.
    """

    features: ModelRows
    labels: NDArray[np.int64]
    schema: Schema
    source: dict[str, Any]
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


def builtin(rows: int, seed: int) -> Table:
    """Return the simulated scan tunnel's first `rows` parcels."""
    scans = simulator.Tunnel(seed=seed).scans(rows)
    source = {"source": "simulated scan tunnel (defects/simulator.py)", "rows": rows, "seed": seed, "label": "defect"}
    return Table(scans.features, scans.labels, simulator.SCHEMA, source)


def read(path: Path, label: str) -> Table:
    """Read a CSV or Parquet file: one row an example, with numeric or boolean features and a column of labels.

    Ranges, missingness and classes are inferred. Rows are counted from 1, the header not included. Raises `BadData`.
    """
    columns = tables.read(path)
    if label not in columns:
        raise BadData(f"{path}: no column {label!r}; expected the label column {tables.among(label, [*columns])}")
    labelled = columns.pop(label)
    rows = len(labelled.cells)
    if not rows:
        raise BadData(f"{path}: has no rows; expected at least two for each class")
    if not columns:
        raise BadData(f"{path}: has only the label column {label!r}; expected at least one feature column")
    found = labels(labelled)
    values = {name: numbers(column) for name, column in columns.items()}
    schema = Schema(
        tuple(_feature(column, values[name]) for name, column in columns.items()),
        tuple(_class(labelled, name) for name in found.classes),
        title=_printable(path.stem).replace("_", " "),
        label_type=found.type,
        label_name=_label_name(labelled),
    )
    features = schema.held(np.column_stack([column.values for column in values.values()]))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"source": _printable(path.name), "rows": rows, "label": label, "sha256": digest}
    return Table(features, found.indices, schema, source)


def _label_name(column: Column) -> str:
    """Return what answers call the class; raises `BadData` for a name that another field of an answer has."""
    if column.name in ANSWER_FIELDS:
        raise column.bad(
            None, f"has the name of another field of every answer; rename it (not {', '.join(ANSWER_FIELDS)})"
        )
    return column.name


def _printable(name: str) -> str:
    """Return a file's name as text; bytes that are not UTF-8, and control characters, can't be kept."""
    return CONTROL.sub("\ufffd", name.encode(errors="surrogateescape").decode(errors="replace"))


def _class(column: Column, name: str) -> DefectClass:
    try:
        return DefectClass(name)
    except ValueError as error:
        raise column.bad(None, f"has the class {tables.shown(name)!r}: its {error}") from None


def _feature(column: Column, found: Numbers) -> Feature:
    try:
        return _described(column, found)
    except ValueError as error:
        raise BadData(f"{column.path}: column {tables.shown(column.name)!r}: its {error}") from None


def _described(column: Column, found: Numbers) -> Feature:
    missing = np.isnan(found.values)
    if missing.all():
        raise column.bad(None, "is empty in every row; expected at least one number")
    optional = bool(missing.any())
    if found.boolean:
        return Feature(column.name, low=0, high=1, optional=optional, kind=BOOLEAN)
    return Feature(column.name, optional=optional, wide=is_wide(found.values[~missing]))
