"""Keep history in a SQLite file, for one replica: a single writer, and readers that never hold it up."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from defects.history import migrating, sql, sqlite_connection, sqlite_file
from defects.history.database import Registration, Row, Unreachable, Unusable
from defects.history.record import Batch
from defects.history.sqlite_connection import Connection, execute
from defects.history.sqlite_file import Files
from defects.history.sqlite_records import Inserter, claim, source_numbers

READERS = 4  # transactions that read at a time; another one waits
WAIT_SECONDS = 10.0  # for its turn
CLOSE_SECONDS = 1.0

MODEL = "INSERT INTO models (version, digest, schema) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
REVISION = "INSERT INTO revisions (name) VALUES ($1) ON CONFLICT DO NOTHING"


class SQLiteTransaction:
    """A transaction; implements `Transaction` and `migrating.Script`."""

    def __init__(self, connection: Connection):
        self._connection = connection

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        """Return all rows of a statement."""
        return await self._connection.run(lambda connection: execute(sql, values, connection).fetchall())

    async def execute(self, sql: str, *values: Any) -> int:
        """Run a statement; return how many rows it changed."""
        return await self._connection.run(lambda connection: max(execute(sql, values, connection).rowcount, 0))

    async def run_script(self, sql: str) -> None:
        """Run statements without values, which are separated by semicolons."""
        await self._connection.run(partial(sqlite_connection.run_script, sql))

    async def stream(self, sql: str, *values: Any, rows: int = 1000) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a statement, so many at a time."""
        cursor = await self._connection.run(partial(execute, sql, values))
        try:
            while some := await self._connection.run(lambda _: cursor.fetchmany(rows)):
                yield some
        finally:
            self._connection.submit(lambda _: cursor.close())


