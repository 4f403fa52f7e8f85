"""Pack answered predictions into records: bytes of one fixed layout for a model, which NumPy reads as one array.

Nothing is kept as an object for each row: objects that live make the garbage collector slow for everybody.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from defects.schema import Schema
from defects.serving.recording import Answered, KeyedAnswer

SERVED, SHADOW, REPLAY = range(3)  # kinds of a record
MAX_REQUEST_ID = 128  # bytes
MAX_LATENCY_US = 2**31 - 1  # what the column holds

Records: TypeAlias = NDArray[Any]  # [n], of a layout's `dtype`


class Layout:
    """The layout of a model's records. Features are as wide as the model takes them, so every value is exact.

    `with_features=False` leaves the values of features out.
    """

    def __init__(self, schema: Schema, *, with_features: bool = True):
        self.wide = schema.wide
        self.features = len(schema.features) if with_features else 0
        self.classes = len(schema.classes)
        self.dtype = np.dtype(
            [
                ("id", "V16"),
                ("request_id_bytes", "u1"),
                ("request_id", f"S{MAX_REQUEST_ID}"),
                ("row", "<i4"),
                ("source", "<i4"),  # its place in the batch's sources
                ("protocol", "u1"),
                ("class", "<i4"),
                ("latency_us", "<i4"),
                ("features", "<f8" if self.wide else "<f4", (self.features,)),
                ("probabilities", "<f4", (self.classes,)),
            ]
        )
        features = self.features * (8 if self.wide else 4)
        self._one = struct.Struct(f"<16sB{MAX_REQUEST_ID}siiBii{features}s{self.classes * 4}s")

    def pack(self, answered: Answered, source: int, seconds: float) -> bytes:
        """Return the records of an answered request; `source` is its number in the batch's sources."""
        latency = min(int(seconds * 1e6), MAX_LATENCY_US)
        request_id = answered.request_id
        if len(answered.ids) > 1:
            return self._pack_many(answered, source, latency)
        return self._one.pack(
            bytes.fromhex(answered.ids[0]),
            len(request_id),
            request_id,
            0,
            source,
            answered.protocol,
            answered.best[0],
            latency,
            answered.rows.tobytes() if self.features else b"",
            answered.probabilities.tobytes(),
        )

    def _pack_many(self, answered: Answered, source: int, latency: int) -> bytes:
        records = np.zeros(len(answered.ids), self.dtype)
        records["id"] = np.frombuffer(bytes.fromhex("".join(answered.ids)), "V16")
        records["request_id_bytes"], records["request_id"] = len(answered.request_id), answered.request_id
        records["row"] = np.arange(len(records))
        records["source"], records["protocol"], records["latency_us"] = source, answered.protocol, latency
        records["class"] = answered.best
        if self.features:
            records["features"] = answered.rows
        records["probabilities"] = answered.probabilities
        return records.tobytes()

    def read(self, packed: bytes | bytearray) -> Records:
        """Return packed records as an array, without copying them."""
        return np.frombuffer(packed, self.dtype)


@dataclass(frozen=True)
class Keyed:
    """An answer to an `Idempotency-Key`, and which records of the batch, `[start, stop)`, were made with it."""

    answer: KeyedAnswer
    start: int
    stop: int


@dataclass(frozen=True)
class Batch:
    """Records that are committed together. `sources` has their sources' names by number; number 0 is none.

    An answer in `keys` whose key has another answer already is not written, and neither are its records.
    """

    records: Records
    sources: Sequence[str]
    keys: Sequence[Keyed] = field(default=())

    def without(self, lost: Sequence[int]) -> Records:
        """Return the records but those of the keys at these places."""
        if not lost:
            return self.records
        kept = np.ones(len(self.records), np.bool_)
        for place in lost:
            kept[self.keys[place].start : self.keys[place].stop] = False
        return self.records[kept]
