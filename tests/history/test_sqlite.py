"""SQLite's limits: places where no database can be kept, damage, a full disk, locks, and processes that are killed."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from asyncio import Runner
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from conftest import BIN, ROOT, until
from defects.history import sqlite_connection, sqlite_file
from defects.history.database import Unreachable, Unusable
from defects.history.sqlite import SQLiteDatabase
from defects.settings import BadSetting
from history_records import REGISTRATION, answered, batch_of

MOUNTS = """\
22 1 0:20 / / rw,relatime shared:1 - overlay overlay rw
23 22 0:21 / /data rw - nfs4 server:/export rw
24 23 0:22 / /data/local\\040disk rw - ext4 /dev/sda1 rw
25 22 0:23 / /mnt rw - ext4 /dev/sdb1 rw
26 22 0:24 / /mnt rw - fuse.s3fs s3fs rw
"""
ENDLESS = "WITH RECURSIVE endless (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM endless) SELECT max(n) FROM endless"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def database(file: Path, runner: Runner) -> Iterator[SQLiteDatabase]:
    """A database that knows who writes into it."""
    database = SQLiteDatabase(f"sqlite:///{file}")
    runner.run(opened(database))
    yield database
    runner.run(database.close())


async def opened(database: SQLiteDatabase) -> SQLiteDatabase:
    await database.open()
    await database.register(REGISTRATION)
    return database


def problem_of(path: Path, runner: Runner) -> str:
    """Why a database can't be opened."""
    with pytest.raises(Unusable) as raised:
        runner.run(SQLiteDatabase(f"sqlite:///{path}").open())
    return str(raised.value)


