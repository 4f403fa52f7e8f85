"""The deploy check's own codecs, for models that are not like the built-in one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest

from defects.check import agreement, protocols
from defects.check.client import Failed, Response
from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN, INTEGER
from defects.protocols import v1, v2
from defects.schema import Schema
from defects.serving import model as model_

EPOCH = 1763400000.125  # which 32 bits can't hold
SCHEMA = Schema(
    (
        Feature("epoch", wide=True, observed_low=EPOCH, observed_high=EPOCH + 1),
        Feature("open", kind=BOOLEAN, optional=True, observed_low=0, observed_high=1),
    ),
    (DefectClass("7"), DefectClass("10"), DefectClass("12")),
    label_type=INTEGER,
)
MODEL = model_.ServedModel(SCHEMA, "m", "1", "e", {})
ROWS = np.array([[EPOCH, 1.0], [EPOCH, np.nan]])
TIED = np.array([[0.25, 0.375, 0.375]] * 2, np.float32)


@pytest.mark.parametrize("codec", protocols.CODECS, ids=lambda codec: codec.name)
def test_rows_arrive_as_they_are_in_every_protocol(codec: protocols.Codec) -> None:
    seen = []
    for call in codec.calls(MODEL, ROWS):
        if "infer" in call.path:
            length = call.headers.get("inference_header_content_length")
            read = v2.decode(SCHEMA, call.body, int(length) if length else None, orjson.loads, 10).rows
        elif call.path.endswith(":predict"):
            read = v1.decode(SCHEMA, json.loads(call.body), 10)
        else:
            value = json.loads(call.body)
            assert (value if isinstance(value, dict) else value[0]).get("open") in (True, None)
            read = SCHEMA.rows_from_objects([value] if isinstance(value, dict) else value)
        seen.extend(read.tolist())
    np.testing.assert_array_equal(seen, ROWS)


def answer(value: Any) -> Response:
    return Response("POST /", 200, {"content-type": "application/json"}, orjson.dumps(value), "id", 0.0)


@pytest.mark.parametrize(("best", "right"), [(1, True), (2, True), (0, False)])
def test_any_class_with_the_highest_probability_may_be_the_answer(best: int, right: bool) -> None:
    query = v2.Query(ROWS, None, tuple(map(v2.Output, v2.OUTPUTS)))
    model = {"model_name": "m", "model_version": "1"}
    body, _ = v2.encode(model, SCHEMA.class_names, query, TIED, [best] * 2)
    for read, value in (
        (protocols._read_batch, model_.prediction_objects(MODEL, TIED, [best] * 2)),
        (protocols._read_v2, orjson.loads(body)),
    ):
        if right:
            np.testing.assert_array_equal(read(MODEL, answer(value), 2), TIED)
        else:
            with pytest.raises(Failed):
                read(MODEL, answer(value), 2)


def test_a_label_of_another_type_is_wrong() -> None:
    predictions = model_.prediction_objects(MODEL, TIED, [1, 1])
    for wrong in ("10", 10.5, True):
        with pytest.raises(Failed, match="defect"):
            protocols._read_batch(MODEL, answer([predictions[0], predictions[1] | {"defect": wrong}]), 2)


def test_generated_rows_are_allowed_and_not_rounded() -> None:
    complete, missing = agreement.generated(SCHEMA)
    for rows in (complete, missing):
        SCHEMA.check(rows.astype(np.float64))
        assert ((rows[:, 0] >= EPOCH) & (rows[:, 0] <= EPOCH + 1)).all()
    assert np.isnan(missing[:, 1]).all()
