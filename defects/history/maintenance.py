"""What is done to the database now and then, by every replica: each of these jobs can be done twice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from defects.history.database import Database, Rejected, Unreachable, Unusable
from defects.history.idempotency import delete_expired
from defects.history.outcomes import join_all_early, join_early

PARTITION_DAYS = 3  # made ahead
RETRY_SECONDS = 60.0  # after a job that failed
JITTER = 0.2  # of a job's interval, so that replicas don't do it at the same time

logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """Something to do to the database every so many seconds; `name` is what the log says failed."""

    name: str
    seconds: float
    run: Callable[[Database], Awaitable[object]]


async def _make_partitions(database: Database) -> None:
    await database.make_partitions(PARTITION_DAYS)


PARTITIONS = Job("making partitions", 3600, _make_partitions)
EXPIRED_KEYS = Job("deleting expired keys", 600, delete_expired)
EARLY_OUTCOMES = Job("joining early outcomes", 5, join_early)
ALL_EARLY_OUTCOMES = Job("joining all early outcomes", 1200, join_all_early)
JOBS = (PARTITIONS, EXPIRED_KEYS, EARLY_OUTCOMES, ALL_EARLY_OUTCOMES)


async def maintain(database: Database, opened: asyncio.Event, jobs: Sequence[Job], chance: random.Random) -> None:
    """Do all jobs, each now and again after its interval, while the database is `opened`; runs until cancelled."""
    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_repeat(database, opened, job, chance))


async def _repeat(database: Database, opened: asyncio.Event, job: Job, chance: random.Random) -> None:
    failed = False
    while True:
        await opened.wait()
        try:
            await job.run(database)
        except (Unreachable, Unusable):  # whoever writes says so
            seconds = min(RETRY_SECONDS, job.seconds)
        except Exception as problem:
            if not failed:
                unexpected = None if isinstance(problem, Rejected) else problem
                logger.warning("%s: %s failed: %s", database.name, job.name, problem, exc_info=unexpected)
            failed, seconds = True, min(RETRY_SECONDS, job.seconds)
        else:
            failed, seconds = False, job.seconds
        await asyncio.sleep(seconds * (1 + JITTER * chance.random()))