def ids_in(file: Path) -> list[str]:
    """The ids in a file, read past everything that is tested."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return [UUID(bytes=id_).hex for (id_,) in connection.execute("SELECT id FROM predictions")]
    finally:
        connection.close()


# --- where it can be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite://", "sqlite:///", "sqlite://host/x.db", "sqlite:///:memory:", "sqlite:///x?mode=ro"]
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(
        BadSetting, match=r"expected sqlite:///relative\.db, or with four slashes sqlite:////absolute\.db"
    ):
        SQLiteDatabase(url)


def test_a_file_may_have_any_name(tmp_path: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("100% #1 & ü.db", "relative.db"):
        database = SQLiteDatabase(f"sqlite:///{name}")
        runner.run(database.open())
        runner.run(database.close())
        assert (tmp_path / name).stat().st_size > 0


def test_a_place_where_no_database_can_be_is_named(tmp_path: Path, runner: Runner) -> None:
    (tmp_path / "text").write_text("hello, this is no database, but longer than the header of one; " * 3)
    assert problem_of(tmp_path / "none" / "x.db", runner).startswith(f"history: {tmp_path}/none is no directory;")
    assert problem_of(tmp_path / "text" / "x.db", runner).startswith(f"history: {tmp_path}/text is no directory;")
    assert problem_of(tmp_path, runner).startswith(f"history: {tmp_path} is no regular file;")
    assert problem_of(Path("/dev/null"), runner).startswith("history: /dev/null is no regular file;")
    assert "text is damaged, or no SQLite database" in problem_of(tmp_path / "text", runner)
    assert "hello" in (tmp_path / "text").read_text()


def test_a_database_of_something_else_is_left_alone(file: Path, runner: Runner) -> None:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE predictions (id INTEGER)")
    connection.close()
    assert problem_of(file, runner) == f"history: {file} is a database of something else; expected a file of its own"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/x", "overlay"),
        ("/data/x", "nfs4"),
        ("/data/local disk/x", "ext4"),
        ("/mnt/x", "fuse.s3fs"),
        ("/dat", "overlay"),
    ],
)
def test_the_file_system_of_a_path_is_found(path: str, kind: str) -> None:
    assert sqlite_file.file_system(Path(path), MOUNTS) == kind


def test_a_network_file_system_is_refused(file: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "mounts", lambda: MOUNTS.replace("/data ", f"{file.parent} "))
    assert "is on a network file system (nfs4)" in problem_of(file, runner)


@pytest.mark.parametrize(("least", "usable"), [(1, True), (9999, False)])
def test_a_file_of_a_newer_server_is_used_where_that_is_allowed(
    database: SQLiteDatabase, file: Path, runner: Runner, least: int, usable: bool
) -> None:
    runner.run(database.close())
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("INSERT INTO history_migrations VALUES (9999, '9999_future', 0, ?)", (least,))
    connection.close()
    if usable:
        runner.run(database.open())
    else:
        assert "use a newer image" in problem_of(file, runner)


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_one_clear_error(database: SQLiteDatabase, file: Path, runner: Runner) -> None:
    runner.run(database.write(batch_of(answered(500)), again=False))
    runner.run(database.close())
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    file.write_bytes(content)

    async def use() -> None:
        await opened(database)
        await database.write(batch_of(answered(500)), again=False)

    with pytest.raises(Unusable, match=r"history\.db is damaged"):
        runner.run(use())


@pytest.mark.parametrize("gone", ["history.db", "history.db-wal"])
def test_a_file_that_is_removed_while_in_use_is_noticed(
    database: SQLiteDatabase, file: Path, runner: Runner, gone: str
) -> None:
    runner.run(database.write(batch_of(answered()), again=False))
    file.with_name(gone).unlink()
    request = answered()
    with pytest.raises(Unreachable, match="was removed, or replaced"):
        runner.run(database.write(batch_of(request), again=False))
    with pytest.raises(Unreachable):
        runner.run(database.transaction(reading=True).__aenter__())
    runner.run(opened(database))
    runner.run(database.write(batch_of(request), again=True))
    assert request.ids[0] in ids_in(file)


# --- locks ------------------------------------------------------------------------------------------------------------


def test_who_writes_waits_for_another_process(
    database: SQLiteDatabase, file: Path, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = answered()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)

    async def write() -> None:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(database.write(batch_of(request), again=False))
        done, _ = await asyncio.wait([writing], timeout=0.2)
        assert not done
        other.execute("COMMIT")
        await writing

    runner.run(write())
    runner.run(database.close())
    monkeypatch.setattr(sqlite_connection, "BUSY_SECONDS", 0.1)
    runner.run(opened(database))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unreachable, match="database is locked"):
        runner.run(database.write(batch_of(answered()), again=False))
    other.execute("COMMIT")
    other.close()
    assert ids_in(file) == request.ids


def test_who_opens_waits_for_another_process(file: Path, runner: Runner) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("PRAGMA user_version = 1")  # so that the file has a page

    async def open_it() -> None:
        other.execute("BEGIN IMMEDIATE")  # as whoever turns the log on
        opening = asyncio.create_task(SQLiteDatabase(f"sqlite:///{file}").migrate())
        done, _ = await asyncio.wait([opening], timeout=0.2)
        assert not done
        other.execute("COMMIT")
        assert await opening

    runner.run(open_it())
    other.close()


def test_a_write_whose_caller_has_gone_is_whole_or_not_there(
    database: SQLiteDatabase, file: Path, runner: Runner
) -> None:
    request, later = answered(), answered()
    other = sqlite3.connect(file, isolation_level=None)

    async def give_up() -> None:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await database.write(batch_of(request), again=False)
        closing = asyncio.create_task(database.close())
        await asyncio.sleep(0)
        other.execute("COMMIT")
        await closing
        await opened(database)
        await database.write(batch_of(request, later), again=True)

    runner.run(give_up())
    other.close()
    assert sorted(ids_in(file)) == [*request.ids, *later.ids]


def test_a_long_look_ends_when_nobody_waits_for_it(database: SQLiteDatabase, runner: Runner) -> None:
    async def look() -> None:
        async def endlessly() -> None:
            async with database.transaction(reading=True) as transaction:
                await transaction.fetch(ENDLESS)

        looking = [asyncio.create_task(endlessly()) for _ in range(6)]  # more than there are places
        await asyncio.wait(looking, timeout=0.1)
        for task in looking[1:]:
            task.cancel()
        await database.write(batch_of(answered()), again=False)
        async with database.transaction(reading=True) as transaction:
            assert (await transaction.fetch("SELECT count(*) AS n FROM predictions"))[0]["n"] == 1
        await database.close()
        with pytest.raises(Unreachable, match="interrupted"):
            await looking[0]

    runner.run(look())


# --- disks and processes ----------------------------------------------------------------------------------------------

DISKS = """
import asyncio, sys
from pathlib import Path
from subprocess import run

