"""What history needs of a database, whichever it is: PostgreSQL and SQLite implement this one small interface.

SQL that both understand is written once, with `$1`, `$2`, … for values. Both take and give an id as `UUID`, a time as
`datetime` in UTC, an array of numbers as a sequence of floats, and bytes as `bytes`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from defects.history.record import Batch, Layout
from defects.history.sql import Dialect
from defects.settings import Fatal

Row = Mapping[str, Any]  # by the names of its columns; its values also by number


class Unreachable(Exception):
    """The database can't be reached or used now, or did not answer, so that nobody knows what it did. Try again."""


class Rejected(Exception):
    """The database refuses this and would do so again; the connection is still good."""


class Unusable(Fatal):
    """The database can't be used by this version: it is not migrated, or needs a newer server."""

    exit_code = 69


@dataclass(frozen=True)
class Registration:
    """Who writes records: a model with its `schema.json`, and the revision that serves it."""

    version: str
    digest: str
    schema: str  # the text of `schema.json`
    revision: str
    layout: Layout


class Transaction(Protocol):
    """A transaction. It is committed where its block ends, and rolled back where that raises."""

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        """Return all rows of a statement."""

    async def execute(self, sql: str, *values: Any) -> int:
        """Run a statement; return how many rows it changed."""

    def stream(self, sql: str, *values: Any, rows: int = 1000) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a statement, so many at a time; memory holds no more of them."""


class Database(Protocol):
    """A database of history. Every method but `close` may raise `Unreachable`, `Rejected` or `Unusable`.

    `name` is for people, without a password: what kind of database it is, and where. `dialect` is what its kind says in
    its own words.
    """

    name: str
    dialect: Dialect

    async def open(self) -> None:
        """Connect, and check that this version can use what is there. May be called again after `close`."""

    async def migrate(self) -> Sequence[str]:
        """Apply the migrations that are missing; return their names. The database need not be open."""

    async def close(self) -> None:
        """Close every connection, without waiting for one that hangs; never raises."""

    async def register(self, registration: Registration) -> None:
        """Make sure that the model and the revision of the records to come are known; after each `open`."""

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        """Commit a batch; return the places of those of its keys that have got another answer before.

        `again`: an attempt before may have been committed, so what is there already is left as it is. Makes the
        partitions that the ids need.
        """

    def transaction(self, *, reading: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction, beside what is being written.

        One that only reads says so: all its statements see one state of the database, and it holds no writer up.
        """

    async def make_partitions(self, days: int) -> None:
        """Make the partitions of today and of so many days to come, where they are missing."""
