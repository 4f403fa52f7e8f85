"""What turned out to be true of predictions: stores it, and answers what is known of them."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl

from defects.http.bodies import Bodies
from defects.http.messages import JSON, Refusal, Reply, Request, answer, read_body, read_json
from defects.http.responses import RETRY
from defects.problems import MAX_NAME, InvalidInput, Problem
from defects.protocols import outcomes
from defects.serving.recording import RecordedPredictions, Unavailable
from defects.values import shown

T = TypeVar("T")

PREDICTION = "/predictions/"  # an id follows
OUTCOMES, SUMMARY = "/outcomes", "/outcomes/summary"
QUERY = ("since", "by", "origin")


class Outcomes:
    """The handlers of the routes that need a history. A body may have `limit` bytes, and counts among `bodies`."""

    def __init__(self, recorded: RecordedPredictions, limit: int, bodies: Bodies):
        self._recorded, self._limit, self._bodies = recorded, limit, bodies

    async def store(self, request: Request) -> Reply:
        try:
            request.body = await read_body(request, (JSON,), self._limit, self._bodies)
            found, single = outcomes.decode(read_json(request), datetime.now(UTC))
        finally:
            request.drop_body()
        stored = await _available(self._recorded.store(found, single=single))
        return answer(outcomes.results(stored, single))

    async def prediction(self, request: Request) -> Reply:
        given = request.path.removeprefix(PREDICTION)
        id_ = outcomes.read_id(given)
        if id_ is None:
            raise InvalidInput([Problem("id", f"is {shown(given)}", outcomes.ID_EXPECTED)])
        found = await _available(self._recorded.prediction(id_))
        if found is None:
            raise Refusal(404, f"no prediction {id_.hex} is recorded; expected the id of one that is")
        return answer(found)

    async def summary(self, request: Request) -> Reply:
        given = _query(request.query)
        since = given.get("since", outcomes.DEFAULT_SINCE).replace(" ", "+")  # a + in a query is a space
        return answer(await _available(self._recorded.summary(since, given.get("by"), given.get("origin"))))


async def _available(asked: Awaitable[T]) -> T:
    """Return what history answers; raises `Refusal` where it can't be asked now."""
    try:
        return await asked
    except Unavailable as problem:
        raise Refusal(503, f"history is not available: {problem}; expected another try", [RETRY]) from None


def _query(query: bytes) -> dict[str, str]:
    """Return the parameters of a query; raises `InvalidInput` for one that is unknown, or given twice."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise InvalidInput([Problem("query", "can't be read", f"some of {', '.join(QUERY)}")]) from None
    problems = [
        Problem(name[:MAX_NAME], "unknown parameter", f"some of {', '.join(QUERY)}")
        for name, _ in pairs
        if name not in QUERY
    ]
    names = [name for name, _ in pairs]
    problems += [Problem(name, "is given twice", "each parameter once") for name in QUERY if names.count(name) > 1]
    if problems:
        raise InvalidInput(problems)
    return dict(pairs)
