"""A PostgreSQL that goes away at any moment, and comes back: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest

from conftest import WAIT_SECONDS, free_port, until
from defects.history import postgres as postgres_module
from defects.history import postgres_address, postgres_transactions
from defects.history.database import Unreachable
from defects.history.postgres import PostgresDatabase
from defects.history.record import Batch
from history_databases import ask
from history_records import REGISTRATION, answered, batch_of
from tools.local_postgres import LocalPostgres

FAULTS = ("inside COPY", "after COPY", "after COMMIT")
COPY_DONE, COMMIT = b"c\0\0\0\x04", b"COMMIT\0"
FILLER = 512 * 1024
GOODBYE = b"SFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


class Proxy:
    """Stands between a client and PostgreSQL, and cuts a connection once, at the `fault`."""

    def __init__(self, port: int):
        self._upstream = port
        self.fault = ""

    async def __aenter__(self) -> int:
        """Return the port of the proxy."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        back = asyncio.ensure_future(self._pump(up_reader, writer))
        with suppress(OSError):
            await self._requests(reader, up_writer, back)
        for each in (up_writer, writer):
            each.close()
        await back

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.Future[None]
    ) -> None:
        """Pass on what a client sends, until it or the fault ends the connection."""
        copying, tail = False, b""
        while data := await reader.read(1 << 16):
            if self.fault == "inside COPY" and copying:
                self.fault = ""
                writer.write(data[: len(data) // 2])
                return
            copying = copying or b"COPY " in data
            tail = (tail + data)[-16:]
            ended = {"after COPY": COPY_DONE in tail, "after COMMIT": COMMIT in tail}.get(self.fault, False)
            if ended:
                self.fault = ""
                back.cancel()  # the answer comes to nobody
            writer.write(data)
            await writer.drain()
            if ended:
                return


@pytest.fixture
def server(own_postgres: LocalPostgres) -> LocalPostgres:
    """The same server, which runs, without records."""
    own_postgres.start()
    until(lambda: empty(own_postgres))
    return own_postgres


def empty(server: LocalPostgres) -> bool:
    try:
        ask(server.url(), "TRUNCATE predictions, idempotency")
    except (OSError, asyncpg.PostgresError):  # it is still starting
        return False
    return True


async def opened(database: PostgresDatabase) -> PostgresDatabase:
    """Open a database as soon as that is possible."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            await database.open()
            await database.register(REGISTRATION)
        except Unreachable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            return database


def ids_in(url: str) -> list[str]:
    return [row["id"].hex for row in ask(url, "SELECT id FROM predictions ORDER BY id")]


def ids_of(batch: Batch) -> list[str]:
    return [bytes(each).hex() for each in batch.records["id"]]


@pytest.mark.parametrize("keys", [[], ["k"]], ids=["rows", "keys"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_whose_result_is_unknown_is_repeated_without_a_second_record(
    postgres: LocalPostgres, postgres_url: str, runner: asyncio.Runner, fault: str, keys: list[str]
) -> None:
    """The connection is cut in the middle of a COPY, and right after everything was sent."""
    first, batch = batch_of(answered()), batch_of(*(answered(3) for _ in range(400)), keys=keys)
    proxy = Proxy(postgres.port)

    async def run() -> None:
        async with proxy as port:
            database = await opened(PostgresDatabase(postgres_url.replace(f":{postgres.port}/", f":{port}/")))
            await database.write(first, again=False)
            for again in (False, True):
                proxy.fault = fault
                with suppress(Unreachable):
                    assert list(await database.write(batch, again=again)) == []
                    assert proxy.fault == fault == "after COMMIT"  # there was none in a COPY of its own
                    proxy.fault = ""
                if not proxy.fault:
                    await opened(database)
            assert list(await database.write(batch, again=True)) == []
            await database.close()

    runner.run(run())
    assert ids_in(postgres_url) == sorted([*ids_of(first), *ids_of(batch)])
    if keys:
        assert ask(postgres_url, "SELECT answer FROM idempotency")[0][0] == batch.keys[0].answer.answer


def test_a_write_between_the_goodbye_of_the_server_and_the_end_of_the_connection(
    postgres_url: str, runner: asyncio.Runner
) -> None:
    """It says in plain words what happened, and leaves nothing that asyncio would log as an error later."""
    logged: list[dict[str, object]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        database = await opened(PostgresDatabase(postgres_url))
        await database.write(batch_of(answered()), again=False)
        connection = database._writing
        assert connection is not None
        connection._protocol.data_received(b"E" + (len(GOODBYE) + 4).to_bytes(4, "big") + GOODBYE)  # type: ignore[attr-defined]
        with pytest.raises(Unreachable, match="can't be used: the server has ended the connection"):
            await database.write(batch_of(answered()), again=False)
        await opened(database)
        await database.close()

    runner.run(run())
    gc.collect()
    runner.run(asyncio.sleep(0))
    assert logged == []


End = Callable[[LocalPostgres], None]


@pytest.mark.parametrize("end", [LocalPostgres.kill, LocalPostgres.stop], ids=["kill -9", "stop"])
def test_a_server_that_is_started_again_is_used_again(server: LocalPostgres, runner: asyncio.Runner, end: End) -> None:
    """Whether nothing was going on, or a transaction, or a write; nothing but `Unreachable` is raised meanwhile."""
    batch, later = batch_of(answered(5), keys=["k"]), batch_of(answered(5))

    async def run() -> None:
        database = await opened(PostgresDatabase(server.url()))
        await database.write(batch, again=False)
        async with database.transaction() as begun:
            await begun.fetch("SELECT 1")
        with pytest.raises(Unreachable):  # noqa: PT012
            async with database.transaction() as begun:
                await begun.execute("DELETE FROM predictions")
                await asyncio.to_thread(end, server)
                await begun.fetch("SELECT 1")
        for use in (database.write(later, again=False), database.make_partitions(1), asked(database), database.open()):
            with pytest.raises(Unreachable):
                await use
        await asyncio.to_thread(server.start)
        await opened(database)
        for each in (batch, later):
            assert list(await database.write(each, again=True)) == []
        await asked(database)
        await database.close()

    runner.run(run())
    assert ids_in(server.url()) == sorted([*ids_of(batch), *ids_of(later)])


async def asked(database: PostgresDatabase) -> None:
    async with database.transaction(reading=True) as begun:
        await begun.fetch("SELECT 1")


def test_transactions_find_a_server_that_was_started_again(server: LocalPostgres, runner: asyncio.Runner) -> None:
    """Without that anybody opens the database again: the connections that were kept are replaced."""

    async def run() -> None:
        database = await opened(PostgresDatabase(server.url()))
        await asyncio.gather(asked(database), asked(database))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            with suppress(Unreachable):
                await asked(database)
                break
        else:
            pytest.fail("never again")
        await database.close()

    runner.run(run())


def test_a_server_is_killed_while_batches_are_written(server: LocalPostgres, runner: asyncio.Runner) -> None:
    """Again and again; what was not acknowledged is repeated, as the writer does it."""
    batches = [batch_of(*(answered(4) for _ in range(50)), keys=[f"k{number}"]) for number in range(40)]

    async def run() -> None:
        database = await opened(PostgresDatabase(server.url()))
        for number, batch in enumerate(batches):
            killing = asyncio.ensure_future(asyncio.to_thread(end_and_start, server)) if number % 20 == 10 else None
            await written(database, batch)
            if killing:
                await killing
        await database.close()

    runner.run(run())
    assert ids_in(server.url()) == sorted(each for batch in batches for each in ids_of(batch))


def end_and_start(server: LocalPostgres) -> None:
    server.kill()
    server.start()


async def written(database: PostgresDatabase, batch: Batch) -> None:
    again = False
    while True:
        try:
            assert list(await database.write(batch, again=again)) == []
        except Unreachable:
            again = True
            await opened(database)
        else:
            return


def test_who_is_cancelled_while_a_server_stands_still_does_not_wait_for_it(
    server: LocalPostgres, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_transactions, "ANSWER_SECONDS", 10 * WAIT_SECONDS)
    monkeypatch.setattr(postgres_transactions, "ROLLBACK_SECONDS", 0.1)

    async def run() -> None:
        database = await opened(PostgresDatabase(server.url()))
        stood = asyncio.Event()

        async def wait() -> None:
            async with database.transaction() as begun:
                server.freeze()
                stood.set()
                await begun.fetch("SELECT 1")

        waiting = asyncio.ensure_future(wait())
        await stood.wait()
        waiting.cancel()
        async with asyncio.timeout(WAIT_SECONDS):
            await asyncio.wait([waiting])
        assert waiting.cancelled()
        await database.close()

    try:
        runner.run(run())
    finally:
        server.thaw()


def test_a_server_that_stands_still_is_given_up_and_closed_at_once(
    server: LocalPostgres, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(answered(50), keys=["k"])

    async def run() -> None:
        database = await opened(PostgresDatabase(server.url()))
        await asked(database)
        for module, name in (
            (postgres_module, "WRITE_SECONDS"),
            (postgres_module, "CLOSE_SECONDS"),
            (postgres_address, "OPEN_SECONDS"),
            (postgres_transactions, "CHECK_SECONDS"),
            (postgres_transactions, "ANSWER_SECONDS"),
        ):
            monkeypatch.setattr(module, name, 0.2)
        server.freeze()
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: database.write(batch, again=False),
            lambda: asked(database),
            lambda: asked(database),
            database.open,
        ]
        for use in uses:
            with pytest.raises(Unreachable, match=r"can't be reached: no answer in time|is not connected"):
                await use()
        async with asyncio.timeout(WAIT_SECONDS):
            await database.close()
        server.thaw()
        monkeypatch.undo()
        await opened(database)
        assert list(await database.write(batch, again=True)) == []
        await database.close()

    try:
        runner.run(run())
    finally:
        server.thaw()
    assert ids_in(server.url()) == sorted(ids_of(batch))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200m,mode=755", "tmpfs", disk], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small file system can be mounted only by root, with the capability SYS_ADMIN")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_and_is_no_end(small_disk: Path, runner: asyncio.Runner) -> None:
    server = LocalPostgres(small_disk / "data", "-cfsync=off", "-cmax_wal_size=64MB", "-cwal_keep_size=0")
    server.start()
    fill = small_disk / "fill"
    written_ids: list[str] = []

    async def run() -> None:
        database = PostgresDatabase(server.url())
        await database.migrate()
        await opened(database)
        await database.make_partitions(0)
        with fill.open("wb") as file, suppress(OSError):
            room = os.statvfs(small_disk)
            file.write(bytes(max(room.f_bavail * room.f_frsize - FILLER, 0)))
        batch = batch_of(answered(1024), answered(1024))
        with pytest.raises(Unreachable, match="No space left on device"):  # noqa: PT012
            while True:
                await database.write(batch, again=False)
                written_ids.extend(ids_of(batch))
                batch = batch_of(answered(1024), answered(1024))
        await opened(database)  # which is possible all the time
        with pytest.raises(Unreachable, match="No space left on device"):
            await database.write(batch, again=True)
        fill.unlink()
        await opened(database)
        assert list(await database.write(batch, again=True)) == []
        written_ids.extend(ids_of(batch))
        await database.close()

    try:
        runner.run(run())
        assert ids_in(server.url()) == sorted(written_ids)
    finally:
        server.kill()


BOUNCER = """
[databases]
* = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
auth_type = plain
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
pidfile = {folder}/pid
logfile = {folder}/log
"""


@pytest.fixture
def bouncer(postgres: LocalPostgres, tmp_path: Path) -> Iterator[int]:
    """The port of a pgbouncer that gives each transaction any of two connections."""
    program, port = shutil.which("pgbouncer"), free_port()
    if program is None:
        assert not os.environ.get("CI"), "pgbouncer is missing; .ci/system-packages installs it"
        pytest.skip("pgbouncer is not installed")
    folder = tmp_path / "bouncer"
    folder.mkdir()
    (folder / "users").write_text(f'"defects" "{postgres.password}"\n')
    (folder / "settings").write_text(BOUNCER.format(port=postgres.port, own=port, folder=folder))
    user = []
    if os.geteuid() == 0:  # it never runs as root
        shutil.chown(folder, "nobody")
        user = ["setpriv", "--reuid=nobody", "--clear-groups", "--securebits=+no_setuid_fixup"]
        user += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    process = subprocess.Popen([*user, program, "-q", folder / "settings"], stderr=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


def test_pgbouncer_may_give_each_transaction_another_connection(
    postgres: LocalPostgres, postgres_url: str, bouncer: int, runner: asyncio.Runner
) -> None:
    url = postgres_url.replace(f":{postgres.port}/", f":{bouncer}/")
    batches = [[batch_of(answered(3, source=b"s%d" % n), keys=[f"k{n}{m}"]) for n in range(10)] for m in range(4)]

    async def replica(batches: list[Batch]) -> None:
        database = await opened(PostgresDatabase(url))
        assert list(await database.migrate()) == []
        await database.make_partitions(2)
        for batch in batches:
            for again in (False, True):
                assert list(await database.write(batch, again=again)) == []
            async with database.transaction(reading=True) as reading:
                sql = "SELECT no FROM sources WHERE no < $1 OR no >= $1"
                assert [some async for some in reading.stream(sql, 3, rows=2)]
        await database.close()

    async def run() -> None:
        await asyncio.gather(*(replica(some) for some in batches))

    runner.run(run())
    assert ids_in(postgres_url) == sorted(each for some in batches for batch in some for each in ids_of(batch))


def test_nothing_is_left_in_a_session(postgres: LocalPostgres, postgres_url: str, runner: asyncio.Runner) -> None:
    """What pgbouncer needs, seen by the server: no named statement, no setting and no lock outlives a transaction."""
    database = postgres_url.rpartition("/")[2]
    began = postgres.log.stat().st_size
    ask(postgres_url, f"ALTER DATABASE {database} SET log_statement = 'all'")

    async def run() -> None:
        opened_one = await opened(PostgresDatabase(postgres_url))
        await opened_one.make_partitions(1)
        batch = batch_of(answered(source=b"s"), keys=["k"])
        for again in (False, True):
            await opened_one.write(batch, again=again)
        async with opened_one.transaction() as begun:
            assert [some async for some in begun.stream("SELECT 7", rows=1)]
        here = "SELECT oid FROM pg_database WHERE datname = $1"
        locks = f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND database = ({here})"
        async with opened_one.transaction() as begun:
            assert list(await begun.fetch(locks, database)) == []
        await opened_one.close()

    runner.run(run())
    lines = [line for line in postgres.log.read_bytes()[began:].decode().splitlines() if "LOG:  " in line]
    executed = [line.partition("execute ")[2] for line in lines if "execute " in line]
    assert executed
    assert [line for line in executed if not line.startswith("<unnamed>")] == []
    outside = [line for line in lines if "statement: SET " in line or "pg_advisory_lock" in line or "PREPARE" in line]
    assert outside == []
