"""Replicas of this process that record into a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from served_here import listening, routes

from conftest import WAIT_SECONDS
from defects.features import DefectClass, Feature
from defects.history.database import Database, Registration
from defects.history.metrics import HistoryMetrics
from defects.history.record import Layout
from defects.history.writer import Writer
from defects.schema import Schema
from defects.serving.metrics import Metrics

SCHEMA = Schema((Feature("a"), Feature("b")), (DefectClass("no"), DefectClass("yes")))
SCAN = {"a": 1.5, "b": 2}


def score(rows: Any) -> Any:
    return np.tile([0.25, 0.75], (len(rows), 1))


@asynccontextmanager
async def replica(
    database: Database, version: str = "1", *, acknowledges: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a replica that records into a database."""
    writer = Writer(
        database,
        Registration(version, f"sha256:{version}", json.dumps(SCHEMA.to_json()), "local", Layout(SCHEMA)),
        acknowledges=acknowledges,
        share=1.0,
        metrics=HistoryMetrics(Metrics("1", "none", "test", SCHEMA.class_names)),
        end=pytest.fail,
    )
    writer.start()
    await writer._link.opened.wait()
    app = routes(SCHEMA, score, recorder=writer, version=version)
    try:
        async with listening(app) as (server, (_, port)):
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                yield client
            async with asyncio.timeout(WAIT_SECONDS):
                while server.server_state.connections:
                    await asyncio.sleep(0.001)
            await server.shutdown()
    finally:
        await writer.stop(WAIT_SECONDS)
