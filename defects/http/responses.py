"""What every answer has, whichever way its request came: its headers, one shape of errors, a count and a log line."""

from __future__ import annotations

import asyncio
import logging
import time

from defects.http.messages import CLOSE, Headers, Refusal, Reply, Request, compressed, error, trace_id
from defects.problems import InvalidInput
from defects.serving.batching import Overloaded
from defects.serving.health import Health
from defects.serving.logs import AccessLog
from defects.serving.metrics import Metrics

GONE = 499  # the status that is counted, and never sent, where the caller went away before it was answered
RETRY = (b"retry-after", b"1")  # a header of answers that may be better in a second
NOSNIFF = (b"x-content-type-options", b"nosniff")
OVERLOADED = {
    "queue_full": "overloaded: the queue is full",
    "deadline": "overloaded: this request can't be answered within its deadline",
    "bodies": "overloaded: too many bodies are being received",
    "history": "not recorded: the database did not commit it in time, and an answer has to be recorded here",
    "draining": "shutting down: this replica takes no more requests",
}

logger = logging.getLogger(__name__)


class Responses:
    """Completes, counts and logs answers; `version` and `revision` stand in the headers of each."""

    def __init__(self, health: Health, metrics: Metrics, access: AccessLog, version: str, revision: str):
        self._health, self._metrics, self._access = health, metrics, access
        self.identity: Headers = ((b"x-model-version", version.encode()), (b"x-revision", revision.encode()))

    def complete(self, reply: Reply, request: Request) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return an answer's headers and its body, packed where the caller takes that."""
        body, encoding = compressed(reply, request.headers)
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(body)),
            *encoding,
            *reply.headers,
            *(reply.identity or self.identity),
            *self._common_headers(request),
        ]
        return headers, body

    def _common_headers(self, request: Request) -> Headers:
        timing = b"queue;dur=%.3f, score;dur=%.3f, total;dur=%.3f" % (
            request.queue * 1e3,
            request.score * 1e3,
            (time.perf_counter() - request.started) * 1e3,
        )
        headers = [(b"x-request-id", request.id), NOSNIFF, (b"server-timing", timing)]
        if self._health.draining:
            headers.append(CLOSE)  # the next request goes to another replica
        return headers

    def explained(self, problem: BaseException, request: Request) -> Reply:
        """Return the answer to a request that raised `problem`; log what is no mistake of the caller's."""
        match problem:
            case Refusal():
                return error(problem.status, str(problem), headers=problem.headers)
            case InvalidInput():
                return error(400, f"invalid input: {problem}", problem.problems)
            case Overloaded():
                return _overloaded(problem)
            case asyncio.CancelledError():  # the time to finish is over: better this answer than none
                return _overloaded(Overloaded("draining", 0))
        fields = {"request_id": request.id.decode(), "path": request.path[:200]}
        logger.error("%s failed", request.method, exc_info=problem, extra={"fields": fields})
        return error(500, "internal error; expected none, please report it with the x-request-id of this answer")

    def account(self, request: Request, route: str, status: int, seconds: float, refused: str = "") -> None:
        """Count an answer that took `seconds`, and log it where its turn has come; `refused` says why admission did."""
        self._metrics.answered(route, status, seconds)
        if refused:
            self._metrics.refused(refused)
        # Refusals by admission come in thousands when they come: they are counted, and logged like answers.
        if self._access.wants(failed=status >= 400 and not refused):
            self._access.write(
                {
                    "request_id": request.id.decode(),
                    "trace_id": trace_id(request.headers),
                    "method": request.method,
                    "route": route,
                    "path": request.path[:200],
                    "status": status,
                    "latency_ms": round(seconds * 1e3, 3),
                }
            )


def not_ready(health: Health) -> Refusal:
    """Return the refusal of what only a ready replica answers."""
    return Refusal(503, f"not ready: {health.problem}; expected another try", [RETRY])


def _overloaded(overload: Overloaded) -> Reply:
    expected = f"expected another try in {overload.retry_after} s"
    retry = (b"retry-after", str(overload.retry_after).encode())
    reply = error(503, f"{OVERLOADED[overload.reason]}; {expected}", headers=[retry])
    return reply._replace(refused=overload.reason)
