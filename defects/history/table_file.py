"""Write records as a Parquet file. This alone needs pyarrow, which is where models are trained, not in the image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from defects.exported import Exported
from defects.features import Feature
from defects.files import INT64
from defects.history.columns import Columns
from defects.history.database import Row
from defects.identifiers import made_at
from defects.kinds import BOOLEAN, CATEGORY, INTEGER, NUMBER, TEXT, Label, read_label
from defects.schema import Rows, Schema

GROUP_ROWS, GROUP_BYTES = 50_000, 32 << 20  # that are held at most before they are written
LABELS = {TEXT: pa.string(), NUMBER: pa.float64(), BOOLEAN: pa.bool_()}
UNREADABLE = object()  # instead of an outcome that is no label
TIME = pa.timestamp("us", "UTC")


class TableFile:
    """A Parquet file that is written a piece at a time; memory holds one piece.

    `labels` are the classes that each model's records have by number. `records` counts what was written, `filled` the
    values of each column, `classes` the outcomes, and `unreadable` those that are no label.
    """

    def __init__(self, path: Path, columns: Columns, labels: Mapping[int, Sequence[Label]]):
        schema = columns.schema
        self._schema, self._labels = schema, labels
        self._label_type = _label_type(schema)
        self._details = self._value_of_details() if columns.details else []
        fields = [(feature.name, _type(feature)) for feature in schema.features]
        fields += [(schema.label_name, self._label_type)]
        fields += [(name, kind) for name, (kind, _) in zip(columns.details, self._details, strict=True)]
        self._arrow = pa.schema(fields, metadata=Exported(schema, columns.details).to_metadata())
        self._writer = pq.ParquetWriter(path, self._arrow)
        self._begin()
        self.records = self.unreadable = 0
        self.filled = np.zeros(len(schema.features), np.int64)
        self.classes: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def write(self, values: Rows, rows: Sequence[Row]) -> None:
        """Write the values of features `[rows, features]`, with the outcomes and details of the rows."""
        labels = [self._label(row["outcome"]) for row in rows]
        if UNREADABLE in labels:
            kept = [place for place, label in enumerate(labels) if label is not UNREADABLE]
            self.unreadable += len(rows) - len(kept)
            values, rows, labels = values[kept], [rows[place] for place in kept], [labels[place] for place in kept]
        self.records += len(rows)
        self.filled += (~np.isnan(values)).sum(axis=0)
        self.classes.update(row["outcome"] for row in rows if row["outcome"] is not None)
        self._values.append(values)
        self._label_values += labels
        for column, (_, value_of) in zip(self._detail_values, self._details, strict=True):
            column.extend(map(value_of, rows))
        held = len(self._label_values)
        if held >= GROUP_ROWS or held * values.shape[1] * values.itemsize >= GROUP_BYTES:
            self._flush()

    def _begin(self) -> None:
        """Begin a row group."""
        self._values: list[Rows] = []
        self._label_values: list[Any] = []
        self._detail_values: list[list[Any]] = [[] for _ in self._details]

    def _flush(self) -> None:
        """Write the row group, if it has rows."""
        if not self._label_values:
            return
        values = np.concatenate(self._values)
        arrays = [_array(feature, values[:, place]) for place, feature in enumerate(self._schema.features)]
        arrays.append(pa.array(self._label_values, self._label_type))
        for column, (kind, _) in zip(self._detail_values, self._details, strict=True):
            arrays.append(pa.array(column, kind))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._arrow))
        self._begin()

    def _label(self, outcome: str | None) -> Any:
        try:
            return None if outcome is None else read_label(outcome, self._schema.label_type)
        except ValueError:
            return UNREADABLE

    def _value_of_details(self) -> list[tuple[Any, Callable[[Row], Any]]]:
        """Return the type of each detail, and what makes its value of a row."""
        return [
            (pa.string(), lambda row: row["id"].hex),
            (TIME, lambda row: made_at(row["id"])),
            (pa.string(), lambda row: row["request_id"]),
            (pa.int32(), lambda row: row["row"]),
            (pa.string(), lambda row: row["version"]),
            (pa.string(), lambda row: row["revision"]),
            (pa.string(), lambda row: row["source"]),
            (self._label_type, lambda row: self._labels[row["model"]][row["class"]]),
            (pa.float32(), lambda row: row["probabilities"][row["class"]]),
            (pa.string(), lambda row: row["origin"]),
            (TIME, lambda row: row["occurred_at"]),
            (TIME, lambda row: row["received_at"]),
        ]


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _type(feature: Feature) -> Any:
    if feature.kind == BOOLEAN:
        return pa.bool_()
    if feature.kind == CATEGORY:  # so that texts that look like numbers are categories
        return pa.dictionary(pa.int32(), pa.string())
    return pa.float64()


def _label_type(schema: Schema) -> Any:
    if schema.label_type != INTEGER:
        return LABELS[schema.label_type]
    fits = all(INT64 <= int(name) < -INT64 for name in schema.class_names)
    return pa.int64() if fits else pa.decimal128(20)


def _array(feature: Feature, values: NDArray[np.float64]) -> Any:
    """Return a column of a feature's kind; NaN is null.

    A number that the model took in 32 bits has the fewest digits that mean it, as whoever sent it wrote it: 0.1, not
    0.10000000149011612. So it is the same as in other tables of such rows.
    """
    missing = np.isnan(values)
    if feature.kind == BOOLEAN:
        return pa.array(values == 1, mask=missing)
    if feature.kind == CATEGORY:
        codes = pa.array(np.where(missing, 0, values).astype(np.int32), mask=missing)
        return pa.DictionaryArray.from_arrays(codes, pa.array(feature.categories, pa.string()))
    if feature.wide:
        return pa.array(values, mask=missing)
    return pa.array(values.astype(np.float32), mask=missing).cast(pa.string()).cast(pa.float64())
