"""Every kind of column is trained on, served, labelled, exported and trained on again: nothing changes on the way."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from conftest import Serve, quiet
from defects import artifact
from defects.history.databases import database_of
from defects.history.export import Result, Selection, export
from defects.training import dataset, pipeline
from defects.training.options import Recipe
from defects.training.reading import Reading

ROWS = 240
READING = Reading(category=("zone",), allow_unknown=("zone",))
RECIPE = Recipe("logistic-regression", 0, 0.2)


def frame() -> pd.DataFrame:
    """Rows with everything that a column can be; the label depends on most of them."""
    random = np.random.default_rng(20)
    size, serial = random.normal(0.1, 1, ROWS), 1_764_000_000_123 + random.integers(0, 10**9, ROWS)
    fragile, zone = random.random(ROWS) < 0.5, random.choice([1, 2, 10], ROWS)
    score = size + fragile + (zone == 2) + random.normal(0, 0.3, ROWS)
    made = pd.DataFrame({"size": size, "fragile": fragile, "zone": zone, "serial": serial})
    made["carrier"] = random.choice(["DHL", "UPS", "Österreich Post"], ROWS)
    made.loc[random.random(ROWS) < 0.1, "size"] = np.nan
    made["grade"] = np.digitize(score, [0.5, 1.5]) * 2 - 1
    return made


def test_what_was_sent_is_what_is_trained_on(serve: Serve, tmp_path: Path) -> None:
    rows = frame()
    rows.to_csv(tmp_path / "rows.csv", index=False)
    first = dataset.read(tmp_path / "rows.csv", "grade", READING)
    artifact.replace(tmp_path / "model", pipeline.train(first, RECIPE, quiet).files)
    url = f"sqlite:///{tmp_path}/history.db"
    sent = rows.drop(columns="grade").astype(object).where(rows.drop(columns="grade").notna(), None)
    objects: list[dict[Any, Any]] = [row | {"zone": str(row["zone"])} for row in sent.to_dict("records")]
    objects[0]["zone"] = "11"  # which the model takes for a missing value
    settings = {"DEFECTS_DATABASE_URL": url, "DEFECTS_HISTORY": "acknowledged", "MODEL_DIR": tmp_path / "model"}
    with serve(**settings) as server, httpx.Client(base_url=server.url) as client:
        answers = client.post("/classify_batch", json=objects).raise_for_status().json()
        assert {type(answer["grade"]) for answer in answers} == {int}
        outcomes = [
            {"prediction_id": answer["prediction_id"], "class": grade}
            for answer, grade in zip(answers, rows["grade"].tolist(), strict=True)
        ]
        stored = client.post("/outcomes", json=outcomes).raise_for_status().json()
        assert {one["result"] for one in stored} == {"stored"}

    done = asyncio.run(exported(url, tmp_path / "out.parquet"))
    assert (done.records, done.notes) == (ROWS, ())
    second = dataset.read(tmp_path / "out.parquet", "grade")
    schema = artifact.load(tmp_path / "model").schema
    assert second.features.tobytes() == schema.held(schema.rows_from_objects(objects)).tobytes()
    assert second.labels.tolist() == first.labels.tolist()
    again = artifact.load(write(tmp_path / "again", pipeline.train(second, RECIPE, quiet)))
    names = ("name", "kind", "wide", "optional", "categories", "unknown")
    kept = [
        [[getattr(f, name) for name in names] for f in one.schema.features]
        for one in (artifact.load(tmp_path / "model"), again)
    ]
    assert kept[0] == kept[1]
    assert again.schema.labels == (-1, 1, 3)


def write(place: Path, trained: pipeline.Trained) -> Path:
    artifact.replace(place, trained.files)
    return place


async def exported(url: str, path: Path) -> Result:
    database = database_of(url)
    await database.open()
    try:
        return await export(database, Selection(datetime.now(UTC) - timedelta(days=1), labelled=True), path, print)
    finally:
        await database.close()
