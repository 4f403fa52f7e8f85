"""What history needs of a database, shown of each kind: records, keys, transactions, types, errors."""

from __future__ import annotations

import asyncio
import math
from asyncio import Runner
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from defects.history import idempotency
from defects.history.database import Database, Registration, Rejected, Row, Transaction, Unreachable
from defects.history.databases import database_of
from defects.history.record import Layout
from defects.serving.recording import Answered
from history_records import REGISTRATION, SCHEMA, WIDE, answered, batch_of

pytestmark = pytest.mark.xdist_group("postgres")

IDS = "SELECT id FROM predictions ORDER BY id"
KEY = "INSERT INTO idempotency (key, body_digest, answer, expires_at) VALUES ($1, $2, $3, $4)"
EARLY = "prediction_id, request_id, row, origin, class, occurred_at, received_at, replaces"
NOW = datetime.now(UTC)


@pytest.fixture
def registered(database: Database, runner: Runner) -> Database:
    """A database that knows who writes into it."""
    runner.run(database.register(REGISTRATION))
    return database


def uuids(*requests: Answered) -> list[UUID]:
    return [UUID(id_) for request in requests for id_ in request.ids]


async def fetch(database: Database, sql: str, *values: Any) -> Sequence[Row]:
    async with database.transaction(reading=True) as transaction:
        return await transaction.fetch(sql, *values)


async def ids_in(database: Database) -> list[UUID]:
    return [row["id"] for row in await fetch(database, IDS)]


async def execute(database: Database, sql: str, *values: Any) -> int:
    async with database.transaction() as transaction:
        return await transaction.execute(sql, *values)


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(registered: Database, runner: Runner) -> None:
    values = [[math.nan, -0.0], [3.4028234663852886e38, 1e-45], [1.5, 0.1]]
    request = answered(3, request_id=b"a/b.c-d", source=b"tunnel:4", protocol=1, values=values)
    runner.run(registered.write(batch_of(request), again=False))
    sql = (
        "SELECT p.*, s.name AS source_name, m.version, m.digest, m.schema, r.name AS revision_name FROM predictions p "
        "JOIN sources s ON s.no = p.source JOIN models m ON m.no = p.model JOIN revisions r ON r.no = p.revision "
        "ORDER BY id"
    )
    rows = runner.run(fetch(registered, sql))
    assert [row["id"] for row in rows] == uuids(request)
    for place, row in enumerate(rows):
        # As bytes: NaN equals nothing, and -0.0 equals 0.0.
        assert np.array(row["features"], "f4").tobytes() == np.array(values[place], "f4").tobytes()
        assert row["wide_features"] is None
        assert list(row["probabilities"]) == [0.25, 0.75]
        assert (row["request_id"], row["row"], row["class"], row["latency_us"]) == ("a/b.c-d", place, 1, 1500)
        assert (row["kind"], row["protocol"], row["source_name"]) == (0, 1, "tunnel:4")
        assert (row["version"], row["digest"], row["revision_name"]) == ("1", "sha256:1", "local")
        assert row["schema"] == REGISTRATION.schema


def test_wide_features_have_64_bits(database: Database, runner: Runner) -> None:
    layout = Layout(WIDE)
    runner.run(database.register(replace(REGISTRATION, layout=layout)))
    values = [[1_700_000_000.123456, math.nan], [-1e-310, 0.1]]
    runner.run(database.write(batch_of(answered(2, values=values, wide=True), layout=layout), again=False))
    rows = runner.run(fetch(database, "SELECT features, wide_features FROM predictions ORDER BY id"))
    assert [row["features"] for row in rows] == [None, None]
    assert np.array([row["wide_features"] for row in rows]).tobytes() == np.array(values).tobytes()


def test_values_of_features_can_be_left_out(database: Database, runner: Runner) -> None:
    layout = Layout(SCHEMA, with_features=False)
    runner.run(database.register(replace(REGISTRATION, layout=layout)))
    runner.run(database.write(batch_of(answered(2), layout=layout), again=False))
    rows = runner.run(fetch(database, "SELECT features, wide_features, class FROM predictions ORDER BY id"))
    assert [tuple(row.values()) for row in rows] == [(None, None, 1)] * 2


