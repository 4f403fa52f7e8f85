"""Write a batch of records, and the answers to keys, into SQLite's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.history.record import SERVED, Batch, Keyed, Layout, Records
from defects.history.sqlite_values import microseconds

# Rows in one statement. Each statement gives the interpreter's lock away and has to get it back, which is dear beside a
# busy event loop: statements of one row cost this thread nearly twice as much.
SIZES = (64, 8, 1)
KEYS_KEPT = timedelta(hours=24)

SOURCE = "INSERT INTO sources (name) VALUES (?) ON CONFLICT DO NOTHING"
# An answer that is there already is from an attempt before, whose result nobody knew.
CLAIM = """
INSERT INTO idempotency (key, body_digest, answer, expires_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (key) DO UPDATE
SET body_digest = excluded.body_digest, answer = excluded.answer, expires_at = excluded.expires_at
WHERE idempotency.expires_at <= ?5 OR idempotency.answer = excluded.answer
"""


class Inserter:
    """Inserts records of one layout, which a model and a revision wrote."""

    def __init__(self, layout: Layout, model: int, revision: int):
        self._columns = ["id", "request_id", "row", "source", "protocol", "class", "latency_us", "probabilities"]
        if layout.features:
            self._columns.append("features")
        names = ["wide_features" if name == "features" and layout.wide else name for name in self._columns]
        values = ["CAST(? AS TEXT)" if name == "request_id" else "?" for name in names]
        into = f"INSERT INTO predictions (kind, model, revision, {', '.join(names)}) VALUES "
        row = f"({SERVED}, {model}, {revision}, {', '.join(values)})"
        self._statements = {size: into + ", ".join([row] * size) for size in SIZES}
        self._again = {size: f"{sql} ON CONFLICT (id) DO NOTHING" for size, sql in self._statements.items()}
        self._packed = _packed(layout.dtype)

    def insert(self, connection: sqlite3.Connection, records: Records, sources: NDArray[np.int32], again: bool) -> None:
        """Insert records; `sources` has the numbers of their sources. `again` leaves what is there already."""
        columns = [self._column(records.view(self._packed), name, sources) for name in self._columns]
        rows, left = zip(*columns, strict=True), len(records)
        for size in SIZES:
            while left >= size:
                values = list(chain.from_iterable(islice(rows, size)))
                connection.execute((self._again if again else self._statements)[size], values)
                left -= size

    def _column(self, records: Records, name: str, sources: NDArray[np.int32]) -> list[Any]:
        column: NDArray[Any] = sources[records[name]] if name == "source" else records[name]
        values: list[Any] = column.tolist()
        return values


def _packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a layout whose arrays of numbers are bytes."""
    fields: Mapping[str, Any] = dtype.fields or {}
    kinds = {name: np.dtype(f"V{kind.itemsize}") if kind.subdtype else kind for name, (kind, *_) in fields.items()}
    names = [name for name in kinds if kinds[name].itemsize]
    return np.dtype(
        {
            "names": names,
            "formats": [kinds[name] for name in names],
            "offsets": [fields[name][1] for name in names],
            "itemsize": dtype.itemsize,
        }
    )


def source_numbers(connection: sqlite3.Connection, batch: Batch, known: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers of the sources of a batch's records; those that are not `known` get one."""
    names = [batch.sources[place] for place in np.unique(batch.records["source"]).tolist()]
    return {name: known[name] if name in known else _source_no(connection, name) for name in names}


def _source_no(connection: sqlite3.Connection, name: str) -> int:
    connection.execute(SOURCE, (name,))
    return int(connection.execute("SELECT no FROM sources WHERE name = ?", (name,)).fetchone()[0])


def claim(connection: sqlite3.Connection, keys: Sequence[Keyed]) -> list[int]:
    """Write answers to keys; return the places of those whose keys have another answer already."""
    now = datetime.now(UTC)
    lost = []
    for place, (key, body_digest, answer) in enumerate(keyed.answer for keyed in keys):
        values = (key, body_digest, answer, microseconds(now + KEYS_KEPT), microseconds(now))
        if connection.execute(CLAIM, values).rowcount == 0:
            lost.append(place)
    return lost
