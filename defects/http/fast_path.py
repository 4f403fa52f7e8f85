"""Answer predictions by HTTP/1.1 below ASGI.

A request that comes in one piece to a route that predicts is answered without a scope, a task, and the messages between
them, which together cost more than all that is done to answer it.

Everything else (other routes and methods, query strings, bodies that come in pieces, pipelining, slow readers,
`Expect`, `Connection: close`, HTTP/1.0, an `Idempotency-Key`) goes the way of ASGI, through uvicorn's protocol. What
every connection is bound by is in `connection.py`.

`Predictions` opens and closes them either way. Two things differ. Here it is noticed until the moment of the answer
that a caller went away, so some count as gone (499) whom ASGI counts as answered. And a caller who closed only half of
the connection is answered.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from defects.http.connection import Connection, nothing_more
from defects.http.connections import Connections
from defects.http.exchange import Cycle, Exchange
from defects.http.idempotency import KEY
from defects.http.messages import Disconnected, Request
from defects.http.reader import IDLE
from defects.http.router import PredictionRoute, Routes


def install(config: Config, routes: Routes, connections: Connections) -> None:
    """Have new connections use `PredictionProtocol`, where the server would use the protocol that it extends."""
    if config.http_protocol_class is HttpToolsProtocol:
        config.http_protocol_class = partial(PredictionProtocol, routes, connections)  # type: ignore[assignment]


class PartialRequest(NamedTuple):
    """What has come of a request that may come in one piece."""

    route: PredictionRoute
    headers: list[tuple[bytes, bytes]]
    pieces: list[bytes]  # of its body


class PredictionProtocol(Connection):
    """One connection."""

    def __init__(self, routes: Routes, connections: Connections, **server: Any) -> None:
        super().__init__(routes, connections, **server)
        self._partial: PartialRequest | None = None

    def on_head(self, headers: list[tuple[bytes, bytes]], version: str) -> None:
        route = self._routes.predicting(self.url.decode("latin-1"))
        if route and version == "1.1" and self._is_plain():
            self._partial = PartialRequest(route, headers, [])
        else:
            self.pass_on(headers)

    def _is_plain(self) -> bool:
        """Tell whether a request needs nothing but an answer."""
        plain = self.parser.get_method() == b"POST" and not self.expect_100_continue and not self._crowded
        plain = plain and b"content-encoding" not in self._fields  # large ones are unpacked in a thread
        plain = plain and (KEY not in self._fields or self._routes.idempotency is None)
        return plain and self.parser.should_keep_alive() and not self.busy and not self.flow.write_paused

    def on_body(self, body: bytes) -> None:
        if self._partial is None:
            super().on_body(body)
        else:
            self._came += len(body)
            self._partial.pieces.append(body)

    def on_message_complete(self) -> None:
        started, self._partial = self._partial, None
        if started is None or self.headers or self._refusal is not None:
            super().on_message_complete()
            if started is None or self._refusal is not None:
                return
        self._phase, self._ended = IDLE, True
        self._loose = self._came = self._counted = 0
        path, body = self.url.decode("latin-1"), b"".join(started.pieces)
        request = Request("POST", path, self._fields, nothing_more, body=body, started=self._began)
        exchange = Exchange(self, self._routes, started.route, request)
        cycle: Cycle = exchange
        self.cycle = cycle  # type: ignore[assignment]
        exchange.begin()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._partial is not None:
            self._go_by_asgi(self._partial)

    def _go_by_asgi(self, started: PartialRequest) -> None:
        """Pass on a request of which there is more to come; unless it was no HTTP."""
        self._partial = None
        if not self.transport.is_closing():
            self.pass_on(started.headers)
            for piece in started.pieces:
                HttpToolsProtocol.on_body(self, piece)

    def connection_lost(self, exc: Exception | None) -> None:
        cycle: Cycle | None = self.cycle
        if isinstance(cycle, Exchange):
            self.cycle = None  # type: ignore[assignment]
            cycle.set_exception(Disconnected())
        super().connection_lost(exc)