def test_what_is_written_again_is_there_once(registered: Database, runner: Runner) -> None:
    first, second = answered(3), answered(2)
    runner.run(registered.write(batch_of(first), again=True))  # the attempt before was not committed
    runner.run(registered.write(batch_of(first, second), again=True))  # it was, in part
    assert runner.run(ids_in(registered)) == uuids(first, second)


def test_an_id_that_is_there_is_rejected_and_nothing_of_its_batch_stays(registered: Database, runner: Runner) -> None:
    first, second = answered(), answered(source=b"new")
    runner.run(registered.write(batch_of(first), again=False))
    with pytest.raises(Rejected):
        runner.run(registered.write(batch_of(second, first), again=False))
    assert runner.run(ids_in(registered)) == uuids(first)
    runner.run(registered.write(batch_of(second), again=False))  # a source gets its number now
    rows = runner.run(fetch(registered, "SELECT s.name FROM predictions p JOIN sources s ON s.no = source ORDER BY id"))
    assert [row["name"] for row in rows] == ["", "new"]


def test_replicas_and_revisions_share_models_and_sources(database_url: str, runner: Runner) -> None:
    async def write(registration: Registration, source: bytes) -> None:
        database = database_of(database_url)
        await database.open()
        await database.register(registration)
        await database.write(batch_of(answered(source=source)), again=False)
        await database.close()

    async def both() -> list[tuple[Any, ...]]:
        await asyncio.gather(
            write(REGISTRATION, b"north"),
            write(replace(REGISTRATION, revision="green"), b"north"),
            write(replace(REGISTRATION, digest="sha256:2"), b"south"),
        )
        database = database_of(database_url)
        await database.open()
        counts = (
            "SELECT (SELECT count(*) FROM models), (SELECT count(*) FROM revisions), (SELECT count(*) FROM sources)"
        )
        found = [tuple(row.values()) for row in await fetch(database, counts)]
        found += [(row["n"],) for row in await fetch(database, "SELECT count(*) AS n FROM predictions")]
        await database.close()
        return found

    assert runner.run(both()) == [(2, 2, 3), (3,)]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_first_answer_to_a_key_stays(registered: Database, runner: Runner) -> None:
    first, second, other, free = (answered(2) for _ in range(4))
    assert list(runner.run(registered.write(batch_of(first, keys=["k"]), again=False))) == []
    lost = runner.run(registered.write(batch_of(other, second, free, keys=["k2", "k"]), again=False))
    assert list(lost) == [1]
    assert set(runner.run(ids_in(registered))) == set(uuids(first, other, free))
    (kept,) = runner.run(fetch(registered, "SELECT * FROM idempotency WHERE key = $1", "k"))
    assert (kept["answer"], kept["body_digest"]) == (first.ids[0].encode(), b"digest")
    assert timedelta(hours=23) < kept["expires_at"] - datetime.now(UTC) <= timedelta(hours=24)


@pytest.mark.parametrize("committed", [True, False])
def test_an_attempt_before_has_not_taken_the_key_away(registered: Database, runner: Runner, committed: bool) -> None:
    request = batch_of(answered(2), keys=["k"])
    if committed:
        runner.run(registered.write(request, again=False))
    assert list(runner.run(registered.write(request, again=True))) == []
    assert len(runner.run(ids_in(registered))) == 2


def test_of_two_answers_to_a_key_in_one_batch_the_first_one_counts(registered: Database, runner: Runner) -> None:
    first, second = answered(), answered()
    for again in (False, True):
        lost = runner.run(registered.write(batch_of(first, second, keys=["k", "k"]), again=again))
        assert list(lost) == [1]
    assert runner.run(ids_in(registered)) == uuids(first)


def test_a_key_that_has_expired_can_be_used_anew(registered: Database, runner: Runner) -> None:
    runner.run(execute(registered, KEY, "k", b"digest", b"old", NOW - timedelta(seconds=1)))
    request = answered()
    assert list(runner.run(registered.write(batch_of(request, keys=["k"]), again=False))) == []
    (kept,) = runner.run(fetch(registered, "SELECT answer FROM idempotency"))
    assert kept["answer"] == request.ids[0].encode()