class SQLiteDatabase:
    """A SQLite file; implements `Database`. It is made and migrated by `open`. Raises `BadSetting` for a wrong URL."""

    dialect = sql.SQLITE
    known = migrating.migrations_in(migrating.DIRECTORY / "sqlite")

    def __init__(self, url: str):
        self._path = sqlite_file.path_of(url)
        self.name = f"SQLite, {self._path}"
        self._open_writer: Connection | None = None
        self._readers: set[Connection] = set()
        self._idle: list[Connection] = []  # readers
        self._reading = asyncio.Semaphore(READERS)
        self._files: Files = ()
        self._sources: dict[str, int] = {"": 0}
        self._inserter: Inserter | None = None

    @property
    def _writer(self) -> Connection:
        if self._open_writer is None:
            raise Unreachable(f"{self.name} is not open")
        return self._open_writer

    async def open(self) -> None:
        """Make the file, or check that it is a database of history, and migrate it."""
        await self.close()
        writer = Connection(self._path, writes=True)
        try:
            await self._migrate(writer)
            self._files = await writer.run(lambda _: sqlite_file.identity(self._path))
        except BaseException:
            writer.close()
            raise
        self._inserter, self._sources = None, {"": 0}
        self._open_writer = writer

    async def migrate(self) -> Sequence[str]:
        """Make the file, or apply the migrations that are missing; return their names."""
        writer = Connection(self._path, writes=True)
        try:
            return await self._migrate(writer)
        finally:
            await asyncio.wait([writer.close()], timeout=CLOSE_SECONDS)

    async def _migrate(self, writer: Connection) -> Sequence[str]:
        begin = partial(begun, writer, lambda connection: connection.execute("BEGIN IMMEDIATE"))
        await writer.run(partial(check_purpose, self._path))
        return [migration.name for migration in await migrating.migrate(begin, self.known, "INSTANT")]

    async def close(self) -> None:
        """Close every connection, without waiting for one that hangs."""
        readers, writers = [*self._readers], [self._open_writer] if self._open_writer else []
        self._open_writer = None
        self._readers.clear()
        self._idle.clear()
        for connections in (readers, writers):  # the last one copies the log into the file and deletes it
            if connections:
                await asyncio.wait([connection.close() for connection in connections], timeout=CLOSE_SECONDS)

    async def register(self, registration: Registration) -> None:
        """Make sure that the model and the revision of the records to come are known."""
        async with self.transaction() as transaction:
            await transaction.execute(MODEL, registration.version, registration.digest, registration.schema)
            await transaction.execute(REVISION, registration.revision)
            models = await transaction.fetch("SELECT no FROM models WHERE digest = $1", registration.digest)
            revisions = await transaction.fetch("SELECT no FROM revisions WHERE name = $1", registration.revision)
        self._inserter = Inserter(registration.layout, models[0]["no"], revisions[0]["no"])

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        """Commit a batch; return the places of those of its keys that have got another answer before."""
        writer = self._writer
        async with writer.lock:
            return await writer.run(partial(self._write, batch, again))

    def _write(self, batch: Batch, again: bool, connection: sqlite3.Connection) -> Sequence[int]:
        assert self._inserter is not None  # noqa: S101 - nothing is written before `register`
        with sqlite_connection.transaction(connection):
            lost = claim(connection, batch.keys) if batch.keys else ()
            sources = source_numbers(connection, batch, self._sources)
            numbers = np.array([sources.get(name, 0) for name in batch.sources], np.int32)
            self._inserter.insert(connection, batch.without(lost), numbers, again)
        sqlite_file.check_identity(self._path, self._files)  # what is written to a removed file is lost
        self._sources.update(sources)
        return lost

    @asynccontextmanager
    async def transaction(self, *, reading: bool = False) -> AsyncIterator[SQLiteTransaction]:
        """Begin a transaction. One that reads sees one state of the database, and holds no writer up."""
        async with (
            self._reader() if reading else self._locked_writer() as connection,
            begun(connection, partial(begin, self._path, self._files, reading)) as transaction,
        ):
            yield transaction

    async def give_back(self) -> None:
        """Give free space back to the disk, in slices, and empty the log, which has what was deleted."""
        free = 1
        while free:
            async with self._locked_writer() as writer:
                free = await writer.run(sqlite_connection.give_pages_back)
        async with self._locked_writer() as writer:
            await writer.run(sqlite_connection.empty_log)

    @asynccontextmanager
    async def _locked_writer(self) -> AsyncIterator[Connection]:
        writer = self._writer
        async with writer.lock:
            yield writer

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[Connection]:
        self._writer  # noqa: B018 - raises where the database is not open
        async with self._turn():
            reader = self._idle.pop() if self._idle else Connection(self._path, writes=False)
            self._readers.add(reader)
            try:
                yield reader
                if reader in self._readers:  # the database was not closed meanwhile
                    self._idle.append(reader)
            except BaseException:
                self._readers.discard(reader)
                reader.close()  # which interrupts it
                raise

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._reading.acquire()
        except TimeoutError:
            raise Unreachable(f"{READERS} others were reading for {WAIT_SECONDS:g} s") from None
        try:
            yield
        finally:
            self._reading.release()

    async def make_partitions(self, days: int) -> None:
        """Do nothing: SQLite has no partitions."""


@asynccontextmanager
async def begun(connection: Connection, begin: Callable[[sqlite3.Connection], Any]) -> AsyncIterator[SQLiteTransaction]:
    """Run the block in a transaction, which `begin` begins."""
    try:
        await connection.run(begin)
        yield SQLiteTransaction(connection)
        await connection.run(lambda connection: connection.execute("COMMIT"))
    except BaseException:
        connection.submit(sqlite_connection.rollback)  # its turn is before anybody's who waits
        raise


def check_purpose(path: Path, connection: sqlite3.Connection) -> None:
    """Raise `Unusable` where a database is of another application."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "history_migrations" not in tables:
        raise Unusable(f"history: {path} is a database of something else; expected a file of its own")


def begin(path: Path, files: Files, reading: bool, connection: sqlite3.Connection) -> None:
    """Begin a transaction, where the file is still the one that was opened."""
    sqlite_file.check_identity(path, files)
    connection.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
