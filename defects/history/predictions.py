"""Read one recorded prediction with its outcomes, decoded by the schema of its own model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from defects.history.database import Database, Row
from defects.history.models import Models, RecordedModel
from defects.identifiers import made_at
from defects.serving.recording import KINDS, PROTOCOLS

PREDICTION = """\
SELECT p.id, p.kind, p.request_id, p.row, m.version, m.digest, r.name AS revision, s.name AS source, p.protocol,
    p.features, p.wide_features, p.probabilities, p.class, p.latency_us
FROM predictions p JOIN models m ON m.no = p.model JOIN revisions r ON r.no = p.revision
    JOIN sources s ON s.no = p.source
WHERE p.id = $1"""
# Each part has an index of its own.
OUTCOMES = """\
SELECT origin, class, occurred_at, received_at, replaced_at FROM outcomes
WHERE prediction_id = $1 AND replaced_at IS NULL
UNION ALL
SELECT origin, class, occurred_at, received_at, replaced_at FROM outcomes
WHERE prediction_id = $1 AND replaced_at IS NOT NULL"""


async def read(database: Database, models: Models, id_: UUID) -> dict[str, Any] | None:
    """Return a prediction with its outcomes, as JSON; `None` where it isn't recorded."""
    async with database.transaction(reading=True) as transaction:
        found = await transaction.fetch(PREDICTION, id_)
        if not found:
            return None
        (row,) = found
        outcomes = await transaction.fetch(OUTCOMES, id_)
        model = await models.one(transaction, row)
    return _prediction(row, model) | {"outcomes": _outcomes(outcomes, model)}


def _prediction(row: Row, model: RecordedModel) -> dict[str, Any]:
    schema, probabilities = model.schema, row["probabilities"]
    return {
        "prediction_id": row["id"].hex,
        "time": _time(made_at(row["id"])),
        "kind": KINDS[row["kind"]],
        "request_id": row["request_id"],
        "row": row["row"],
        "model_version": model.version,
        "model_digest": model.digest,
        "revision": row["revision"],
        "source": row["source"] or None,
        "protocol": PROTOCOLS[row["protocol"]],
        "features": features(model, row),
        "class": schema.labels[row["class"]],
        "confidence": probabilities[row["class"]],
        "probabilities": dict(zip(schema.class_names, probabilities, strict=True)),
        "latency_ms": row["latency_us"] / 1000,
    }


def features(model: RecordedModel, row: Row) -> dict[str, Any] | None:
    """Return the values of a record as a caller would send them, by name; `None` where they were left out."""
    values: Sequence[float] | None = row["features"] if row["features"] is not None else row["wide_features"]
    if values is None:
        return None
    named = zip(model.schema.features, values, strict=True)
    return {feature.name: None if math.isnan(value) else feature.shown(value) for feature, value in named}


def _outcomes(rows: Sequence[Row], model: RecordedModel) -> list[dict[str, Any]]:
    """Return outcomes, the newest first."""
    ordered = sorted(rows, key=lambda row: (row["received_at"], row["replaced_at"] is None), reverse=True)
    return [_outcome(row, model) for row in ordered]


def _outcome(row: Row, model: RecordedModel) -> dict[str, Any]:
    replaced = row["replaced_at"]
    return {
        "origin": row["origin"],
        "class": model.label(row["class"]),
        "occurred_at": _time(row["occurred_at"]),
        "received_at": _time(row["received_at"]),
        "replaced_at": None if replaced is None else _time(replaced),
    }


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
