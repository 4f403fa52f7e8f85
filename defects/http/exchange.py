"""A prediction that came in one piece, and its answer, in the places of three things that cost more.

`Cycle` and `Task` are all that uvicorn's protocol and server need of what stands there, which a test proves by their
source; `Receiver` is what the batcher needs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from defects.http.connection import Connection
from defects.http.messages import CLOSE, Disconnected, Reply, Request, check_body
from defects.http.predictions import Finish
from defects.http.responses import GONE
from defects.http.router import PredictionRoute, Routes
from defects.scoring import Probabilities

logger = logging.getLogger(__name__)


class Cycle(Protocol):
    """What uvicorn's protocol needs of the request that it answers, as long as it does not answer it itself."""

    response_complete: bool
    keep_alive: bool


class Task(Protocol):
    """What uvicorn's server needs of a task that it waits for, and cancels when its time to finish is over."""

    def cancel(self, msg: str | None = None) -> object: ...


class Exchange:
    """A request and its answer: a `Cycle`, a `Task` while it waits, and the batcher's `Receiver`, so that the answer
    leaves in the moment that its probabilities are there.

    The batcher takes an exception for the death of the scorer, so there is none, whatever goes wrong with an answer.
    """

    __slots__ = ("_finish", "_protocol", "_request", "_route", "_routes", "keep_alive", "response_complete")

    def __init__(self, protocol: Connection, routes: Routes, route: PredictionRoute, request: Request):
        self.response_complete, self.keep_alive = False, True
        self._protocol, self._routes, self._route, self._request = protocol, routes, route, request
        self._finish: Finish | None = None

    def begin(self) -> None:
        """Open the prediction and submit it, or answer why not."""
        predictions, route, request = self._routes.predictions, self._route, self._request
        try:
            predictions.open(request)
            request.body = check_body(request, route.takes, self._routes.limits.body_bytes)
            self._finish = predictions.submit(route.decode, request, self)
        except Exception as problem:
            self.set_exception(problem)
        else:
            task: Task = self
            self._protocol.tasks.add(task)  # type: ignore[arg-type] # the server waits for what is in there

    def done(self) -> bool:
        return self.response_complete

    def set_result(self, probabilities: Probabilities) -> None:
        assert self._finish is not None  # noqa: S101 - `begin` got it from whoever calls this
        try:
            reply = self._finish(probabilities)
        except Exception as problem:
            reply = self._routes.responses.explained(problem, self._request)
        self._routes.predictions.release(reply, self._request, self._respond)

    def set_exception(self, problem: BaseException) -> None:
        if self.response_complete:
            return
        if isinstance(problem, Disconnected):
            self._end(GONE)
        else:
            self._respond(self._routes.responses.explained(problem, self._request))

    def cancel(self, msg: str | None = None) -> None:
        """Answer that the time to finish is over. Not at once: the server is going through all of its tasks."""
        self._protocol.loop.call_soon(self.set_exception, asyncio.CancelledError(msg))

    def _respond(self, reply: Reply) -> None:
        if self.response_complete:
            return  # the caller went away, or was refused, while its answer was held
        try:
            if self._protocol.transport.is_closing():
                self._end(GONE)
            else:
                self._send(reply)
        except Exception:
            logger.exception("an answer could not be sent")
            self._end(500)
            self._protocol.transport.abort()

    def _send(self, reply: Reply) -> None:
        protocol = self._protocol
        headers, body = self._routes.responses.complete(reply, self._request)
        protocol.transport.respond(reply.status, headers, body, protocol.server_state)
        self._end(reply.status, reply.refused)
        if not self.keep_alive or CLOSE in headers:
            protocol.transport.close()
        protocol.on_response_complete()

    def _end(self, status: int, refused: str = "") -> None:
        """Close the prediction, once."""
        if self.response_complete:
            return
        self.response_complete = True
        self._finish = None  # it leads back here, and garbage that is no cycle needs no collector
        self._protocol.tasks.discard(self)
        self._routes.predictions.close(self._request, self._route.name, status, refused)
        self._request.body = b""  # an idle connection keeps its last exchange
