"""Read requests off one HTTP/1.1 connection, with a bound for all that a caller can send: bytes, fields, requests.

The parser gets what came in small pieces, and nothing while requests that came before wait for their turn. So what a
caller sends at once is held as bytes, not as requests, which take many times as much.
"""

from __future__ import annotations

import time
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from defects.http import heads
from defects.http.messages import CLOSE, Refusal
from defects.http.outgoing import LINGER_BYTES

PIECE_BYTES = 4096  # for the parser, outside of a body whose length is known
MAYBE_TOO_LARGE = heads.BYTES - 2 * PIECE_BYTES  # what a head has at least, before its last piece
STALL_SECONDS = 0.01  # of the event loop; less is not charged to a request, because its clock is no finer
IDLE, HEAD, BODY = 0, 1, 2  # what is being read


class Reader(HttpToolsProtocol):
    """Has uvicorn's protocol parse what comes, and refuse what is no request. Times are those of `time.perf_counter`.

    A subclass says what becomes of a request whose head has come (`on_head`), and how what is noted in `_refusal` is
    answered (`refuse_in_turn`).
    """

    transport: Any

    def __init__(self, **server: Any) -> None:
        super().__init__(**server)
        self.ws_protocol_class = None  # there are no WebSockets here
        self.headers = []
        self._phase = IDLE
        self._passed_on = False  # the request that is being read, to uvicorn
        # When what is being parsed came, and the first byte of the request; and when an answer left.
        self._seen = self._began = self._last_active = time.perf_counter()
        self._fields: dict[bytes, bytes] = {}
        self._came = self._counted = 0  # bytes of the body, and how many of them `_loose` leaves out already
        self._loose = 0  # bytes of a head, of trailers, or around a body's chunks
        self._host = b""  # that was found to be well-formed
        self._unread = b""  # what came, and waits for the requests before it
        self._offered = b""  # a head with an offer of another protocol, without it, to be parsed again
        self._refusal: Refusal | None = None  # the last answer: what came is no request, or too large, or too slow
        self._parsing = False
        self._ended = False  # a request, in the piece that is being parsed

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def on_head(self, headers: list[tuple[bytes, bytes]], version: str) -> None:
        """Begin with a request whose head has come, and is as it should be."""
        raise NotImplementedError

    def refuse_in_turn(self) -> None:
        """Refuse what came last, now or after the answers to the requests before it."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        now, seen = time.perf_counter(), self.loop.time()
        # The loop's time is when it saw that this is there; others, seen at the same time, may have had their turn.
        self._seen = seen if now - seen > STALL_SECONDS else now
        if self._unread or self.transport.closed:
            self._keep_or_drop(data)
        elif len(data) <= PIECE_BYTES and not self.pipeline and self._refusal is None:  # the usual case, without a loop
            self._parsing = True
            self._parse(data)
            self._parsing = False
            if self._offered:
                self._consume(b"")
        else:
            self._consume(data)

    def _keep_or_drop(self, data: bytes) -> None:
        if self.transport.closed:
            self.transport.drop(len(data))
        else:
            self._unread += data

    def _consume(self, data: bytes) -> None:
        """Have the parser read `data`, piece by piece, until a request has to wait for its turn."""
        data, self._offered = self._offered + data, b""
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
        self._ended = False
        try:
            self.parser.feed_data(piece)
        except HttpParserUpgrade as stopped:
            self._offered = self._restarted() + piece[stopped.args[0] :]
        except HttpParserError:
            self._refuse_later(400, heads.NO_HTTP)
        if not self._ended or self._phase is not IDLE:
            self._count(len(piece))
        if self._refusal is not None:
            self.refuse_in_turn()

    def _count(self, size: int) -> None:
        """Count a piece with something of a head or of trailers; refuse what is too large before it has ended."""
        body, self._counted = self._came - self._counted, self._came
        self._loose = max(0, self._loose + size - body * (1 + heads.BYTES_AROUND))
        if self._loose > heads.BYTES + 2 * PIECE_BYTES or len(self.headers) > heads.FIELDS:
            self._refuse_later(431, heads.TOO_LARGE)

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
        self._phase = BODY
        self._loose = self._came = self._counted = 0
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

    def on_body(self, body: bytes) -> None:
        self._came += len(body)
        if self._passed_on:
            super().on_body(body)
            if self._came > LINGER_BYTES and not self.busy:  # it has its answer
                self.transport.abort()

    def on_message_complete(self) -> None:
        if self.headers and heads.is_too_large(self.headers):  # trailers
            self._refuse_later(431, heads.TOO_LARGE)
        if self._refusal is None:
            self._phase, self._ended, self._loose = IDLE, True, 0
            self._came = self._counted = 0
            if self._passed_on:
                super().on_message_complete()

    def _restarted(self) -> bytes:
        """Put a new parser in the place of the one that has stopped at an offer; return what it is to read first."""
        head = heads.without_offer(self.parser.get_method(), self.url, self.parser.get_http_version(), self.headers)
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        return head

    def _refuse_later(self, status: int, problem: str, *headers: tuple[bytes, bytes]) -> None:
        """Note the last answer of this connection, the first of them that there is a reason for."""
        if self._refusal is None:
            self._refusal = Refusal(status, problem, [*headers, CLOSE])
