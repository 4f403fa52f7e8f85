"""Answer rows from a cache that replicas share, and let the batcher score the others.

An entry is of one artifact, one engine and one row, with its exact bytes. It is also of what the golden inputs got on
the replica that made it: where libraries or processors differ in the last bit, replicas do not share. So a row has the
same bytes from the cache as from the scorer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import CounterMetricFamily

from defects.schema import ModelRows
from defects.scoring import Probabilities
from defects.serving.batching import Batcher, Job, Overloaded, Receiver
from defects.serving.cache import MAX_ROWS, Cache, Values, connect
from defects.serving.metrics import Metrics
from defects.serving.model import ServedModel

CHECK_BYTES = 8  # of an entry, besides its probabilities
RESULTS = ("hit", "miss", "refused", "error", "passed", "dropped")


class Entries:
    """The keys and values of one model's rows in the cache.

    A value is a row's probabilities as little-endian float64, and a checksum of these and the key.
    """

    def __init__(self, digest: str, engine: str, golden_answers: Probabilities):
        self._classes = golden_answers.shape[1]
        self._prefix = f"defects:{digest.removeprefix('sha256:')[:12]}:".encode()
        about = f"{digest} {engine} {golden_answers.dtype.str} ".encode() + golden_answers.tobytes()
        self._hash = hashlib.blake2b(about, digest_size=32)

    def keys(self, rows: ModelRows) -> list[bytes]:
        """Return the key of each row."""
        return [self._prefix + self._key(row).encode() for row in rows]

    def _key(self, row: NDArray[np.floating]) -> str:
        hashed = self._hash.copy()
        hashed.update(row.dtype.str.encode())
        hashed.update(row.tobytes())
        return hashed.hexdigest()

    def pack(self, key: bytes, probabilities: Probabilities) -> bytes:
        """Return the value of one row's probabilities."""
        content = probabilities.astype("<f8").tobytes()
        return content + self._check(key, content)

    def unpack(self, key: bytes, value: bytes) -> Probabilities | None:
        """Return the probabilities of a value; `None` where it is not one that was packed for this key."""
        if type(value) is not bytes:  # an option in the URL makes the client decode
            return None
        content = value[:-CHECK_BYTES]
        if len(content) != 8 * self._classes or value[-CHECK_BYTES:] != self._check(key, content):
            return None
        return np.frombuffer(content, "<f8").astype(np.float64)

    def _check(self, key: bytes, content: bytes) -> bytes:
        return hashlib.blake2b(key + content, digest_size=CHECK_BYTES).digest()


class CachedBatcher:
    """A `ScoringQueue`: asks the cache first, and a batcher for the rows that are not in it."""

    def __init__(self, batcher: Batcher, cache: Cache, entries: Entries, count: Callable[[str, int], None]):
        self._batcher, self.cache, self._entries, self._count = batcher, cache, entries, count
        self.admit = batcher.admit

    @property
    def waiting_rows(self) -> int:
        """Return the number of rows that wait to be scored."""
        return self._batcher.waiting_rows

    @property
    def batch_seconds(self) -> float:
        """Return the seconds that the batch in work has taken."""
        return self._batcher.batch_seconds

    def submit(self, rows: ModelRows, timeout: float, done: Receiver) -> Job:
        """Accept `rows`, to be answered to `done` within `timeout` seconds; raises `Overloaded`."""
        if len(rows) > MAX_ROWS or not self.cache.in_use:
            self._count("passed", len(rows))
            return self._batcher.submit(rows, timeout, done)
        self._batcher.admit(len(rows), timeout)
        keys = self._entries.keys(rows)
        job = Job(rows, done, time.perf_counter(), 0)
        if not self.cache.lookup(keys, partial(self._found, job, keys, timeout)):
            return self._batcher.submit(rows, timeout, done)
        return job

    def _found(self, job: Job, keys: list[bytes], timeout: float, values: Values | None) -> None:
        """Answer a job whose rows were looked up, or have those scored that were not found."""
        if job.done.done():
            return
        try:
            found: list[Probabilities | None] = [None] * len(keys)
            if values is not None:
                found = list(map(self._read, keys, values))
            missing = [index for index, row in enumerate(found) if row is None]
            if missing:
                self._score(job, keys, timeout, found, missing, store=values is not None)
            else:
                job.started = job.finished = time.perf_counter()
                job.done.set_result(np.stack(found))  # type: ignore[arg-type] # none of them is `None`
        except Exception as problem:  # `Overloaded`, most likely
            if not job.done.done():
                job.done.set_exception(problem)

    def _read(self, key: bytes, value: bytes | None) -> Probabilities | None:
        row = None if value is None else self._entries.unpack(key, value)
        self._count("hit" if row is not None else "miss" if value is None else "refused", 1)
        return row

    def _score(
        self,
        job: Job,
        keys: list[bytes],
        timeout: float,
        found: list[Probabilities | None],
        missing: list[int],
        *,
        store: bool,
    ) -> None:
        left = timeout - (time.perf_counter() - job.submitted)
        if left <= 0:
            raise Overloaded("deadline", 0)
        rest = Rest(job, found, missing, partial(self._store, keys) if store else None)
        rows = job.rows if len(missing) == len(keys) else job.rows[missing]
        rest.scoring = self._batcher.submit(rows, left, rest)

    def _store(self, keys: list[bytes], missing: Sequence[int], probabilities: Probabilities) -> None:
        pairs = zip(missing, probabilities, strict=True)
        scored = [(keys[index], row) for index, row in pairs if np.isfinite(row).all()]
        self.cache.store((key, self._entries.pack(key, row)) for key, row in scored)


class Rest:
    """The `Receiver` of the rows of a job that were not in the cache: puts them beside those that were."""

    def __init__(
        self,
        job: Job,
        found: list[Probabilities | None],
        missing: list[int],
        store: Callable[[Sequence[int], Probabilities], None] | None,
    ):
        self._job, self._found, self._missing, self._store = job, found, missing, store
        self.scoring: Job | None = None  # that of the batcher

    def done(self) -> bool:
        """Whether nobody waits for the job any more."""
        return self._job.done.done()

    def set_result(self, probabilities: Probabilities) -> None:
        """Answer the job, and store what was scored."""
        assert self.scoring is not None  # noqa: S101 - the batcher never answers while something is submitted
        job = self._job
        job.started, job.finished = self.scoring.started, self.scoring.finished
        if len(self._missing) == len(self._found):
            whole = probabilities
        else:
            whole = np.empty((len(self._found), probabilities.shape[1]), probabilities.dtype)
            whole[self._missing] = probabilities
            for index, row in enumerate(self._found):
                if row is not None:
                    whole[index] = row
        job.done.set_result(whole)
        if self._store is not None:
            self._store(self._missing, probabilities)

    def set_exception(self, problem: Exception) -> None:
        """Fail the job."""
        self._job.done.set_exception(problem)


def in_front_of(
    batcher: Batcher, url: str, model: ServedModel, golden_answers: Probabilities, metrics: Metrics
) -> CachedBatcher:
    """Return the cache at `url` in front of a batcher; raises `BadSetting`.

    `golden_answers` are what the batcher's scorer gives for the golden inputs.
    """
    counter = metrics.numbers(CounterMetricFamily, "defects_cache", "Rows, by what the cache had of them.", "result")
    numbers = {result: counter.of(result) for result in RESULTS}

    def count(result: str, rows: int) -> None:
        numbers[result].value += rows

    entries = Entries(str(model.description["digest"]), model.engine, golden_answers)
    return CachedBatcher(batcher, Cache(connect(url), count), entries, count)
