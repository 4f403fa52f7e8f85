"""Say what is recorded of an answered prediction, and what the routes need of whoever records it.

`defects/history` implements `Recorder` and `RecordedPredictions`. It is imported only where there is a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from defects.protocols.outcomes import Outcome, Stored
from defects.protocols.v2 import RoundedProbabilities
from defects.schema import ModelRows

KINDS = ("served", "shadow", "replay")  # a record has the place in this list too
PROTOCOLS = ("json", "v1", "v2", "grpc")  # a record has the place in this list: append, never insert


class Answered(NamedTuple):
    """An answered request: one record for each of its rows."""

    request_id: bytes  # at most 128 bytes of ASCII
    source: bytes  # which tunnel or site it is from, as the header `x-source` has it; empty where it says nothing
    protocol: int  # its place in PROTOCOLS
    ids: Sequence[str]  # of its predictions, 32 hexadecimal digits each
    rows: ModelRows  # [n, features]
    probabilities: RoundedProbabilities  # [n, classes], as the answer has them
    best: Sequence[int]  # the class of each row


class KeyedAnswer(NamedTuple):
    """The answer to a request with an `Idempotency-Key`: the first one that is committed is the answer to all."""

    key: str
    body_digest: bytes  # SHA-256 of what was asked
    answer: bytes  # packed by whoever made it


Done = Callable[[Exception | None], None]  # called once: with `None`, or with why the records could not be committed


T = TypeVar("T")


def set_unless_done(future: asyncio.Future[T], result: T) -> None:
    """Set the result of a future; whoever waited for it may have been cancelled meanwhile."""
    if not future.done():
        future.set_result(result)


class Recorder(Protocol):
    """Records answered predictions. Everything is called on the event loop, and nothing blocks it."""

    @property
    def acknowledges(self) -> bool:
        """Whether an answer has to wait until its records are committed."""

    def admit(self) -> None:
        """Raise what refuses a prediction where its records could not be committed."""

    def record(self, answered: Answered, seconds: float) -> None:
        """Record a request that was answered within `seconds`, or count that it was dropped; never raises."""

    def commit(self, answered: Answered, seconds: float, timeout: float, done: Done) -> None:
        """Record a request and call `done` once its records are committed, or in `timeout` seconds at the latest."""

    async def first_answer(self, key: str) -> KeyedAnswer | None:
        """Return the answer that a key got in the last 24 hours; raises what refuses a prediction."""

    async def commit_once(
        self, answered: Answered, seconds: float, timeout: float, keyed: KeyedAnswer
    ) -> KeyedAnswer | None:
        """Commit records and the answer to their key together; return another answer that the key has got before.

        Nothing is recorded then. Raises what refuses a prediction.
        """


class Unavailable(Exception):
    """History can't be asked now; the message says why, for people. Another try may succeed."""


class RecordedPredictions(Protocol):
    """What is known of predictions that were recorded. Every method may raise `Unavailable`."""

    async def store(self, outcomes: Sequence[Outcome], *, single: bool) -> Sequence[Stored]:
        """Store outcomes, and say of each what became of it; raises `InvalidInput`, and stores nothing then.

        `single`: the request has but one, whose place problems need not name.
        """

    async def prediction(self, id_: UUID) -> Mapping[str, Any] | None:
        """Return a prediction with its outcomes, as JSON; `None` where it isn't recorded."""

    async def summary(self, since: str, by: str | None, origin: str | None) -> Mapping[str, Any]:
        """Return how often predictions were right, as JSON; raises `InvalidInput`."""
