"""Describe the model that this replica serves, what a request may take, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defects.identifiers import new_id
from defects.protocols import v2
from defects.schema import Schema

MAX_ROWS = 1024  # in one request


@dataclass(frozen=True)
class Model:
    """What the routes know of the model that they answer for."""

    schema: Schema
    name: str  # in V1 and V2 URLs
    version: str
    engine: str
    description: Mapping[str, Any]


@dataclass(frozen=True)
class Limits:
    """What a request may take."""

    body_bytes: int
    timeout: float  # seconds, where the request doesn't say


def body_bytes(schema: Schema) -> int:
    """What `MAX_ROWS` rows take as JSON objects, generously. More than that would be parsed for nothing."""
    return MAX_ROWS * sum(len(name.encode()) + 40 for name in schema.names) + (1 << 16)


def predictions(model: Model, probabilities: v2.Probabilities, best: Sequence[int]) -> list[dict[str, Any]]:
    """One answer for each row of `probabilities` `[n, classes]`, the highest of which are at `best`."""
    names, labels = model.schema.class_names, model.schema.labels
    return [
        {
            "defect": labels[index],
            "confidence": values[index],
            "probabilities": dict(zip(names, values, strict=True)),
            "prediction_id": new_id(),
            "model_version": model.version,
        }
        for index, values in zip(best, probabilities.tolist(), strict=True)
    ]
