"""Adaptive batching: requests that wait for the scorer form the next batch; an idle scorer starts at once.

There is no timer. Requests that arrive in the same tick of the event loop, or while the scorer is busy, are scored
together; one that arrives alone is scored alone. Batches that take less than `INLINE_SECONDS` are scored on the event
loop, because a thread would cost more than it frees; longer ones in a thread, so that health checks, other callers
and refusals go on meanwhile.

A large request is scored in slices that take turns with other requests'. What can't be answered within its deadline,
judged by how fast the queue has drained lately, is refused on arrival; what was accepted is answered.

Everything but the scorer runs on the event loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from defects.schema import ModelRows
from defects.scoring import Probabilities, Scorer

# On one core, a hop to a thread and back cost each of 64 requests that are scored together a fifth of its time, and two
# milliseconds on the loop delay nobody noticeably.
INLINE_SECONDS = 2e-3
SLICE_ROWS = 64  # of one request before the next one has its turn
REQUEST_ROWS = 16  # a request costs about as much as this many rows, besides its own
MARGIN = 1.25  # the estimate is of a mean, and nearly every accepted request should be in time
DOUBTFUL = 3
SMOOTHING = 0.1  # weight of the newest measurement in the running means
SLOWER = 10  # times that a batch may raise a mean: a process that was stopped for a minute is not slow


class Overloaded(Exception):
    """The request can't be answered in time; `reason` is `queue_full`, `deadline`, `history` or `draining`."""

    def __init__(self, reason: str, retry_after: float):
        super().__init__(reason)
        self.reason = reason
        self.retry_after = max(1, math.ceil(retry_after))  # whole seconds, as the header has them


class Receiver(Protocol):
    """Where a request's probabilities go: a `Future`, or what has these of its methods."""

    def done(self) -> bool: ...
    def set_result(self, probabilities: Probabilities, /) -> None: ...
    def set_exception(self, problem: Exception, /) -> None: ...


class ScoringQueue(Protocol):
    """What predictions need of a batcher, or of what is in front of one. The methods are those of `Batcher`."""

    @property
    def waiting_rows(self) -> int: ...
    @property
    def batch_seconds(self) -> float: ...
    def admit(self, rows: int, timeout: float, /) -> float: ...
    def submit(self, rows: ModelRows, timeout: float, done: Receiver, /) -> Job: ...


@dataclass(eq=False, slots=True)
class Job:
    """One accepted request. `done` gets its probabilities `[n, classes]`; once it is done otherwise (cancelled, or
    failed by its owner), rows that were not yet scored are dropped."""

    rows: ModelRows
    done: Receiver
    submitted: float
    work: int  # its own and what was waiting before it, in rows
    taken: int = 0  # rows given to the scorer
    scored: int = 0
    started: float = 0.0
    finished: float = 0.0
    answer: Probabilities | None = None  # of a job scored in several slices


Slice = tuple[Job, int, int]  # rows [start, stop) of a job


