"""Say how often predictions were right, overall and by revision, model, source or day.

The database counts, day by day, and no row of a prediction leaves it. Only served predictions count, each with one
outcome: that of the wanted origin, else the one that was received last.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from defects.history import outcomes
from defects.history.database import Database, Row, Transaction
from defects.history.measures import BINS, DELAYS, LEAST, LEAST_DELAY, Tally
from defects.history.models import Models
from defects.history.sql import marks, parts
from defects.identifiers import EPOCH, first_id, made_at
from defects.problems import InvalidInput, Problem
from defects.protocols.outcomes import DEFAULT_SINCE, GROUPS, SANE_ORIGIN, SINCE, read_time
from defects.values import shown

MAX_GROUPS = 100  # the largest; all others are one
OTHER = "other"
DAY = timedelta(days=1)
AT_ONCE = 2  # days that are counted
SAMPLE = 4096  # outcomes of a day, about, whose delays are looked at
BYTE = 256  # values of one
AHEAD = timedelta(minutes=1)  # that the clock of a replica may be
AGO = re.compile(SINCE)
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": DAY}
COLUMNS = {"revision": "p.revision", "model": "p.model", "source": "p.source"}
# What is there of the day [$1, $2). An outcome of a class that the record's model doesn't have has no probability.
COUNT = """\
SELECT grp, model, class, truth, bin, count(*) AS number, sum(confidence) AS confidence, sum({loss}) AS loss
FROM (
    SELECT {group} AS grp, p.model, p.class, o.class AS truth,
        CASE WHEN o.class IS NULL THEN NULL ELSE {confidence} END AS confidence,
        CASE WHEN o.class IS NULL THEN NULL ELSE floor({confidence} * {bins}) END AS bin,
        CASE WHEN o.class IS NULL THEN NULL WHEN c.place IS NULL THEN 0 ELSE {probability} END AS probability
    FROM predictions p LEFT JOIN {outcomes} AS o ON o.prediction_id = p.id
    LEFT JOIN ({classes}) AS c ON c.model = p.model AND c.name = o.class
    WHERE p.kind = 0 AND p.id >= $1 AND p.id < $2 {apart}
) AS labelled
GROUP BY grp, model, class, truth, bin"""
LOSS = f"-ln(CASE WHEN probability < {LEAST!r} THEN {LEAST!r} WHEN probability > {1 - LEAST!r} THEN {1 - LEAST!r} " + (
    "ELSE probability END)"
)
DELAY = """\
SELECT grp, bucket, count(*) AS number FROM (
    SELECT {group} AS grp, floor(ln(CASE WHEN seconds < {least} THEN {least} ELSE seconds END) * {buckets}) AS bucket
    FROM (
        SELECT p.revision, p.model, p.source, {seconds} AS seconds
        FROM {outcomes} AS o JOIN predictions p ON p.id = o.prediction_id
        WHERE p.kind = 0 AND p.id >= $1 AND p.id < $2 AND {sampled} {apart}
    ) AS p
) AS delayed GROUP BY grp, bucket"""
CURRENT = "FROM outcomes WHERE replaced_at IS NULL AND prediction_id >= $1 AND prediction_id < $2"
LAST = f"""\
(SELECT prediction_id, class, received_at FROM (
    SELECT prediction_id, class, received_at,
        row_number() OVER (PARTITION BY prediction_id ORDER BY received_at DESC, origin) AS place
    {CURRENT}
) AS ranked WHERE place = 1)"""


@dataclass(frozen=True)
class Question:
    """What a summary is asked for."""

    since: datetime
    until: datetime
    by: str | None = None
    origin: str | None = None


def question(since: str = DEFAULT_SINCE, by: str | None = None, origin: str | None = None) -> Question:
    """Read what a summary is asked for; raises `InvalidInput`."""
    now = datetime.now(UTC)
    problems = []
    start = _since(since, now)
    if start is None:
        problems.append(Problem("since", f"is {shown(since)}", "such as 30m, 24h, 7d or 2026-11-27T05:00:00Z"))
    elif start > now:
        problems.append(Problem("since", f"{shown(since)} is in the future", "a time that has been"))
    if by is not None and by not in GROUPS:
        problems.append(Problem("by", f"is {shown(by)}", f"one of {', '.join(GROUPS)}"))
    if origin is not None and not SANE_ORIGIN.fullmatch(origin):
        problems.append(Problem("origin", f"is {shown(origin)}", "an origin, as outcomes have it"))
    if problems or start is None:
        raise InvalidInput(problems)
    return Question(start, now, by, origin)


def _since(text: str, now: datetime) -> datetime | None:
    """Return the time, not before 1970, that is so long ago, or is given; `None` where it is neither."""
    if AGO.fullmatch(text) is None:
        given = read_time(text)
        return None if given is None else max(given, EPOCH)
    return now - min(int(text[:-1]) * UNITS[text[-1]], now - EPOCH)


async def summary(
    database: Database, *, since: str = DEFAULT_SINCE, by: str | None = None, origin: str | None = None
) -> dict[str, Any]:
    """Return how often predictions were right, as JSON; raises `InvalidInput`, and what a database raises."""
    return await answer(database, Models(), question(since, by, origin))


async def answer(database: Database, models: Models, asked: Question) -> dict[str, Any]:
    """Return the summary that was asked for, as JSON."""
    await outcomes.join_early(database)
    async with database.transaction(reading=True) as transaction:
        days = iter([day async for day in _days(transaction, asked)])
    counting = _Counting(database, models, asked)
    tasks = [asyncio.create_task(counting.count_all(days)) for _ in range(AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    groups = counting.groups
    async with database.transaction(reading=True) as transaction:
        names = await _names(transaction, asked.by, list(groups))
    return {
        "since": _time(asked.since),
        "until": _time(asked.until),
        "by": asked.by,
        "origin": asked.origin,
        "overall": Tally.of(groups.values()).to_json(),
        "groups": [] if asked.by is None else _groups(asked.by, {names[key]: tally for key, tally in groups.items()}),
    }


def _groups(by: str, tallies: Mapping[str, Tally]) -> list[dict[str, Any]]:
    """Return the measures of each group: days in their order, others with the largest first."""
    if by == "day":
        ordered = sorted(tallies, reverse=True)
    else:
        ordered = sorted(tallies, key=lambda name: (-tallies[name].rows, name))
    told, others = ordered[:MAX_GROUPS], ordered[MAX_GROUPS:]
    if others and OTHER in told:  # a source may be named so
        told.remove(OTHER)
        others.append(OTHER)
    if by == "day":
        told.reverse()
    made = [{"group": name, "measures": tallies[name].to_json()} for name in told]
    if others:
        made.append({"group": OTHER, "measures": Tally.of(tallies[name] for name in others).to_json()})
    return made


async def _days(transaction: Transaction, asked: Question) -> AsyncIterator[_Day]:
    """Yield each day that has predictions."""
    start, end = asked.since, asked.until + AHEAD
    while start < end:
        sql = "SELECT id FROM predictions WHERE id >= $1 AND id < $2 ORDER BY id LIMIT 1"
        found = await transaction.fetch(sql, first_id(start), first_id(end))
        if not found:
            return
        first = made_at(found[0]["id"])
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        start = max(start, midnight)
        yield _Day(first_id(start), first_id(min(midnight + DAY, end)), midnight.date().isoformat())
        start = midnight + DAY


@dataclass(frozen=True)
class _Day:
    """The ids of a day, `[start, end)`, and its name."""

    start: UUID
    end: UUID
    name: str


class _Counting:
    """Counts what a database has, into `groups`."""

    def __init__(self, database: Database, models: Models, asked: Question):
        self._database, self._dialect, self._models, self._asked = database, database.dialect, models, asked
        self._column = COLUMNS.get(asked.by or "", "0")
        self.groups: dict[Any, Tally] = defaultdict(Tally)

    async def count_all(self, days: Iterator[_Day]) -> None:
        """Add what days have that nobody else has taken."""
        for day in days:
            async with self._database.transaction(reading=True) as transaction:
                await transaction.fetch(self._dialect.counting)
                chosen = await self._outcomes(transaction, day)
                labelled = await self._count(transaction, day, chosen)
                if labelled:
                    await self._add_delays(transaction, day, chosen, labelled)

    async def _count(self, transaction: Transaction, day: _Day, chosen: str) -> int:
        """Add the rows of a day; return how many are labelled."""
        element = self._dialect.element
        sql = COUNT.format(
            classes=self._dialect.classes,
            apart=self._dialect.apart,
            loss=LOSS,
            group=self._column,
            confidence=element.format(array="p.probabilities", place="p.class"),
            probability=element.format(array="p.probabilities", place="c.place"),
            bins=BINS,
            outcomes=chosen,
        )
        rows = await transaction.fetch(sql, *self._values(day))
        known = await self._models.of(transaction, {row["model"] for row in rows})
        for row in rows:
            predicted = known[row["model"]].schema.class_names[row["class"]]
            self._group(row, day).add(predicted, row["truth"], row)
        return sum(row["number"] for row in rows if row["truth"] is not None)

    async def _add_delays(self, transaction: Transaction, day: _Day, chosen: str, labelled: int) -> None:
        """Add the delays of a day, of a sample where there are many."""
        below = min(math.ceil(BYTE * SAMPLE / labelled), BYTE)
        sampled = "0 = 0" if below == BYTE else self._dialect.sampled.format(id="p.id", below=below)
        sql = DELAY.format(
            apart=self._dialect.apart,
            group=self._column,
            least=LEAST_DELAY,
            buckets=DELAYS,
            seconds=self._dialect.seconds.format(id="p.id", instant="o.received_at"),
            outcomes=chosen,
            sampled=sampled,
        )
        for row in await transaction.fetch(sql, *self._values(day)):
            self._group(row, day).add_delay(int(row["bucket"]), row["number"] * BYTE / below)

    def _values(self, day: _Day) -> tuple[Any, ...]:
        return day.start, day.end, *([] if self._asked.origin is None else [self._asked.origin])

    def _group(self, row: Row, day: _Day) -> Tally:
        return self.groups[day.name if self._asked.by == "day" else row["grp"]]

    async def _outcomes(self, transaction: Transaction, day: _Day) -> str:
        """Return the SQL of one outcome for each prediction. To choose takes long, so only where there are several."""
        if self._asked.origin is not None:
            return f"(SELECT prediction_id, class, received_at {CURRENT} AND origin = $3)"
        sql = f"SELECT min(origin) AS least, max(origin) AS most {CURRENT}"
        (found,) = await transaction.fetch(sql, day.start, day.end)
        several = found["least"] != found["most"]
        return LAST if several else f"(SELECT prediction_id, class, received_at {CURRENT})"


async def _names(transaction: Transaction, by: str | None, keys: Sequence[Any]) -> dict[Any, str]:
    """Return the names of groups, which all differ."""
    if by not in COLUMNS:
        return {key: str(key) for key in keys}
    column = "version" if by == "model" else "name"
    names: dict[Any, str] = {}
    for some in parts(keys):
        sql = f"SELECT no, {column} AS name FROM {by}s WHERE no IN ({marks(len(some))})"
        names |= {row["no"]: row["name"] for row in await transaction.fetch(sql, *some)}
    several = Counter(names.values())
    return {no: name if several[name] == 1 else f"{name} ({no})" for no, name in names.items()}


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
