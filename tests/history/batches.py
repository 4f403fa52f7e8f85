"""Batches of records for tests."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from defects.features import DefectClass, Feature
from defects.history.database import Registration
from defects.history.record import Batch, Keyed, Layout
from defects.identifiers import new_id
from defects.schema import Schema
from defects.serving.recording import Answered, KeyedAnswer

CLASSES = (DefectClass("intact"), DefectClass("torn"))
SCHEMA = Schema((Feature("length"), Feature("depth", optional=True), Feature("tilt")), CLASSES)
WIDE = Schema((Feature("epoch", wide=True), *SCHEMA.features), CLASSES)


def registration(layout: Layout, revision: str = "blue", digest: str = "sha256:1") -> Registration:
    """A model with this layout, served by a revision."""
    return Registration("1.0", digest, '{"features": []}', revision, layout)


def answered(
    layout: Layout,
    rows: int = 1,
    *,
    request_id: str = "request",
    protocol: int = 0,
    values: Sequence[Sequence[float]] | None = None,
    ids: Sequence[str] = (),
) -> Answered:
    """An answered request. Its classes are 0, 1, 0, …"""
    width = layout.features or 3
    given = np.zeros((rows, width)) if values is None else np.asarray(values)
    probabilities = np.tile(np.array([0.1, 0.9], "f4"), (len(given), 1))
    return Answered(
        request_id.encode(),
        b"",
        protocol,
        list(ids) or [new_id() for _ in given],
        given.astype(np.float64) if layout.wide else given.astype(np.float32),
        probabilities,
        [place % 2 for place in range(len(given))],
    )


def batch(layout: Layout, *requests: Answered, source: str = "", keys: Sequence[str] = ()) -> Batch:
    """A batch of requests. The first of them were made with `keys`, one each."""
    packed = b"".join(layout.pack(request, int(bool(source)), 0.0025) for request in requests)
    keyed, start = [], 0
    for request, key in zip(requests, keys, strict=False):
        stop = start + len(request.ids)
        keyed.append(Keyed(KeyedAnswer(key, b"digest", request.ids[0].encode()), start, stop))
        start = stop
    return Batch(layout.read(packed), ("", source) if source else ("",), keyed)


def uuids(*requests: Answered) -> list[UUID]:
    """The ids of requests' records."""
    return [UUID(id_) for request in requests for id_ in request.ids]
