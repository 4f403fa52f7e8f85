"""One connection of a listener: it answers requests in their turn, and closes when its caller takes too long.

What is no HTTP, or too large, or too slow, is answered in the shape of all errors, as any other answer is. Uvicorn's
protocol does the rest: it makes a scope of a request, and runs the application.
"""

from __future__ import annotations

import time
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from defects.http import heads
from defects.http.connections import Connections
from defects.http.messages import Message, Request
from defects.http.outgoing import LINGER_SECONDS, Outgoing
from defects.http.reader import BODY, HEAD, IDLE, Reader
from defects.http.responses import RETRY
from defects.http.router import HEALTH_PATHS, Routes

FULL = "overloaded: too many connections; expected another try in 1 s"
ONLY_HEALTH = f"no such path on this port; expected one of {', '.join(HEALTH_PATHS)}"


class Connection(Reader):
    """One connection, which has a place in `connections`. With `only_health`, nothing else is answered."""

    def __init__(self, routes: Routes, connections: Connections, *, only_health: bool = False, **server: Any) -> None:
        super().__init__(**server)
        self._routes, self._connections, self._only_health = routes, connections, only_health
        self._crowded = False  # beyond the limit of connections: it gets one answer

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = Outgoing(transport, self._lingers)
        self.flow = FlowControl(self.transport)
        self._crowded = self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        super().connection_lost(exc)

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
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue, self.scope["headers"] = url, expects, headers
        self.scope["began"] = self._began  # type: ignore[typeddict-unknown-key]
        HttpToolsProtocol.on_headers_complete(self)
        self._passed_on = True
        if self._crowded:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        self._last_active = time.perf_counter()
        if self.pipeline or self._unread or self._refusal is not None or self.flow.read_paused:
            self._go_on_after()

    def _go_on_after(self) -> None:
        """Begin with what has waited for an answer to leave."""
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

    def refuse_in_turn(self) -> None:
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
