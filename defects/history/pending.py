"""Records that wait to be committed, as bytes: nothing is kept for a row, and for a request only while it waits."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Iterator

from defects.history.record import Batch, Keyed, Layout
from defects.serving.recording import Answered, Done, KeyedAnswer

BATCH_BYTES = 1 << 20  # about what is committed together at most
WAITING_BYTES = 1 << 24  # that may wait; what is being written is not counted
MAX_SPLITS = 6  # of a batch that is rejected, in halves
MAX_SOURCES = 10_000  # names that a replica tells apart
OTHER = b"other"  # the name of all further ones

logger = logging.getLogger(__name__)


class Waiter:
    """A request that waits for its records `[start, stop)`, in bytes. `done` is `None` once it was told."""

    __slots__ = ("deadline", "done", "keyed", "start", "stop")

    def __init__(self, done: Done, deadline: float, keyed: KeyedAnswer | None, start: int, stop: int):
        self.done: Done | None = done
        self.deadline, self.keyed, self.start, self.stop = deadline, keyed, start, stop

    def tell(self, problem: Exception | None) -> None:
        """Tell that the records are committed, or why not; once."""
        done, self.done = self.done, None
        if done is None:
            return
        try:
            done(problem)
        except Exception:
            logger.exception("an answer could not be sent")


class Pending:
    """Records that are committed together, and who waits for them. `tried`: they may be committed already."""

    def __init__(self) -> None:
        self.records = bytearray()
        self.sources: dict[bytes, int] = {b"": 0}
        self.waiters: list[Waiter] = []
        self.since = time.monotonic()  # its first record came
        self.tried = False
        self._splits = 0
        self._earliest = math.inf  # of the waiters' deadlines, or before it

    def __bool__(self) -> bool:
        return bool(self.records or self.waiters)

    def wait(self, waiter: Waiter) -> None:
        """Add who waits for the records that were added last."""
        self.waiters.append(waiter)
        self._earliest = min(self._earliest, waiter.deadline)

    def expired(self, now: float) -> Iterator[Waiter]:
        """Yield who has waited until its deadline; whoever iterates tells it."""
        if now < self._earliest:
            return
        self._earliest = math.inf
        for waiter in self.waiters:
            if waiter.done is None:
                continue
            if waiter.deadline <= now:
                yield waiter
            else:
                self._earliest = min(self._earliest, waiter.deadline)

    def forget_settled(self) -> None:
        """Leave out what somebody has waited for, and waits no more."""
        if all(waiter.done is not None for waiter in self.waiters):
            return
        kept, self.waiters = [waiter for waiter in self.waiters if waiter.done is not None], []
        before, self.records = self.records, bytearray()
        for waiter in kept:
            packed = before[waiter.start : waiter.stop]
            waiter.start, waiter.stop = len(self.records), len(self.records) + len(packed)
            self.records += packed
            self.waiters.append(waiter)

    def halves(self, row_bytes: int) -> tuple[Pending, ...]:
        """Return two halves, between requests where somebody waits for them, else between rows.

        There are none of a single one, and of what was split often enough.
        """
        middle = len(self.waiters) // 2
        cut = self.waiters[middle].start if self.waiters else len(self.records) // row_bytes // 2 * row_bytes
        if self._splits == MAX_SPLITS or not (middle or cut):
            return ()
        first = self._part(0, cut, self.waiters[:middle])
        return first, self._part(cut, len(self.records), self.waiters[middle:])

    def _part(self, start: int, stop: int, waiters: list[Waiter]) -> Pending:
        part = Pending()
        part.records, part.sources = self.records[start:stop], self.sources
        part.since, part._splits = self.since, self._splits + 1
        for waiter in waiters:
            waiter.start, waiter.stop = waiter.start - start, waiter.stop - start
            part.wait(waiter)
        return part

    def batch(self, layout: Layout) -> Batch:
        """Return what is to be committed."""
        size = layout.dtype.itemsize
        keys = [
            Keyed(waiter.keyed, waiter.start // size, waiter.stop // size)
            for waiter in self.waiters
            if waiter.keyed is not None
        ]
        return Batch(layout.read(self.records), [name.decode() for name in self.sources], keys)


class Queue:
    """Packs records by `layout`, and keeps them in order: at most `WAITING_BYTES`, or one request that is larger.

    `current` is what was taken, and is being written, or is to be written again.
    """

    def __init__(self, layout: Layout):
        self._layout = layout
        self._newest = Pending()
        self._all = deque([self._newest])
        self._names = {b""}
        self.current: Pending | None = None
        self.bytes = 0

    def add(self, answered: Answered, seconds: float) -> tuple[Pending, int] | None:
        """Add the records of a request; return where they are and how many bytes they have, or `None` if it is full."""
        if self.bytes >= WAITING_BYTES:
            return None
        pending = self._newest
        source = pending.sources.get(answered.source)
        if source is None:
            source = self._number(pending, answered.source)
        packed = self._layout.pack(answered, source, seconds)
        return self._append(pending, packed)

    def _append(self, pending: Pending, packed: bytes) -> tuple[Pending, int] | None:
        size = len(packed)
        if self.bytes + size > WAITING_BYTES and self.bytes:
            return None
        if not pending:
            pending.since = time.monotonic()
        pending.records += packed
        self.bytes += size
        if len(pending.records) >= BATCH_BYTES:
            self._begin()
        return pending, size

    def for_key(self) -> Pending:
        """Return where a key without records belongs."""
        if not self._newest:
            self._newest.since = time.monotonic()
        return self._newest

    def _number(self, pending: Pending, source: bytes) -> int:
        """Return the number of a source that is new to `pending`."""
        if source not in self._names:
            if len(self._names) > MAX_SOURCES:
                source = OTHER
            self._names.add(source)
        return pending.sources.setdefault(source, len(pending.sources))

    @property
    def oldest(self) -> Pending | None:
        """Return what is to be taken next, if anything is waiting."""
        return self._all[0] if self._all[0] else None

    @property
    def has_full_batch(self) -> bool:
        """Whether what is to be taken next gets no more records."""
        return len(self._all) > 1

    def take(self) -> Pending:
        """Take the oldest records, to be written now."""
        self.current = self._all.popleft()
        self.bytes -= len(self.current.records)
        if not self._all:
            self._begin()
        return self.current

    def split(self, pending: Pending, *, tried: bool) -> bool:
        """Put a rejected batch back in two halves, so that others are not lost with what is refused; tell whether.

        `tried`: an attempt before may have been committed.
        """
        halves = pending.halves(self._layout.dtype.itemsize)
        for half in reversed(halves):
            half.tried = tried
            self._all.appendleft(half)
            self.bytes += len(half.records)
        return bool(halves)

    def rows_of(self, pending: Pending) -> int:
        """Return the number of rows of some records."""
        return len(pending.records) // self._layout.dtype.itemsize

    def rows(self) -> int:
        """Return the number of rows that are not committed."""
        return sum(map(self.rows_of, self))

    def lag(self) -> float:
        """Return the seconds that the oldest record that is not committed has been waiting."""
        oldest = next((pending for pending in self if pending), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.since

    def clear(self) -> None:
        """Forget everything."""
        self.current = None
        self._all.clear()
        self.bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._newest = Pending()
        self._all.append(self._newest)

    def __iter__(self) -> Iterator[Pending]:
        return iter(self._all if self.current is None else (self.current, *self._all))
