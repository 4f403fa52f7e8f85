"""Keep probabilities in a Redis that replicas share; whatever happens to it, no request fails or waits long.

A lookup takes at most `Times.lookup` seconds, and is passed by then. After `FAILURES` of these in succession, or a
connection that fails, the cache is not asked any more until it answers a probe in the background. Lookups that come
while another one is out go together with the next one. Writes are in the background, and dropped where too many wait.

Everything runs on the event loop, so there are no locks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from defects.settings import BadSetting

FAILURES = 3
MAX_ROWS = 256  # that are asked for, or written, at once: the client takes 2 ms for them
MAX_WAITING = 4096  # rows that wait to be looked up, and as many to be written
LIFE_SECONDS = 3600  # of an entry
LONGEST_PAUSE = 60.0  # seconds between two probes
GRACE = 4  # rounds of the event loop, in which an answer that is there already is read

logger = logging.getLogger(__name__)
Values = Sequence[bytes | None]
Done = Callable[[Values | None], None]  # gets a value for each key, or `None` where the cache is passed by


@dataclass(frozen=True)
class Times:
    """How long the cache may take, in seconds."""

    lookup: float = 5e-3
    command: float = 1.0  # until its connection is given up, in the background
    pause: float = 1.0  # between two probes, at first


@dataclass(eq=False, slots=True)
class Lookup:
    """Rows to look up: their keys, who gets the values, and the timer that ends the waiting; `None` once it is over."""

    keys: Sequence[bytes]
    done: Done
    timer: asyncio.Handle | None = None

    def end(self, values: Values | None) -> None:
        """Give the values, once."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.done(values)


