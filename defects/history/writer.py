"""Write answered predictions into a database, in batches, and get over everything that may happen to it.

`buffered`: an answer does not wait. Records are committed every `COMMIT_SECONDS`; what finds no room is dropped and
counted. `acknowledged`: an answer leaves once its records are committed. There is no timer: the next commit takes what
has come while the last one ran.

A commit whose result is unknown is repeated, and leaves records as they are that are there already. Everything runs on
the event loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from defects.history import idempotency
from defects.history.database import Database, Registration, Rejected, Unreachable, Unusable
from defects.history.link import Link
from defects.history.maintenance import JOBS, Job, maintain
from defects.history.metrics import HistoryMetrics
from defects.history.pending import Pending, Queue, Waiter
from defects.history.state import State
from defects.serving.batching import Overloaded
from defects.serving.recording import Answered, Done, KeyedAnswer, set_unless_done

COMMIT_SECONDS = 0.1  # between commits of `buffered`
PING_SECONDS = 1.0  # between looks at a database that nothing was written to, of `acknowledged`
LOOK_SECONDS = 0.02  # between looks at the deadlines of those who wait
ANSWERS_AT_ONCE = 16  # before other work has its turn

logger = logging.getLogger(__name__)


class _KeyTaken(Exception):
    """The key of a request has got another answer before."""


class Writer:
    """Implements `Recorder` on a `database`. `end` is told why the process can't go on: it needs another database.

    `share` of the requests are recorded, chosen by their ids. `jobs` are done to the database now and then.
    """

    def __init__(
        self,
        database: Database,
        registration: Registration,
        *,
        acknowledges: bool,
        share: float,
        metrics: HistoryMetrics,
        end: Callable[[str], None],
        jobs: Sequence[Job] = JOBS,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.acknowledges = acknowledges
        self._threshold = None if share >= 1 else int(share * (1 << 32))
        self._clock = clock  # of deadlines
        self._metrics, self._end, self._jobs, self._chance = metrics, end, jobs, random.Random(seed)  # noqa: S311
        self._state, self._queue = State(database.name), Queue(registration.layout)
        self._link = Link(database, registration, self._state, self._chance)
        self._layout = registration.layout
        self._wake = asyncio.Event()
        self._suspected = self._closing = False
        self._tasks: list[asyncio.Task[None]] = []
        metrics.read_queue(self._queue.rows, self._queue.lag)

    # --- what predictions call ---

    @property
    def problem(self) -> str | None:
        """Return why answers that have to be recorded can't be given; `None` where they can, or need not be."""
        return self._state.problem if self.acknowledges else None

    def admit(self) -> None:
        if self.problem:
            raise Overloaded("history", 1)

    def record(self, answered: Answered, seconds: float) -> None:
        try:
            if self._is_left_out(answered):
                return
            if not self._state.usable or self._queue.add(answered, seconds) is None:
                self._metrics.dropped.value += len(answered.ids)
                self._state.dropped()
            elif not self._wake.is_set():
                self._wake.set()
        except Exception:
            self._metrics.dropped.value += len(answered.ids)
            logger.exception("an answer could not be recorded")

    def commit(self, answered: Answered, seconds: float, timeout: float, done: Done) -> None:
        try:
            self._commit(answered, seconds, timeout, done, None)
        except Exception as problem:
            logger.exception("an answer could not be recorded")
            done(problem)

    async def first_answer(self, key: str) -> KeyedAnswer | None:
        if not self._link.opened.is_set():
            raise Overloaded("history", 1)
        try:
            return await idempotency.first_answer(self._link.database, key)
        except Unreachable:
            self._suspected = True
            self._wake.set()
        except (Rejected, Unusable) as problem:
            self._state.fault("key", f"an Idempotency-Key could not be looked up: {problem}")
        raise Overloaded("history", 1)

    async def commit_once(
        self, answered: Answered, seconds: float, timeout: float, keyed: KeyedAnswer
    ) -> KeyedAnswer | None:
        committed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._commit(answered, seconds, timeout, partial(set_unless_done, committed), keyed)
        problem = await committed
        if problem is None:
            return None
        if not isinstance(problem, _KeyTaken):
            raise problem
        if (first := await self.first_answer(keyed.key)) is None:  # it has just expired
            raise Overloaded("history", 1)
        return first

    def _is_left_out(self, answered: Answered) -> bool:
        """Tell whether a request is not in the share that is recorded, and count it then."""
        if self._threshold is None or zlib.crc32(answered.request_id) < self._threshold:
            return False
        self._metrics.unsampled.value += len(answered.ids)
        return True

    def _commit(
        self, answered: Answered, seconds: float, timeout: float, done: Done, keyed: KeyedAnswer | None
    ) -> None:
        """Add a request that waits for its records, or for its key where it is not in the share."""
        left_out = self._is_left_out(answered)
        if left_out and keyed is None:
            done(None)
            return
        added = (self._queue.for_key(), 0) if left_out else self._queue.add(answered, seconds)
        if added is None:
            self._metrics.refused.value += len(answered.ids)
            done(Overloaded("history", 1))
            return
        pending, size = added
        stop = len(pending.records)
        pending.wait(Waiter(done, self._clock() + timeout, keyed, stop - size, stop))
        self._wake.set()

    # --- its life ---

    def start(self) -> None:
        """Begin to write; the database may be away."""
        work = [self._run(), maintain(self._link.database, self._link.opened, self._jobs, self._chance)]
        if self.acknowledges:
            work.append(self._watch_deadlines())
        self._tasks = [asyncio.create_task(each) for each in work]

    async def stop(self, seconds: float) -> None:
        """Write what waits, for so many seconds at most; drop and count the rest."""
        self._closing = True
        self._wake.set()
        if self._tasks and self._state.usable:
            await asyncio.wait(self._tasks[:1], timeout=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.database.close()
        self._abandon("they could not be written before the end")

    async def _run(self) -> None:
        """Write everything until closed, on as many connections as it takes."""
        while True:
            await self._link.open(self._on_unusable, retrying=self._queue.current is not None)
            self._suspected = False
            try:
                await self._write_all()
            except Unreachable as problem:
                self._state.lost(problem)
            except Unusable as problem:
                self._on_unusable(problem)
            else:
                return

    def _on_unusable(self, problem: Unusable) -> None:
        """End where every answer has to be recorded; else drop what waits, and all that comes until this is mended."""
        if self.acknowledges:
            self._end(str(problem))
        self._state.unusable(problem)
        self._abandon("this version can't use the database")

    # --- batches ---

    async def _write_all(self) -> None:
        """Write what waits and what comes; return when closed and all is written. Raises `Unreachable`, `Unusable`."""
        while True:
            pending = self._queue.current or await self._next()
            if pending is None:
                return
            pending.forget_settled()
            if pending:
                await self._write(pending)
            self._queue.current = None

    async def _next(self) -> Pending | None:
        """Wait until something is to be committed, and take it; `None` when closed and nothing is left."""
        while self._queue.oldest is None:
            if self._closing:
                return None
            if self._suspected:
                raise Unreachable("a key could not be looked up")
            self._wake.clear()
            await self._wait_for_some()
        wait = self._queue.oldest.since + COMMIT_SECONDS - time.monotonic()
        if not self.acknowledges and wait > 0 and not self._queue.has_full_batch and not self._closing:
            await asyncio.sleep(wait)
        return self._queue.take()

    async def _wait_for_some(self) -> None:
        """Wait for records; see meanwhile whether the database is there, where answers need it."""
        while not self._wake.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS if self.acknowledges else None):
                    await self._wake.wait()
                    return
            with suppress(Rejected):
                await self._link.ask()

    async def _write(self, pending: Pending) -> None:
        batch, again, began = pending.batch(self._layout), pending.tried, time.monotonic()
        pending.tried = True
        try:
            lost = await self._link.write(batch, again=again)
        except Rejected as problem:
            if self._queue.split(pending, tried=again):
                return
            rows = self._queue.rows_of(pending)
            self._state.fault("rejected", f"{rows} rows were rejected: {problem}")
            self._give_up(pending)
            return
        self._suspected = False
        self._metrics.commit_seconds.observe(time.monotonic() - began)
        self._metrics.stored.value += len(batch.records) - sum(batch.keys[n].stop - batch.keys[n].start for n in lost)
        keyed = [waiter for waiter in pending.waiters if waiter.keyed is not None]
        taken = {id(keyed[place]) for place in lost}
        self._tell([(waiter, _KeyTaken() if id(waiter) in taken else None) for waiter in pending.waiters])

    def _tell(self, told: list[tuple[Waiter, Exception | None]]) -> None:
        """Tell those who wait, some at a time: each sends an answer now."""
        for waiter, problem in told[:ANSWERS_AT_ONCE]:
            waiter.tell(problem)
        if len(told) > ANSWERS_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell, told[ANSWERS_AT_ONCE:])

    async def _watch_deadlines(self) -> None:
        """Refuse those who have waited for too long; runs until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock()
            for pending in self._queue:
                for waiter in pending.expired(now):
                    self._refuse(waiter)

    # --- what can't be written ---

    def _abandon(self, why: str) -> None:
        """Give up everything that waits."""
        left, rows = [*self._queue], self._queue.rows()
        self._queue.clear()
        if rows:
            logger.error("%d rows are not recorded: %s", rows, why)
        for pending in left:
            self._give_up(pending)

    def _give_up(self, pending: Pending) -> None:
        """Refuse those who wait for records that are lost, or count these where nobody waits."""
        if self.acknowledges:
            for waiter in pending.waiters:
                if waiter.done is not None:
                    self._refuse(waiter)
        else:
            self._metrics.dropped.value += self._queue.rows_of(pending)

    def _refuse(self, waiter: Waiter) -> None:
        self._metrics.refused.value += (waiter.stop - waiter.start) // self._layout.dtype.itemsize
        waiter.tell(Overloaded("history", 1))
