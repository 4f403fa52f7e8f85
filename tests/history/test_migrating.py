"""Migrations run once, whoever starts them; an older server runs on where it can, and says so where it can't."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from defects.history import migrating, postgres
from defects.history.database import Unusable
from defects.history.migrating import Applied, Migration, check, migrations_in, pending
from defects.history.postgres import PostgresDatabase
from history_databases import ask
from history_records import REGISTRATION, answered, batch_of

FIRST = "0001_history"


def newer(url: str, folder: Path, *, least_server: int) -> PostgresDatabase:
    """The next version's database: it knows one migration more, which adds a column."""
    shutil.copytree(migrating.DIRECTORY / "postgres", folder)
    known = len([*folder.glob("*.sql")])
    sql = f"-- least server: {least_server}\nALTER TABLE predictions ADD COLUMN extra integer NOT NULL DEFAULT 7;\n"
    (folder / f"{known + 1:04}_more.sql").write_text(sql)
    database = PostgresDatabase(url)
    database.known = migrations_in(folder)
    return database


def test_replicas_that_migrate_at_once_apply_each_migration_once(
    empty_postgres_url: str, runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def migrate() -> list[str]:
        replicas = [newer(empty_postgres_url, tmp_path / str(number), least_server=1) for number in range(4)]
        applied = await asyncio.gather(*(each.migrate() for each in replicas))
        await asyncio.gather(*(each.close() for each in replicas))
        return [name for names in applied for name in names]

    assert sorted(runner.run(migrate())) == [FIRST, "0002_more"]
    assert runner.run(migrate_once(empty_postgres_url)) == []
    rows = ask(
        empty_postgres_url, "SELECT no, name, least_server, applied_at <= now() FROM history_migrations ORDER BY no"
    )
    assert [tuple(row) for row in rows] == [(1, FIRST, 1, True), (2, "0002_more", 1, True)]


async def migrate_once(url: str) -> list[str]:
    database = PostgresDatabase(url)
    applied = await database.migrate()
    await database.close()
    return [*applied]


def test_a_migration_that_fails_leaves_nothing(empty_postgres_url: str, runner: asyncio.Runner, tmp_path: Path) -> None:
    database = newer(empty_postgres_url, tmp_path / "next", least_server=1)
    bad = "-- least server: 1\nCREATE TABLE half ();\nCREATE TABLE models ();\n"
    (tmp_path / "next" / "0002_more.sql").write_text(bad)
    database.known = migrations_in(tmp_path / "next")
    with pytest.raises(Unusable, match='"models" already exists'):
        runner.run(database.migrate())
    runner.run(database.close())
    assert [row["no"] for row in ask(empty_postgres_url, "SELECT no FROM history_migrations")] == [1]
    assert ask(empty_postgres_url, "SELECT to_regclass('half')")[0][0] is None


def test_a_database_that_is_not_migrated_says_which_command_helps(
    empty_postgres_url: str, runner: asyncio.Runner
) -> None:
    database = PostgresDatabase(empty_postgres_url)
    with pytest.raises(Unusable, match=r"no tables of history yet; run `python -m defects\.history migrate`") as failed:
        runner.run(database.open())
    assert failed.value.exit_code == 69
    runner.run(database.close())


def test_an_older_server_runs_on_is_restarted_and_scaled_up_after_a_migration_that_adds(
    postgres_url: str, runner: asyncio.Runner, tmp_path: Path
) -> None:
    async def run() -> None:
        old = await started(PostgresDatabase(postgres_url))
        new = newer(postgres_url, tmp_path / "next", least_server=1)
        await old.write(batch_of(answered(request_id=b"before")), again=False)
        assert await new.migrate() == ["0002_more"]
        await started(new)
        await old.write(batch_of(answered(request_id=b"runs on"), keys=["k"]), again=False)
        await started(old)
        another = await started(PostgresDatabase(postgres_url))
        await another.make_partitions(1)  # which have the new column too
        for database, name in ((old, b"restarted"), (another, b"scaled up"), (new, b"new")):
            batch = batch_of(answered(request_id=name))
            await database.write(batch, again=True)
            await database.write(batch, again=True)
        assert list(await another.migrate()) == []  # rolled back to: there is nothing to do
        await asyncio.gather(old.close(), new.close(), another.close())

    runner.run(run())
    rows = ask(postgres_url, "SELECT request_id, extra FROM predictions ORDER BY id")
    assert [tuple(row) for row in rows] == [
        (name, 7) for name in ("before", "runs on", "restarted", "scaled up", "new")
    ]


def test_a_migration_that_has_to_wait_holds_up_nobody_for_long(
    postgres_url: str, runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export reads for minutes. A lock that waits for it would make every server wait."""
    monkeypatch.setattr(postgres, "LOCK_LIMIT", "SET LOCAL lock_timeout = '100ms'")
    monkeypatch.setattr(postgres, "LOCK_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(postgres, "LOCK_TRIES", 10_000)

    async def run() -> None:
        old = await started(PostgresDatabase(postgres_url))
        new = newer(postgres_url, tmp_path / "next", least_server=1)
        async with old.transaction(reading=True) as exporting:
            await exporting.fetch("SELECT FROM predictions")
            migrating_ = asyncio.ensure_future(new.migrate())
            for number in range(20):
                await old.write(batch_of(answered()), again=bool(number % 2))
                await asyncio.sleep(0.02)
            assert not migrating_.done()
        assert list(await migrating_) == ["0002_more"]
        await asyncio.gather(old.close(), new.close())

    runner.run(run())
    assert len(ask(postgres_url, "SELECT FROM predictions WHERE extra = 7")) == 20


async def started(database: PostgresDatabase) -> PostgresDatabase:
    await database.open()
    await database.register(REGISTRATION)
    return database


def test_a_server_that_is_too_old_says_so(postgres_url: str, runner: asyncio.Runner, tmp_path: Path) -> None:
    async def run() -> None:
        old = await started(PostgresDatabase(postgres_url))
        new = newer(postgres_url, tmp_path / "next", least_server=2)
        await new.migrate()
        for use in (old.open, old.migrate):
            with pytest.raises(
                Unusable, match=r"migrated to 0002, which servers can use that know 0002; .* newer image"
            ):
                await use()
        await started(new)
        await asyncio.gather(old.close(), new.close())

    runner.run(run())


def test_a_newer_server_waits_for_its_migration(postgres_url: str, runner: asyncio.Runner, tmp_path: Path) -> None:
    database = newer(postgres_url, tmp_path / "next", least_server=1)
    with pytest.raises(Unusable, match=r"lacks the migration 0002_more; run `python -m defects\.history migrate`"):
        runner.run(database.open())
    runner.run(database.close())


def test_the_newest_migration_says_who_can_use_the_database() -> None:
    """One that contracts comes a release after the one that expands; the release after that may be used again."""
    known = [Migration(no, f"{no:04}", 1, "") for no in (1, 2)]
    check([Applied(1, 1), Applied(2, 1), Applied(3, 2)], known)
    assert [each.no for each in pending([Applied(1, 1)], known)] == [2]
    with pytest.raises(Unusable, match="newer image"):
        check([Applied(1, 1), Applied(2, 1), Applied(3, 3)], known)
    with pytest.raises(Unusable, match="lacks the migration 0002"):
        check([Applied(1, 1)], known)


@pytest.mark.parametrize(("name", "sql"), [("0002_x.sql", "SELECT 1;"), ("two.sql", "-- least server: 1\n")])
def test_a_migration_says_which_servers_can_use_it(tmp_path: Path, name: str, sql: str) -> None:
    (tmp_path / name).write_text(sql)
    with pytest.raises(ValueError, match="least server"):
        migrations_in(tmp_path)


def test_both_kinds_of_database_have_the_same_migrations() -> None:
    postgres, sqlite = (migrations_in(migrating.DIRECTORY / kind) for kind in ("postgres", "sqlite"))
    assert [(each.no, each.name, each.least_server) for each in postgres] == [
        (each.no, each.name, each.least_server) for each in sqlite
    ]
    assert [each.no for each in postgres] == [*range(1, len(postgres) + 1)]
