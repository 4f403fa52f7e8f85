"""One recorded prediction, as it was answered; and a database that can't be asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from served_here import served

from answers import SCHEMA, Model, record
from defects.features import DefectClass, Feature
from defects.history import predictions
from defects.history.database import Database, Rejected, Unusable
from defects.history.databases import database_of
from defects.history.models import Models
from defects.history.recorded import Recorded, available
from defects.kinds import INTEGER
from defects.schema import Schema
from defects.serving.recording import Unavailable

WIDE = Schema(
    (Feature("at", wide=True, example=1.0), Feature("x", example=1.0)),
    (DefectClass("1"), DefectClass("-7")),
    label_type=INTEGER,
    label_name="answer",
)


def read(database: Database, runner: asyncio.Runner, id_: UUID) -> Any:
    return runner.run(predictions.read(database, Models(), id_))


def test_values_are_as_a_caller_sent_them(database: Database, runner: asyncio.Runner) -> None:
    rows = np.array([[0.1, 1, 1], [9.5, np.nan, np.nan]], np.float32)
    at = datetime(2026, 11, 27, 5, 6, 7, 89_000, UTC)
    ids = record(database, runner, Model(), [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], rows=rows, at=at, source="north")
    first, second = (read(database, runner, id_) for id_ in ids)
    assert first["features"] == {"length": 0.1, "full": True, "size": "M"}
    assert second["features"] == {"length": 9.5, "full": None, "size": None}
    assert (first["class"], second["class"], second["row"]) == ("ok", "wet", 1)
    assert first["confidence"] == first["probabilities"]["ok"] == float(np.float32(0.7))
    assert (first["time"], first["source"], first["latency_ms"]) == ("2026-11-27T05:06:07.089Z", "north", 12.5)
    assert (first["kind"], first["protocol"], first["outcomes"]) == ("served", "json", [])
    assert read(database, runner, UUID(int=0)) is None


def test_wide_values_are_exact_and_labels_are_numbers(database: Database, runner: asyncio.Runner) -> None:
    rows = np.array([[1_700_000_000.25, np.float32(0.1)]])
    (id_,) = record(database, runner, Model(WIDE), [[0.25, 0.75]], rows=rows)
    found = read(database, runner, id_)
    assert found["features"] == {"at": 1_700_000_000.25, "x": 0.1}
    assert (found["class"], found["probabilities"]) == (-7, {"1": 0.25, "-7": 0.75})


def test_values_that_were_left_out(database: Database, runner: asyncio.Runner) -> None:
    (id_,) = record(database, runner, Model(with_features=False), [[0.7, 0.2, 0.1]])
    assert read(database, runner, id_)["features"] is None


def test_each_record_is_read_by_its_own_model(database: Database, runner: asyncio.Runner) -> None:
    old = Model(SCHEMA)
    new = Model(Schema(SCHEMA.features[::-1], SCHEMA.classes[::-1]), "v2")
    models = Models()
    for model, size in ((old, 2), (new, 0)):
        rows = np.zeros((1, 3), np.float32)
        rows[0, size] = 1
        (id_,) = record(database, runner, model, [[0.7, 0.2, 0.1]], rows=rows)
        found: Any = runner.run(predictions.read(database, models, id_))
        assert found["features"] == {"length": 0.0, "full": False, "size": "M"}
        assert found["class"] == model.schema.class_names[0]
        assert found["model_digest"] == model.digest


# --- a database that can't be asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["sqlite:///{tmp}/x.sqlite", "postgresql://nobody:secret@127.0.0.1:1/x"])
def test_a_database_that_is_away_is_503_with_retry_after(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database = database_of(url.format(tmp=tmp_path))  # not open, or not there

    async def ask() -> list[httpx.Response]:
        recorded = Recorded(database)
        async with (
            served(SCHEMA, lambda rows: np.ones((len(rows), 3)), recorded) as address,
            httpx.AsyncClient(base_url=address) as client,
        ):
            outcome = {"request_id": "r", "row": 0, "class": "ok"}
            return [
                await client.post("/outcomes", json=outcome),
                await client.get(f"/predictions/{'0' * 32}"),
                await client.get("/outcomes/summary"),
            ]

    answers = asyncio.run(ask())
    asyncio.run(database.close())
    assert [(answer.status_code, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 3
    for answer in answers:
        assert answer.json()["error"].startswith("history is not available: the database can't be reached")
        assert str(tmp_path) not in answer.text
    assert "secret" not in caplog.text + "".join(answer.text for answer in answers)


@pytest.mark.parametrize("problem", [Rejected("no"), Unusable("old")])
def test_a_database_that_refuses_is_unavailable_too(problem: Exception) -> None:
    async def ask() -> None:
        async with available(60):
            raise problem

    with pytest.raises(Unavailable, match="refuses"):
        asyncio.run(ask())


def test_a_database_that_does_not_answer_is_given_up() -> None:
    async def ask() -> None:
        async with available(0.01):
            await asyncio.sleep(1_000)

    with pytest.raises(Unavailable, match=r"within 0\.01 s"):
        asyncio.run(ask())
