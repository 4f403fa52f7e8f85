"""Encode records as PostgreSQL's binary COPY takes them, all at once with NumPy.

The format is in PostgreSQL's documentation of COPY ("Binary Format"), and that of arrays in `array_send` of its source:
every value is big-endian with its length before it.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from defects.history.record import Layout, Records

HEADER = struct.pack("!11sII", b"PGCOPY\n\xff\r\n\0", 0, 0)
TRAILER = struct.pack("!h", -1)
ARRAY = np.dtype([("dimensions", ">i4"), ("nulls", ">i4"), ("type", ">i4"), ("count", ">i4"), ("first", ">i4")])
FLOAT4, FLOAT8 = 700, 701  # numbers of PostgreSQL's types real and double precision
INTEGERS = {"kind": 2, "row": 4, "model": 4, "revision": 4, "source": 4, "protocol": 2, "class": 4, "latency_us": 4}
LAYOUTS = 256  # that are kept ready, by the length of their request ids

Numbers: TypeAlias = NDArray[np.int32]


class Encoder:
    """Encodes records of a layout, which are all of one model and revision. `columns`: those of the COPY, in order."""

    def __init__(self, layout: Layout, kind: int, model: int, revision: int):
        self._layout = layout
        self._constants = {"kind": kind, "model": model, "revision": revision}
        features = [("wide_features" if layout.wide else "features")] if layout.features else []
        self.columns = [
            "id", "kind", "request_id", "row", "model", "revision", "source", "protocol",
            *features, "probabilities", "class", "latency_us",
        ]  # fmt: skip
        self._template = lru_cache(LAYOUTS)(self._make_template)

    def encode(self, records: Records, sources: Numbers) -> bytearray:
        """Return records as the data of a COPY; `sources` has the number of each record's source in the database.

        Those with request ids of one length come together, so their order changes.
        """
        data = bytearray(HEADER)
        lengths = records["request_id_bytes"]
        if len(records) and (lengths == lengths[0]).all():
            data += self._encode(records, sources, int(lengths[0]))
        else:
            for length in np.unique(lengths):
                some = lengths == length
                data += self._encode(records[some], sources[some], int(length))
        data += TRAILER
        return data

    def _encode(self, records: Records, sources: Numbers, length: int) -> memoryview:
        template = self._template(length)
        rows = np.repeat(template, len(records))
        rows["id"] = records["id"]
        if length:
            rows["request_id"] = starts(records, "request_id", f"V{length}")
        rows["source"] = sources
        for name in ("row", "protocol", "class", "latency_us"):
            rows[name] = records[name]
        for name in self.columns:
            if name.endswith("features"):
                _copy_bits(records["features"], rows[name])
        _copy_bits(records["probabilities"], rows["probabilities"])
        return rows.view(np.uint8).data

    def _make_template(self, length: int) -> Records:
        """Return one row [1] with request ids of a length, and whatever is the same in all of them."""
        dtype = np.dtype([("columns", ">i2"), *(part for name in self.columns for part in self._parts(name, length))])
        row = np.zeros(1, dtype)
        row["columns"] = len(self.columns)
        for name in self.columns:
            row[f"{name} bytes"] = self._width(name, length)
            if name in self._constants:
                row[name] = self._constants[name]
            elif name.endswith(("features", "probabilities")):
                item = row[name]["value"].dtype.itemsize
                row[f"{name} array"] = (1, 0, FLOAT4 if item == 4 else FLOAT8, row[name].shape[1], 1)
                row[name]["bytes"] = item
        return row

    def _parts(self, name: str, length: int) -> list[tuple[Any, ...]]:
        """Return the fields of a column: its length, and what is in it."""
        size = (f"{name} bytes", ">i4")
        if name in INTEGERS:
            return [size, (name, f">i{INTEGERS[name]}")]
        if name == "id":
            return [size, (name, "V16")]
        if name == "request_id":
            return [size, (name, f"V{length}")] if length else [size]
        bits = ">u8" if name == "wide_features" else ">u4"
        count = self._layout.classes if name == "probabilities" else self._layout.features
        return [size, (f"{name} array", ARRAY), (name, [("bytes", ">i4"), ("value", bits)], (count,))]

    def _width(self, name: str, length: int) -> int:
        return np.dtype(self._parts(name, length)).itemsize - 4  # but the length itself


def starts(records: Records, name: str, kind: str) -> NDArray[Any]:
    """Return the first bytes of a field of all records as a kind of value, without copying them."""
    fields = records.dtype.fields
    assert fields is not None  # noqa: S101 - a layout has fields
    offset = fields[name][1]
    start = np.dtype({"names": [name], "formats": [kind], "offsets": [offset], "itemsize": records.itemsize})
    values: NDArray[Any] = records.view(start)[name]
    return values


def _copy_bits(values: NDArray[Any], elements: Records) -> None:
    """Copy floats [n, count] into the elements of arrays, bit for bit: no NaN changes."""
    elements["value"] = values.view(f"u{values.itemsize}")
