"""Keep a connection to SQLite in a thread of its own, so that nothing that it waits for holds the event loop up."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import quote

from defects.history import sqlite_file, sqlite_values
from defects.history.database import Rejected, Unreachable, Unusable

BUSY_SECONDS = 5.0  # to wait for what another process writes
PAGES = 2_000  # that are given back at a time
WAL_BYTES = 64 << 20  # that the log may keep after a checkpoint
PRIMARY = 0xFF  # of a result code: the kind of error
AGAIN = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,  # a disk becomes so after an error
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
)
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Result = TypeVar("Result")
Call = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


class Connection:
    """A connection with its thread, which does what it is given in turn. Both end by `close`, or with the process."""

    def __init__(self, path: Path, *, writes: bool):
        self._path, self._writes = path, writes
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.lock = asyncio.Lock()  # whoever has begun a transaction has it to themselves
        Thread(target=self._work, name="history", daemon=True).start()

    async def run(self, function: Callable[[sqlite3.Connection], Result]) -> Result:
        """Call a function in the thread and return what it returns.

        Raises `Unreachable`, `Rejected` or `Unusable`. One whose caller was cancelled is run all the same.
        """
        return await self._call(function)

    def submit(self, function: Callable[[sqlite3.Connection], Any]) -> None:
        """Call a function in the thread, whatever comes of it."""
        self._call(function).add_done_callback(lambda done: done.cancelled() or done.exception())

    def _call(self, function: Callable[[sqlite3.Connection], Result]) -> asyncio.Future[Result]:
        done: asyncio.Future[Result] = self._loop.create_future()
        if self._closed:
            done.set_exception(Unreachable("its connection was closed"))
        else:
            self._calls.put((function, done))
        return done

    def close(self) -> asyncio.Future[None]:
        """Close the connection once what was given to it is done; interrupts that where it only reads.

        The future is done when it is closed.
        """
        if self._connection is not None and not self._writes:
            with suppress(sqlite3.Error):  # it is closed
                self._connection.interrupt()
        self._closed = True
        self._calls.put(None)
        return self._ended

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            function, done = call
            try:
                with translated(self._path):
                    if self._connection is None:
                        self._connection = connect(self._path, writes=self._writes)
                    settle = partial(_settle, done, function(self._connection))
            except Exception as error:
                settle = partial(_fail, done, error)
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(settle)
            del call, function, done, settle  # what they hold may be large
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_settle, self._ended, None)


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """Open a file, which is made where it is missing and `writes` says so."""
    if writes:
        sqlite_file.check(path)
    sqlite_values.register()
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={'rwc' if writes else 'rw'}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,  # transactions are begun here
        detect_types=sqlite3.PARSE_DECLTYPES,
    )
    try:
        sqlite_values.add_functions(connection)
        if not writes:
            connection.execute("PRAGMA query_only = ON")
            return connection
        if connection.execute("PRAGMA page_count").fetchone()[0] == 0:  # a new file
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that the space of what is pruned is given back
        if _keep_log(connection) != "wal":
            raise Unusable(f"history: {path} can't have a write-ahead log here; expected a local disk")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_log(connection: sqlite3.Connection) -> str:
    """Turn the write-ahead log on; return the mode that the file has then.

    Where another process does it at the same moment, SQLite does not wait for it as it does everywhere else.
    """
    stop = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY != sqlite3.SQLITE_BUSY or time.monotonic() > stop:
                raise
        time.sleep(0.01)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise `Unreachable`, `Rejected` or `Unusable` for what SQLite raises."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & PRIMARY
        if code in AGAIN:
            raise Unreachable(str(error)) from error
        if code in DAMAGED:
            raise Unusable(f"history: {path} is damaged, or no SQLite database ({error}); move it away") from error
        if str(error).startswith("no such "):
            raise Unusable(f"history: the tables of {path} are not those that this version knows: {error}") from error
        raise Rejected(str(error)) from error
    except (OverflowError, UnicodeEncodeError) as error:  # of a value
        raise Rejected(str(error)) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block writes, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        rollback(connection)
        raise


def rollback(connection: sqlite3.Connection) -> None:
    """Roll back, where SQLite has not done so by itself."""
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def give_pages_back(connection: sqlite3.Connection) -> int:
    """Give some free pages back to the disk; return how many are left."""
    connection.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def empty_log(connection: sqlite3.Connection) -> None:
    """Copy the write-ahead log into the database and empty it, unless somebody still reads it after a while."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def run_script(script: str, connection: sqlite3.Connection) -> None:
    """Run the statements of a script, in the transaction that there is: `executescript` would commit it first."""
    statement = ""
    for part in script.split(";"):
        statement += f"{part};"
        if sqlite3.complete_statement(statement):  # and the semicolon is not within a text
            connection.execute(statement)
            statement = ""


def execute(sql: str, values: Sequence[Any], connection: sqlite3.Connection) -> sqlite3.Cursor:
    """Run a statement; rows of the cursor have the types of PostgreSQL's."""
    cursor = connection.execute(sql, sqlite_values.Values(values))
    if cursor.description is not None:
        cursor.row_factory = sqlite_values.RowMaker([column[0] for column in cursor.description])
    return cursor
