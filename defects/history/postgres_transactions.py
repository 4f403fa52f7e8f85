"""Transactions of PostgreSQL, on a few connections that are kept for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from defects.history.database import Rejected, Row, Unreachable
from defects.history.postgres_errors import Connection, translated

MOST = 3  # connections; another transaction waits
WAIT_SECONDS = 10.0  # for one of them
ANSWER_SECONDS = 10.0  # for the begin and the end of a transaction, which do little
ROLLBACK_SECONDS = 1.0  # then the connection is given up: whoever was cancelled waits for it
FRESH_SECONDS = 1.0  # before a connection that nobody used is checked
CHECK_SECONDS = 2.0
STATEMENT_SECONDS = 600.0
# Of a transaction only: a connection of pgbouncer's is somebody else's afterwards. A replica that has vanished holds
# no locks for longer than this.
LIMITS = "SET LOCAL statement_timeout = '{seconds:.0f}s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"


class PostgresTransaction:
    """A transaction; implements `Transaction` and `migrating.Script`."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._cursors = 0

    async def fetch(self, sql: str, *values: Any) -> Sequence[Row]:
        with translated():
            return await self._connection.fetch(sql, *values)  # type: ignore[return-value]  # a record is a mapping

    async def execute(self, sql: str, *values: Any) -> int:
        with translated():
            status = await self._connection.execute(sql, *values)
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def stream(self, sql: str, *values: Any, rows: int = 1000) -> AsyncIterator[Sequence[Row]]:
        """Yield the rows of a statement. Its cursor is one of SQL: asyncpg's outlives the transaction by its name."""
        self._cursors += 1
        name = f"stream_{self._cursors}"
        await self.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}", *values)
        while some := await self.fetch(f"FETCH {rows:d} FROM {name}"):
            yield some
        await self.execute(f"CLOSE {name}")

    async def run_script(self, sql: str) -> None:
        with translated():
            await self._connection.execute(sql)


@asynccontextmanager
async def transaction(connection: Connection, begin: str, seconds: float) -> AsyncIterator[PostgresTransaction]:
    """Run the block in a transaction. `seconds`: that one of its statements may take."""
    with translated():
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute(f"{begin}; {LIMITS.format(seconds=seconds)}")
    try:
        yield PostgresTransaction(connection)
    except BaseException:
        with suppress(Exception):  # what went wrong first is raised
            async with asyncio.timeout(ROLLBACK_SECONDS):
                await connection.execute("ROLLBACK")
        raise
    with translated():
        async with asyncio.timeout(ANSWER_SECONDS):
            ended = await connection.execute("COMMIT")
    if ended != "COMMIT":
        raise Rejected("a statement of the transaction failed, so nothing of it was committed")


class Pool:
    """At most a few connections, each for one transaction at a time."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]):
        self._connect = connect
        self._room = asyncio.Semaphore(MOST)
        self._free: list[tuple[Connection, float]] = []  # with when each was used last
        self._used: set[Connection] = set()
        self._retired = False

    def retire(self) -> list[Connection]:
        """Keep no connection from now on; return those that are there, for the caller to close."""
        self._retired = True
        return [*(connection for connection, _ in self._free), *self._used]

    @asynccontextmanager
    async def transaction(self, begin: str, seconds: float = STATEMENT_SECONDS) -> AsyncIterator[PostgresTransaction]:
        """Run the block in a transaction on one of the connections."""
        async with self._place():
            connection = await self._take()
            self._used.add(connection)
            try:
                async with transaction(connection, begin, seconds) as opened:
                    yield opened
            finally:
                self._used.discard(connection)
                if self._retired or connection.is_closed() or connection.is_in_transaction():
                    connection.terminate()
                else:
                    self._free.append((connection, time.monotonic()))

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise Unreachable(f"all {MOST} connections for transactions were taken for {WAIT_SECONDS:g} s") from None
        try:
            yield
        finally:
            self._room.release()

    async def _take(self) -> Connection:
        """Return a connection that answers: one that was not used for a while may be lost without a sign."""
        while self._free:
            connection, used = self._free.pop()
            if time.monotonic() - used < FRESH_SECONDS and not connection.is_closed():
                return connection
            with suppress(Exception):
                async with asyncio.timeout(CHECK_SECONDS):
                    await connection.execute("SELECT")
                    return connection
            connection.terminate()
        return await self._connect()
