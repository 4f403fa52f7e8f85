"""Apply numbered migrations, each once, and say whether this version can use what is there.

Migrations only add, so that an older server runs on. The first line of each says which servers can use a database that
has it: `-- least server: N` is the least number of migrations that they know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

from defects.history.database import Transaction, Unusable

DIRECTORY = Path(__file__).with_name("migrations")  # with one for each kind of database
HELP = "run `python -m defects.history migrate`"
TABLE = """
CREATE TABLE IF NOT EXISTS history_migrations (
    no integer PRIMARY KEY, name text NOT NULL, applied_at {instant} NOT NULL, least_server integer NOT NULL
)
"""
APPLIED = "SELECT no, least_server FROM history_migrations ORDER BY no"
APPLY = "INSERT INTO history_migrations (no, name, applied_at, least_server) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True)
class Migration:
    """A migration that this version knows."""

    no: int
    name: str  # of its file, such as 0001_history
    least_server: int
    sql: str


class Applied(NamedTuple):
    """A migration that a database has, as the table `history_migrations` says."""

    no: int
    least_server: int


class Script(Transaction, Protocol):
    """A transaction that can also run several statements."""

    async def run_script(self, sql: str) -> None:
        """Run statements without values, which are separated by semicolons."""


Begin: TypeAlias = Callable[[], AbstractAsyncContextManager[Script]]


def migrations_in(directory: Path) -> tuple[Migration, ...]:
    """Return the migrations of a directory by number."""
    return tuple(_read(path) for path in sorted(directory.glob("*.sql")))


def _read(path: Path) -> Migration:
    sql = path.read_text("utf-8")
    number, least = re.match(r"\d{4}(?=_)", path.name), re.match(r"-- least server: (\d+)\n", sql)
    if not number or not least:
        raise ValueError(f"{path}: expected a name such as 0002_what.sql, and the first line `-- least server: N`")
    return Migration(int(number[0]), path.stem, int(least[1]), sql)


async def migrate(begin: Begin, known: Sequence[Migration], instant: str) -> list[Migration]:
    """Apply what is missing; return what was applied. Arguments and errors are those of `migrate_one`."""
    applied: list[Migration] = []
    while migration := await migrate_one(begin, known, instant):
        applied.append(migration)
    return applied


async def migrate_one(begin: Begin, known: Sequence[Migration], instant: str) -> Migration | None:
    """Apply the first of these migrations that is missing, in a transaction, and return it; `None` where none is.

    `begin` begins a transaction and waits until nobody else has one of this kind; `instant` is the type of a time.
    Raises `Unusable` where the database needs a newer server.
    """
    async with begin() as transaction:
        await transaction.run_script(TABLE.format(instant=instant))
        there = await applied_in(transaction)
        missing = pending(there, known)
        if not missing:
            check(there, known)
            return None
        await _apply(transaction, missing[0])
        return missing[0]


async def _apply(transaction: Script, migration: Migration) -> None:
    await transaction.run_script(migration.sql)
    row = (migration.no, migration.name, datetime.now(UTC), migration.least_server)
    await transaction.execute(APPLY, *row)


async def applied_in(transaction: Transaction) -> list[Applied]:
    """Return the migrations of a database that has the table of them, by number."""
    return [Applied(row["no"], row["least_server"]) for row in await transaction.fetch(APPLIED)]


def pending(applied: Iterable[Applied], known: Sequence[Migration]) -> list[Migration]:
    """Return the migrations that a database does not have yet."""
    there = {each.no for each in applied}
    return [migration for migration in known if migration.no not in there]


def check(applied: Sequence[Applied], known: Sequence[Migration]) -> None:
    """Raise `Unusable` where a server that knows these migrations can't use a database that has the applied ones."""
    if not applied:
        raise Unusable(f"the database has no tables of history yet; {HELP}")
    newest = max(applied)
    if newest.least_server > known[-1].no:
        raise Unusable(
            f"the database was migrated to {newest.no:04}, which servers can use that know {newest.least_server:04}; "
            f"this one knows up to {known[-1].no:04}; use a newer image"
        )
    if missing := pending(applied, known):
        raise Unusable(f"the database lacks the migration {missing[0].name}; {HELP}")
