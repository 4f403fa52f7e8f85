"""What people do to a database of history: see how large it is, and drop whole days of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Protocol
from uuid import UUID

from defects import identifiers

PARTITIONED = ("predictions", "outcomes")
SMALL = ("early_outcomes", "idempotency", "models", "revisions", "sources")  # beside the others
EPOCH = identifiers.EPOCH.date()
LAST = (date.max - EPOCH).days - 1


@dataclass(frozen=True)
class Size:
    """How large something is. `estimated`: the rows were not counted. SQLite says no bytes but of the whole file."""

    rows: int
    bytes: int | None
    estimated: bool

    def __add__(self, other: Size) -> Size:
        total = None if self.bytes is None or other.bytes is None else self.bytes + other.bytes
        return Size(self.rows + other.rows, total, self.estimated or other.estimated)


class Upkeep(Protocol):
    """The upkeep of a database that is open. Every method may raise what the database's may."""

    async def bytes(self) -> int:
        """Return the bytes of the whole database."""

    async def tables(self) -> dict[str, Size]:
        """Return how large each table is."""

    async def days(self) -> dict[date, Size]:
        """Return how many predictions and outcomes there are of each day, in order."""

    async def drop(self, day: date) -> None:
        """Drop the predictions and outcomes of a day."""

    async def missing(self, days: int) -> list[date]:
        """Return which of today and so many days to come have no partition."""

    async def give_back(self) -> None:
        """Give the space of what was deleted back to the disk, and leave nothing of it in the database's files."""


def first_id(day: date) -> UUID:
    """Return the first id of a day."""
    return identifiers.first_id(datetime.combine(day, time(), UTC))


def day_of(id_: UUID) -> date:
    """Return the day, in UTC, of an id."""
    return EPOCH + timedelta(min((id_.int >> 80) // identifiers.DAY_MS, LAST))


def today() -> date:
    """Return the day that it is, in UTC."""
    return datetime.now(UTC).date()
