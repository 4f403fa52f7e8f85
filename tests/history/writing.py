"""What tests of the writer share: answered requests, a database whose calls can be made to fail, and what it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from conftest import WAIT_SECONDS
from defects.features import DefectClass, Feature
from defects.history.database import Database, Registration, Rejected, Transaction, Unreachable, Unusable
from defects.history.metrics import HistoryMetrics
from defects.history.record import Batch, Layout
from defects.history.writer import Writer
from defects.identifiers import new_id
from defects.schema import Schema
from defects.serving.metrics import Metrics
from defects.serving.recording import Answered, KeyedAnswer

SCHEMA = Schema((Feature("a"), Feature("b")), (DefectClass("no"), DefectClass("yes")))
REGISTRATION = Registration("1", "sha256:1", "{}", "local", Layout(SCHEMA))
COUNT = "SELECT count(*) AS rows, count(DISTINCT id) AS ids FROM predictions"


def answered(rows: int = 1, *, request_id: bytes = b"r", source: bytes = b"") -> Answered:
    """A request that was answered."""
    values = np.arange(2.0 * rows, dtype=np.float32).reshape(rows, 2)
    probabilities = np.full((rows, 2), 0.5, np.float32)
    return Answered(request_id, source, 0, [new_id() for _ in range(rows)], values, probabilities, [0] * rows)


class Faulty:
    """A database that is real but for its faults: `writes` has what becomes of the writes to come, in their order.

    `lost`: nothing was written. `unknown`: it was, and nobody is told. `rejected`, `unusable`. `held` until `go`, and
    `held, lost` until it is lost then.
    While it `refuses`, it can't be opened, nor asked.
    """

    def __init__(self, database: Database):
        self._database, self.name, self.dialect = database, database.name, database.dialect
        self.writes: list[str] = []
        self.refuses: Exception | None = None
        self.go = asyncio.Event()
        self.written: list[int] = []  # rows of each write that was tried
        self.opened = 0

    async def open(self) -> None:
        self.opened += 1
        if self.refuses is not None:
            raise self.refuses
        await self._database.open()

    async def migrate(self) -> Sequence[str]:
        return await self._database.migrate()

    async def close(self) -> None:
        await self._database.close()

    async def register(self, registration: Registration) -> None:
        await self._database.register(registration)

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        if not len(batch.records) and not batch.keys:  # a look whether the database is there
            return await self._database.write(batch, again=again)
        fault = self.writes.pop(0) if self.writes else ""
        self.written.append(len(batch.records))
        if fault == "lost":
            raise Unreachable("lost")
        if fault == "rejected":
            raise Rejected("rejected")
        if fault == "unusable":
            raise Unusable("needs a newer server")
        if fault.startswith("held"):
            await self.go.wait()
        if fault == "held, lost":
            raise Unreachable("lost")
        lost = await self._database.write(batch, again=again)
        if fault == "unknown":
            raise Unreachable("nobody knows")
        return lost

    @asynccontextmanager
    async def transaction(self, *, reading: bool = False) -> AsyncIterator[Transaction]:
        if self.refuses is not None:
            raise self.refuses
        async with self._database.transaction(reading=reading) as transaction:
            yield transaction

    async def make_partitions(self, days: int) -> None:
        await self._database.make_partitions(days)


class Bench:
    """A writer on a database, with its metrics; `ended` has why it asked for the end of the process."""

    def __init__(self, database: Database, *, acknowledges: bool, share: float = 1.0):
        self.database = Faulty(database)
        self.metrics, self.ended = Metrics("1", "none", "test", SCHEMA.class_names), list[str]()
        self.later = 0.0  # seconds by which the writer's clock of deadlines is ahead
        self.writer = Writer(
            self.database,
            REGISTRATION,
            acknowledges=acknowledges,
            share=share,
            metrics=HistoryMetrics(self.metrics),
            end=self.ended.append,
            seed=1,
            clock=lambda: time.monotonic() + self.later,
        )

    def counted(self, result: str) -> float:
        """How many rows were counted with this result."""
        return self.sample("defects_history_rows_total", result=result)

    def sample(self, name: str, **labels: str) -> float:
        text = self.metrics.exposition("")[0].decode()
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        (value,) = (s.value for s in samples if s.name == name and s.labels == labels)
        return value

    def commit(self, *requests: Answered, timeout: float = WAIT_SECONDS) -> list[asyncio.Future[Exception | None]]:
        """Commit requests; the result of each is why its records could not be committed."""
        return [self._commit(request, timeout) for request in requests]

    def _commit(self, request: Answered, timeout: float) -> asyncio.Future[Exception | None]:
        done: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.writer.commit(request, 0.001, timeout, done.set_result)
        return done

    async def commit_once(self, key: str, answer: bytes, request: Answered) -> KeyedAnswer | None:
        return await self.writer.commit_once(request, 0.001, WAIT_SECONDS, KeyedAnswer(key, b"digest", answer))

    async def rows(self) -> tuple[int, int]:
        """The number of rows in the table, and of different ids among them."""
        async with self.database.transaction() as transaction:
            (row,) = await transaction.fetch(COUNT)
        return row["rows"], row["ids"]


@asynccontextmanager
async def writing(database: Database, *, acknowledges: bool, share: float = 1.0) -> AsyncIterator[Bench]:
    """Start a writer, and stop it in the end."""
    bench = Bench(database, acknowledges=acknowledges, share=share)
    bench.writer.start()
    try:
        yield bench
    finally:
        await bench.writer.stop(WAIT_SECONDS)


async def eventually(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.002)


def results(told: Sequence[asyncio.Future[Exception | None]]) -> Iterator[str]:
    """What became of requests: `committed`, or the exception."""
    for done in told:
        problem = done.result()
        yield "committed" if problem is None else str(problem)
