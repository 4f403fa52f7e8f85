"""Partitions by day: always there before they are needed, made by anybody, and taken away without a DELETE."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from defects.history.postgres import PostgresDatabase
from history_databases import ask
from history_records import REGISTRATION, answered, batch_of, ids_of

MIDNIGHT = datetime(2027, 3, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def evening(postgres_url: str, runner: asyncio.Runner) -> Iterator[PostgresDatabase]:
    """A new database, open in `runner` a second before a day ends."""
    database = PostgresDatabase(postgres_url, clock=(MIDNIGHT - SECOND).timestamp)
    runner.run(opened(database))
    yield database
    runner.run(database.close())


async def opened(database: PostgresDatabase) -> PostgresDatabase:
    await database.open()
    await database.register(REGISTRATION)
    return database


def partitions(url: str) -> list[str]:
    parents = "'predictions'::regclass, 'outcomes'::regclass"
    attached = ask(url, f"SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent IN ({parents})")
    return sorted(row["name"] for row in attached)


def named(*days: str) -> list[str]:
    return sorted(f"{table}_{day}" for day in days for table in ("predictions", "outcomes"))


def test_partitions_are_made_ahead_and_are_there_at_midnight(
    evening: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    runner.run(evening.make_partitions(2))
    expected = named("20270228", "20270301", "20270302")
    assert partitions(postgres_url) == expected
    ask(postgres_url, "DROP FUNCTION history_partition(date)")  # nothing is left to be made
    request = [answered(ids=ids_of(moment)) for moment in (MIDNIGHT - SECOND / 1000, MIDNIGHT)]
    runner.run(evening.write(batch_of(*request), again=False))
    where = ask(postgres_url, "SELECT tableoid::regclass::text AS name, id FROM predictions ORDER BY id")
    assert [(row["name"], row["id"].hex) for row in where] == [
        ("predictions_20270228", request[0].ids[0]),
        ("predictions_20270301", request[1].ids[0]),
    ]


def test_whatever_a_clock_says_is_written(evening: PostgresDatabase, postgres_url: str, runner: asyncio.Runner) -> None:
    """Days that nobody made ahead: at midnight, of a clock without a battery, and of one that is far ahead."""
    moments = [datetime(1970, 1, 1, tzinfo=UTC), MIDNIGHT, datetime(2199, 12, 31, 23, 59, 59, tzinfo=UTC)]
    batch = batch_of(*(answered(ids=ids_of(moment)) for moment in moments))
    runner.run(evening.write(batch, again=True))
    assert partitions(postgres_url) == named("19700101", "20270301", "21991231")
    assert ask(postgres_url, "SELECT count(*) FROM predictions")[0][0] == 3


def test_replicas_make_the_same_partitions_at_once(postgres_url: str, runner: asyncio.Runner) -> None:
    async def run() -> None:
        replicas = [await opened(PostgresDatabase(postgres_url, clock=MIDNIGHT.timestamp)) for _ in range(4)]
        batches = [batch_of(answered(ids=ids_of(MIDNIGHT + 5 * 86_400 * SECOND))) for _ in replicas]
        await asyncio.gather(
            *(each.make_partitions(3) for each in replicas),
            *(each.write(batch, again=False) for each, batch in zip(replicas, batches, strict=True)),
        )
        await asyncio.gather(*(each.close() for each in replicas))

    runner.run(run())
    assert partitions(postgres_url) == named("20270301", "20270302", "20270303", "20270304", "20270306")
    assert ask(postgres_url, "SELECT count(*) FROM predictions")[0][0] == 4


def test_what_is_being_written_does_not_hold_up_a_new_partition(
    evening: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    """A COPY that stays open holds a lock, with which a table could not be created as a partition."""

    async def run() -> None:
        await evening.make_partitions(0)
        other = await asyncpg.connect(postgres_url)
        async with other.transaction():
            await other.execute("LOCK TABLE predictions IN ROW EXCLUSIVE MODE")
            await evening.make_partitions(1)
            await evening.write(batch_of(answered(ids=ids_of(MIDNIGHT))), again=False)
        await other.close()

    runner.run(run())
    assert ask(postgres_url, "SELECT count(*) FROM predictions")[0][0] == 1


def test_a_partition_can_be_taken_away_while_others_are_written(
    evening: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    """A record of that day that comes after all makes it anew."""
    old, new = (answered(ids=ids_of(MIDNIGHT + days * 86_400 * SECOND)) for days in (-30, 0))
    runner.run(evening.write(batch_of(old, new), again=False))
    day = "predictions_20270130"
    ask(postgres_url, f"ALTER TABLE predictions DETACH PARTITION {day} CONCURRENTLY")
    ask(postgres_url, f"DROP TABLE {day}")
    assert [row["id"].hex for row in ask(postgres_url, "SELECT id FROM predictions")] == new.ids
    for again in (False, True):
        late = answered(ids=ids_of(MIDNIGHT - 30 * 86_400 * SECOND))
        runner.run(evening.write(batch_of(late, keys=["k"] if again else []), again=again))
        assert ask(postgres_url, f"SELECT id FROM {day}")[0]["id"].hex == late.ids[0]
        ask(postgres_url, f"ALTER TABLE predictions DETACH PARTITION {day}")  # and kept, as by somebody who is not done
        if not again:
            ask(postgres_url, f"DROP TABLE {day}")
    runner.run(evening.write(batch_of(answered(ids=ids_of(MIDNIGHT - 30 * 86_400 * SECOND))), again=False))
    assert ask(postgres_url, f"SELECT count(*) FROM {day}")[0][0] == 2


def test_a_day_can_be_asked_for_by_id_alone(
    evening: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    runner.run(evening.make_partitions(9))
    request = answered(ids=ids_of(MIDNIGHT))
    runner.run(evening.write(batch_of(request), again=False))
    plan = ask(postgres_url, f"EXPLAIN SELECT FROM predictions WHERE id = '{request.ids[0]}'")
    assert "predictions_20270301" in str(plan)
    assert "predictions_20270302" not in str(plan)
    day = "id >= history_first_id('2027-03-08') AND id < history_first_id('2027-03-09')"
    plan = ask(postgres_url, f"EXPLAIN SELECT FROM predictions WHERE {day}")
    assert "predictions_20270308" in str(plan)
    assert "predictions_20270307" not in str(plan)


def test_the_function_is_safe_from_its_callers(postgres_url: str, runner: asyncio.Runner) -> None:
    """It runs with its owner's rights, so nothing of the caller's may stand in for what it uses."""
    config = ask(postgres_url, "SELECT proconfig, prosecdef FROM pg_proc WHERE proname = 'history_partition'")[0]
    assert config["prosecdef"]
    assert config["proconfig"] == ["search_path=pg_catalog, public, pg_temp"]

    async def run() -> None:
        other = await asyncpg.connect(postgres_url)
        await other.execute("CREATE TEMPORARY TABLE predictions (id uuid); SET search_path = pg_temp, nowhere")
        await other.execute("SELECT public.history_partition('2027-05-05')")
        await other.close()

    runner.run(run())
    assert partitions(postgres_url) == named("20270505")
