"""Keep history in PostgreSQL: one connection that writes batches by COPY, and a few for everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import asyncpg
import numpy as np

from defects.history import migrating, sql
from defects.history.copying import Encoder, Numbers, starts
from defects.history.database import Registration, Rejected, Unreachable
from defects.history.postgres_address import Address
from defects.history.postgres_errors import Connection, forget_copy, translated
from defects.history.postgres_keys import claim
from defects.history.postgres_transactions import Pool, PostgresTransaction, transaction
from defects.history.record import SERVED, Batch, Records
from defects.identifiers import DAY_MS

WRITE_SECONDS = 10.0  # for a batch, with everything that it needs
CLOSE_SECONDS = 1.0
BEGIN, BEGIN_READING = "BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
LOCK = "SELECT pg_advisory_xact_lock(20, 0)"  # held while somebody migrates
LOCK_LIMIT = "SET LOCAL lock_timeout = '2s'"  # for the lock of a table, after that
LOCK_TRIES, LOCK_PAUSE_SECONDS = 100, 1.0
IS_MIGRATED = "SELECT to_regclass('history_migrations') IS NOT NULL AS there"
PARTITION = "SELECT history_partition(date '1970-01-01' + {day})"
MODEL = "INSERT INTO models (version, digest, schema) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
REVISION = "INSERT INTO revisions (name) VALUES ($1) ON CONFLICT DO NOTHING"
SOURCES = "INSERT INTO sources (name) SELECT name FROM unnest($1::text[]) AS name ORDER BY name ON CONFLICT DO NOTHING"
# Only with the columns that this version writes: a newer one's migration may have added others.
REPEATED = "CREATE TEMPORARY TABLE repeated ON COMMIT DROP AS SELECT {columns} FROM predictions WITH NO DATA"
REPEAT = "INSERT INTO predictions ({columns}) SELECT {columns} FROM repeated ON CONFLICT DO NOTHING"


class PostgresDatabase:
    """A PostgreSQL; implements `Database`. `clock` returns seconds since 1970. Raises `BadSetting` for a wrong URL."""

    dialect = sql.POSTGRES
    known = migrating.migrations_in(migrating.DIRECTORY / "postgres")

    def __init__(self, url: str, clock: Callable[[], float] = time.time):
        self._address, self._clock = Address(url), clock
        self.name = self._address.name
        self._writing: Connection | None = None
        self._turn = asyncio.Lock()  # of who uses the connection that writes
        self._pool = Pool(self._address.connect)
        self._encoder: Encoder | None = None
        self._sources: dict[str, int] = {}
        self._days: set[int] = set()  # since 1970, whose partitions are there

    async def open(self) -> None:
        """Connect, and check that this version can use what is there."""
        await self.close()
        connection = await self._address.connect()
        try:
            async with asyncio.timeout(WRITE_SECONDS), transaction(connection, BEGIN_READING, WRITE_SECONDS) as opened:
                there = await opened.fetch(IS_MIGRATED)
                migrating.check(await migrating.applied_in(opened) if there[0]["there"] else [], self.known)
        except BaseException:
            connection.terminate()
            raise
        self._sources, self._days = {"": 0}, set()  # it may be another server than before, which lacks some
        self._encoder, self._writing = None, connection

    async def connect(self) -> Connection:
        """Return a connection for what can't be done in a transaction; whoever asked for it closes it."""
        return await self._address.connect()

    async def close(self) -> None:
        """Close every connection, without waiting for one that hangs."""
        connections = [*self._pool.retire(), *([self._writing] if self._writing else [])]
        self._writing, self._pool = None, Pool(self._address.connect)
        await asyncio.gather(*(_close(connection) for connection in connections))

    async def migrate(self) -> Sequence[str]:
        """Apply the migrations that are missing; return their names. The database need not be open.

        Whoever waits for a table's lock holds up all who come later, servers too. So it is given up soon, and tried
        again, until nobody has the table for long.
        """
        applied: list[str] = []
        tries = 0
        while True:
            try:
                migration = await migrating.migrate_one(self._alone, self.known, "timestamptz")
            except Unreachable as problem:
                tries += 1
                if tries == LOCK_TRIES or not isinstance(problem.__cause__, asyncpg.LockNotAvailableError):
                    raise
                await asyncio.sleep(LOCK_PAUSE_SECONDS)
            else:
                if migration is None:
                    return applied
                applied.append(migration.name)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[PostgresTransaction]:
        """Begin a transaction to migrate in; waits for others."""
        async with self._pool.transaction(BEGIN) as begun:
            await begun.fetch(LOCK)
            await begun.run_script(LOCK_LIMIT)
            yield begun

    def transaction(self, *, reading: bool = False) -> AbstractAsyncContextManager[PostgresTransaction]:
        """Begin a transaction. One that reads sees one state of the database."""
        return self._pool.transaction(BEGIN_READING if reading else BEGIN)

    async def make_partitions(self, days: int) -> None:
        """Make the partitions of today and of so many days to come, where they are missing."""
        today = int(self._clock() * 1000) // DAY_MS
        for day in range(today, today + days + 1):
            async with self.transaction() as begun:  # what is being written does not wait for it
                await begun.run_script(PARTITION.format(day=day))
            self._days.add(day)

    async def register(self, registration: Registration) -> None:
        """Make sure that the model and the revision of the records to come are known."""
        async with self._using() as connection, transaction(connection, BEGIN, WRITE_SECONDS) as begun:
            await begun.execute(MODEL, registration.version, registration.digest, registration.schema)
            await begun.execute(REVISION, registration.revision)
            model = await begun.fetch("SELECT no FROM models WHERE digest = $1", registration.digest)
            revision = await begun.fetch("SELECT no FROM revisions WHERE name = $1", registration.revision)
        self._encoder = Encoder(registration.layout, SERVED, model[0]["no"], revision[0]["no"])

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        """Commit a batch; return the places of those of its keys that have got another answer before."""
        async with self._using() as connection:
            await self._make_partitions_of(connection, batch.records)
            numbers = await self._numbers(connection, batch)
            try:
                return await self._commit(connection, batch, numbers, again)
            except asyncpg.CheckViolationError:  # a partition is not there any more
                self._days.clear()
                await self._make_partitions_of(connection, batch.records)
                return await self._commit(connection, batch, numbers, again)

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[Connection]:
        """Use the connection that writes, in its turn; it is given up where its state is not known afterwards."""
        async with self._turn:
            connection = self._writing
            if connection is None:
                raise Unreachable(f"{self.name} is not connected")
            try:
                with translated():
                    async with asyncio.timeout(WRITE_SECONDS):
                        yield connection
            except BaseException as problem:
                if not isinstance(problem, Rejected) or connection.is_closed() or connection.is_in_transaction():
                    connection.terminate()
                    if self._writing is connection:
                        self._writing = None
                raise

    async def _make_partitions_of(self, connection: Connection, records: Records) -> None:
        days = _days(records)
        if not len(days) or (int(days[0]) in self._days and (days == days[0]).all()):
            return
        for day in {int(day) for day in np.unique(days)} - self._days:
            await connection.execute(PARTITION.format(day=day))
            self._days.add(day)

    async def _numbers(self, connection: Connection, batch: Batch) -> Numbers:
        """Return the numbers of the batch's sources, as far as its records have them; those that are new get one."""
        if len(batch.sources) == 1:
            return np.zeros(1, np.int32)
        places = np.unique(batch.records["source"]).tolist()
        new = [name for name in (batch.sources[place] for place in places) if name not in self._sources]
        if new:
            async with transaction(connection, BEGIN, WRITE_SECONDS) as begun:
                await begun.execute(SOURCES, new)
                found = await begun.fetch("SELECT name, no FROM sources WHERE name = ANY($1::text[])", new)
            self._sources.update((row["name"], row["no"]) for row in found)
        table = np.zeros(len(batch.sources), np.int32)
        table[places] = [self._sources[batch.sources[place]] for place in places]
        return table

    async def _commit(self, connection: Connection, batch: Batch, numbers: Numbers, again: bool) -> Sequence[int]:
        assert self._encoder is not None  # noqa: S101 - nothing is written before `register`
        if not batch.keys and not again:
            await _copy(connection, "predictions", self._encoder, batch.records, numbers)
            return ()
        async with transaction(connection, BEGIN, WRITE_SECONDS) as begun:
            lost = await claim(begun, batch.keys, again) if batch.keys else ()
            records = batch.without(lost)
            if again:
                columns = ", ".join(self._encoder.columns)
                await connection.execute(REPEATED.format(columns=columns))
                await _copy(connection, "repeated", self._encoder, records, numbers)
                await connection.execute(REPEAT.format(columns=columns))
            else:
                await _copy(connection, "predictions", self._encoder, records, numbers)
        return lost


async def _copy(connection: Connection, table: str, encoder: Encoder, records: Records, numbers: Numbers) -> None:
    data = encoder.encode(records, numbers[records["source"]])
    try:
        await connection.copy_to_table(table, source=data, columns=encoder.columns, format="binary")  # type: ignore[arg-type]  # its stubs know no bytes
    except asyncpg.InternalClientError:
        forget_copy(connection)
        raise


def _days(records: Records) -> Numbers:
    """Return the day of each record's id, since 1970: its first 48 bits are milliseconds."""
    return ((starts(records, "id", ">u8") >> np.uint64(16)) // np.uint64(DAY_MS)).astype(np.int32)


async def _close(connection: Connection) -> None:
    with suppress(Exception):
        await connection.close(timeout=CLOSE_SECONDS)
    connection.terminate()
