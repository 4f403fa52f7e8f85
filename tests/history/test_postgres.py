"""PostgreSQL: what is written is exact, each key has one answer, and every failure says what helps."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg
import numpy as np
import pytest

from conftest import ROOT, free_port
from defects.history import postgres_address, postgres_transactions
from defects.history.database import Registration, Rejected, Unreachable, Unusable
from defects.history.postgres import PostgresDatabase
from defects.history.record import MAX_REQUEST_ID, Layout
from defects.identifiers import new_id
from defects.schema import Schema
from defects.serving.recording import Answered
from defects.settings import BadSetting
from defects.simulator import SCHEMA as PARCELS
from history_databases import ask
from history_records import REGISTRATION, SCHEMA, answered, batch_of
from tools.local_postgres import LocalPostgres

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture
def opened(postgres_url: str, runner: asyncio.Runner) -> Iterator[PostgresDatabase]:
    """A new database, open in `runner`, into which records of `REGISTRATION` are written."""
    database = PostgresDatabase(postgres_url)
    runner.run(database.open())
    runner.run(database.register(REGISTRATION))
    yield database
    runner.run(database.close())


def rows_of(url: str, columns: str = "*") -> list[asyncpg.Record]:
    return ask(url, f"SELECT {columns} FROM predictions ORDER BY id")


def bits(values: Any, kind: str) -> list[bytes]:
    return [struct.pack(f">{kind}", value) for value in values]


def test_every_column_of_a_record_is_written(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    request = answered(2, request_id=b"abc", source=b"tunnel-7")
    assert runner.run(opened.write(batch_of(request), again=False)) == ()
    row = ask(
        postgres_url,
        "SELECT p.*, m.version, m.digest, m.schema, r.name AS revision_name, s.name AS source_name FROM predictions p "
        "JOIN models m ON m.no = p.model JOIN revisions r ON r.no = p.revision JOIN sources s ON s.no = p.source "
        "ORDER BY p.row",
    )[1]
    assert row["id"] == UUID(request.ids[1])
    assert (row["kind"], row["request_id"], row["row"], row["protocol"]) == (0, "abc", 1, 2)
    assert (row["class"], row["latency_us"], row["source_name"]) == (1, 1500, "tunnel-7")
    assert (row["features"], row["wide_features"], row["probabilities"]) == ([2.0, 3.0], None, [0.25, 0.75])
    assert (row["version"], row["digest"], row["schema"]) == ("1", "sha256:1", '{"schema": 1}')
    assert row["revision_name"] == "local"


def test_floats_are_written_bit_for_bit(opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner) -> None:
    """NaN with any payload, -0.0, denormals, infinities, and the neighbours of a power of two."""
    patterns = [0x7FC00000, 0x7FA12345, 0xFFC00001, 0x80000000, 1, 0x807FFFFF, 0x7F800000, 0xFF7FFFFF, 0x4B7FFFFF]
    values = np.array(patterns, ">u4").view(">f4").astype("<f4").view("<u4").view("<f4")
    rows = np.stack([values, values[::-1]], axis=1)
    assert rows[0].view("<u4")[0] == patterns[0]
    request = answered(len(values))._replace(rows=rows, probabilities=rows)
    runner.run(opened.write(batch_of(request), again=False))
    for column in ("features", "probabilities"):
        sent = f"ARRAY(SELECT float4send(v) FROM unnest({column}) WITH ORDINALITY AS u (v, n) ORDER BY n)"
        found = [row[0] for row in ask(postgres_url, f"SELECT {sent} FROM predictions ORDER BY row")]
        assert found == [[struct.pack(">I", int(v)) for v in row.view("<u4")] for row in rows]


def test_wide_features_are_doubles_bit_for_bit(postgres_url: str, runner: asyncio.Runner) -> None:
    wide = Schema((replace(SCHEMA.features[0], wide=True), SCHEMA.features[1]), SCHEMA.classes)
    layout = Layout(wide)
    values = [2.0**53 + 2, -0.0], [5e-324, -1e300], [float("nan"), 0.1]
    request = answered(3)._replace(rows=np.array(values))

    async def check() -> None:
        database = PostgresDatabase(postgres_url)
        await database.open()
        await database.register(replace(REGISTRATION, layout=layout))
        await database.write(batch_of(request, layout=layout), again=False)
        await database.write(batch_of(request, answered(1)._replace(rows=np.ones((1, 2))), layout=layout), again=True)
        await database.close()

    runner.run(check())
    found = rows_of(postgres_url, "features, wide_features")
    assert [row["features"] for row in found] == [None] * 4
    assert [bits(row["wide_features"], "d") for row in found] == [bits(row, "d") for row in (*values, (1, 1))]


def test_features_can_be_left_out(postgres_url: str, runner: asyncio.Runner) -> None:
    layout = Layout(SCHEMA, with_features=False)

    async def check() -> None:
        database = PostgresDatabase(postgres_url)
        await database.open()
        await database.register(replace(REGISTRATION, layout=layout))
        await database.write(batch_of(answered(2), layout=layout), again=False)
        await database.close()

    runner.run(check())
    expected = (None, None, [0.25, 0.75])
    assert [tuple(row) for row in rows_of(postgres_url, "features, wide_features, probabilities")] == [expected] * 2


def test_request_ids_of_all_lengths_come_in_one_batch(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    requests = [answered(request_id=b"x" * length) for length in range(MAX_REQUEST_ID + 1)]
    batch = batch_of(*requests)
    runner.run(opened.write(batch, again=False))
    runner.run(opened.write(batch, again=True))
    found = {row["id"].hex: row["request_id"] for row in rows_of(postgres_url)}
    assert found == {each.ids[0]: each.request_id.decode() for each in requests}


def test_the_largest_request_is_written(postgres_url: str, runner: asyncio.Runner) -> None:
    layout, schema = Layout(PARCELS), PARCELS
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(1024, len(schema.features))).astype(np.float32)
    probabilities = rng.random((1024, len(schema.classes)), np.float32)
    best = probabilities.argmax(axis=1)
    request = Answered(b"", b"", 0, [new_id() for _ in rows], rows, probabilities, best.tolist())

    async def check() -> None:
        database = PostgresDatabase(postgres_url)
        await database.open()
        await database.register(Registration("2", "sha256:2", "{}", "local", layout))
        await database.write(batch_of(request, layout=layout), again=False)
        await database.close()

    runner.run(check())
    found = ask(postgres_url, "SELECT row, id, features, probabilities, class FROM predictions ORDER BY row")
    assert [row["id"].hex for row in found] == request.ids
    assert [row["row"] for row in found] == [*range(1024)]
    assert np.array_equal(np.array([row["features"] for row in found], np.float32), rows)
    assert np.array_equal(np.array([row["probabilities"] for row in found], np.float32), probabilities)
    assert [row["class"] for row in found] == best.tolist()


def test_sources_have_one_number_each_whoever_comes_first(postgres_url: str, runner: asyncio.Runner) -> None:
    names = [b"a", b"b", b"c", b""]

    async def check() -> None:
        replicas = [PostgresDatabase(postgres_url) for _ in range(3)]
        for each in replicas:
            await each.open()
            await each.register(REGISTRATION)
        for _ in range(2):
            order = [names, names[::-1], names[2:] + names[:2]]
            batches = [batch_of(*(answered(source=name, request_id=name) for name in some)) for some in order]
            await asyncio.gather(*(a.write(b, again=False) for a, b in zip(replicas, batches, strict=True)))
        await asyncio.gather(*(each.close() for each in replicas))

    runner.run(check())
    joined = "predictions p JOIN sources s ON s.no = p.source"
    found = ask(postgres_url, f"SELECT name, request_id, count(*) FROM {joined} GROUP BY 1, 2 ORDER BY 1")
    assert [tuple(row) for row in found] == [("", "", 6), ("a", "a", 6), ("b", "b", 6), ("c", "c", 6)]
    assert ask(postgres_url, "SELECT count(*) FROM sources")[0][0] == 4
    assert ask(postgres_url, "SELECT count(*) FROM models")[0][0] == 1


def test_a_key_has_one_answer(opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner) -> None:
    first, second, other = answered(2), answered(), answered()
    batch = batch_of(first, answered(), keys=["k"])
    assert list(runner.run(opened.write(batch, again=False))) == []
    assert list(runner.run(opened.write(batch, again=True))) == []  # it was this very attempt
    lost = runner.run(opened.write(batch_of(second, other, keys=["k", "l"]), again=False))
    assert list(lost) == [0]
    assert list(runner.run(opened.write(batch_of(second, other, keys=["k", "l"]), again=True))) == [0]
    ids = {row["id"].hex for row in rows_of(postgres_url)}
    assert second.ids[0] not in ids
    assert {*first.ids, *other.ids} < ids
    assert len(ids) == 4
    kept = ask(postgres_url, "SELECT key, body_digest, answer FROM idempotency ORDER BY key")
    assert [tuple(row) for row in kept] == [
        ("k", b"digest", first.ids[0].encode()),
        ("l", b"digest", other.ids[0].encode()),
    ]


def test_of_a_batch_with_a_key_twice_the_first_answer_is_kept(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    requests = [answered() for _ in range(3)]
    batch = batch_of(*requests, keys=["k", "k", "k"])
    assert list(runner.run(opened.write(batch, again=False))) == [1, 2]
    assert list(runner.run(opened.write(batch, again=True))) == [1, 2]
    assert [row["id"].hex for row in rows_of(postgres_url)] == requests[0].ids


def test_a_key_is_free_again_after_a_day(opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner) -> None:
    runner.run(opened.write(batch_of(answered(), keys=["k"]), again=False))
    age = "SELECT extract(epoch FROM expires_at - now()) AS seconds FROM idempotency"
    assert 86_400 - 3600 < ask(postgres_url, age)[0]["seconds"] <= 86_400
    ask(postgres_url, "UPDATE idempotency SET expires_at = now()")
    later = answered()
    assert list(runner.run(opened.write(batch_of(later, keys=["k"]), again=False))) == []
    assert ask(postgres_url, "SELECT answer FROM idempotency")[0][0] == later.ids[0].encode()


def test_replicas_with_the_same_keys_never_wait_for_each_other_in_a_circle(
    postgres_url: str, runner: asyncio.Runner
) -> None:
    names = [f"key {number}" for number in range(40)]

    async def check() -> list[set[int]]:
        replicas = [PostgresDatabase(postgres_url) for _ in range(2)]
        for each in replicas:
            await each.open()
            await each.register(REGISTRATION)
        requests = [answered() for _ in names]
        batches = batch_of(*requests, keys=names), batch_of(*[answered() for _ in names], keys=names[::-1])
        lost = await asyncio.gather(*(a.write(b, again=False) for a, b in zip(replicas, batches, strict=True)))
        await asyncio.gather(*(each.close() for each in replicas))
        return [set(each) for each in lost]

    lost = runner.run(check())
    assert sorted(map(len, lost)) == [0, 40]
    assert len(rows_of(postgres_url)) == 40


def test_what_is_refused_is_not_the_connections_end(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    bad, good = answered(request_id=b"a\0b"), answered()
    for keys in ([], ["k"]):
        with pytest.raises(Rejected, match="invalid byte sequence"):
            runner.run(opened.write(batch_of(good, bad, keys=keys), again=False))
        with pytest.raises(Rejected, match="invalid byte sequence"):
            runner.run(opened.write(batch_of(good, bad, keys=keys), again=True))
    with pytest.raises(Rejected, match="duplicate key"):
        runner.run(opened.write(batch_of(good, good), again=False))
    assert rows_of(postgres_url) == []
    assert ask(postgres_url, "SELECT FROM idempotency") == []
    runner.run(opened.write(batch_of(good), again=False))
    assert [row["id"].hex for row in rows_of(postgres_url)] == good.ids


def test_a_transaction_is_all_or_nothing(opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner) -> None:
    async def check() -> None:
        async with opened.transaction() as begun:
            assert await begun.execute("INSERT INTO revisions (name) VALUES ($1), ($2)", "x", "y") == 2
            assert await begun.execute("UPDATE revisions SET name = 'z' WHERE name = $1", "none") == 0
        with pytest.raises(KeyError):  # noqa: PT012
            async with opened.transaction() as begun:
                await begun.execute("INSERT INTO revisions (name) VALUES ('never')")
                raise KeyError
        with pytest.raises(Rejected, match="nothing of it was committed"):  # noqa: PT012
            async with opened.transaction() as begun:
                await begun.execute("INSERT INTO revisions (name) VALUES ('never')")
                with suppress(Rejected):
                    await begun.execute("INSERT INTO revisions (name) VALUES ('x')")
        with pytest.raises(Rejected, match="expected str"):
            async with opened.transaction() as begun:
                await begun.execute("INSERT INTO revisions (name) VALUES ($1)", 7)
        with pytest.raises(Unusable, match='relation "nowhere" does not exist'):
            async with opened.transaction() as begun:
                await begun.fetch("SELECT FROM nowhere")

    runner.run(check())
    assert {row["name"] for row in ask(postgres_url, "SELECT name FROM revisions")} == {"local", "x", "y"}


def test_one_that_reads_sees_one_state_and_a_stream_comes_in_parts(
    opened: PostgresDatabase, runner: asyncio.Runner
) -> None:
    sql = "SELECT id FROM predictions WHERE row < $1"

    async def check() -> None:
        await opened.write(batch_of(answered(25)), again=False)
        async with opened.transaction(reading=True) as reading:
            assert [len(some) async for some in reading.stream(sql, 23, rows=10)] == [10, 10, 3]
            await opened.write(batch_of(answered(5)), again=False)
            assert len(await reading.fetch(sql, 100)) == 25
        async with opened.transaction() as begun:
            assert [len(some) async for some in begun.stream(sql, 100, rows=10)] == [10, 10, 10]

    runner.run(check())


def test_transactions_share_a_few_connections(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one() -> int:
        async with opened.transaction() as begun:
            return int((await begun.fetch("SELECT pg_backend_pid() AS pid"))[0]["pid"])

    async def many() -> set[int]:
        return set(await asyncio.gather(*(one() for _ in range(20))))

    assert len(runner.run(many())) <= postgres_transactions.MOST
    database = postgres_url.rpartition("/")[2]
    there = ask(postgres_url, "SELECT count(*) FROM pg_stat_activity WHERE datname = $1", database)[0][0]
    assert there <= postgres_transactions.MOST + 2  # the one that writes, and this one

    async def all_taken() -> None:
        async with opened.transaction(), opened.transaction(), opened.transaction():
            await one()

    monkeypatch.setattr(postgres_transactions, "WAIT_SECONDS", 0.05)
    with pytest.raises(Unreachable, match="all 3 connections"):
        runner.run(all_taken())


def test_a_cancelled_write_leaves_a_database_that_can_be_opened_again(
    opened: PostgresDatabase, postgres_url: str, runner: asyncio.Runner
) -> None:
    batch = batch_of(answered(500), keys=["k"])

    async def check() -> None:
        for passes in range(1, 30):
            writing = asyncio.ensure_future(opened.write(batch, again=True))
            for _ in range(passes):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await opened.open()
            await opened.register(REGISTRATION)
        assert list(await opened.write(batch, again=True)) == []

    runner.run(check())
    assert len(rows_of(postgres_url)) == 500


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:pa@ss@host/db",
        "postgresql://user:pa#ss@host/db",
        "postgresql://user:pa/ss@host/db",
        "postgresql://user:pa?ss@host/db",
        "postgresql://user:12/ss@host/db",
        "postgresql://user:pass@host:port/db",
        "postgresql://user:pass@host:70000/db",
        "postgresql://user:pass@[::1/db",
        "mysql://user:pass@host/db",
    ],
)
def test_a_wrong_url_is_one_line_that_does_not_show_it(url: str) -> None:
    with pytest.raises(BadSetting) as refused:
        PostgresDatabase(url)
    said = str(refused.value)
    assert said.startswith("DEFECTS_DATABASE_URL: ")
    assert "expected postgresql://user:password@host:port/database" in said
    assert not any(part in said for part in ("pa@", "pa#", "pa/", "pa?", "12/", "pass@", "mysql"))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://user:secret@db.example/history", "PostgreSQL at db.example:5432/history"),
        ("postgres://user:s%40cret@a:1,b:2,[::1]:3/h?sslmode=require", "PostgreSQL at a:1,b:2,::1:3/h"),
        ("postgresql:///history?host=/run/postgresql", "PostgreSQL at the default host/history"),
    ],
)
def test_its_name_says_where_it_is_without_the_password(url: str, name: str) -> None:
    assert PostgresDatabase(url).name == name


def failure(runner: asyncio.Runner, url: str) -> Exception:
    database = PostgresDatabase(url)
    with pytest.raises((Unreachable, Unusable)) as failed:
        runner.run(database.open())
    runner.run(database.close())
    said = str(failed.value)
    assert "\n" not in said
    assert PASSWORD not in said
    return failed.value


def test_why_it_can_not_be_opened_is_said(postgres: LocalPostgres, postgres_url: str, runner: asyncio.Runner) -> None:
    """A database that is away, or that somebody has to let us into, may come back: that is no end."""
    place = f"@127.0.0.1:{postgres.port}/"
    for url, said in (
        (postgres_url.replace(f":{postgres.port}/", f":{free_port()}/"), "can't be reached"),
        (postgres_url.replace(postgres.password, "wrong"), "password authentication failed"),
        (f"{postgres_url}_none", "does not exist"),
        (postgres_url.replace("127.0.0.1", "nowhere.invalid"), "can't be reached"),
        (f"{postgres_url}?sslmode=require", "rejected SSL upgrade"),
    ):
        failed = failure(runner, url)
        assert isinstance(failed, Unreachable)
        assert said in str(failed)
    for query, said in (
        ("sslmode=sometimes", "what follows its question mark is not valid"),
        ("no_such_setting=1", 'unrecognized configuration parameter "no_such_setting"'),
        ("channel_binding=require", 'unrecognized configuration parameter "channel_binding"'),
        ("statement_timeout=soon", 'invalid value for parameter "statement_timeout"'),
    ):
        failed = failure(runner, f"{postgres_url}?{query}")
        assert isinstance(failed, Unusable)
        assert said in str(failed)
        assert str(failed).startswith("DEFECTS_DATABASE_URL: what follows its question mark is not valid")
        assert "soon" not in str(failed)
    ask(postgres_url, f"CREATE ROLE crowded LOGIN CONNECTION LIMIT 0 PASSWORD '{PASSWORD}'")
    url = f"postgresql://crowded:{PASSWORD.replace(' ', '%20')}{place}{postgres_url.rpartition('/')[2]}"
    assert "too many connections" in str(failure(runner, url))
    ask(postgres_url, "DROP ROLE crowded")


def test_a_standby_is_not_written_to(postgres_url: str, runner: asyncio.Runner) -> None:
    database = postgres_url.rpartition("/")[2]
    ask(postgres_url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    assert "is read-only, as a standby is" in str(failure(runner, postgres_url))


def test_of_several_hosts_the_one_that_can_be_written_to_is_used(
    postgres: LocalPostgres, postgres_url: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is gone, and another takes connections and never answers."""
    here = f"127.0.0.1:{postgres.port}"

    async def check(database: PostgresDatabase) -> None:
        for seconds in (1.0, 30.0, 300.0):  # the silent one takes a third of it
            monkeypatch.setattr(postgres_address, "OPEN_SECONDS", seconds)
            with suppress(Unreachable):
                await database.open()
                break
        await database.register(REGISTRATION)
        await database.write(batch_of(answered()), again=False)
        await database.close()

    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{free_port()},127.0.0.1:{silent.getsockname()[1]},{here}"
        runner.run(check(PostgresDatabase(postgres_url.replace(here, hosts))))
    assert len(rows_of(postgres_url)) == 1


