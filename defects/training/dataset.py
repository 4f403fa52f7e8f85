"""Labelled tables to train on: the built-in data, or a user's CSV or Parquet file, checked."""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from defects import tunnel
from defects.schema import FLOAT32_MAX, DefectClass, Feature, Schema

# What counts as a missing measurement in a CSV; a label is missing only where its cell is empty.
NO_TABLES = (".xlsx", ".xls", ".json", ".jsonl", ".gz", ".zip", ".feather", ".pkl")
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")


class BadData(Exception):
    """The data can't be trained on; the message names file, column, row and what was expected."""


@dataclass(frozen=True)
class Table:
    """Features as float32 `[rows, features]`, NaN where missing; labels as class indices `[rows]`."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    schema: Schema
    source: dict[str, Any]


def builtin(rows: int, seed: int) -> Table:
    """The simulated scan tunnel's first `rows` parcels."""
    scans = tunnel.Tunnel(seed=seed).scans(rows)
    source = {"source": "simulated scan tunnel (defects/tunnel.py)", "rows": rows, "seed": seed, "label": "defect"}
    return Table(scans.features, scans.labels, tunnel.SCHEMA, source)


def read(path: Path, label: str) -> Table:
    """A CSV or Parquet file with one row an example, numeric feature columns and a label column.

    Ranges, missingness and classes are inferred. Rows are counted from 1, the header not included. Raises `BadData`.
    """
    frame = _read_frame(path, label)
    if label not in frame.columns:
        close = difflib.get_close_matches(label, frame.columns, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        known = ", ".join(map(repr, frame.columns))
        raise BadData(f"{path}: no column {label!r}; expected the label column among {known}{hint}")
    if frame.empty:
        raise BadData(f"{path}: has no rows; expected at least two for each class")
    names = [name for name in frame.columns if name != label]
    if not names:
        raise BadData(f"{path}: has only the label column {label!r}; expected at least one feature column")
    labels, classes = _labels(path, label, frame[label])
    columns = [_numbers(path, name, frame[name]) for name in names]
    features = np.column_stack(columns).astype(np.float32)
    schema = Schema(
        tuple(_feature(frame[name], c) for name, c in zip(names, columns, strict=True)),
        tuple(DefectClass(name) for name in classes),
        title=path.stem.replace("_", " "),
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"source": path.name, "rows": len(frame), "label": label, "sha256": digest}
    return Table(features, labels, schema, source)


def _feature(column: pd.Series[Any], numbers: NDArray[np.float64]) -> Feature:
    optional = bool(np.isnan(numbers).any())
    if pd.api.types.is_bool_dtype(column):
        return Feature(str(column.name), "", "1 for true, 0 for false", 0, 1, optional)
    return Feature(str(column.name), optional=optional)


def _read_frame(path: Path, label: str) -> pd.DataFrame:
    if path.suffix.lower() in NO_TABLES or path.is_dir():
        raise BadData(f"{path}: is no CSV or Parquet file, by its name; expected one")
    if not path.is_file():
        raise BadData(f"{path}: no such file; expected a CSV or Parquet file")
    if path.stat().st_size == 0:
        raise BadData(f"{path}: is empty; expected a header and at least two rows for each class")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _unique(path, pd.read_parquet(path))
        return _read_csv(path, label)
    except (ValueError, OSError, UnicodeDecodeError, csv.Error) as error:  # pandas' and pyarrow's own are ValueErrors
        raise BadData(f"{path}: can't be read: {str(error).splitlines()[0]}; expected a CSV or Parquet file") from None


def _read_csv(path: Path, label: str) -> pd.DataFrame:
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = (row for row in csv.reader(lines) if row)
        header = next(rows, [])
        _check_names(path, header)
        if len(header) == 1 and any(separator in header[0] for separator in ";\t|"):
            raise BadData(f"{path}: the header has one column, {header[0][:60]!r}; expected commas between columns")
        for number, row in enumerate(rows, 1):  # pandas would fill a short row and cut or shift a long one
            if len(row) != len(header):
                raise BadData(f"{path}: row {number}: has {len(row)} cells; expected {len(header)}, as in the header")
    return pd.read_csv(
        path,
        encoding="utf-8-sig",
        dtype={label: str},
        keep_default_na=False,
        na_values={name: [""] if name == label else list(MISSING) for name in header},
        low_memory=False,
    )


def _unique(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    frame.columns = frame.columns.map(str)
    _check_names(path, list(frame.columns))
    return frame.reset_index(drop=True)


def _check_names(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadData(f"{path}: column {twice[0]!r} appears more than once; expected unique column names")
    if "" in names:
        raise BadData(
            f"{path}: column {names.index('') + 1} has no name; expected a name for every column "
            "(a data frame's index is left out by to_csv(index=False))"
        )


def _labels(path: Path, label: str, column: pd.Series[Any]) -> tuple[NDArray[np.int64], list[str]]:
    missing = column.isna().to_numpy()
    if missing.any():
        raise BadData(f"{path}: column {label!r}, row {_first(missing)}: has no label; expected one for every row")
    names = column.astype(str).str.strip()
    classes, labels, counts = np.unique(names.to_numpy(dtype=str), return_inverse=True, return_counts=True)
    if len(classes) < 2:
        raise BadData(f"{path}: column {label!r} has only the class {str(classes[0])!r}; expected at least two classes")
    if counts.min() < 2:
        rare = int(counts.argmin())
        raise BadData(
            f"{path}: column {label!r}, row {_first(labels == rare)}: class {str(classes[rare])!r} has one example; "
            "expected at least two for each class"
        )
    return labels.astype(np.int64), [str(name) for name in classes]


def _numbers(path: Path, name: str, column: pd.Series[Any]) -> NDArray[np.float64]:
    """The column as float64 `[rows]`; raises `BadData` for the first cell that is not a finite number."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise BadData(f"{path}: column {name!r}, row 1: is a date or a duration; expected a number")
    if not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)):
        _refuse_text(path, name, column)
    numbers = pd.to_numeric(column).to_numpy(dtype=np.float64, na_value=np.nan)
    too_large = np.abs(numbers) > FLOAT32_MAX
    if too_large.any():
        row = _first(too_large)
        raise BadData(f"{path}: column {name!r}, row {row}: {numbers[row - 1]:g}; expected a finite 32-bit number")
    if np.isnan(numbers).all():
        raise BadData(f"{path}: column {name!r} is empty in every row; expected at least one number")
    return numbers


def _refuse_text(path: Path, name: str, column: pd.Series[Any]) -> None:
    wrong = (pd.to_numeric(column, errors="coerce").isna() & column.notna()).to_numpy()
    if wrong.any():
        row = _first(wrong)
        raise BadData(
            f"{path}: column {name!r}, row {row}: {str(column.iloc[row - 1])!r} is not a number; expected one"
        )


def _first(rows: NDArray[np.bool_]) -> int:
    """The number of the first row that is true, counted from 1."""
    return int(rows.argmax()) + 1
