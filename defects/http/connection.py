"""One HTTP/1.1 connection, with a bound for all that its caller can take: bytes, fields, seconds, requests at a time.

The parser gets what came in small pieces, and nothing while requests that came before wait for their turn. What is no
HTTP, or too large, or too slow, is answered in the shape of all errors, as any other answer is.

Uvicorn's protocol does the rest: it makes a scope of a request, and runs the application.
"""

from __future__ import annotations

import time
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from defects.http import heads
from defects.http.connections import Connections
from defects.http.messages import CLOSE, Message, Refusal, Request
from defects.http.outgoing import LINGER_BYTES, LINGER_SECONDS, Outgoing
from defects.http.router import HEALTH_PATHS, Routes

PIECE_BYTES = 4096  # for the parser, outside of a body whose length is known
MAYBE_TOO_LARGE = heads.BYTES - 2 * PIECE_BYTES  # what a head has at least, before its last piece
STALL_SECONDS = 0.01  # of the event loop; less is not charged to a request, because its clock is no finer
IDLE, HEAD, BODY = 0, 1, 2  # what is being read

RETRY = (b"retry-after", b"1")
FULL = "overloaded: too many connections; expected another try in 1 s"
ONLY_HEALTH = f"no such path on this port; expected one of {', '.join(HEALTH_PATHS)}"


