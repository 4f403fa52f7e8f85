"""HTTP/1.1 for predictions, below ASGI: a request that comes in one piece to a route that predicts is answered without
a scope, a task, and the messages between them, which together cost more than all that is done to answer it.

Everything else (other routes and methods, query strings, bodies that come in pieces, pipelining, slow readers,
`Expect`, `Connection: close`, HTTP/1.0) goes the way of ASGI, through uvicorn's protocol, of which this is a subclass.
`Routes` checks and answers either way. Two things differ: this one notices until the moment of the answer that a caller
went away, and so counts as gone (499) some whom ASGI counts as answered; and it answers one who closed only half of the
connection.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from typing import Any, NamedTuple

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from defects.http.messages import CLOSE, Disconnected, Message, Reply, Request
from defects.http.router import GONE, Answer, Route, Routes
from defects.scoring import Probabilities

HOP_BY_HOP = (b"connection", b"upgrade", b"http2-settings")

logger = logging.getLogger(__name__)


def install(config: Config, routes: Routes) -> None:
    """Have connections from now on use `Protocol`, where the server would use the protocol that it extends."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = partial(Protocol, routes)  # type: ignore[assignment]


class Coming(NamedTuple):
    """A request that may come in one piece: what of it is there."""

    route: Route
    headers: dict[bytes, bytes]
    pieces: list[bytes]  # of its body


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, routes: Routes, **server: Any) -> None:
        super().__init__(**server)
        self._routes = routes
        self._active = 0.0  # when something came or left, on the loop's clock
        self._coming: Coming | None = None
        self._offer = False  # to go on with another protocol, which is not taken
        self._data = b""  # that is being read

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        self._offer = upgrade and self.parser.get_method() != b"CONNECT"
        if self._offer:
            return
        route = self._routes.predicting(self.url.decode("latin-1"))
        if route and self._is_plain():
            self._coming = Coming(route, dict(self.headers), [])
        else:
            self._pass_on()

    def _is_plain(self) -> bool:
        parser = self.parser
        plain = parser.get_method() == b"POST" and not parser.should_upgrade() and not self.expect_100_continue
        lasting = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        return plain and lasting and not self._busy and not self.flow.write_paused

    @property
    def _busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _pass_on(self) -> None:
        """Let uvicorn handle this request, the headers of which are complete."""
        url, headers, expects, coming = self.url, self.headers, self.expect_100_continue, self._coming
        self._coming = None
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = [*headers]  # a copy: trailers, which come later, are no headers
        super().on_headers_complete()
        for piece in coming.pieces if coming else ():
            super().on_body(piece)

    def on_body(self, body: bytes) -> None:
        if self._coming is None:
            super().on_body(body)
        else:
            self._coming.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._offer:
            return
        if self._coming is None:
            super().on_message_complete()
            return
        coming, self._coming = self._coming, None
        path, body = self.url.decode("latin-1"), b"".join(coming.pieces)
        request = Request("POST", path, coming.headers, _nothing_more, body=body)
        exchange: Any = Exchange(self, self._routes, coming.route, request)
        self.cycle = exchange
        exchange.begin()

    def data_received(self, data: bytes) -> None:
        self._active, self._data = self.loop.time(), data
        super().data_received(data)
        self._data = b""
        if self._coming is not None:  # there is more to come
            if self.transport.is_closing():  # no: it was no HTTP
                self._coming = None
            else:
                self._pass_on()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on without: who offers HTTP/2, as Java's client does, takes HTTP/1.1 too. The parser has stopped after the
        head, so another one reads it again, without the offer, and what comes after it."""
        stopped = sys.exception()
        if not self._offer or not isinstance(stopped, HttpParserUpgrade):
            super()._unsupported_upgrade_warning()
            return
        line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] not in HOP_BY_HOP]
        rest = self._data[stopped.args[0] :]
        self.parser = HttpRequestParser(self)
        self.data_received(b"".join((line, *fields, b"\r\n", rest)))

    def connection_lost(self, exc: Exception | None) -> None:
        cycle: Any = self.cycle
        if isinstance(cycle, Exchange):
            self.cycle = None  # type: ignore[assignment]
            cycle.set_exception(Disconnected())
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)

    # Uvicorn cancels and sets a timer with each request. Here one goes on running, and looks when it was active last.

    def _unset_keepalive_if_required(self) -> None:
        pass

    def on_response_complete(self) -> None:
        self._active = self.loop.time()
        if self.timeout_keep_alive_task is None or self.pipeline:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        rest = self._active + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self.timeout_keep_alive_task = self.loop.call_later(rest, self.timeout_keep_alive_handler)
        elif not self._busy:  # else it is set again when the answer leaves
            super().timeout_keep_alive_handler()


class Exchange:
    """A request and its answer. It stands where uvicorn has a cycle and, while it waits, a task; and where the batcher
    has a future, so that the answer leaves in the moment that its probabilities are there.

    The batcher takes an exception for the death of the scorer, so there is none, whatever goes wrong with an answer.
    """

    def __init__(self, protocol: Protocol, routes: Routes, route: Route, request: Request):
        self.response_complete, self.keep_alive = False, True
        self._protocol, self._routes, self._route, self._request = protocol, routes, route, request
        self._answer: Answer | None = None

    def begin(self) -> None:
        self._routes.in_flight.increment()
        try:
            self._answer = self._routes.predict_whole(self._route, self._request, self)
        except Exception as problem:
            self.set_exception(problem)
        else:
            tasks: Any = self._protocol.tasks  # the server waits for what is in there, and cancels it
            tasks.add(self)

    def done(self) -> bool:
        return self.response_complete

    def set_result(self, probabilities: Probabilities) -> None:
        assert self._answer is not None  # noqa: S101 - `begin` got it from whoever calls this
        try:
            reply = self._answer(probabilities)
        except Exception as problem:
            reply = self._routes.explained(problem, self._request)
        self._respond(reply)

    def set_exception(self, problem: BaseException) -> None:
        if self.response_complete:
            return
        if isinstance(problem, Disconnected):
            self._end(GONE)
        else:
            self._respond(self._routes.explained(problem, self._request))

    def cancel(self, msg: str | None = None) -> None:
        """The server's time to finish is over. Not at once: it is going through all of its tasks."""
        self._protocol.loop.call_soon(self.set_exception, asyncio.CancelledError(msg))

    def _respond(self, reply: Reply) -> None:
        try:
            if self._protocol.transport.is_closing():
                self._end(GONE)
            else:
                self._send(reply)
        except Exception:
            logger.exception("an answer could not be sent")
            self._release()
            self._protocol.transport.abort()

    def _send(self, reply: Reply) -> None:
        protocol = self._protocol
        headers, body = self._routes.complete(reply, self._request)
        fields = [b"%b: %b\r\n" % field for field in (*protocol.server_state.default_headers, *headers)]
        protocol.transport.write(b"".join((STATUS_LINE[reply.status], *fields, b"\r\n", body)))
        self._end(reply.status, reply.refused)
        if not self.keep_alive or CLOSE in headers:
            protocol.transport.close()
        protocol.on_response_complete()

    def _end(self, status: int, refused: str = "") -> None:
        self._release()
        self._routes.account(self._request, self._route.name, status, refused)

    def _release(self) -> None:
        if self.response_complete:
            return
        self.response_complete = True
        self._answer = None  # it leads back here, and garbage that is no cycle needs no collector
        self._request.body = b""  # an idle connection keeps its last exchange
        self._routes.in_flight.decrement()
        self._protocol.tasks.discard(self)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
