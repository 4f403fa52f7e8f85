"""Records to write, made as the server makes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np

from defects.features import DefectClass, Feature
from defects.history.database import Registration
from defects.history.record import Batch, Keyed, Layout
from defects.identifiers import identifiers, new_id
from defects.schema import Schema
from defects.serving.recording import Answered, KeyedAnswer

SCHEMA = Schema((Feature("a"), Feature("b")), (DefectClass("no"), DefectClass("yes")))
WIDE = Schema((Feature("epoch", wide=True), Feature("b")), SCHEMA.classes)
REGISTRATION = Registration("1", "sha256:1", '{"schema": 1}', "local", Layout(SCHEMA))


def ids_of(moment: datetime) -> Iterator[str]:
    """Yield ids as if they were made then."""
    return identifiers(lambda: int(moment.timestamp() * 1000) * 1_000_000)


def answered(
    rows: int = 1,
    *,
    request_id: bytes = b"r",
    source: bytes = b"",
    protocol: int = 2,
    ids: Iterator[str] | None = None,
    values: Sequence[Sequence[float]] | None = None,
    wide: bool = False,
) -> Answered:
    """A request that was answered."""
    given = np.arange(2.0 * rows).reshape(rows, 2) if values is None else np.array(values)
    features = given if wide else given.astype(np.float32)
    made = [next(ids) if ids else new_id() for _ in range(rows)]
    probabilities = np.tile(np.array([0.25, 0.75], np.float32), (rows, 1))
    return Answered(request_id, source, protocol, made, features, probabilities, [1] * rows)


def batch_of(*requests: Answered, layout: Layout = REGISTRATION.layout, keys: Sequence[str] = ()) -> Batch:
    """A batch of requests; the first ones came with these idempotency keys."""
    sources = ["", *dict.fromkeys(request.source.decode() for request in requests if request.source)]
    packed = b"".join(layout.pack(each, sources.index(each.source.decode()), 0.0015) for each in requests)
    keyed, start = [], 0
    for key, request in zip(keys, requests, strict=False):
        answer = KeyedAnswer(key, b"digest", request.ids[0].encode())
        keyed.append(Keyed(answer, start, start + len(request.ids)))
        start += len(request.ids)
    return Batch(layout.read(packed), sources, keyed)