class Cache:
    """Looks values up and stores them. `client` is one of `redis.asyncio`; `count` is told a result and how many rows
    had it."""

    def __init__(self, client: Any, count: Callable[[str, int], None], times: Times | None = None):
        self._client, self._count, self._times = client, count, times or Times()
        self.in_use = False  # until a probe is answered
        self._lookups: deque[Lookup] = deque()
        self._lookup_rows = 0
        self._asked: list[Lookup] = []  # those that are out
        self._writes: deque[tuple[bytes, bytes]] = deque()
        self._wanted, self._written = asyncio.Event(), asyncio.Event()
        self._failures = 0  # lookups in succession
        self._pause, self._began = self._times.pause, 0.0  # the next pause, and when the use began
        self._takes_writes, self._stopped = True, False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to use the cache, once it answers."""
        self._tasks = [asyncio.create_task(self._look_up()), asyncio.create_task(self._write())]

    async def stop(self) -> None:
        """Pass by what is still looked up, and close the connections."""
        self.in_use, self._stopped = False, True
        self._pass_all()
        self._wanted.set()
        self._written.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:  # the client swallows a cancellation at times, so the tasks look at `_stopped` too
            await asyncio.wait(self._tasks, timeout=self._times.command)
        try:
            async with asyncio.timeout(self._times.command):
                await self._client.aclose()
        except Exception as error:  # it was of no more use anyway
            logger.debug("closing the cache: %s", type(error).__name__)

    def lookup(self, keys: Sequence[bytes], done: Done) -> bool:
        """Look up at most `MAX_ROWS` keys; return whether `done` will be called, which it never is before this returns.

        It is not where the cache is not in use, or has too much to do.
        """
        if not self.in_use or self._lookup_rows + len(keys) > MAX_WAITING:
            self._count("passed", len(keys))
            return False
        lookup = Lookup(keys, done)
        lookup.timer = asyncio.get_running_loop().call_later(self._times.lookup, self._expire, lookup, GRACE)
        self._lookups.append(lookup)
        self._lookup_rows += len(keys)
        self._wanted.set()
        return True

    def store(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Store values by their keys, some time later; drop what there is no room for."""
        for entry in entries:
            if not self.in_use or len(self._writes) >= MAX_WAITING:
                self._count("dropped", 1)
            else:
                self._writes.append(entry)
                self._written.set()

    # --- lookups -----------------------------------------------------------------------------------------------------

    async def _look_up(self) -> None:
        while not self._stopped:
            if not self.in_use:
                await self._probe()
            await self._wanted.wait()
            self._asked = self._take()
            keys = [key for lookup in self._asked for key in lookup.keys]
            if not keys:
                continue
            try:
                async with asyncio.timeout(self._times.command):
                    values = await self._client.mget(keys)
                if len(values) != len(keys):
                    raise ValueError("another number of values than of keys")
            except Exception as error:
                self._give_up(_words(error))
            else:
                self._end(values)

    def _take(self) -> list[Lookup]:
        """Take the lookups that wait, and still do, up to `MAX_ROWS` rows."""
        taken: list[Lookup] = []
        rows = 0
        while self._lookups and rows + len(self._lookups[0].keys) <= MAX_ROWS:
            lookup = self._lookups.popleft()
            self._lookup_rows -= len(lookup.keys)
            if lookup.timer is not None:
                rows += len(lookup.keys)
                taken.append(lookup)
        if not self._lookups:
            self._wanted.clear()
        return taken

    def _end(self, values: Values) -> None:
        """Give the values to the lookups that are out, and still wait."""
        start = 0
        for lookup in self._asked:
            stop = start + len(lookup.keys)
            if lookup.timer is not None:
                self._failures = 0
                lookup.end(values[start:stop])
            start = stop
        self._asked = []

    def _expire(self, lookup: Lookup, rounds: int) -> None:
        """Pass the cache by for a lookup whose time is over, unless its answer is read in the next few rounds."""
        if lookup.timer is None:
            return
        if rounds:
            lookup.timer = asyncio.get_running_loop().call_soon(self._expire, lookup, rounds - 1)
            return
        self._count("error", len(lookup.keys))
        lookup.end(None)
        self._failures += 1
        if self._failures >= FAILURES:
            self._give_up("it does not answer in time")

    # --- the breaker -------------------------------------------------------------------------------------------------

    def _give_up(self, problem: str) -> None:
        """Do not ask the cache any more until it answers a probe."""
        if not self.in_use:
            return
        self.in_use = False
        if time.monotonic() - self._began > LONGEST_PAUSE:
            self._pause = self._times.pause
        logger.warning("the cache is passed by: %s", problem)
        self._count("dropped", len(self._writes))
        self._writes.clear()
        self._pass_all()
        self._wanted.set()  # whoever waits for lookups has to probe now

    def _pass_all(self) -> None:
        """Pass the cache by for all lookups that are out or wait."""
        waiting = [*self._asked, *self._lookups]
        self._asked, self._lookups, self._lookup_rows = [], deque(), 0
        for lookup in waiting:
            if lookup.timer is not None:
                self._count("error", len(lookup.keys))
                lookup.end(None)

    async def _probe(self) -> None:
        """Wait until the cache answers, and does so in the time of a lookup."""
        said = self._began > 0  # it was said when the use ended
        while not self._stopped:
            if said:
                await asyncio.sleep(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            if (problem := await self._problem()) is None:
                break
            if not said:
                said = True
                logger.warning("the cache is passed by: %s", problem)
        if self._stopped:
            return
        self._failures, self._began = 0, time.monotonic()
        self.in_use = True
        logger.info("the cache is in use")

    async def _problem(self) -> str | None:
        """Say why the cache can't be used; `None` where it can."""
        try:
            async with asyncio.timeout(self._times.command):
                await self._client.ping()  # makes a connection, where there is none
                began = time.perf_counter()
                await self._client.ping()
                seconds = time.perf_counter() - began
        except Exception as error:
            return _words(error)
        return None if seconds <= self._times.lookup else "it does not answer in time"

    # --- writes ------------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while not self._stopped:
            await self._written.wait()
            entries = [self._writes.popleft() for _ in range(min(MAX_ROWS, len(self._writes)))]
            if not self._writes:
                self._written.clear()
            if not entries:
                continue
            try:
                async with asyncio.timeout(self._times.command):
                    pipeline = self._client.pipeline(transaction=False)
                    for key, value in entries:
                        pipeline.set(key, value, ex=LIFE_SECONDS)
                    results = await pipeline.execute(raise_on_error=False)
            except Exception as error:
                self._count("dropped", len(entries))
                self._give_up(_words(error))
            else:
                self._note_writes([result for result in results if isinstance(result, Exception)])

    def _note_writes(self, refused: Sequence[Exception]) -> None:
        """Count the writes that were refused, as by a full or a read-only Redis, which still answers."""
        self._count("dropped", len(refused))
        if refused and self._takes_writes:
            logger.warning("the cache takes no entries: %s", _words(refused[0]))
        self._takes_writes = not refused


def _words(error: Exception) -> str:
    """Say what is wrong, without what the library says: that may hold what is secret."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"AuthenticationError", "NoPermissionError"}:
        return "it refuses the user or the password"
    if kinds & {"TimeoutError"}:
        return "it does not answer in time"
    if kinds & {"ConnectionError", "OSError"}:
        return "no connection can be made, or it was cut"
    return f"it answers with the error {type(error).__name__}"


def connect(url: str, times: Times | None = None) -> Any:
    """Return a client of the Redis at `url`, which connects when it is used first; raises `BadSetting`."""
    try:
        from redis.asyncio import from_url
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise BadSetting(f"DEFECTS_CACHE_URL: needs the extra 'cache', which is not installed here ({error})") from None
    seconds = (times or Times()).command
    try:
        parts = urlsplit(url)
        if parts.port == 0 or not re.fullmatch(r"/?[0-9]{0,9}", parts.path):  # which redis-py takes for no number
            raise ValueError
        client = from_url(
            url, protocol=2, retry=Retry(NoBackoff(), 0), socket_connect_timeout=seconds, max_connections=4
        )
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # not connected: sees whether its options are known
        return client
    except Exception:  # its text may quote the URL
        expected = "expected redis[s]://[user:password@]host[:port][/number]"
        raise BadSetting(f"DEFECTS_CACHE_URL: its value is secret, and so not shown; {expected}") from None