def test_expired_keys_are_deleted_a_few_at_a_time(
    registered: Database, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever deletes many at once holds up those who record."""
    monkeypatch.setattr(idempotency, "SLICE", 2)
    for number in range(5):
        runner.run(execute(registered, KEY, f"old {number}", b"digest", b"old", NOW - timedelta(seconds=1)))
    runner.run(execute(registered, KEY, "new", b"digest", b"new", NOW + timedelta(hours=1)))
    left: list[int] = []
    begin = registered.transaction

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Transaction]:
        async with begin() as begun:
            yield begun
        left.append(len(await fetch(registered, "SELECT key FROM idempotency")))

    async def delete() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(
                registered, "transaction", lambda reading=False: begin(reading=True) if reading else transaction()
            )
            await idempotency.delete_expired(registered)

    runner.run(delete())
    assert left == [4, 2, 1]


# --- transactions -----------------------------------------------------------------------------------------------------


def test_a_transaction_is_committed_or_rolled_back(database: Database, runner: Runner) -> None:
    async def insert(*names: str) -> None:
        async with database.transaction() as transaction:
            for name in names:
                assert await transaction.execute("INSERT INTO revisions (name) VALUES ($1)", name) == 1
            if "bad" in names:
                raise ZeroDivisionError

    async def names() -> list[str]:
        return [row["name"] for row in await fetch(database, "SELECT name FROM revisions ORDER BY name")]

    runner.run(insert("a", "b"))
    with pytest.raises(ZeroDivisionError):
        runner.run(insert("c", "bad"))
    with pytest.raises(Rejected):
        runner.run(insert("d", "a"))
    assert runner.run(names()) == ["a", "b"]
    assert runner.run(execute(database, "UPDATE revisions SET name = name || $1", "!")) == 2
    assert runner.run(execute(database, "DELETE FROM revisions WHERE name = $1 OR name = $1::text", "a!")) == 1
    assert runner.run(names()) == ["b!"]


def test_a_cancelled_transaction_is_rolled_back(database: Database, runner: Runner) -> None:
    async def cancel() -> None:
        begun = asyncio.Event()

        async def insert() -> None:
            async with database.transaction() as transaction:
                await transaction.execute("INSERT INTO revisions (name) VALUES ('a')")
                begun.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(insert())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await execute(database, "INSERT INTO revisions (name) VALUES ('a')") == 1

    runner.run(cancel())


def test_who_reads_sees_one_state_and_does_not_hold_who_writes_up(registered: Database, runner: Runner) -> None:
    async def look() -> None:
        count = "SELECT count(*) AS n FROM predictions"
        async with registered.transaction(reading=True) as reading:
            before = await reading.fetch(count)
            await registered.write(batch_of(answered(3)), again=False)
            async with registered.transaction() as writing:
                await writing.execute("DELETE FROM predictions WHERE row = 0")
            after = await reading.fetch(count)
        assert (before[0]["n"], after[0]["n"]) == (0, 0)
        assert (await fetch(registered, count))[0]["n"] == 2

    runner.run(look())


def test_who_only_reads_can_not_write(database: Database, runner: Runner) -> None:
    async def write() -> None:
        async with database.transaction(reading=True) as transaction:
            await transaction.execute("INSERT INTO revisions (name) VALUES ('a')")

    with pytest.raises((Rejected, Unreachable)):
        runner.run(write())
    assert runner.run(fetch(database, "SELECT name FROM revisions")) == []


def test_many_transactions_at_once_all_end(database: Database, runner: Runner) -> None:
    async def insert(name: str) -> None:
        async with database.transaction() as transaction:
            rows = await transaction.fetch("SELECT count(*) AS n FROM revisions")
            await transaction.execute("INSERT INTO revisions (name) VALUES ($1)", f"{name} {rows[0]['n']}")

    async def all_at_once() -> None:
        readers = [fetch(database, "SELECT name FROM revisions") for _ in range(20)]
        await asyncio.gather(*(insert(f"{no}") for no in range(20)), *readers)

    runner.run(all_at_once())
    assert len(runner.run(fetch(database, "SELECT name FROM revisions"))) == 20


def test_a_stream_has_every_row_a_few_at_a_time(registered: Database, runner: Runner) -> None:
    requests = [answered(7), answered(6)]
    runner.run(registered.write(batch_of(*requests), again=False))

    async def stream(stop: int | None) -> list[list[UUID]]:
        pieces = []
        async with registered.transaction(reading=True) as transaction:
            async with aclosing(transaction.stream(f"{IDS} LIMIT $1", 12, rows=5)) as some:  # type: ignore[type-var]
                async for rows in some:
                    pieces.append([row["id"] for row in rows])
                    if len(pieces) == stop:
                        break
            assert len(await transaction.fetch("SELECT no FROM models")) == 1
        return pieces

    ids = uuids(*requests)
    assert runner.run(stream(None)) == [ids[:5], ids[5:10], ids[10:12]]
    assert runner.run(stream(1)) == [ids[:5]]


# --- types ------------------------------------------------------------------------------------------------------------


def test_values_have_the_same_types_in_each_database(database: Database, runner: Runner) -> None:
    id_, instant = uuid4(), datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC)
    insert = (
        "INSERT INTO early_outcomes (prediction_id, row, origin, class, occurred_at, received_at, replaces) "
        "VALUES ($1, $2, $3, $4, $5, $5, $6)"
    )
    abroad = instant.astimezone(datetime.strptime("+05:30", "%z").tzinfo)
    runner.run(execute(database, insert, id_, -7, "äöü '\"; --", "x" * 5000, abroad, True))
    runner.run(execute(database, KEY, "", b"\x00\xff", b"", instant))
    (row,) = runner.run(fetch(database, f"SELECT {EARLY} FROM early_outcomes WHERE prediction_id = $1", id_))
    assert dict(row) == {
        "prediction_id": id_,
        "request_id": None,
        "row": -7,
        "origin": "äöü '\"; --",
        "class": "x" * 5000,
        "occurred_at": instant,
        "received_at": instant,
        "replaces": True,
    }
    kinds: list[type] = [UUID, type(None), int, str, str, datetime, datetime, bool]
    assert all(isinstance(value, kind) for value, kind in zip(row.values(), kinds, strict=True))
    assert row["occurred_at"].utcoffset() == timedelta()
    assert row[0] == id_  # type: ignore[index]  # values have numbers, too
    (key,) = runner.run(fetch(database, "SELECT * FROM idempotency"))
    assert dict(key) == {"key": "", "body_digest": b"\x00\xff", "answer": b"", "expires_at": instant}


def test_an_expression_that_is_called_as_its_column_has_its_type(database: Database, runner: Runner) -> None:
    instant = datetime(1969, 7, 20, 20, 17, 40, 1, UTC)
    runner.run(execute(database, KEY, "k", b"d", b"a", instant))
    sql = (
        "SELECT max(expires_at) AS expires_at, count(*) AS n, min(key) AS key, $1::text AS given, "
        "COALESCE(min(answer), $2) AS answer FROM idempotency WHERE expires_at < $3"
    )
    (row,) = runner.run(fetch(database, sql, "text", b"", NOW))
    assert dict(row) == {"expires_at": instant, "n": 1, "key": "k", "given": "text", "answer": b"a"}
    (none,) = runner.run(fetch(database, "SELECT max(expires_at) AS expires_at FROM idempotency WHERE key = $1", "?"))
    assert none["expires_at"] is None


# --- open and closed --------------------------------------------------------------------------------------------------


def test_a_closed_database_says_so_and_can_be_opened_again(registered: Database, runner: Runner) -> None:
    request = answered()
    runner.run(registered.write(batch_of(request), again=False))
    for _ in range(2):
        runner.run(registered.close())
    with pytest.raises(Unreachable):
        runner.run(registered.write(batch_of(request), again=True))
    runner.run(registered.open())
    runner.run(registered.register(REGISTRATION))
    runner.run(registered.write(batch_of(request), again=True))
    assert runner.run(ids_in(registered)) == uuids(request)


def test_partitions_can_be_made_ahead_twice(registered: Database, runner: Runner) -> None:
    for _ in range(2):
        runner.run(registered.make_partitions(2))
    runner.run(registered.write(batch_of(answered()), again=False))


def test_migrating_again_does_nothing(database: Database, runner: Runner) -> None:
    assert list(runner.run(database.migrate())) == []
