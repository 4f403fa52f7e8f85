"""Write outcomes of recorded predictions: one current outcome of each prediction and origin, whoever else writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from defects.history.database import Transaction, Unreachable
from defects.history.sql import marks, parts, rows
from defects.protocols.outcomes import Stored

TRIES = 5  # while others write outcomes of the same predictions

Key = tuple[UUID, str]  # a prediction and an origin


class Given(NamedTuple):
    """An outcome of a recorded prediction. `place` is its number in the request.

    `waited`: it came before the record, so it corrects nothing that was said since.
    """

    place: int
    name: str  # of the class
    occurred_at: datetime
    received_at: datetime
    replace: bool
    waited: bool = False

    def corrects(self, current: Current) -> bool:
        """Tell whether this takes the place of the current outcome."""
        return self.replace and not (self.waited and self.received_at < current.received_at)


class Current(NamedTuple):
    """The current outcome of a key: the name of its class, and when it was received."""

    name: str
    received_at: datetime


class Verdict(NamedTuple):
    """What becomes of a given outcome; `name` is the class that its origin said before, where that is a conflict."""

    place: int
    stored: Stored
    name: str = ""


async def settle(
    transaction: Transaction, given: Mapping[Key, Sequence[Given]], now: datetime, lock: str
) -> list[Verdict]:
    """Store outcomes of recorded predictions; return what became of them. `lock` is the dialect's.

    Others may do the same at the same moment: the database's unique index says who was first, and who was not looks
    again at what is there. Keys are in order, so that two who write the same never wait for each other.
    """
    verdicts: list[Verdict] = []
    pending = dict(sorted(given.items()))
    for _ in range(TRIES):
        if not pending:
            break
        replaces = any(item.replace for items in pending.values() for item in items)
        current = await _current(transaction, pending, lock if replaces else "")
        judged = {key: judge(key, current.get(key), items) for key, items in pending.items()}
        writing = {key: written for key, (_, written) in judged.items() if written}
        replaced = await _replace(transaction, {key: current[key] for key in writing if key in current}, now)
        free = {key: written for key, written in writing.items() if key not in current or key in replaced}
        won = await _insert(transaction, {key: written[-1] for key, written in free.items()})
        await _insert_replaced(transaction, {key: free[key][:-1] for key in won}, now)
        for key in [key for key in pending if key not in writing or key in won]:
            verdicts += judged[key][0]
            del pending[key]
    if pending:
        raise Unreachable("others write outcomes of the same predictions all the time")
    return verdicts


def judge(key: Key, current: Current | None, items: Sequence[Given]) -> tuple[list[Verdict], list[Given]]:
    """Return what becomes of outcomes of the same key, and those that are written: each replaces the one before.

    `current` is the outcome that is there, if any.
    """
    verdicts, written = [], []
    for item in items:
        if current is not None and current.name == item.name:
            verdicts.append(Verdict(item.place, Stored("duplicate", key[0])))
        elif current is None or item.corrects(current):
            verdicts.append(Verdict(item.place, Stored("stored", key[0])))
            written.append(item)
            current = Current(item.name, item.received_at)
        else:
            verdicts.append(Verdict(item.place, Stored("conflict", key[0]), current.name))
    return verdicts, written


async def _current(transaction: Transaction, keys: Collection[Key], lock: str) -> dict[Key, Current]:
    """Return the current outcome of each key that has one."""
    found = {}
    for some in parts(sorted({id_ for id_, _ in keys})):
        sql = (
            "SELECT prediction_id, origin, class, received_at FROM outcomes "
            f"WHERE replaced_at IS NULL AND prediction_id IN ({marks(len(some))}) ORDER BY prediction_id, origin {lock}"
        )
        for row in await transaction.fetch(sql, *some):
            found[row["prediction_id"], row["origin"]] = Current(row["class"], row["received_at"])
    return found


async def _replace(transaction: Transaction, current: Mapping[Key, Current], now: datetime) -> set[Key]:
    """Mark current outcomes, with these classes, as replaced; return those that still were as they had been read."""
    replaced: set[Key] = set()
    for some in parts([*current.items()]):
        count = len(some)
        triples = (f"(${n}::uuid, ${n + count}::text, ${n + 2 * count}::text)" for n in range(2, 2 + count))
        sql = (
            f"UPDATE outcomes SET replaced_at = $1 WHERE replaced_at IS NULL AND prediction_id IN ({marks(count, 2)}) "
            f"AND (prediction_id, origin, class) IN (VALUES {', '.join(triples)}) RETURNING prediction_id, origin"
        )
        values = [*(id_ for (id_, _), _ in some), *(origin for (_, origin), _ in some), *(one.name for _, one in some)]
        replaced |= {(row["prediction_id"], row["origin"]) for row in await transaction.fetch(sql, now, *values)}
    return replaced


async def _insert(transaction: Transaction, wanted: Mapping[Key, Given]) -> set[Key]:
    """Insert the current outcome of each key; return the keys that had none."""
    won: set[Key] = set()
    for some in parts([*wanted.items()]):
        sql = (
            "INSERT INTO outcomes (prediction_id, origin, class, occurred_at, received_at) "
            f"VALUES {rows(len(some), 5)} ON CONFLICT (prediction_id, origin) WHERE replaced_at IS NULL DO NOTHING "
            "RETURNING prediction_id, origin"
        )
        values = [value for key, item in some for value in (*key, item.name, item.occurred_at, item.received_at)]
        won |= {(row["prediction_id"], row["origin"]) for row in await transaction.fetch(sql, *values)}
    return won


async def _insert_replaced(transaction: Transaction, written: Mapping[Key, Sequence[Given]], now: datetime) -> None:
    """Insert outcomes that others of the same request have replaced already."""
    items = [(key, item) for key, several in written.items() for item in several]
    for some in parts(items):
        sql = (
            "INSERT INTO outcomes (prediction_id, origin, class, occurred_at, received_at, replaced_at) "
            f"VALUES {rows(len(some), 6)}"
        )
        values = [value for key, item in some for value in (*key, item.name, item.occurred_at, item.received_at, now)]
        await transaction.execute(sql, *values)
