"""The table of early outcomes: those whose predictions are not recorded yet, or were never made here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from defects.history.database import Row, Transaction
from defects.history.settling import Verdict
from defects.history.sql import marks, parts, rows
from defects.protocols.outcomes import Outcome, Stored

AT_ONCE = 1024  # that are looked at in one transaction
COLUMNS = "prediction_id, request_id, row, origin, class, occurred_at, received_at, replaces"

Key = tuple[UUID | None, str | None, int | None, str]  # what names a prediction, and the origin


class Early(NamedTuple):
    """An early outcome. `place` is its number in the request; in the table, it is the row's."""

    place: int
    outcome: Outcome
    name: str  # of the class
    received_at: datetime

    @property
    def key(self) -> Key:
        return self.outcome.prediction_id, self.outcome.request_id, self.outcome.row, self.outcome.origin


async def keep(transaction: Transaction, early: Sequence[Early], since: datetime) -> list[Verdict]:
    """Keep early outcomes; return what became of them. What is there counts where it was received `since` then.

    One that is there already is not kept again, and one whose origin has said another class is a conflict.
    """
    current: dict[Key, str] = {}
    for one in await _kept(transaction, early, since):
        if one.outcome.replace or one.key not in current:
            current[one.key] = one.name
    verdicts, new = [], []
    for one in early:
        before, id_ = current.get(one.key), one.outcome.prediction_id
        if before in (None, one.name) or one.outcome.replace:
            verdicts.append(Verdict(one.place, Stored("unknown", id_)))
            if before != one.name:
                new.append(one)
                current[one.key] = one.name
        else:
            verdicts.append(Verdict(one.place, Stored("conflict", id_), before or ""))
    for some in parts(new):
        sql = f"INSERT INTO early_outcomes ({COLUMNS}) VALUES {rows(len(some), 8)}"
        values = [
            value
            for one in some
            for value in (*one.key, one.name, one.outcome.occurred_at, one.received_at, one.outcome.replace)
        ]
        await transaction.execute(sql, *values)
    return verdicts


async def _kept(transaction: Transaction, early: Sequence[Early], since: datetime) -> list[Early]:
    """Return what is there of the same predictions, in the order in which it came."""
    found: list[Early] = []
    for column in ("prediction_id", "request_id"):
        wanted = {given for one in early if (given := getattr(one.outcome, column)) is not None}
        for some in parts(sorted(wanted)):
            sql = (
                f"SELECT no, {COLUMNS} FROM early_outcomes "
                f"WHERE received_at >= $1 AND {column} IN ({marks(len(some), 2)}) ORDER BY no"
            )
            found += map(_early, await transaction.fetch(sql, since, *some))
    return found


async def received(transaction: Transaction, since: datetime, after: int) -> list[Early]:
    """Return the early outcomes that were received `since` then, from the first one whose number is above `after`."""
    sql = f"SELECT no, {COLUMNS} FROM early_outcomes WHERE received_at >= $1 AND no > $2 ORDER BY no LIMIT {AT_ONCE}"
    return [*map(_early, await transaction.fetch(sql, since, after))]


async def take(transaction: Transaction, numbers: Sequence[int]) -> set[int]:
    """Delete early outcomes by their numbers; return those that nobody else has deleted."""
    taken: set[int] = set()
    for some in parts(sorted(numbers)):
        sql = f"DELETE FROM early_outcomes WHERE no IN ({marks(len(some))}) RETURNING no"
        taken |= {row["no"] for row in await transaction.fetch(sql, *some)}
    return taken


async def delete_before(transaction: Transaction, instant: datetime) -> int:
    """Delete what was received before then, `AT_ONCE` at most; return how many."""
    some = f"SELECT no FROM early_outcomes WHERE received_at < $1 LIMIT {AT_ONCE}"
    return await transaction.execute(f"DELETE FROM early_outcomes WHERE no IN ({some})", instant)


def _early(row: Row) -> Early:
    outcome = Outcome(
        row["prediction_id"], row["request_id"], row["row"], "", row["origin"], row["occurred_at"], row["replaces"]
    )
    return Early(row["no"], outcome, row["class"], row["received_at"])
