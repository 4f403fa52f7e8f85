"""Prove, before a port is opened, that every answer of a model can be made: that none of its texts breaks a codec.

Golden inputs go through the codec of every route that predicts, from a body to rows and on to an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import orjson

from defects.artifact import Golden
from defects.http import page
from defects.http.messages import BINARY, JSON, Message, Request, answer
from defects.http.predictions import Codecs, Decode
from defects.problems import InvalidInput
from defects.protocols import v2
from defects.schema import Rows, Schema
from defects.serving.metrics import Metrics
from defects.serving.model import Limits, ServedModel
from defects.values import one_line

ROWS = 2  # of the golden inputs: codecs take any number of rows in the same way
LENGTH = b"inference-header-content-length"
Body = tuple[bytes, dict[bytes, bytes]]  # and headers


def problem_with_answers(model: ServedModel, metrics: Metrics, golden: Golden) -> str | None:
    """Say which answer can't be made, and why; `None` where all can be."""
    allowed = _allowed(model.schema, golden)
    if not len(allowed):
        return "no golden row is one that the schema allows; expected rows that callers may send"
    for what, make in (*_descriptions(model, metrics), *_predictions(model, golden, allowed)):
        try:
            make()
        except Exception as error:  # whatever is wrong with it, a caller would get a 500
            return f"{what} can't be answered: {one_line(str(error) or type(error).__name__, 300)}"
    return None


def _allowed(schema: Schema, golden: Golden) -> list[int]:
    """Return the numbers of the first golden rows that a caller may send."""
    found: list[int] = []
    for number, row in enumerate(golden.rows.astype(np.float64)):
        try:
            schema.check(row[None])
        except InvalidInput:
            continue
        found.append(number)
        if len(found) == ROWS:
            break
    return found


def _descriptions(model: ServedModel, metrics: Metrics) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "/model", partial(answer, model.description)
    metadata = v2.metadata(model.schema, model.name, model.version, model.engine)
    yield "the V2 metadata", partial(answer, metadata)
    yield "the page at /", partial(page.html, model)
    yield "/metrics", partial(metrics.exposition, "")


def _predictions(model: ServedModel, golden: Golden, allowed: list[int]) -> Iterator[tuple[str, Callable[[], Any]]]:
    schema, codecs = model.schema, Codecs(model, Limits(1 << 40, 1.0))
    rows = golden.rows[allowed].astype(np.float64)
    probabilities = golden.probabilities[allowed]
    named = [dict(zip(schema.names, row, strict=True)) for row in _plain(rows)]
    cases: list[tuple[str, Decode, Body, int]] = [
        ("/classify", codecs.scan, _json(named[0]), 1),
        ("/classify_batch", codecs.scans, _json(named), len(named)),
        ("V1", codecs.v1, _json({"instances": _plain(rows)}), len(named)),
        *(("V2", codecs.v2, body, len(named)) for body in _v2_bodies(schema, rows)),
    ]
    for what, decode, body, count in cases:
        yield what, partial(_round_trip, schema, decode, body, rows[:count], probabilities[:count])


def _plain(rows: Rows) -> list[list[float | None]]:
    """Return rows as lists of numbers, with null where one is missing."""
    return [[None if value != value else value for value in row] for row in rows.tolist()]  # noqa: PLR0124


def _json(value: Any) -> Body:
    return orjson.dumps(value), {b"content-type": JSON}


def _v2_bodies(schema: Schema, rows: Rows) -> Iterator[Body]:
    """Yield V2 requests, in JSON and binary, that ask for every output, in JSON and binary."""
    datatype = v2.datatype(schema)
    tensor: dict[str, Any] = {"name": v2.MATRIX, "datatype": datatype, "shape": list(rows.shape)}
    data = rows.astype(v2.DATATYPES[datatype]).tobytes()
    every = [{"name": name} for name in v2.REQUESTABLE]
    ranked = [{"name": "probabilities", "parameters": {"classification": len(schema.classes)}}]
    for outputs in (every, ranked):
        yield _json({"inputs": [{**tensor, "data": _plain(rows)}], "outputs": outputs})
        request = {
            "parameters": {"binary_data_output": True},
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
            "outputs": outputs,
        }
        head = orjson.dumps(request)
        yield head + data, {b"content-type": BINARY, LENGTH: b"%d" % len(head)}


def _round_trip(schema: Schema, decode: Decode, body: Body, rows: Rows, probabilities: Rows) -> None:
    """Raise an exception where a body does not become these rows again, or their answer can't be made."""
    decoded = decode(Request("POST", "", body[1], _nothing_more, body=body[0]))
    if not np.array_equal(schema.held(decoded.rows), schema.held(rows), equal_nan=True):
        raise ValueError("a golden row is another one once it was read; expected the same")
    decoded.encode(probabilities.astype(np.float32), probabilities.argmax(axis=1).tolist())


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