class Connection(HttpToolsProtocol):
    """One connection of a listener, which has a place in `connections`.

    With `only_health`, nothing else is answered. Times are those of `time.perf_counter`, in seconds.
    """

    def __init__(self, routes: Routes, connections: Connections, *, only_health: bool = False, **server: Any) -> None:
        super().__init__(**server)
        self.headers = []
        self.ws_protocol_class = None  # there are no WebSockets here
        self._routes, self._connections, self._only_health = routes, connections, only_health
        self._crowded = False  # beyond the limit of connections: it gets one answer
        self._phase = IDLE
        self._passed_on = False  # the request that is being read, to uvicorn
        # When what is being parsed came, and the first byte of the request; and when an answer left.
        self._seen = self._began = self._last_active = time.perf_counter()
        self._fields: dict[bytes, bytes] = {}
        self._came = self._loose = 0  # bytes of the body; and of a head, of trailers, or around a body's chunks
        self._host = b""  # that was found to be well-formed
        self._unread = b""  # what came, and waits for the requests before it
        self._offered = b""  # a head with an offer of another protocol, without it, to be parsed again
        self._refusal: Refusal | None = None  # the last answer: what came is no request, or too large, or too slow
        self._parsing = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport: Any = Outgoing(transport, self._lingers)
        self._crowded = self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    # --- reading --------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        now, seen = time.perf_counter(), self.loop.time()
        # The loop's time is when it saw that this is there; others, seen at the same time, may have had their turn.
        self._seen = seen if now - seen > STALL_SECONDS else now
        if self.transport.closed:
            self.transport.drop(len(data))
        elif self._unread:
            self._unread += data
        else:
            self._consume(data)

    def _consume(self, data: bytes) -> None:
        """Have the parser read `data`, piece by piece, until a request has to wait for its turn."""
        self._parsing, at = True, 0
        while at < len(data) and not (self.pipeline or self._refusal or self.transport.closed):
            stop = at + max(PIECE_BYTES, self._rest_of_body())
            self._parse(data[at:stop])
            at = stop
            if self._offered:
                data, at, self._offered = self._offered + data[stop:], 0, b""
                self._seen = self._began
        self._parsing = False
        if at < len(data) and not self.transport.closed:
            self._unread = data[at:]
            self.flow.pause_reading()

    def _rest_of_body(self) -> int:
        """Return how many bytes of the body are still to come; 0 where its length is not known."""
        if self._phase is not BODY:
            return 0
        return int(self._fields.get(b"content-length", b"0")) - self._came

    def _parse(self, piece: bytes) -> None:
        """Have the parser read a piece; refuse what it, or a bound, does not let pass."""
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade as stopped:
            self._offered = self._restarted() + piece[stopped.args[0] :]
        except HttpParserError:
            self._refuse_later(400, heads.NO_HTTP)
        self._loose = max(0, self._loose + len(piece))
        if self._loose and (self._loose > heads.BYTES + PIECE_BYTES or len(self.headers) > heads.FIELDS):
            self._refuse_later(431, heads.TOO_LARGE)
        if self._refusal is not None:
            self._refuse_in_turn()

    def _go_on(self) -> None:
        """Read what had to wait."""
        if not (self.transport.closed or self.pipeline):
            data, self._unread, self._seen = self._unread, b"", time.perf_counter()
            self._consume(data)
            if not self._unread:
                self.flow.resume_reading()

    # --- what the parser finds ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._phase, self._passed_on = HEAD, False
        self._began = self._seen

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > heads.URL_BYTES:
            self._refuse_later(414, heads.TOO_LONG)

    def on_headers_complete(self) -> None:
        headers, self.headers = self.headers, []  # what comes after the body is no header
        fields = self._fields = dict(headers)
        version = self.parser.get_http_version()
        usual = version == "1.1" and fields.get(b"host") == self._host and len(fields) == len(headers) <= heads.FIELDS
        if not usual or self._loose > MAYBE_TOO_LARGE:
            self._check_head(headers, version)
        self._phase, self._loose, self._came = BODY, -PIECE_BYTES, 0
        if self.parser.should_upgrade():
            self.headers = headers  # it is parsed again, without its offer of another protocol
            self._check_method()
        elif self._refusal is None:
            self.on_head(headers, version)

    def _check_head(self, headers: list[tuple[bytes, bytes]], version: str) -> None:
        for problem in heads.problems_of(self.url, headers, version):
            self._refuse_later(*problem)
        self._host = self._fields.get(b"host", b"")

    def _check_method(self) -> None:
        if self.parser.get_method() in heads.FOREIGN_METHODS:
            self._refuse_later(400, heads.NO_HTTP)

    def on_head(self, headers: list[tuple[bytes, bytes]], version: str) -> None:  # noqa: ARG002 - for subclasses
        """Begin with a request whose head has come, and is as it should be."""
        self.pass_on(headers)

    def pass_on(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Let uvicorn handle a request, unless only health is answered here."""
        if (self._crowded or self._only_health) and self.url.partition(b"?")[0].decode("latin-1") not in HEALTH_PATHS:
            self._refuse_later(*((404, ONLY_HEALTH) if self._only_health else (503, FULL, RETRY)))
        self._check_method()
        if self._refusal is not None:
            return
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue, self.scope["headers"] = url, expects, headers
        self.scope["began"] = self._began  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self._passed_on = True
        if self._crowded:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._came += len(body)
        self._loose -= len(body) * (1 + heads.BYTES_AROUND)
        if self._passed_on:
            super().on_body(body)
            if self._came > LINGER_BYTES and not self.busy:  # it has its answer
                self.transport.abort()

    def on_message_complete(self) -> None:
        if self.headers and heads.is_too_large(self.headers):  # trailers
            self._refuse_later(431, heads.TOO_LARGE)
        if self._refusal is None:
            self._phase, self._loose = IDLE, min(0, self._loose) - PIECE_BYTES  # less what is body in this piece
            if self._passed_on:
                super().on_message_complete()

    def _restarted(self) -> bytes:
        """Put a new parser in the place of the one that has stopped at an offer; return what it is to read first."""
        head = heads.without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return head

    # --- answering ------------------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._last_active = time.perf_counter()
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            cycle.scope["began"] = self._last_active  # type: ignore[typeddict-unknown-key] # its turn has come
            self._start_asgi_task(cycle, app)
        elif self._refusal is not None:
            self._refuse()
            return
        if not self._unread:
            self.flow.resume_reading()
        elif not self._parsing:
            self.loop.call_soon(self._go_on)  # not at once: each request would be answered within the one before

    def _refuse_later(self, status: int, problem: str, *headers: tuple[bytes, bytes]) -> None:
        """Note the last answer of this connection, the first of them that there is a reason for."""
        if self._refusal is None:
            self._refusal = Refusal(status, problem, [*headers, CLOSE])

    def _refuse_in_turn(self) -> None:
        """Refuse what came last, now or after the answers to the requests before it."""
        waits = self.busy
        if self._passed_on and self._phase is BODY:  # somebody waits for the rest of it, which nobody will read
            waits = bool(self.pipeline)
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if waits:
                self.pipeline.popleft()
        if not waits:
            self._refuse()

    def _refuse(self) -> None:
        """Answer what is no request, too large or too slow, and close."""
        problem, responses = self._refusal, self._routes.responses
        assert problem is not None  # noqa: S101 - whoever calls has noted it
        headed = self._phase is BODY
        fields = self._fields if headed else dict(self.headers)
        method = self.parser.get_method().decode() if headed else "-"
        path = self.url.decode("latin-1") if fields else ""
        began = self._seen if self._phase is IDLE else self._began
        request = Request(method, path, fields, nothing_more, started=began)
        reply = responses.explained(problem, request)
        self.transport.respond(reply.status, *responses.complete(reply, request), self.server_state)
        refused = "connections" if reply.status == 503 else ""
        responses.account(request, "malformed", reply.status, time.perf_counter() - began, refused)
        self.transport.close()

    def look(self, now: float) -> None:
        """Close this connection where its caller keeps it waiting for too long."""
        if self.transport.overstays(now):
            self.transport.abort()
        elif self.transport.stalls(now):
            self._connections.end(self, "stalled_write")
        elif self.busy or self.transport.is_closing():
            pass  # the application has its own deadlines
        elif self._phase is HEAD and now - self._began > heads.SECONDS:
            self._connections.ended("slow_head")
            self._refuse_later(408, heads.TOO_SLOW)
            self._refuse()
        elif self._phase is BODY and now - self._last_active > LINGER_SECONDS:
            self._connections.end(self, "slow_body")
        elif self._phase is IDLE and now - self._last_active > self.timeout_keep_alive:
            self.transport.close()

    def _lingers(self) -> bool:
        """Whether the caller may still be sending, though it has its answer."""
        answered_early = self._passed_on and self._phase is BODY and not self.busy
        return answered_early or self._refusal is not None or bool(self._unread)


async def nothing_more() -> Message:
    """Stand for what comes after a request that is complete."""
    return {"type": "http.disconnect"}