from defects.history.database import Unreachable, Unusable
from defects.history.sqlite import SQLiteDatabase
from history_records import REGISTRATION, answered, batch_of

home = Path(sys.argv[1])
for name, options in (("small", "size=1m"), ("fixed", "size=1m,ro")):
    (home / name).mkdir()
    run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", home / name], check=True)


async def main():
    try:
        await SQLiteDatabase(f"sqlite:///{home}/fixed/history.db").open()
    except Unusable as problem:
        print(problem)
    other = home / "small" / "other"
    other.write_bytes(bytes(300_000))
    database = SQLiteDatabase(f"sqlite:///{home}/small/history.db")
    await database.open()
    await database.register(REGISTRATION)
    written = []
    while True:
        request = answered(100)
        try:
            await database.write(batch_of(request), again=False)
        except Unreachable as problem:
            print(problem)
            break
        written += request.ids
    for _ in range(3):  # and it stays so
        try:
            await database.write(batch_of(request), again=True)
        except Unreachable:
            continue
        written += request.ids
        break
    other.unlink()
    if request.ids[0] not in written:
        await database.write(batch_of(request), again=True)
        written += request.ids
    async with database.transaction(reading=True) as transaction:
        ids = [row["id"].hex for row in await transaction.fetch("SELECT id FROM predictions ORDER BY id")]
    print(ids == written)
    await database.close()


asyncio.run(main())
"""


def test_a_full_disk_and_a_read_only_one_are_clear_errors(tmp_path: Path) -> None:
    command: list[str | Path] = ["unshare", "--map-root-user", "--mount", BIN / "python", "-c", DISKS, tmp_path]
    if subprocess.run([*command[:3], "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": "tests/history:."}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read_only, full, recovered = done.stdout.splitlines()
    assert read_only.startswith(f"history: {tmp_path}/fixed/history.db can't be written;")
    assert "full" in full
    assert recovered == "True"


WRITER = """
import asyncio, sys

from defects.history.sqlite import SQLiteDatabase
from history_records import REGISTRATION, answered, batch_of


async def main():
    database = SQLiteDatabase(sys.argv[1])
    await database.open()
    await database.register(REGISTRATION)
    while True:
        request = answered(20)
        await database.write(batch_of(request), again=False)
        sys.stdout.write("".join(f"{id_}\\n" for id_ in request.ids))
        sys.stdout.flush()


asyncio.run(main())
"""


def kill_writers(file: Path, log: Path, processes: int) -> set[str]:
    """Kill processes that write into a file together, once each has written; return the ids whose commits they saw."""
    logs = [log.with_name(f"{log.name}.{no}") for no in range(processes)]
    started = []
    for path in logs:
        with path.open("wb") as output:
            command = [sys.executable, "-c", WRITER, f"sqlite:///{file}"]
            environment = {"PYTHONPATH": "tests/history:."}
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output))
    try:
        until(lambda: all(path.stat().st_size > 2_000 for path in logs))
    finally:
        for process in started:
            process.kill()
            process.wait()
    # The last line may be cut off.
    return {line for path in logs for line in path.read_text().split("\n")[:-1]}


def test_nothing_that_was_committed_is_lost_when_its_process_is_killed(tmp_path: Path, runner: Runner) -> None:
    kill_and_compare(tmp_path, runner, times=1)


def kill_and_compare(scratch: Path, runner: Runner, times: int) -> None:
    """Kill writers some times; every id whose commit one of them saw is in the table, and once."""
    file, acknowledged = scratch / "history.db", set[str]()
    for no in range(times):
        acknowledged |= kill_writers(file, scratch / f"log{no}", 2)
    runner.run(SQLiteDatabase(f"sqlite:///{file}").migrate())  # and it can be opened
    there = ids_in(file)
    assert acknowledged <= set(there)
    assert len(there) == len(set(there))
    assert len(there) % 20 == 0  # a batch is there as a whole
