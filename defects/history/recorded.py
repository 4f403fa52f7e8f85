"""Answer what the routes ask about recorded predictions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from defects.history import outcomes, predictions, summary
from defects.history.database import Database, Rejected, Unreachable, Unusable
from defects.history.models import Models
from defects.protocols.outcomes import Outcome, Stored
from defects.serving.recording import Unavailable

SECONDS, SUMMARY_SECONDS = 10.0, 60.0  # that an answer may take
SUMMARIES = 8  # that may wait for their turn: one is made at a time

logger = logging.getLogger(__name__)


class Recorded:
    """What a database knows of predictions; implements `RecordedPredictions`."""

    def __init__(self, database: Database):
        self._database, self._models = database, Models()
        self._turn, self._waiting = asyncio.Lock(), 0

    async def store(self, outcomes_: Sequence[Outcome], *, single: bool) -> Sequence[Stored]:
        async with available(SECONDS):
            return await outcomes.store(self._database, self._models, outcomes_, single=single)

    async def prediction(self, id_: UUID) -> Mapping[str, Any] | None:
        async with available(SECONDS):
            return await predictions.read(self._database, self._models, id_)

    async def summary(self, since: str, by: str | None, origin: str | None) -> Mapping[str, Any]:
        question = summary.question(since, by, origin)
        if self._waiting >= SUMMARIES:
            raise Unavailable("others are asking for summaries")
        self._waiting += 1
        try:
            async with self._turn, available(SUMMARY_SECONDS):
                return await summary.answer(self._database, self._models, question)
        finally:
            self._waiting -= 1


@asynccontextmanager
async def available(seconds: float) -> AsyncIterator[None]:
    """Raise `Unavailable` where the database can't be asked, or does not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable(f"the database did not answer within {seconds:g} s") from None
    except Unreachable as problem:
        logger.warning("the database can't be asked: %s", problem)
        raise Unavailable("the database can't be reached") from None
    except (Rejected, Unusable) as problem:
        logger.error("the database can't be asked: %s", problem)
        raise Unavailable("the database refuses to answer") from None
