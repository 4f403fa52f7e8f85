"""A model behind the real routes, batcher and HTTP protocol, on a real socket of this process: a server that starts in
milliseconds, for tests that need hundreds of models."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from defects.http import fast_path, router
from defects.http.connections import Connections
from defects.schema import Schema
from defects.scoring import Scorer
from defects.serving import model
from defects.serving.batching import Batcher
from defects.serving.health import Health
from defects.serving.logs import AccessLog
from defects.serving.metrics import Metrics
from defects.serving.recording import RecordedPredictions, Recorder

NAME = "model"


async def _nothing() -> None:
    pass


def routes(
    schema: Schema,
    score: Scorer,
    recorded: RecordedPredictions | None = None,
    recorder: Recorder | None = None,
    version: str = "1",
) -> router.Routes:
    """The application of a ready replica."""
    batcher = Batcher(score)
    health = Health(1, lambda: batcher.batch_seconds)
    health.set_verification("ready")
    return router.Routes(
        start=_nothing,
        stop=batcher.close,
        model=model.ServedModel(schema, NAME, version, "test", {}),
        batcher=batcher,
        health=health,
        openapi=dict,
        bentoml_schema=dict,
        revision="local",
        limits=model.Limits(model.body_bytes(schema), 60),
        metrics=Metrics("1", "none", "test", schema.class_names),
        access=AccessLog(0),
        recorder=recorder,
        recorded=recorded,
    )


@asynccontextmanager
async def listening(app: router.Routes, **options: Any) -> AsyncIterator[tuple[uvicorn.Server, tuple[str, int]]]:
    """Serve an application with uvicorn's `options`; gives the server and its address."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none", **options)
    config.load()
    fast_path.install(config, app, Connections(1_000, lambda _: None))
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await server.startup(sockets=[listener])
        yield server, listener.getsockname()


@asynccontextmanager
async def served(schema: Schema, score: Scorer, recorded: RecordedPredictions | None = None) -> AsyncIterator[str]:
    """Serve a model; gives the server's URL."""
    async with listening(routes(schema, score, recorded)) as (server, (_, port)):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            while server.server_state.connections:  # the server would look ten times a second
                await asyncio.sleep(0.001)
            await server.shutdown()
