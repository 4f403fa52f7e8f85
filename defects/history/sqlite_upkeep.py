"""The upkeep of a SQLite file: days are deleted in slices, so that a server can write in between."""

from __future__ import annotations

from datetime import date, timedelta
from typing import NamedTuple
from uuid import UUID

from defects.history.database import Transaction
from defects.history.sqlite import SQLiteDatabase
from defects.history.upkeep import PARTITIONED, SMALL, Size, day_of, first_id

BYTES = "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"
SLICE = 1_000  # rows that are deleted at a time


class Part(NamedTuple):
    """Rows of a table that an index has in the order of their predictions' ids."""

    table: str
    id: str
    condition: str
    key: str  # that names a row


PARTS = (
    Part("predictions", "id", "true", "id"),
    Part("outcomes", "prediction_id", "replaced_at IS NULL", "rowid"),
    Part("outcomes", "prediction_id", "replaced_at IS NOT NULL", "rowid"),
)


class SQLiteUpkeep:
    """The upkeep of a file; implements `Upkeep`."""

    def __init__(self, database: SQLiteDatabase):
        self._database = database

    async def bytes(self) -> int:
        """Return the bytes of the file, without its log."""
        async with self._database.transaction(reading=True) as transaction:
            rows = await transaction.fetch(BYTES)
        return int(rows[0]["bytes"])

    async def tables(self) -> dict[str, Size]:
        """Return how many rows each table has."""
        async with self._database.transaction(reading=True) as transaction:
            return {table: await _count(transaction, table) for table in (*PARTITIONED, *SMALL)}

    async def days(self) -> dict[date, Size]:
        """Return how many predictions and outcomes there are of each day, in order."""
        found: dict[date, Size] = {}
        async with self._database.transaction(reading=True) as transaction:
            for part in PARTS:
                await _add_days(transaction, part, found)
        return dict(sorted(found.items()))

    async def drop(self, day: date) -> None:
        """Delete the predictions and outcomes of a day."""
        first, stop = first_id(day), first_id(day + timedelta(1))
        for part in PARTS:
            delete = (
                f"DELETE FROM {part.table} WHERE {part.key} IN (SELECT {part.key} FROM {part.table} WHERE "
                f"{part.condition} AND {part.id} >= $1 AND {part.id} < $2 ORDER BY {part.id} LIMIT $3)"
            )
            deleted = SLICE
            while deleted == SLICE:
                async with self._database.transaction() as transaction:
                    deleted = await transaction.execute(delete, first, stop, SLICE)

    async def missing(self, days: int) -> list[date]:  # noqa: ARG002 - as the protocol has it
        """Return nothing: SQLite has no partitions."""
        return []

    async def give_back(self) -> None:
        """Give the space of what was deleted back to the disk."""
        await self._database.give_back()


async def _count(transaction: Transaction, table: str, condition: str = "true", *values: object) -> Size:
    rows = await transaction.fetch(f"SELECT count(*) AS n FROM {table} WHERE {condition}", *values)
    return Size(rows[0]["n"], None, estimated=False)


async def _add_days(transaction: Transaction, part: Part, found: dict[date, Size]) -> None:
    """Add the days of a part; each is found from the one before by one look at the index."""
    least = f"SELECT min({part.id}) AS id FROM {part.table} WHERE {part.condition} AND {part.id} >= $1"
    of_day = f"{part.condition} AND {part.id} >= $1 AND {part.id} < $2"
    start = UUID(int=0)
    while (id_ := (await transaction.fetch(least, start))[0]["id"]) is not None:
        day = day_of(id_)
        stop = first_id(day + timedelta(1))
        size = await _count(transaction, part.table, of_day, start, stop)
        found[day] = found[day] + size if day in found else size
        start = stop
