"""The subcommand `erase`: delete all that is kept of one prediction, one request or one source."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from defects.history.database import Database, Transaction
from defects.history.databases import upkeep_of
from defects.values import is_unicode, shown

SLICE = 1_000  # predictions that are erased in one transaction
ANSWERS = 100  # kept answers that are looked at together
ID = re.compile(rb"[0-9a-f]{32}")  # in a kept answer
# Outcomes that came before their prediction was recorded name it by its id, or by request and row.
EARLY = """
EXISTS (
    SELECT 1 FROM predictions WHERE {condition} AND (
        id = early_outcomes.prediction_id
        OR (request_id = early_outcomes.request_id AND row = early_outcomes.row)
    )
) OR {early}
"""
BY_ID = (  # each by an index of its own
    ("outcomes", "prediction_id IN ({}) AND replaced_at IS NULL"),
    ("outcomes", "prediction_id IN ({}) AND replaced_at IS NOT NULL"),
    ("predictions", "id IN ({})"),
)
NAMES = {
    "predictions": ("prediction", "predictions"),
    "outcomes": ("outcome", "outcomes"),
    "early_outcomes": ("early outcome", "early outcomes"),
    "idempotency": ("kept answer", "kept answers"),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """Whose data are erased: conditions about the value `$1`, of `predictions` and of `early_outcomes`."""

    value: object
    condition: str
    early: str = "false"

    @classmethod
    def of(cls, options: argparse.Namespace) -> Subject:
        """Return whom the command line names."""
        if options.prediction is not None:
            return cls(options.prediction, "id = $1", "prediction_id = $1")
        if options.request is not None:
            return cls(options.request, "request_id = $1", "request_id = $1")
        return cls(options.source, "source = (SELECT no FROM sources WHERE name = $1)")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--prediction", type=_id, metavar="ID", help="one prediction")
    group.add_argument("--source", type=_text, metavar="NAME", help="all predictions with this x-source")
    group.add_argument("--request", type=_text, metavar="ID", help="all predictions with this x-request-id")
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say how many rows would go")


async def run(database: Database, options: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Erase, or say how much would go; return what is to be printed. Raises what the database raises."""
    counts = await erase(database, Subject.of(options), say, doing=options.yes)
    rows = ", ".join(f"{counts[table]:,} {names[counts[table] != 1]}" for table, names in NAMES.items())
    if not options.yes:
        return f"would erase {rows}" + ("; --yes does it" if counts.total() else "")
    if counts.total():
        await upkeep_of(database).give_back()
    return f"erased {rows}"


async def erase(database: Database, subject: Subject, say: Callable[[str], None], *, doing: bool) -> Counter[str]:
    """Erase what is kept of a subject; return how many rows of each table. Only counts them unless `doing`."""
    counts: Counter[str] = Counter()
    keys = await _keys(database, subject)
    async with database.transaction(reading=not doing) as transaction:
        for some in _slices(keys):
            counts["idempotency"] += await _rows(transaction, "idempotency", f"key IN ({_marks(some)})", some, doing)
        early = EARLY.format(condition=subject.condition, early=subject.early)
        counts["early_outcomes"] += await _rows(transaction, "early_outcomes", early, [subject.value], doing)
    async for ids in _ids(database, subject):
        async with database.transaction(reading=not doing) as transaction:
            for table, condition in BY_ID:
                counts[table] += await _rows(transaction, table, condition.format(_marks(ids)), ids, doing)
        say(f"{counts['predictions']:,} predictions so far")
    return counts


async def _rows(transaction: Transaction, table: str, condition: str, values: Sequence[object], doing: bool) -> int:
    """Delete rows, or count them."""
    if doing:
        return await transaction.execute(f"DELETE FROM {table} WHERE {condition}", *values)
    rows = await transaction.fetch(f"SELECT count(*) AS n FROM {table} WHERE {condition}", *values)
    return int(rows[0]["n"])


async def _ids(database: Database, subject: Subject) -> AsyncIterator[list[UUID]]:
    """Yield the ids of a subject's predictions, some at a time; of one prediction also where it is not recorded."""
    if isinstance(subject.value, UUID):
        yield [subject.value]
        return
    sql = f"SELECT id FROM predictions WHERE {subject.condition} AND id > $2 ORDER BY id LIMIT {SLICE}"
    last = UUID(int=0)
    while True:
        async with database.transaction(reading=True) as transaction:
            ids = [row["id"] for row in await transaction.fetch(sql, subject.value, last)]
        if not ids:
            return
        yield ids
        last = ids[-1]


async def _keys(database: Database, subject: Subject) -> list[str]:
    """Return the keys whose answers have a prediction of the subject."""
    sql = f"SELECT key, answer FROM idempotency WHERE key > $1 ORDER BY key LIMIT {ANSWERS}"
    found: list[str] = []
    last = ""
    async with database.transaction(reading=True) as transaction:
        while rows := await transaction.fetch(sql, last):
            ids = {row["key"]: {UUID(id_.decode()) for id_ in ID.findall(row["answer"])} for row in rows}
            theirs = await _theirs(transaction, subject, sorted(set().union(*ids.values())))
            found += [key for key, those in ids.items() if not those.isdisjoint(theirs)]
            last = rows[-1]["key"]
    return found


async def _theirs(transaction: Transaction, subject: Subject, ids: Sequence[UUID]) -> set[UUID]:
    """Return which predictions are the subject's."""
    if isinstance(subject.value, UUID):
        return {subject.value}
    found: set[UUID] = set()
    for some in _slices(ids):
        sql = f"SELECT id FROM predictions WHERE {subject.condition} AND id IN ({_marks(some, 2)})"
        found |= {row["id"] for row in await transaction.fetch(sql, subject.value, *some)}
    return found


def _marks(values: Sequence[object], first: int = 1) -> str:
    return ", ".join(f"${no}" for no in range(first, first + len(values)))


def _slices(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), SLICE):
        yield values[start : start + SLICE]


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no id; expected 32 hexadecimal digits") from None


def _text(text: str) -> str:
    if text and is_unicode(text):
        return text
    raise argparse.ArgumentTypeError(f"{shown(text)} can't be one; expected text")
