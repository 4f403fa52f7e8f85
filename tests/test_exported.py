"""A file of exported records says what its columns are; what is not so, training sees for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defects.exported import KEY, Exported
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import dataset
from defects.training.bad_data import BadData
from defects.training.reading import Reading

SIZE = Feature("size", "mm", "the longest side", low=0, high=1000, optional=True)
ZONE = Feature("zone", "", "of delivery", kind="category", categories=("1", "2"), optional=True, unknown="missing")
SCHEMA = Schema((SIZE, ZONE), (DefectClass("a", "the best"), DefectClass("b")), "parcels", label_name="grade")
ROWS: dict[str, Any] = {"size": [1.5, 2.0, 3.0, 4.0], "zone": ["1", "2", "1", "2"], "grade": ["a", "b", "a", "b"]}


def write(path: Path, metadata: dict[bytes, bytes], **columns: Any) -> Path:
    pq.write_table(pa.table(ROWS | columns).replace_schema_metadata(metadata), path)
    return path


def test_what_the_file_says_is_what_training_takes(tmp_path: Path) -> None:
    """A category that looks like a number, limits, and that a value may be missing."""
    path = write(tmp_path / "out.parquet", Exported(SCHEMA, ("id",)).to_metadata(), id=["w", "x", "y", "z"])
    table = dataset.read(path, "grade")
    assert table.schema == SCHEMA
    assert table.notes == (
        "units, limits and what may be missing are those of the model whose records were exported",
        "columns that are no features are left out: id",
    )


def test_limits_that_a_value_does_not_keep_are_not_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "out.parquet", Exported(SCHEMA).to_metadata(), size=[1.5, 2.0, 3.0, 1000.5])
    size = dataset.read(path, "grade").schema.features[0]
    assert (size.low, size.high, size.unit) == (None, None, "mm")


def test_what_the_command_says_goes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "out.parquet", Exported(SCHEMA).to_metadata())
    assert dataset.read(path, "grade", Reading(number=("zone",))).schema.features[1] == Feature("zone")
    assert dataset.read(path, "grade", Reading(ignore=("zone",))).schema.names == ("size",)


@pytest.mark.parametrize("said", [b"{", b"[]", b"{}", b'{"schema": {}, "details": []}'])
def test_what_is_damaged_is_refused_in_one_line(tmp_path: Path, said: bytes) -> None:
    with pytest.raises(BadData, match="can't be read: ") as refused:
        dataset.read(write(tmp_path / "out.parquet", {KEY: said}), "grade")
    assert "\n" not in str(refused.value)


def test_a_file_of_somebody_else_says_nothing(tmp_path: Path) -> None:
    table = dataset.read(write(tmp_path / "out.parquet", {b"defects": b"many"}), "grade")
    assert (table.schema.title, table.schema.features[1].kind) == ("out", "number")
