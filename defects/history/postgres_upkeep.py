"""The upkeep of a PostgreSQL: a day is a partition of each of two tables, which is detached and dropped as a whole."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import date, timedelta

from defects.history.database import Row, Transaction
from defects.history.postgres import PostgresDatabase
from defects.history.postgres_errors import Connection, translated
from defects.history.upkeep import PARTITIONED, SMALL, Size, today

EXACT_BYTES = 16 << 20  # of a table whose rows are counted; the rows of larger ones are estimated
DROP_SECONDS = 120.0  # for a partition: it waits for those who read the table
# Also of partitions that are detached, because somebody was stopped before they were dropped.
PARTITIONS = """
SELECT parent.name AS parent, child.oid::regclass::text AS name, right(child.relname, 8) AS day,
       inherits.inhrelid IS NOT NULL AS attached, coalesce(inherits.inhdetachpending, false) AS pending,
       greatest(child.reltuples::bigint, pg_stat_get_live_tuples(child.oid), 0) AS rows,
       pg_total_relation_size(child.oid) AS bytes
FROM unnest($1::text[]) AS parent (name)
JOIN pg_class AS top ON top.oid = parent.name::regclass
JOIN pg_class AS child ON child.relnamespace = top.relnamespace AND child.relkind = 'r'
    AND child.relname ~ ('^' || parent.name || '_[0-9]{8}$')
LEFT JOIN pg_inherits AS inherits ON inherits.inhrelid = child.oid AND inherits.inhparent = top.oid
ORDER BY day, parent
"""
SIZE = """
SELECT pg_total_relation_size(oid) AS bytes, greatest(reltuples::bigint, pg_stat_get_live_tuples(oid), 0) AS rows
FROM pg_class WHERE oid = $1::text::regclass
"""


class PostgresUpkeep:
    """The upkeep of a PostgreSQL; implements `Upkeep`."""

    def __init__(self, database: PostgresDatabase):
        self._database = database

    async def bytes(self) -> int:
        """Return the bytes of the database, also of what others keep there."""
        async with self._database.transaction(reading=True) as transaction:
            rows = await transaction.fetch("SELECT pg_database_size(current_database()) AS bytes")
        return int(rows[0]["bytes"])

    async def tables(self) -> dict[str, Size]:
        """Return how large each table is."""
        found = dict.fromkeys(PARTITIONED, Size(0, 0, estimated=False))
        async with self._database.transaction(reading=True) as transaction:
            for partition in await _partitions(transaction):
                found[partition["parent"]] += await _size(transaction, partition["name"], partition)
            for table in SMALL:
                found[table] = await _size(transaction, table, (await transaction.fetch(SIZE, table))[0])
        return found

    async def days(self) -> dict[date, Size]:
        """Return how many predictions and outcomes there are of each day, in order."""
        found: dict[date, Size] = {}
        async with self._database.transaction(reading=True) as transaction:
            for partition in await _partitions(transaction):
                day, size = _day(partition), await _size(transaction, partition["name"], partition)
                found[day] = found[day] + size if day in found else size
        return found

    async def drop(self, day: date) -> None:
        """Detach the partitions of a day, while others read and write, and drop them."""
        async with self._database.transaction(reading=True) as transaction:
            partitions = [partition for partition in await _partitions(transaction) if _day(partition) == day]
        async with self._connection() as connection:
            for partition in partitions:
                for statement in _drop(partition):
                    with translated():
                        async with asyncio.timeout(DROP_SECONDS):
                            await connection.execute(statement)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Connect: a partition can't be detached within a transaction while others use the table."""
        connection = await self._database.connect()
        try:
            yield connection
        finally:
            with suppress(Exception):
                await connection.close(timeout=1)

    async def missing(self, days: int) -> list[date]:
        """Return which of today and so many days to come have no partition."""
        async with self._database.transaction(reading=True) as transaction:
            attached = [(row["parent"], _day(row)) for row in await _partitions(transaction) if row["attached"]]
        wanted = [today() + timedelta(ahead) for ahead in range(days + 1)]
        return [day for day in wanted if any((parent, day) not in attached for parent in PARTITIONED)]

    async def give_back(self) -> None:
        """Do nothing: a dropped table's space is free at once, and deleted rows' after autovacuum."""


async def _partitions(transaction: Transaction) -> Sequence[Row]:
    """Return the partitions by day."""
    rows = await transaction.fetch(PARTITIONS, list(PARTITIONED))
    return [row for row in rows if re.fullmatch(r"\d{4}(0[1-9]|1[0-2])([0-2]\d|3[01])", row["day"])]


def _day(partition: Row) -> date:
    return date.fromisoformat(partition["day"])


async def _size(transaction: Transaction, name: str, known: Row) -> Size:
    """Return how large a table is; `name` is quoted where that is needed, as PostgreSQL gives it."""
    if known["bytes"] > EXACT_BYTES:
        return Size(known["rows"], known["bytes"], estimated=True)
    rows = await transaction.fetch(f"SELECT count(*) AS n FROM {name}")
    return Size(rows[0]["n"], known["bytes"], estimated=False)


def _drop(partition: Row) -> list[str]:
    """Return what drops a partition: one that is not detached wholly, because somebody was stopped, is so first."""
    detach = f"ALTER TABLE {partition['parent']} DETACH PARTITION {partition['name']}"
    detached = [f"{detach} FINALIZE" if partition["pending"] else f"{detach} CONCURRENTLY"]
    return [*(detached if partition["attached"] else []), f"DROP TABLE {partition['name']}"]