def grants() -> list[str]:
    """What docs/history.md gives the role of servers."""
    page = (ROOT / "docs" / "history.md").read_text("utf-8")
    block = re.search(r"```text\n( +GRANT .*?)```", page, re.DOTALL)
    assert block
    return [each for each in block[1].split(";") if each.strip()]


def test_a_role_that_may_create_nothing_writes_and_makes_partitions(
    postgres: LocalPostgres, postgres_url: str, runner: asyncio.Runner
) -> None:
    ask(postgres_url, f"CREATE ROLE serving LOGIN PASSWORD '{PASSWORD}'")
    user = f"serving:{PASSWORD.replace(' ', '%20')}"
    url = postgres_url.replace(f"defects:{postgres.password}", user)
    try:
        failed = failure(runner, url)
        assert isinstance(failed, Unreachable)
        assert str(failed) == (
            "permission denied for table history_migrations; grant it to the user of DEFECTS_DATABASE_URL"
        )
        for grant in grants():
            ask(postgres_url, grant)

        async def check() -> None:
            database = PostgresDatabase(url)
            await database.open()
            await database.register(REGISTRATION)
            await database.make_partitions(2)
            batch = batch_of(answered(source=b"s"), keys=["k"])
            await database.write(batch, again=False)
            await database.write(batch, again=True)
            with pytest.raises(Unreachable, match="permission denied for schema public"):
                async with database.transaction() as begun:
                    await begun.execute("CREATE TABLE mine ()")
            await database.close()

        runner.run(check())
        assert len(rows_of(postgres_url)) == 1
    finally:
        ask(postgres_url, "DROP OWNED BY serving")
        ask(postgres_url, "DROP ROLE serving")
