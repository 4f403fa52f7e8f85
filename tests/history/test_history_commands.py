"""`python -m defects.history`: migrate, status, prune and erase, on both kinds of databases."""

from __future__ import annotations

import argparse
import asyncio
import json
from asyncio import Runner
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from conftest import run
from defects.history import pruning, sqlite_upkeep
from defects.history.__main__ import main
from defects.history.database import Database
from defects.history.databases import database_of
from history_databases import ask
from history_records import REGISTRATION, answered, batch_of, ids_of

pytestmark = pytest.mark.xdist_group("postgres")

NOW = datetime.now(UTC)
TODAY = NOW.date()
LONG_AGO = [TODAY - timedelta(days) for days in (12, 11, 10)]
OUTCOME = "INSERT INTO outcomes VALUES ($1, $2, 'no', $3, $3, $4)"
EARLY = (
    "INSERT INTO early_outcomes (prediction_id, request_id, row, origin, class, occurred_at, received_at, replaces) "
    "VALUES ($1, $2, $3, 'default', 'no', $4, $4, false)"
)


@pytest.fixture
def filled(database: Database, runner: Runner) -> Database:
    """A database with three predictions of each of three days long ago, and four of today; each has an outcome.

    Those of today are two of request `a`, one of request `b` and one of `c`; the latter two are of source `north`.
    """

    async def fill() -> None:
        await database.register(REGISTRATION)
        for day in LONG_AGO:
            moment = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
            await write(database, answered(3, request_id=b"old", ids=ids_of(moment)))
        await write(database, answered(2, request_id=b"a"), keys=["k a"])
        await write(database, answered(request_id=b"b", source=b"north"), keys=["k b"])
        await write(database, answered(request_id=b"c", source=b"north"))

    runner.run(fill())
    return database


async def write(database: Database, request: Any, keys: Sequence[str] = ()) -> None:
    await database.write(batch_of(request, keys=keys), again=False)
    async with database.transaction() as transaction:
        for id_ in request.ids:
            await transaction.execute(OUTCOME, UUID(id_), "default", NOW, None)
            await transaction.execute(OUTCOME, UUID(id_), "default", NOW, NOW)  # which the other one has replaced


async def counts(database: Database) -> dict[str, int]:
    found = {}
    async with database.transaction(reading=True) as transaction:
        for table in ("predictions", "outcomes", "early_outcomes", "idempotency"):
            found[table] = (await transaction.fetch(f"SELECT count(*) AS n FROM {table}"))[0]["n"]
    return found


async def ids_in(database: Database, condition: str = "true") -> list[UUID]:
    async with database.transaction(reading=True) as transaction:
        rows = await transaction.fetch(f"SELECT id FROM predictions WHERE {condition} ORDER BY id")
    return [row["id"] for row in rows]


