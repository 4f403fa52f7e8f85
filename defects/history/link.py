"""The connection to the database: opened again whenever it is lost, and given up where the database does not answer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from defects.history.database import Database, Registration, Rejected, Unreachable, Unusable
from defects.history.record import Batch
from defects.history.state import State

ANSWER_SECONDS = 10.0  # before a database that does not answer is given up for a new connection
BACKOFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # between tries to open it; the last one from then on
UNUSABLE_SECONDS = 5.0  # between looks whether a database that can't be used was migrated

logger = logging.getLogger(__name__)


class Link:
    """A `database` into which whoever the `registration` names writes; `opened` is set while it can be used."""

    def __init__(self, database: Database, registration: Registration, state: State, chance: random.Random):
        self.database, self.opened = database, asyncio.Event()
        self._registration, self._state, self._chance = registration, state, chance
        self._tries = 0  # since something was committed, or answered

    async def open(self, on_unusable: Callable[[Unusable], None], *, retrying: bool) -> None:
        """Open the database and register; tries until that succeeds. `retrying`: a batch is waiting to be repeated.

        The pauses grow where it can be opened, but not written to, too.
        """
        self.opened.clear()
        await self._pause()
        while not await self._try_to_open(on_unusable):
            await self._pause()
        self._state.opened(retrying=retrying)
        self.opened.set()

    async def _pause(self) -> None:
        if self._tries:
            place = min(self._tries, len(BACKOFF_SECONDS)) - 1
            wait = BACKOFF_SECONDS[place] if self._state.usable else UNUSABLE_SECONDS
            await asyncio.sleep(wait * (0.5 + self._chance.random()))
        self._tries += 1

    async def _try_to_open(self, on_unusable: Callable[[Unusable], None]) -> bool:
        await self.database.close()
        try:
            async with _in_time():
                await self.database.open()
                await self.database.register(self._registration)
        except Unusable as problem:
            on_unusable(problem)
        except (Unreachable, Rejected) as problem:
            self._state.lost(problem)
        else:
            return True
        return False

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        """Commit a batch; raises as `Database.write` does, `Unreachable` where it takes too long too."""
        with self._state.asking(writes=bool(len(batch.records) or batch.keys)):
            async with _in_time():
                lost = await self.database.write(batch, again=again)
        self._tries = 0
        return lost

    async def ask(self) -> None:
        """Commit nothing, to see whether the database takes records; raises as all of its methods do.

        It goes the way of records: those who ask slow questions may hold all connections for transactions.
        """
        await self.write(Batch(self._registration.layout.read(b""), [""]), again=False)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Give the database some time; whatever else goes wrong with it, `Unreachable` is raised."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise Unreachable(f"no answer within {ANSWER_SECONDS:g} s") from None
    except (Unreachable, Rejected, Unusable):
        raise
    except OSError as problem:
        raise Unreachable(str(problem)) from problem
    except Exception as problem:  # our own fault: the records are kept, and whoever reads the log sees why
        logger.exception("the database could not be used")
        raise Unreachable(repr(problem)) from problem
