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
from defects.protocols import requests, v2
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
    values = requests.values(schema, rows)
    named = [dict(zip(schema.names, row, strict=True)) for row in values]
    cases: list[tuple[str, Decode, Body, int]] = [
        ("/classify", codecs.scan, _json(named[0]), 1),
        ("/classify_batch", codecs.scans, _json(named), len(named)),
        ("V1", codecs.v1, _json({"instances": values}), len(named)),
        *(("V2", codecs.v2, body, len(named)) for body in _v2_bodies(schema, rows)),
    ]
    for what, decode, body, count in cases:
        yield what, partial(_round_trip, schema, decode, body, rows[:count], probabilities[:count])


def _json(value: Any) -> Body:
    return orjson.dumps(value), {b"content-type": JSON}


def _v2_bodies(schema: Schema, rows: Rows) -> Iterator[Body]:
    """Yield V2 requests, in JSON and binary, that ask for every output, in JSON and binary.

    They have one tensor with all features, and where some are categories also one for each feature.
    """
    every = [{"name": name} for name in v2.REQUESTABLE]
    ranked = [{"name": "probabilities", "parameters": {"classification": len(schema.classes)}}]
    for outputs in (every, ranked):
        for inputs, raw in _v2_inputs(schema, rows):
            request = {"inputs": inputs, "outputs": outputs}
            if not raw:
                yield _json(request)
                continue
            head = orjson.dumps(request | {"parameters": {"binary_data_output": True}})
            yield head + raw, {b"content-type": BINARY, LENGTH: b"%d" % len(head)}


def _v2_inputs(schema: Schema, rows: Rows) -> Iterator[tuple[list[dict[str, Any]], bytes]]:
    """Yield the tensors of V2 requests, and their bytes where they are binary."""
    datatype = v2.datatype(schema)
    tensor: dict[str, Any] = {"name": v2.MATRIX, "datatype": datatype, "shape": list(rows.shape)}
    raw = rows.astype(v2.DATATYPES[datatype]).tobytes()
    yield [tensor | {"data": requests.numbers(rows)}], b""
    yield [tensor | {"parameters": {"binary_data_size": len(raw)}}], raw
    if schema.codes:
        for binary in (False, True):
            yield requests.by_feature(schema, requests.values(schema, rows), binary=binary)


def _round_trip(schema: Schema, decode: Decode, body: Body, rows: Rows, probabilities: Rows) -> None:
    """Raise an exception where a body does not become these rows again, or their answer can't be made."""
    decoded = decode(Request("POST", "", body[1], _nothing_more, body=body[0]))
    if not np.array_equal(schema.held(decoded.rows), schema.held(rows), equal_nan=True):
        raise ValueError("a golden row is another one once it was read; expected the same")
    decoded.encode(probabilities.astype(np.float32), probabilities.argmax(axis=1).tolist())


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}
