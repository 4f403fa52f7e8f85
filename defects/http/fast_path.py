"""Answer predictions by HTTP/1.1 below ASGI.

A request that comes in one piece to a route that predicts is answered without a scope, a task, and the messages between
them, which together cost more than all that is done to answer it.

Everything else (other routes and methods, query strings, bodies that come in pieces, pipelining, slow readers,
`Expect`, `Connection: close`, HTTP/1.0) goes the way of ASGI, through uvicorn's protocol, of which this is a subclass.
`Predictions` opens and closes them either way. Two things differ. Here it is noticed until the moment of the answer
that a caller went away, so some count as gone (499) whom ASGI counts as answered. And a caller who closed only half of
the connection is answered.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any, NamedTuple

from httptools import HttpParserUpgrade, HttpRequestParser
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from defects.http.exchange import Cycle, Exchange
from defects.http.messages import Disconnected, Message, Request
from defects.http.router import PredictionRoute, Routes

HOP_BY_HOP = (b"connection", b"upgrade", b"http2-settings")


def install(config: Config, routes: Routes) -> None:
    """Have new connections use `PredictionProtocol`, where the server would use the protocol that it extends."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = partial(PredictionProtocol, routes)  # type: ignore[assignment]


class PartialRequest(NamedTuple):
    """What has come of a request that may come in one piece."""

    route: PredictionRoute
    headers: dict[bytes, bytes]
    pieces: list[bytes]  # of its body


class PredictionProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, routes: Routes, **server: Any) -> None:
        super().__init__(**server)
        self._routes = routes
        self._last_active = 0.0  # on the loop's clock: when something came or left
        self._partial: PartialRequest | None = None
        self._upgrade_offered = False  # the request offers another protocol, which is not taken
        self._reading = b""  # the data that is being read

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        self._upgrade_offered = upgrade and self.parser.get_method() != b"CONNECT"
        if self._upgrade_offered:
            return
        route = self._routes.predicting(self.url.decode("latin-1"))
        if route and self._is_plain():
            self._partial = PartialRequest(route, dict(self.headers), [])
        else:
            self._pass_on()

    def _is_plain(self) -> bool:
        parser = self.parser
        plain = parser.get_method() == b"POST" and not parser.should_upgrade() and not self.expect_100_continue
        lasting = parser.get_http_version() == "1.1" and parser.should_keep_alive()
        return plain and lasting and not self._busy and not self.flow.write_paused

    @property
    def _busy(self) -> bool:
        """Tell whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _pass_on(self) -> None:
        """Let uvicorn handle this request, the headers of which are complete."""
        url, headers, expects, started = self.url, self.headers, self.expect_100_continue, self._partial
        self._partial = None
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expects
        self.scope["headers"] = [*headers]  # a copy: trailers, which come later, are no headers
        super().on_headers_complete()
        for piece in started.pieces if started else ():
            super().on_body(piece)

    def on_body(self, body: bytes) -> None:
        if self._partial is None:
            super().on_body(body)
        else:
            self._partial.pieces.append(body)

    def on_message_complete(self) -> None:
        if self._upgrade_offered:
            return
        if self._partial is None:
            super().on_message_complete()
            return
        started, self._partial = self._partial, None
        path, body = self.url.decode("latin-1"), b"".join(started.pieces)
        request = Request("POST", path, started.headers, _nothing_more, body=body)
        exchange = Exchange(self, self._routes, started.route, request)
        cycle: Cycle = exchange
        self.cycle = cycle  # type: ignore[assignment]
        exchange.begin()

    def data_received(self, data: bytes) -> None:
        self._last_active, self._reading = self.loop.time(), data
        super().data_received(data)
        self._reading = b""
        if self._partial is not None:  # there is more to come
            if self.transport.is_closing():  # no: it was no HTTP
                self._partial = None
            else:
                self._pass_on()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on in HTTP/1.1, which a caller who offers HTTP/2, as Java's client does, takes too.

        The parser has stopped after the head. So another one reads it again, without the offer, and what comes after.
        """
        stopped = sys.exception()
        if not self._upgrade_offered or not isinstance(stopped, HttpParserUpgrade):
            super()._unsupported_upgrade_warning()
            return
        line = b"%b %b HTTP/1.1\r\n" % (self.parser.get_method(), self.url)
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] not in HOP_BY_HOP]
        rest = self._reading[stopped.args[0] :]
        self.parser = HttpRequestParser(self)
        self.data_received(b"".join((line, *fields, b"\r\n", rest)))

    def connection_lost(self, exc: Exception | None) -> None:
        cycle: Cycle | None = self.cycle
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
        self._last_active = self.loop.time()
        if self.timeout_keep_alive_task is None or self.pipeline:
            super().on_response_complete()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        rest = self._last_active + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self.timeout_keep_alive_task = self.loop.call_later(rest, self.timeout_keep_alive_handler)
        elif not self._busy:  # else it is set again when the answer leaves
            super().timeout_keep_alive_handler()


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
