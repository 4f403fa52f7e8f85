"""Requests with an `Idempotency-Key`, by HTTP, on replicas of this process that share a database."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
import pytest
from recording_here import SCAN, replica
from served_here import NAME

from conftest import WAIT_SECONDS
from defects.history.databases import database_of
from defects.history.record import Batch
from defects.history.sqlite import SQLiteDatabase, SQLiteTransaction

V2 = f"/v2/models/{NAME}/infer"
Replicas: TypeAlias = Callable[..., Awaitable[httpx.AsyncClient]]
Test: TypeAlias = Callable[[Replicas], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Test], None]:
    """Runs a test with what starts replicas."""

    def run(test: Test) -> None:
        async def tested() -> None:
            async with AsyncExitStack() as stack:

                async def start(version: str = "1", *, acknowledges: bool = True) -> httpx.AsyncClient:
                    file = tmp_path / "history.sqlite"
                    database = database_of(f"sqlite:///{file}")
                    return await stack.enter_async_context(replica(database, version, acknowledges=acknowledges))

                await test(start)

        asyncio.run(tested())

    return run


def told(answer: httpx.Response) -> tuple[Any, ...]:
    """All that an answer says of a prediction."""
    names = ("content-type", "x-prediction-id", "x-model-version", "x-revision", "inference-header-content-length")
    return (answer.status_code, answer.content, *(answer.headers.get(name) for name in names))


def test_another_replica_gives_the_first_answer_whole(run: Callable[[Test], None]) -> None:
    """Also with the version of the model that made it: it may be another one's than that of whoever repeats it."""
    tensor = {"name": "input", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}
    output = {"parameters": {"binary_data_output": True}}
    head = json.dumps({"inputs": [tensor], **output}).encode()
    binary = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/classify", {"json": SCAN}),
        ("/classify_batch", {"json": [SCAN] * 200, "headers": {"accept-encoding": "gzip"}}),
        (f"/v1/models/{NAME}:predict", {"json": {"instances": [[1.5, 2]]}}),
        (V2, {"content": head + np.array([1.5, 2], "<f4").tobytes(), "headers": binary}),
    ]

    async def test(start: Replicas) -> None:
        old, new = await start(), await start("2")
        for key, (path, request) in enumerate(requests):
            request["headers"] = request.get("headers", {}) | {"idempotency-key": f"key {key}"}
            first = await old.post(path, **request)
            assert first.status_code == 200, first.text
            assert "idempotency-replayed" not in first.headers
            assert first.headers["x-model-version"] == "1"
            for client in (old, new):
                again = await client.post(path, **request)
                assert told(again) == told(first)
                assert again.headers["idempotency-replayed"] == "true"
                assert again.headers["x-request-id"] != first.headers["x-request-id"]
                assert again.headers.get("content-encoding") == first.headers.get("content-encoding")

    run(test)


def test_another_request_with_the_same_key_is_refused(run: Callable[[Test], None]) -> None:
    async def test(start: Replicas) -> None:
        client = await start()
        headers = {"idempotency-key": "k"}
        first = await client.post("/classify", json=SCAN, headers=headers)
        for path, body in (("/classify", SCAN | {"b": 3}), ("/classify_batch", SCAN), ("/classify", {"a": "text"})):
            refused = await client.post(path, json=body, headers=headers)
            assert (refused.status_code, list(refused.json())) == (409, ["error"])
        packed = gzip.compress(httpx.Request("POST", "http://h", json=SCAN).content)
        gzipped = headers | {"content-encoding": "gzip", "content-type": "application/json"}
        assert told(await client.post("/classify", content=packed, headers=gzipped)) == told(first)

    run(test)


def test_at_the_same_moment_all_get_one_answer(run: Callable[[Test], None]) -> None:
    async def test(start: Replicas) -> None:
        clients = [await start(), await start()]
        asked = (client.post("/classify", json=SCAN, headers={"idempotency-key": "k"}) for client in clients * 8)
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1

    run(test)


def test_what_was_refused_may_be_tried_again_with_its_key(run: Callable[[Test], None]) -> None:
    async def test(start: Replicas) -> None:
        client = await start()
        headers = {"idempotency-key": "k"}
        assert (await client.post("/classify", json={"a": 1.5}, headers=headers)).status_code == 400
        assert (await client.post("/classify", json=SCAN, headers=headers)).status_code == 200
        for wrong in ("", "k" * 256, "caf\xe9"):
            refused = await client.post("/classify", json=SCAN, headers={b"idempotency-key": wrong.encode("latin-1")})
            assert (refused.status_code, "idempotency-key" in refused.json()["error"]) == (400, True)

    run(test)


class Taken(SQLiteDatabase):
    """A database where another replica takes each key in the last moment, and which does not answer any more then."""

    taken = False

    async def write(self, batch: Batch, *, again: bool) -> Sequence[int]:
        self.taken = bool(batch.keys)
        return [0] if self.taken else await super().write(batch, again=again)

    @asynccontextmanager
    async def transaction(self, *, reading: bool = False) -> AsyncIterator[SQLiteTransaction]:
        if self.taken:
            await asyncio.Event().wait()
        async with super().transaction(reading=reading) as begun:
            yield begun


def test_nobody_waits_beyond_the_deadline_for_the_answer_of_another_replica(tmp_path: Path) -> None:
    async def test() -> None:
        async with asyncio.timeout(WAIT_SECONDS), replica(Taken(f"sqlite:///{tmp_path}/history.sqlite")) as client:
            headers = {"idempotency-key": "k", "x-request-timeout-ms": "500"}
            refused = await client.post("/classify", json=SCAN, headers=headers, timeout=WAIT_SECONDS)
            assert refused.status_code == 503
            assert "retry-after" in refused.headers

    asyncio.run(test())


def test_buffered_refuses_a_key(run: Callable[[Test], None]) -> None:
    async def test(start: Replicas) -> None:
        client = await start(acknowledges=False)
        refused = await client.post("/classify", json=SCAN, headers={"idempotency-key": "k"})
        assert refused.status_code == 400
        assert "DEFECTS_HISTORY=acknowledged" in refused.json()["error"]

    run(test)
