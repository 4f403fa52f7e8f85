"""Whether this replica should get traffic, whether it can make progress, and how it ends.

Readiness: verified, and not draining. Liveness: the event loop runs on time and the scorer finishes its batches.
A drain begins with SIGTERM or Ctrl-C: readiness drops, but everything is still answered for a while, with
`Connection: close`, because routers need time to notice; then nothing new is accepted, what was accepted is finished,
and the process exits 0.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from defects.serving.drain import _accepted, _ignore_new

LOOP_LAG_SECONDS = 5.0  # an event loop that was blocked for so long is not alive
SCORER_SECONDS = 60.0  # nor is a scorer that takes so long for a batch
BEAT_SECONDS = 0.5
ACCEPT_SECONDS = 0.1  # for connections that were begun before the listener closes
LINGER_SECONDS = 1.0  # for a request on a connection that is still open then
LOOK_SECONDS, QUIET_LOOKS = 0.02, 5  # it is over sooner where so many looks in a row find no connection
WATCHDOG_SECONDS = 3.0  # after everything should be over
KEEP_ALIVE_SECONDS = 75  # longer than routers keep idle connections, so that they are the ones to close them
CRASHED = 70  # exit code; 0 would say drained

logger = logging.getLogger(__name__)


class Health:
    """The state of this replica, of three facts: what its verification gave, whether it drains, whether it is stuck.

    `batch_seconds` tells how long the scorer has been at a batch; `arbiter` is the process id of `bentoml serve`'s,
    set where there is one.
    """

    def __init__(
        self,
        drain_seconds: float,
        finish_seconds: float,
        batch_seconds: Callable[[], float],
    ) -> None:
        self.draining = False
        self.finish_seconds = finish_seconds
        self._verified, self._problem = "starting", "the golden inputs have not been answered yet"
        self._drain_seconds, self._batch_seconds = drain_seconds, batch_seconds
        self.arbiter: int | None = None
        self._beat: float | None = None
        self._hurry = asyncio.Event()
        self.server: Any = None  # uvicorn's, once it is taken over
        self._drain: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why this replica is ready or not, as one of a few words."""
        if self.draining:
            return "draining"
        return "stuck" if self._verified == "ready" and self.stuck() else self._verified

    @property
    def problem(self) -> str | None:
        """The same in words that anyone may see; `None` when ready."""
        if self.draining:
            return "this replica is shutting down"
        return self.stuck() if self._verified == "ready" else self._problem

    @property
    def ready(self) -> bool:
        return self.reason == "ready"

    @property
    def serving(self) -> bool:
        """Whether predictions are answered: also while draining, but never where they would be wrong."""
        return self._verified == "ready"

    def became(self, verified: str, problem: str = "") -> None:
        """Note what the verification gave: `ready`, `wrong_answers` or `no_model`."""
        self._verified, self._problem = verified, problem

    def stuck(self) -> str | None:
        """Why this process can't make progress; `None` when it can."""
        late = 0.0 if self._beat is None else time.monotonic() - self._beat - BEAT_SECONDS
        if late > LOOP_LAG_SECONDS:
            return f"the event loop was blocked for {late:.1f} s"
        if self._batch_seconds() > SCORER_SECONDS:
            return f"the scorer has been at one batch for {self._batch_seconds():.0f} s"
        return None

    async def beat(self) -> None:
        """Show, for as long as the event loop runs, that it does; and end when `bentoml serve`'s arbiter is gone."""
        while True:
            self._beat = time.monotonic()
            if self.arbiter is not None and os.getppid() != self.arbiter and self._drain is None:
                logger.error("ending: the arbiter is gone, and nobody would end or replace this worker")
                self._signalled(signal.SIGTERM)
                self._hurry.set()
            await asyncio.sleep(BEAT_SECONDS)

    def take_over(self) -> None:
        """Handle SIGTERM and SIGINT instead of uvicorn's server, which would close connections that are in use.

        Called while the application starts up: the server has installed its handlers by then, and they lead to it.
        """
        handler = signal.getsignal(signal.SIGTERM)
        server = getattr(handler, "__self__", None)
        if not hasattr(server, "should_exit"):
            return  # another server, as in a test: it handles its own signals
        self.server = server
        self.server.config.timeout_keep_alive = KEEP_ALIVE_SECONDS
        self.server.config.timeout_graceful_shutdown = self.finish_seconds
        loop = asyncio.get_running_loop()

        def on_signal(number: int, _: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._signalled, number)
            if not watchdog.is_alive():
                watchdog.start()

        # Whatever hangs, the loop itself or a batch that never ends: the platform asked this process to end.
        total = self._drain_seconds + ACCEPT_SECONDS + LINGER_SECONDS + self.finish_seconds + WATCHDOG_SECONDS
        watchdog = threading.Timer(total, lambda: die(f"still not drained after {total:g} s"))
        watchdog.daemon = True
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)

    def _signalled(self, number: int) -> None:
        if self._drain is None:
            self.draining = True
            self._drain = asyncio.create_task(self._drained())
        elif number == signal.SIGINT:  # `bentoml serve` follows a Ctrl-C with a SIGTERM; a second Ctrl-C is a person
            self._hurry.set()

    async def _drained(self) -> None:
        try:
            if self.server.started:  # else there is nobody to wait for
                logger.info("draining: not ready, and serving on for %g s", self._drain_seconds)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), self._drain_seconds)
                await self._stop_listening()
                await self._last_requests()
        finally:
            self.server.should_exit = True

    async def _stop_listening(self) -> None:
        """Refuse new connections, without losing one that is already there.

        A connection that the kernel has accepted and the process has not is reset when the listener goes. So first
        no more are begun, then those are accepted, and then the listener goes. Where the kernel doesn't let this user
        refuse them (in some containers), what is left between the last two steps are microseconds. Closing the
        listener would not do: the arbiter of `bentoml serve` has it open too, and connections would be queued there.
        """
        listeners = [socket.socket(fileno=os.dup(s.fileno())) for server in self.server.servers for s in server.sockets]
        for listener in listeners:
            _ignore_new(listener)
        await asyncio.sleep(ACCEPT_SECONDS)
        for server in self.server.servers:
            server.close()
        for listener in listeners:
            with listener, suppress(OSError):
                accepted = _accepted(listener)
                listener.shutdown(socket.SHUT_RDWR)
                for connection in accepted:
                    await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """A connection's, as uvicorn's server makes it."""
        config, server = self.server.config, self.server
        made: asyncio.Protocol = config.http_protocol_class(
            config=config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return made

    async def _last_requests(self) -> None:
        """Give whoever holds a connection the time to send on it; each is told to close it. What stays is idle.

        One that was accepted just now is no connection of the server's before its loop has come round again.
        """
        until, quiet = time.monotonic() + LINGER_SECONDS, 0
        while quiet < QUIET_LOOKS and time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)
            quiet = 0 if self.server.server_state.connections else quiet + 1


def die(problem: str, arbiter: int | None = None) -> None:
    """End the process tree: a replica whose scorer is gone must not look ready.

    `arbiter` is the process id of `bentoml serve`'s arbiter, which would only start another worker.
    """
    logger.critical("ending: %s", problem)
    for handler in logging.root.handlers:
        handler.flush()
    if arbiter is not None and os.getppid() == arbiter:
        os.kill(arbiter, signal.SIGKILL)
    os._exit(CRASHED)
