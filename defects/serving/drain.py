"""End a replica without losing a request.

A drain begins with SIGTERM, Ctrl-C or the end of a terminal (SIGHUP): readiness drops, but everything is still answered
for a while, with `Connection: close`, because routers need time to notice; then nothing new is accepted, what was
accepted is finished, and the process exits 0. A second Ctrl-C ends the first of these phases.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import math
import os
import signal
import socket
import struct
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from defects.serving.health import BEAT_SECONDS, Health

ACCEPT_SECONDS = 0.1  # for connections that were begun before the listener closes
LINGER_SECONDS = 1.0  # for a request on a connection that is still open then
LOOK_SECONDS, QUIET_LOOKS = 0.02, 5  # it is over sooner where so many looks in a row find no connection
FLUSH_SECONDS = 0.5  # at least, to record what was answered last
WATCHDOG_SECONDS, WATCHDOG_LOOK_SECONDS = 3.0, 0.25  # after everything should be over
KEEP_ALIVE_SECONDS = 75  # longer than routers keep idle connections, so that they are the ones to close them
CRASHED = 70  # exit code; 0 would say drained
SO_ATTACH_FILTER = 26  # Linux's; the socket module does not name it

logger = logging.getLogger(__name__)


class Drain:
    """Ends this replica when the platform, a person, or the end of `bentoml serve`'s arbiter asks for it.

    Everything is answered for `drain_seconds`. `arbiter` is the process id of that arbiter, set where there is one, and
    `server` is uvicorn's once its signals are handled here.
    """

    def __init__(self, health: Health, drain_seconds: float) -> None:
        self.arbiter: int | None = None
        self.server: Any = None
        self._health, self._drain_seconds = health, drain_seconds
        self._hurry = asyncio.Event()
        self._draining: asyncio.Task[None] | None = None
        self._began: float | None = None

    @property
    def _seconds(self) -> float:
        """Return the most seconds from the signal until every request is finished."""
        return self._drain_seconds + ACCEPT_SECONDS + LINGER_SECONDS + self._health.finish_seconds

    def flush_seconds(self) -> float:
        """Return the seconds that may be spent once every request is finished: what these have left of theirs."""
        spent = 0.0 if self._began is None else time.monotonic() - self._began
        return max(FLUSH_SECONDS, self._seconds - spent)

    def handle_signals(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP instead of uvicorn's server, which would close connections that are in use.

        Called while the application starts up: the server has installed its handlers by then, and they lead to it.
        """
        handler = signal.getsignal(signal.SIGTERM)
        server = getattr(handler, "__self__", None)
        if not hasattr(server, "should_exit"):
            return  # another server, as in a test: it handles its own signals
        self.server = server
        self.server.config.timeout_keep_alive = KEEP_ALIVE_SECONDS
        self.server.config.timeout_graceful_shutdown = self._health.finish_seconds
        loop, watchdog = asyncio.get_running_loop(), self._watchdog()

        def on_signal(number: int, _: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._on_signal, number)
            if not watchdog.is_alive():
                watchdog.start()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
                signal.signal(number, on_signal)

    def _watchdog(self) -> threading.Thread:
        """Return a thread that kills the process where the drain hangs: the loop itself, or a batch that never ends.

        It counts looks and not the time, which also goes on while the process is stopped.
        """
        total = self._seconds + FLUSH_SECONDS + WATCHDOG_SECONDS

        def watch() -> None:
            for _ in range(math.ceil(total / WATCHDOG_LOOK_SECONDS)):
                time.sleep(WATCHDOG_LOOK_SECONDS)
            die(f"still not drained after {total:g} s")

        return threading.Thread(target=watch, name="drain watchdog", daemon=True)

    async def watch_arbiter(self) -> None:
        """Drain at once when `bentoml serve`'s arbiter is gone; runs until cancelled."""
        while True:
            if self.arbiter is not None and os.getppid() != self.arbiter and self._draining is None:
                logger.error("ending: the arbiter is gone, and nobody would end or replace this worker")
                self._on_signal(signal.SIGTERM)
                self._hurry.set()
            await asyncio.sleep(BEAT_SECONDS)

    def _on_signal(self, number: int) -> None:
        if self._draining is None:
            self._health.draining, self._began = True, time.monotonic()
            self._draining = asyncio.create_task(self._drain())
        elif number == signal.SIGINT:  # `bentoml serve` follows a Ctrl-C with a SIGTERM; a second Ctrl-C is a person
            self._hurry.set()

    async def _drain(self) -> None:
        try:
            if self.server.started:  # else there is nobody to wait for
                logger.info("draining: not ready, and serving on for %g s", self._drain_seconds)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), self._drain_seconds)
                await self._stop_listening()
                await self._finish_connections()
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
                waiting = _accept_waiting(listener)
                listener.shutdown(socket.SHUT_RDWR)
                for connection in waiting:
                    await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        """Make the protocol of a connection, as uvicorn's server does."""
        config, server = self.server.config, self.server
        protocol: asyncio.Protocol = config.http_protocol_class(
            config=config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return protocol

    async def _finish_connections(self) -> None:
        """Give whoever holds a connection the time to send on it; each answer asks to close it. What stays is idle.

        One that was accepted just now is no connection of the server's before its loop has come round again.
        """
        until, quiet = time.monotonic() + LINGER_SECONDS, 0
        while quiet < QUIET_LOOKS and time.monotonic() < until:
            await asyncio.sleep(LOOK_SECONDS)
            quiet = 0 if self.server.server_state.connections else quiet + 1


def die(problem: str, arbiter: int | None = None, code: int = CRASHED) -> None:
    """End the process tree with an exit code: a replica whose scorer is gone must not look ready.

    `arbiter` is the process id of `bentoml serve`'s arbiter, which would only start another worker.
    """
    logger.critical("ending: %s", problem)
    for handler in logging.root.handlers:
        handler.flush()
    if arbiter is not None and os.getppid() == arbiter:
        os.kill(arbiter, signal.SIGKILL)
    os._exit(code)


def _accept_waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept the connections that wait for it."""
    listener.setblocking(False)
    accepted = []
    with suppress(BlockingIOError):
        while True:
            accepted.append(listener.accept()[0])
    return accepted


def _ignore_new(listener: socket.socket) -> None:
    """Drop packets that would begin a connection; their senders try again a second later, and are refused then."""
    # Classic BPF: load byte 13 of the TCP header; where SYN is set, drop the packet, else let all of it pass.
    program = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    with suppress(OSError):  # not on this kernel, or not for this user
        option = struct.pack("HL", len(program), ctypes.addressof(code))
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
