"""A second listener, only for health and metrics: it answers also while callers have taken all of the first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from uvicorn import Config
from uvicorn.server import ServerState

from defects.http.connection import Connection
from defects.http.connections import Connections
from defects.http.router import Routes
from defects.serving.listener import listen


class HealthPort:
    """The listener. Each of its connections gets one answer, and the newest of them take the place of older ones."""

    def __init__(self, routes: Routes, ended: Callable[[str], None]):
        self._routes, self.connections = routes, Connections(0, ended)
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int, config: Config) -> None:
        """Listen, until closed; `config` is that of the first listener. Raises `BadSetting`."""
        make = partial(
            Connection,
            self._routes,
            self.connections,
            only_health=True,
            config=config,
            server_state=ServerState(),  # of its own: the end of the server does not wait for these connections
            app_state={},
        )
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(make, sock=listen(host, port, "DEFECTS_HEALTH_PORT"))

    def close(self) -> None:
        """Close the listener and its connections."""
        if self._server is not None:
            self._server.close()
            self.connections.abort()