@pytest.fixture
def command(database_url: str, capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs a subcommand on the database; returns what it printed."""

    def call(*arguments: str) -> str:
        capfd.readouterr()
        assert main([*arguments, "--url", database_url]) == 0
        return capfd.readouterr().out

    return call


# --- migrate and status -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["postgres", "sqlite"])
def test_a_database_is_migrated_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sqlite = f"sqlite:///{tmp_path}/new.db"
    url = sqlite if kind == "sqlite" else request.getfixturevalue("empty_postgres_url")
    with pytest.raises(SystemExit) as ended:  # who only looks makes nothing
        main(["status", "--url", url])
    assert ended.value.code == 69
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("defects: "))
    assert "there is no" in line if kind == "sqlite" else "python -m defects.history migrate" in line
    assert main(["migrate", "--url", url]) == 0
    assert capfd.readouterr().out.startswith("applied 0001_history\n")
    assert main(["migrate", "--url", url]) == 0
    assert capfd.readouterr().out.endswith(" has every migration\n")
    assert main(["status", "--url", url]) == 0
    assert list(tmp_path.glob("new.db-*")) == []  # no log is left


def test_status_says_what_there_is(filled: Database, runner: Runner, command: Any) -> None:
    async def add_early() -> None:
        async with filled.transaction() as transaction:
            await transaction.execute(EARLY, None, "z", 0, NOW)

    runner.run(add_early())
    runner.run(filled.make_partitions(3))
    status = json.loads(command("status", "--json"))
    assert (status["version"], status["migration"], status["least_server"]) == (1, "0001_history", 1)
    rows = {name: (table["rows"], table["estimated"]) for name, table in status["tables"].items()}
    assert rows == {
        "predictions": (13, False),
        "outcomes": (26, False),
        "early_outcomes": (1, False),
        "idempotency": (2, False),
        "models": (1, False),
        "revisions": (1, False),
        "sources": (2, False),
    }
    days = status["days"]
    assert (days["oldest"], days["missing"]) == (LONG_AGO[0].isoformat(), [])
    assert days["newest"] >= TODAY.isoformat()
    assert status["early_outcomes"]["oldest"] == NOW.isoformat()
    assert status["keys"] == {"rows": 2, "expired": 0}
    assert 0 <= status["lag_seconds"] < 3600
    assert status["bytes"] > 4096
    text = command("status")
    for line in (f"database        {filled.name}", "predictions     13 rows", f"waiting since {NOW.isoformat()}"):
        assert line in text


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_status_says_which_partitions_are_missing(command: Any) -> None:
    missing = json.loads(command("status", "--json"))["days"]["missing"]
    assert missing[:1] in ([TODAY.isoformat()], [(TODAY + timedelta(1)).isoformat()])
    assert len(missing) == 3
    assert f"missing         partitions of {', '.join(missing)}" in command("status")


# --- prune ------------------------------------------------------------------------------------------------------------


def test_prune_says_first_what_would_go(filled: Database, runner: Runner, command: Any) -> None:
    before = runner.run(counts(filled))
    text = command("prune", "--keep", "1w")
    assert [line.split()[0] for line in text.splitlines()[:3]] == [day.isoformat() for day in LONG_AGO]
    assert text.splitlines()[3].startswith("would drop 3 days before ")
    assert " 27 rows" in text.splitlines()[3]
    assert text.endswith("--yes does it\n")
    assert runner.run(counts(filled)) == before


def test_prune_drops_whole_days_that_are_older(
    filled: Database, runner: Runner, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_upkeep, "SLICE", 2)  # so that a day has several
    kept = (datetime.now(UTC).date() - LONG_AGO[2]).days
    assert "dropped 2 days" in command("prune", "--keep", f"{kept}d", "--yes")
    assert runner.run(counts(filled)) == {"predictions": 7, "outcomes": 14, "early_outcomes": 0, "idempotency": 2}
    assert "dropped 1 day " in command("prune", "--keep", "1d", "--yes")
    assert len(runner.run(ids_in(filled))) == 4
    assert command("prune", "--keep", "1d", "--yes").startswith("nothing to drop")
    assert "nothing" in command("prune", "--keep", "99999w")


def test_others_read_and_write_while_days_are_dropped(filled: Database, runner: Runner) -> None:
    async def both() -> None:
        async with filled.transaction(reading=True) as reading:
            assert len(await reading.fetch("SELECT no FROM models")) == 1
            options = argparse.Namespace(keep=timedelta(1), yes=True)
            dropped = asyncio.create_task(pruning.run(filled, options, lambda _: None))
            for _ in range(5):
                await filled.write(batch_of(answered(request_id=b"new")), again=False)
        assert (await dropped).startswith("dropped 3 days")
        assert len(await ids_in(filled)) == 9

    runner.run(both())


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_prune_that_was_stopped_is_ended_by_the_next_one(
    filled: Database, runner: Runner, command: Any, database_url: str
) -> None:
    first, second, _ = (f"predictions_{day:%Y%m%d}" for day in LONG_AGO)

    async def stop_in_the_middle() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(f"ALTER TABLE predictions DETACH PARTITION {second} CONCURRENTLY")
            async with filled.transaction(reading=True) as transaction:  # whoever reads is waited for
                await transaction.fetch("SELECT count(*) FROM predictions")
                await connection.execute("SET statement_timeout = '200ms'")
                with suppress(asyncpg.QueryCanceledError):
                    await connection.execute(f"ALTER TABLE predictions DETACH PARTITION {first} CONCURRENTLY")
        finally:
            await connection.close()

    runner.run(stop_in_the_middle())
    (pending,) = ask(database_url, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending")
    assert pending[0] == 1
    assert "dropped 3 days" in command("prune", "--keep", "1w", "--yes")
    left = ask(database_url, "SELECT relname FROM pg_class WHERE relname ~ '_[0-9]{8}$' ORDER BY 1")
    assert not {row["relname"][-8:] for row in left} & {f"{day:%Y%m%d}" for day in LONG_AGO}


def test_the_space_of_what_was_dropped_is_given_back(tmp_path: Path, runner: Runner) -> None:
    file = tmp_path / "history.db"
    database = database_of(f"sqlite:///{file}")

    async def fill() -> None:
        await database.open()
        await database.register(REGISTRATION)
        moment = datetime(2020, 1, 1, tzinfo=UTC)
        await database.write(batch_of(answered(5000, ids=ids_of(moment))), again=False)
        await database.write(batch_of(answered()), again=False)
        await database.close()

    runner.run(fill())
    large = file.stat().st_size
    assert main(["prune", "--keep", "1d", "--yes", "--url", f"sqlite:///{file}"]) == 0
    assert file.stat().st_size < large / 3


# --- erase ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whose", "condition", "expected", "others"),
    [
        (["--prediction", "{id}"], "request_id <> 'b'", "1 prediction, 2 outcomes, 1 early outcome, 1 kept answer", 12),
        (["--request", "a"], "request_id <> 'a'", "2 predictions, 4 outcomes, 1 early outcome, 1 kept answer", 11),
        (["--source", "north"], "source = 0", "2 predictions, 4 outcomes, 1 early outcome, 1 kept answer", 11),
        (["--request", "z"], "true", "0 predictions, 0 outcomes, 2 early outcomes, 0 kept answers", 13),
        (["--source", "south"], "true", "0 predictions, 0 outcomes, 0 early outcomes, 0 kept answers", 13),
    ],
    ids=["prediction", "request", "source", "early", "nothing"],
)
def test_all_of_whom_it_is_about_is_erased(
    filled: Database, runner: Runner, command: Any, whose: list[str], condition: str, expected: str, others: int
) -> None:
    async def add_early() -> None:
        (id_,) = await ids_in(filled, "request_id = 'b'")
        async with filled.transaction() as transaction:
            await transaction.execute(EARLY, id_, None, None, NOW)
            await transaction.execute(EARLY, None, "a", 1, NOW)
            for row in range(2):
                await transaction.execute(EARLY, None, "z", row, NOW)

    runner.run(add_early())
    (id_,) = runner.run(ids_in(filled, "request_id = 'b'"))
    arguments = [argument.format(id=id_.hex) for argument in whose]
    kept, before = runner.run(ids_in(filled, condition)), runner.run(counts(filled))
    said = command("erase", *arguments)
    assert said == f"would erase {expected}{'' if others == 13 and 'z' not in whose else '; --yes does it'}\n"
    assert runner.run(counts(filled)) == before
    assert command("erase", *arguments, "--yes") == f"erased {expected}\n"
    assert runner.run(ids_in(filled)) == kept
    after = runner.run(counts(filled))
    assert [before[table] - after[table] for table in before] == [int(part.split()[0]) for part in expected.split(", ")]
    assert after["predictions"] == others


def test_what_is_erased_is_not_in_the_file_any_more(tmp_path: Path, runner: Runner) -> None:
    file = tmp_path / "history.db"
    database = database_of(f"sqlite:///{file}")

    async def fill_and_erase() -> None:
        await database.open()  # and stays so, as a server's
        await database.register(REGISTRATION)
        for name in (b"somebody", b"another"):
            await database.write(batch_of(answered(50, request_id=name)), again=False)
        await asyncio.to_thread(main, ["erase", "--request", "somebody", "--yes", "--url", f"sqlite:///{file}"])
        content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        assert (b"somebody" in content, b"another" in content) == (False, True)
        await database.close()

    runner.run(fill_and_erase())


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status"], 78, "DEFECTS_DATABASE_URL: is not set; expected a database, or the option --url"),
        (["status", "--url", "mysql://a:s3cret@b/c"], 78, "DEFECTS_DATABASE_URL: its value, which is secret"),
        (["status", "--url", "sqlite://relative.db"], 78, "expected sqlite:///relative.db"),
        (["migrate", "--url", "sqlite:////nowhere/history.db"], 69, "/nowhere is no directory"),
        (["status", "--url", "postgresql://u:s3cret@127.0.0.1:1/d"], 69, "PostgreSQL at 127.0.0.1:1/d"),
        (["prune", "--keep", "90"], 2, "'90' is no age; expected days or weeks, such as 90d or 12w"),
        (["prune"], 2, "required: --keep"),
        (["erase"], 2, "one of the arguments --prediction --source --request is required"),
        (["erase", "--prediction", "1"], 2, "'1' is no id; expected 32 hexadecimal digits"),
        (["erase", "--source", ""], 2, "can't be one; expected text"),
        (["rotate"], 2, "invalid choice: 'rotate'"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(
    arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEFECTS_DATABASE_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (code, "")
    assert message in err.splitlines()[-1]
    assert "s3cret" not in err
    assert "Traceback" not in err


def test_it_is_a_command_that_reads_the_settings(tmp_path: Path) -> None:
    url = tmp_path / "url"
    url.write_text(f"sqlite:///{tmp_path}/history.db\n")
    done = run(tmp_path, "python", "-m", "defects.history", "migrate", DEFECTS_DATABASE_URL_FILE=url)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "applied 0001_history", "")
