"""Answers that leave once their records are committed, by HTTP: below ASGI and, with a `?` in the URL, by ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import orjson
import pytest
from recording_here import SCAN, replica

from conftest import WAIT_SECONDS
from defects.history.record import Batch
from defects.history.sqlite import SQLiteDatabase

PATHS = pytest.mark.parametrize("path", ["/classify", "/classify?"])


class Held(SQLiteDatabase):
    """A database that commits no records until `go` is set; `asked` is set once it has some to commit."""

    def __init__(self, url: str):
        super().__init__(url)
        self.go, self.asked = asyncio.Event(), asyncio.Event()

    async def write(self, batch: Batch, *, again: bool) -> Any:
        if len(batch.records):
            self.asked.set()
            await self.go.wait()
        return await super().write(batch, again=again)

    async def ids(self) -> set[str]:
        async with self.transaction(reading=True) as transaction:
            return {row["id"].hex for row in await transaction.fetch("SELECT id FROM predictions")}


Test: TypeAlias = Callable[[Held, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test with a database and a client of the replica that records into it."""

    def run(test: Test) -> None:
        async def tested() -> None:
            database = Held(f"sqlite:///{tmp_path}/history.sqlite")
            async with asyncio.timeout(WAIT_SECONDS), replica(database) as client:
                await test(database, client)

        asyncio.run(tested())

    return run


@PATHS
def test_an_answer_leaves_when_its_record_is_committed(run: Callable[[Test], None], path: str) -> None:
    async def test(database: Held, client: httpx.AsyncClient) -> None:
        asked = asyncio.ensure_future(client.post(path, json=SCAN))
        await database.asked.wait()
        assert await asyncio.wait([asked], timeout=0.05) == (set(), {asked})
        database.go.set()
        answer = await asked
        assert answer.status_code == 200
        assert await database.ids() == {answer.json()["prediction_id"]}

    run(test)


@PATHS
def test_who_is_refused_in_time_gets_no_second_answer(run: Callable[[Test], None], path: str) -> None:
    async def test(database: Held, client: httpx.AsyncClient) -> None:
        refused = await client.post(path, json=SCAN, headers={"x-request-timeout-ms": "300"})
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        database.go.set()
        for _ in range(3):  # on the same connection
            answer = await client.post(path, json=SCAN)
            assert (answer.status_code, answer.headers["x-prediction-id"]) == (200, answer.json()["prediction_id"])
            assert answer.json()["prediction_id"] in await database.ids()

    run(test)


@PATHS
def test_a_caller_that_goes_away_while_its_answer_is_held_harms_nobody(run: Callable[[Test], None], path: str) -> None:
    async def test(database: Held, client: httpx.AsyncClient) -> None:
        body = orjson.dumps(SCAN)
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        head = (
            f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await database.asked.wait()
        writer.close()
        others = [asyncio.ensure_future(client.post(path, json=SCAN)) for _ in range(5)]
        await asyncio.sleep(0.02)
        database.go.set()
        answers = await asyncio.gather(*others)
        assert {answer.status_code for answer in answers} == {200}
        ids = {answer.json()["prediction_id"] for answer in answers}
        assert await database.ids() > ids  # and the record of who is gone

    run(test)
