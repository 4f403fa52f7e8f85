"""Describe the model that this replica serves, what a request may take, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defects.identifiers import new_id
from defects.protocols.v2 import RoundedProbabilities
from defects.schema import Schema

MAX_ROWS = 1024  # in one request
OUTCOMES_BYTES = 1 << 21  # of a body with outcomes: 2 KiB for each
BODIES_BYTES = 1 << 27  # of all bodies that are being received, unless one of them may be that large


@dataclass(frozen=True)
class ServedModel:
    """What is known of a served model: `description` is what `GET /model` answers, `card_page` what `/card` does."""

    schema: Schema
    name: str  # in V1 and V2 URLs
    version: str
    engine: str
    description: Mapping[str, Any]
    card_page: bytes | None = None  # the card for people, in HTML


@dataclass(frozen=True)
class Limits:
    """What a request may take."""

    body_bytes: int
    timeout: float  # seconds, where the request doesn't say
    bodies_bytes: int = BODIES_BYTES  # of all together that come in pieces
    outcomes_bytes: int = OUTCOMES_BYTES  # a body with outcomes


def body_bytes(schema: Schema) -> int:
    """Return the bytes that `MAX_ROWS` rows take as JSON objects, generously. More would be parsed for nothing."""
    names = sum(len(name.encode()) + 40 for name in schema.names)
    texts = sum(max(map(_escaped_bytes, feature.categories), default=0) for feature in schema.features)
    return MAX_ROWS * (names + texts) + (1 << 16)


def _escaped_bytes(text: str) -> int:
    """Return the most bytes that a text takes in JSON."""
    return len(json.dumps(text))


def all_bodies_bytes(one: int, most: int | None = None) -> int:
    """Return what all bodies that are being received may hold: `most`, else enough for four of the largest, `one`."""
    return most or max(BODIES_BYTES, 4 * one)


def most_parts(schema: Schema) -> int:
    """Return how many values, lists and objects a request may have: far more than `MAX_ROWS` rows need."""
    return 4 * (MAX_ROWS + 16) * len(schema.names) + 16_384


def prediction_objects(
    model: ServedModel, probabilities: RoundedProbabilities, best: Sequence[int]
) -> list[dict[str, Any]]:
    """Make one JSON object for each row of `probabilities` `[n, classes]`, the highest of which are at `best`."""
    names, labels, label_name = model.schema.class_names, model.schema.labels, model.schema.label_name
    return [
        {
            label_name: labels[index],
            "confidence": values[index],
            "probabilities": dict(zip(names, values, strict=True)),
            "prediction_id": new_id(),
            "model_version": model.version,
        }
        for index, values in zip(best, probabilities.tolist(), strict=True)
    ]