class Batcher:
    """Scores requests in batches. `score` takes `[n, features]` and gives `[n, classes]`; what it gives for a row must
    not depend on the other rows.

    `on_batch` is told each batch's rows. `on_death` is told that the scorer can't go on, and why; `on_doubt` is called
    after `DOUBTFUL` failed batches in succession: is it the callers' rows, or the scorer?
    `on_rise` is called with the number of waiting rows each time that it has risen.
    """

    def __init__(
        self,
        score: Scorer,
        *,
        max_batch_rows: int = 256,
        max_queued_rows: int = 8192,
        on_death: Callable[[str], None] = lambda _: None,
        on_doubt: Callable[[], object] = lambda: None,
    ):
        self._score = score
        self._max_batch_rows = max_batch_rows
        self._max_queued_rows = max_queued_rows
        self._queue: deque[Job] = deque()
        self._waiting_jobs = self._waiting_rows = 0  # accepted and not yet scored, being scored or not
        # Running means: of what the scorer takes for a row in a batch, and of what a request took for each row of work
        # in the queue when it came, its own included. The latter has everything in it: batching, the event loop's
        # other work, refusals, contention for the CPU.
        self._row_seconds = self._drain_seconds = 0.0
        self._slowest = math.inf  # that the batch in work may raise the latter with
        self._seconds_by_size: dict[int, float] = {}  # of a batch, by the binary order of magnitude of its rows
        self._idle = asyncio.Event()
        self._idle.set()
        self._running = self._closed = False
        self.on_batch: Callable[[int], None] = lambda _: None
        self.on_rise: Callable[[int], None] = lambda _: None
        self._on_death, self._on_doubt = on_death, on_doubt
        self._failures = 0  # batches in succession that failed
        self._began: float | None = None  # when the batch in work was given to the thread
        self._pool = ThreadPoolExecutor(1, "scorer")

    @property
    def waiting_rows(self) -> int:
        """Return the number of rows that were accepted and are not yet scored."""
        return self._waiting_rows

    @property
    def batch_seconds(self) -> float:
        """Return the seconds that a thread has been at the batch in work; 0 when there is none."""
        return 0.0 if self._began is None else time.perf_counter() - self._began

    def admit(self, rows: int, timeout: float) -> float:
        """Return the expected seconds until `rows` more rows are answered; raises `Overloaded` if that is not in time.

        Also called with one row before a body is read, so that most refusals cost next to nothing.
        """
        expected = self._work(rows) * self._drain_seconds
        if self._closed:
            raise Overloaded("draining", expected)
        if self._waiting_rows + rows > self._max_queued_rows:
            raise Overloaded("queue_full", expected)
        # Where nothing waits a request is always tried: otherwise one bad measurement could refuse for ever.
        if self._waiting_jobs and expected * MARGIN > timeout:
            raise Overloaded("deadline", expected * MARGIN - timeout)
        return expected

    async def score(self, rows: ModelRows, timeout: float) -> Probabilities:
        """Return the probabilities of `rows`; raises `Overloaded`, or what the scorer raises."""
        done: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        self.submit(rows, timeout, done)
        return await done

    def submit(self, rows: ModelRows, timeout: float, done: Receiver) -> Job:
        """Accept `rows`, to be answered to `done` within `timeout` seconds; raises `Overloaded`."""
        if not len(rows):
            raise ValueError("there are no rows to score")
        self.admit(len(rows), timeout)
        job = Job(rows, done, time.perf_counter(), self._work(len(rows)))
        self._queue.append(job)
        self._waiting_jobs += 1
        self._waiting_rows += len(rows)
        self.on_rise(self._waiting_rows)
        if not self._running:
            self._running = True
            self._idle.clear()
            # Not now: what else arrives in this tick belongs into the same batch.
            asyncio.get_running_loop().call_soon(self._next)
        return job

    def _work(self, rows: int) -> int:
        """Return the work that is done when `rows` more are answered, in rows."""
        return self._waiting_rows + rows + (self._waiting_jobs + 1) * REQUEST_ROWS

    async def close(self) -> None:
        """Accept nothing more; return when everything that was accepted is answered."""
        self._closed = True
        await self._idle.wait()
        self._pool.shutdown()

    def _next(self) -> None:
        """Score the next batch, or stop until something is submitted."""
        batch = self._take()
        if not batch:
            self._running = False
            self._idle.set()
            return
        try:
            parts = [job.rows[start:stop] for job, start, stop in batch]
            rows: Any = parts[0] if len(parts) == 1 else np.concatenate(parts)
            if self._expected_seconds(len(rows)) <= INLINE_SECONDS:
                self._finish(batch, *self._timed(parts, rows))
            else:
                self._began = time.perf_counter()
                scoring = asyncio.get_running_loop().run_in_executor(self._pool, self._timed, parts, rows)
                scoring.add_done_callback(partial(self._scored_in_thread, batch))
        except BaseException as death:
            self._die(batch, death)

    def _scored_in_thread(self, batch: list[Slice], done: asyncio.Future[Any]) -> None:
        self._began = None
        try:
            self._finish(batch, *done.result())
        except BaseException as death:
            self._die(batch, death)

    def _die(self, batch: list[Slice], death: BaseException) -> None:
        """Refuse everything: this was no error of some rows, which is a result, but the end of the scorer."""
        self._closed, self._running = True, False
        try:
            for job in {job for job, _, _ in batch} | set(self._queue):
                if not job.done.done():
                    job.done.set_exception(Overloaded("draining", 0))
        finally:
            self._queue.clear()
            self._waiting_jobs = self._waiting_rows = 0
            self._idle.set()
            self._on_death(repr(death))

    def _expected_seconds(self, rows: int) -> float:
        """Return the seconds that a batch of so many rows takes: a call may cost far more than its rows do."""
        return self._seconds_by_size.get(rows.bit_length(), rows * self._row_seconds)

    def _take(self) -> list[Slice]:
        """Take a slice of each waiting request in turn, until the batch is full."""
        batch: list[Slice] = []
        room = self._max_batch_rows
        now = time.perf_counter()
        while self._queue and room:
            job = self._queue.popleft()
            if job.done.done():
                self._forget(len(job.rows) - job.taken)
                continue
            start = job.taken
            stop = job.taken = min(start + SLICE_ROWS, start + room, len(job.rows))
            job.started = job.started or now
            batch.append((job, start, stop))
            room -= stop - start
            if stop < len(job.rows):
                self._queue.append(job)
        return batch

    def _timed(self, parts: list[ModelRows], rows: ModelRows) -> tuple[list[Probabilities | Exception], float]:
        """Score `rows`; return the result of each part, and the seconds that it took."""
        started = time.perf_counter()
        scores = self._scored(rows)
        seconds = time.perf_counter() - started
        if len(parts) == 1:
            return [scores], seconds
        if isinstance(scores, Exception):  # somebody's rows did this: find out whose
            return [self._scored(part) for part in parts], seconds
        stops = np.cumsum([len(part) for part in parts]).tolist()
        return [scores[stop - len(part) : stop] for part, stop in zip(parts, stops, strict=True)], seconds

    def _scored(self, rows: ModelRows) -> Probabilities | Exception:
        try:
            scores = self._score(rows)
            if np.ndim(scores) != 2 or len(scores) != len(rows):
                raise ValueError(f"the scorer gave results of shape {np.shape(scores)} for {len(rows)} rows")
        except Exception as error:
            return error
        return scores

    def _finish(self, batch: list[Slice], results: list[Probabilities | Exception], seconds: float) -> None:
        finished = time.perf_counter()
        self._slowest = self._drain_seconds * SLOWER or math.inf
        for (job, start, stop), result in zip(batch, results, strict=True):
            self._deliver(job, start, stop, result, finished)
        rows = sum(stop - start for _, start, stop in batch)
        self._row_seconds = _smoothed(self._row_seconds, seconds / rows)
        size = rows.bit_length()
        self._seconds_by_size[size] = _smoothed(self._seconds_by_size.get(size, 0.0), seconds)
        self.on_batch(rows)
        self._failures = self._failures + 1 if all(isinstance(r, Exception) for r in results) else 0
        if self._failures == DOUBTFUL:
            self._failures = 0
            self._on_doubt()
        asyncio.get_running_loop().call_soon(self._next)

    def _deliver(self, job: Job, start: int, stop: int, result: Probabilities | Exception, finished: float) -> None:
        """Give a slice's result to its job, and the job's to its caller when that was the last one."""
        job.scored += stop - start
        whole = job.scored == len(job.rows)
        if whole:
            self._forget(stop - start)
            newest = min((finished - job.submitted) / job.work, self._slowest)
            self._drain_seconds = _smoothed(self._drain_seconds, newest)
        else:
            self._waiting_rows -= stop - start
        if job.done.done():
            return
        if isinstance(result, Exception):
            job.done.set_exception(result)
            return
        if stop - start < len(job.rows):
            if job.answer is None:
                job.answer = np.empty((len(job.rows), result.shape[1]), result.dtype)
            job.answer[start:stop] = result
            result = job.answer
        if whole:
            job.finished = finished
            job.done.set_result(result)

    def _forget(self, rows: int) -> None:
        self._waiting_jobs -= 1
        self._waiting_rows -= rows


def _smoothed(mean: float, newest: float) -> float:
    """Return the mean with the newest measurement in it, of which an outlier counts no more than `SLOWER` times it."""
    if mean and newest > mean * SLOWER:
        newest = mean * SLOWER
    return mean + (newest - mean) * SMOOTHING if mean else newest
