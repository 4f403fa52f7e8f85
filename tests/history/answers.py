"""Recorded answers, for tests of what is read from a database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import numpy as np

from defects.features import DefectClass, Feature
from defects.history.database import Database, Registration
from defects.history.record import Batch, Layout
from defects.identifiers import identifiers
from defects.kinds import BOOLEAN, CATEGORY
from defects.schema import ModelRows, Schema
from defects.serving.recording import Answered

SCHEMA = Schema(
    (
        Feature("length", low=0, high=10, example=1.0),
        Feature("full", kind=BOOLEAN, optional=True, example=1.0),
        Feature("size", kind=CATEGORY, categories=("S", "M"), optional=True, example=0.0),
    ),
    (DefectClass("ok"), DefectClass("torn"), DefectClass("wet")),
)
_numbers = count()


@dataclass
class Model:
    """A model that answers, and the revision that serves it."""

    schema: Schema = SCHEMA
    version: str = "v1"
    revision: str = "local"
    with_features: bool = True
    digest: str = field(default_factory=lambda: f"sha256:{next(_numbers):064x}")

    @property
    def registration(self) -> Registration:
        layout = Layout(self.schema, with_features=self.with_features)
        return Registration(self.version, self.digest, json.dumps(self.schema.to_json()), self.revision, layout)

    def other_revision(self, revision: str) -> Model:
        return replace(self, revision=revision)


def ids_at(instant: datetime, number: int = 1) -> list[UUID]:
    """Ids of predictions that were made then."""
    nanoseconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    made = identifiers(lambda: nanoseconds)
    return [UUID(next(made)) for _ in range(number)]


def record(
    database: Database,
    runner: asyncio.Runner,
    model: Model,
    probabilities: Any,
    *,
    at: datetime | None = None,
    ids: Sequence[UUID] = (),
    request_id: str = "r",
    source: str = "",
    rows: ModelRows | None = None,
) -> list[UUID]:
    """Record one request with rows of these probabilities `[n, classes]`; return the ids of its predictions."""
    made = np.asarray(probabilities, np.float32)
    ids = ids or ids_at(at or datetime.now(UTC), len(made))
    rows = model.schema.held(np.ones((len(made), len(model.schema.features)))) if rows is None else rows
    hexadecimal = [id_.hex for id_ in ids]
    best = made.argmax(axis=1).tolist()
    answered = Answered(request_id.encode(), source.encode(), 0, hexadecimal, rows, made, best)
    layout = model.registration.layout
    sources = ["", source] if source else [""]
    batch = Batch(layout.read(layout.pack(answered, len(sources) - 1, 0.0125)), sources)

    async def write() -> None:
        await database.register(model.registration)
        await database.write(batch, again=False)

    runner.run(write())
    return list(ids)
