"""V2 tensors of other models than the built-in one: booleans, 64 bits, and every datatype's ends."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from served_here import NAME, routes

from defects.features import DefectClass, Feature
from defects.http import openapi
from defects.http.messages import Request, read_json
from defects.kinds import BOOLEAN, INTEGER
from defects.problems import InvalidInput
from defects.protocols import v1, v2
from defects.schema import Schema

CLASSES = (DefectClass("0"), DefectClass("1"))
FREE = Schema((Feature("a", optional=True), Feature("b", optional=True)), CLASSES, label_type=INTEGER)
MIXED = Schema((Feature("speed"), Feature("open", kind=BOOLEAN, optional=True), Feature("full", kind=BOOLEAN)), CLASSES)
FLAGS = Schema((Feature("open", kind=BOOLEAN, optional=True), Feature("full", kind=BOOLEAN)), CLASSES)
WIDE = Schema((Feature("epoch", wide=True), Feature("ratio")), CLASSES)


def decoded(schema: Schema, *inputs: dict[str, Any], raw: bytes | None = None) -> list[list[float]]:
    text = json.dumps({"inputs": inputs}).encode()
    read = partial(read_json, Request("POST", "/", {}, receive=None), most=1 << 20)  # type: ignore[arg-type]
    length = None if raw is None else len(text)
    rows: list[list[float]] = v2.decode(schema, text + (raw or b""), length, read, 10).rows.tolist()
    return rows


def refused(schema: Schema, *inputs: dict[str, Any], raw: bytes | None = None) -> str:
    with pytest.raises(InvalidInput) as caught:
        decoded(schema, *inputs, raw=raw)
    return str(caught.value)


def tensor(datatype: str, data: list[Any], name: str = "x", width: int = 2, **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data) // width, width], "data": data} | more


def nested(data: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [1, 1, 2], "data": data}


def in_binary(datatype: str, raw: bytes, shape: list[int], name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}


ENDS = [
    ("INT8", -(2**7), 2**7 - 1),
    ("INT16", -(2**15), 2**15 - 1),
    ("INT32", -(2**31), 2**31 - 1),
    ("INT64", -(2**63), 2**63 - 1),
    ("UINT8", 0, 2**8 - 1),
    ("UINT16", 0, 2**16 - 1),
    ("UINT32", 0, 2**32 - 1),
    ("UINT64", 0, 2**64 - 1),
]


@pytest.mark.parametrize(("datatype", "low", "high"), ENDS)
def test_integers_are_taken_to_the_ends_of_their_datatype(datatype: str, low: int, high: int) -> None:
    assert decoded(FREE, tensor(datatype, [low, high])) == [[float(low), float(high)]]
    assert math.isnan(decoded(FREE, tensor(datatype, [None, high]))[0][0])
    for wrong in (low - 1, high + 1):
        if -(2**63) <= wrong < 2**64:  # JSON readers make floats of larger ones
            expected = f"inputs[0].data: has {wrong}; expected integers from {low} to {high}, or null"
            assert refused(FREE, tensor(datatype, [0, wrong])) == expected
        assert "inputs[0].data: has " in refused(FREE, tensor(datatype, [None, wrong]))


@pytest.mark.parametrize(("datatype", "high"), [("FP16", 65504.0), ("BF16", 3.3895313892515355e38)])
def test_numbers_are_taken_as_given_to_the_ends_of_their_datatype(datatype: str, high: float) -> None:
    assert decoded(FREE, tensor(datatype, [-high, high, 0.1, 7])) == [[-high, high], [0.1, 7.0]]
    for wrong in (1.001 * high, -1.001 * high):
        message = refused(FREE, tensor(datatype, [0, wrong]))
        assert message == f"inputs[0].data: has {wrong}; expected numbers from {-high:.15g} to {high:.15g}, or null"


def test_a_number_beyond_fp32_is_refused_by_the_name_of_its_feature() -> None:
    for datatype in ("FP32", "FP64"):
        assert refused(FREE, tensor(datatype, [1e39, 0])) == "[0].a: 1e+39 is out of range; expected a number, or null"


def test_a_shape_of_many_sizes_is_refused_at_once() -> None:
    sizes = [1] * 600_000 + [2]  # to say how data is nested by it takes half a second
    text = refused(FREE, {"name": "x", "datatype": "FP32", "shape": sizes, "data": [[1]]})
    assert text == (
        "inputs[0].shape: is [1, 1, 1, 1, 1, 1, 1, 1, …] with 600001 sizes; expected one or two sizes, after a few 1s"
    )


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [("FP16", b"\x01\x7d"), ("FP32", b"\x01\x00\xa0\x7f"), ("FP64", b"\x01" + bytes(5) + b"\xf4\x7f")],
)
def test_a_nan_that_signals_is_a_missing_value(datatype: str, bits: bytes) -> None:
    described = {"name": "x", "datatype": datatype, "shape": [1, 2], "parameters": {"binary_data_size": 2 * len(bits)}}
    rows = decoded(FREE, described, raw=2 * bits)
    assert np.isnan(FREE.held(np.array(rows))).all()


def test_half_precision_in_binary() -> None:
    numbers = np.array([[1.5, -2.25], [65504, np.nan]])
    half = numbers.astype("<f2").tobytes()
    np.testing.assert_array_equal(decoded(FREE, in_binary("FP16", half, [2, 2]), raw=half), numbers)
    brain = (np.array([1.5, -2.25, 3.3895313892515355e38, np.nan], "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    expected = [[1.5, -2.25], [3.3895313892515355e38, math.nan]]
    np.testing.assert_array_equal(decoded(FREE, in_binary("BF16", brain, [2, 2]), raw=brain), expected)
    infinite = b"\x80\x7f\x80\xff"
    assert refused(FREE, in_binary("BF16", infinite, [1, 2]), raw=infinite).startswith("[0].a: is infinite")
    assert "a multiple of 2" in refused(FREE, in_binary("BF16", b"\0" * 3, [1, 2]), raw=b"\0" * 3)


def test_booleans_are_taken_for_boolean_features() -> None:
    speed = {"name": "speed", "datatype": "FP32", "shape": [2], "data": [1.5, 2]}
    opened = {"name": "open", "datatype": "BOOL", "shape": [2], "data": [True, None]}
    full = {"name": "full", "datatype": "BOOL", "shape": [2], "data": [0, 1]}
    np.testing.assert_array_equal(decoded(MIXED, speed, opened, full), [[1.5, 1, 0], [2, math.nan, 1]])
    assert decoded(FLAGS, tensor("BOOL", [True, False, 1, 0])) == [[1, 0], [1, 0]]
    assert decoded(FLAGS, in_binary("BOOL", b"\1\0", [1, 2]), raw=b"\1\0") == [[1, 0]]
    assert decoded(MIXED, tensor("FP32", [3, True, False], width=3)) == [[3, 1, 0]]
    assert decoded(MIXED, tensor("INT8", [3, True, 1], width=3)) == [[3, 1, 1]]
    assert decoded(FLAGS, tensor("UINT8", [1, 0])) == [[1, 0]]


@pytest.mark.parametrize(
    ("schema", "inputs", "raw", "message"),
    [
        (FLAGS, tensor("BOOL", [2, 0]), None, "inputs[0].data: has 2; expected true, false, 0, 1 or null"),
        (FLAGS, tensor("BOOL", [1.0, 0]), None, "inputs[0].data: has 1.0; expected true, false, 0, 1 or null"),
        (FLAGS, tensor("BOOL", ["true", 0]), None, "inputs[0].data: has 'true'; expected true, false, 0, 1 or null"),
        (FLAGS, tensor("BOOL", [math.nan, 0]), None, "inputs[0].data: has NaN; expected true, false, 0, 1 or null"),
        (FLAGS, tensor("BOOL", [True, None]), None, "[0].full: is missing; expected true or false"),
        (
            FLAGS,
            in_binary("BOOL", b"\1\2", [1, 2]),
            b"\1\2",
            "inputs[0].data: has the byte 2; expected bytes of 0 or 1",
        ),
        (FLAGS, tensor("INT8", [1, 2]), None, "[0].full: is 2; expected true or false"),
        (FLAGS, tensor("FP32", [0.5, 1]), None, "[0].open: is 0.5; expected true or false, or null"),
        (MIXED, tensor("BOOL", [1, 1, 1], width=3), None, "speed: is BOOL; expected a number"),
        (MIXED, tensor("FP32", [True, 1, 1], width=3), None, "inputs[0].data: has True for speed; expected a number"),
        (FREE, tensor("BOOL", [1, 1]), None, "a: is BOOL; expected a number, or null (and 1 more)"),
        (FREE, in_binary("BOOL", b"\1\1", [1, 2]), b"\1\1", "a: is BOOL; expected a number, or null (and 1 more)"),
    ],
)
def test_what_is_no_boolean_is_refused(schema: Schema, inputs: Any, raw: bytes | None, message: str) -> None:
    assert refused(schema, inputs, raw=raw) == message


def test_v1_takes_booleans_for_boolean_features() -> None:
    assert v1.decode(MIXED, {"instances": [[1, True, 0]]}, 10).tolist() == [[1, 1, 0]]
    with pytest.raises(InvalidInput, match=r"\[0\]\.speed: is a boolean; expected a number"):
        v1.decode(MIXED, {"instances": [[True, True, 0]]}, 10)


def test_a_wide_model_has_64_bits_in_its_metadata_and_its_example() -> None:
    for schema, datatype in ((WIDE, "FP64"), (FREE, "FP32")):
        (described,) = v2.metadata(schema, "m", "1", "e")["inputs"]
        assert described["datatype"] == datatype
        paths = openapi.document(schema, "1", routes(schema, np.asarray).table)["paths"]
        body = paths[f"/v2/models/{NAME}/infer"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["example"]["inputs"][0]["datatype"] == datatype
    assert decoded(WIDE, tensor("FP64", [1763400000.123, 0.1])) == [[1763400000.123, 0.1]]
    kinds = v2.metadata(MIXED, "m", "1", "e")["inputs"][0]["parameters"]["columns"]
    assert [column["kind"] for column in kinds] == ["number", "boolean", "boolean"]


def test_equal_probabilities_are_ranked_in_order_and_begin_with_the_answer() -> None:
    query = v2.Query(np.zeros((2, 2)), None, (v2.Output("probabilities", top=3),))
    probabilities = np.array([[0.25, 0.375, 0.375], [0.375, 0.25, 0.375]], np.float32)
    body, _ = v2.encode({}, ["a", "b", "c"], query, probabilities, [1, 2])
    (output,) = json.loads(body)["outputs"]
    assert output["data"] == ["0.375:1:b", "0.375:2:c", "0.25:0:a", "0.375:2:c", "0.375:0:a", "0.25:1:b"]


def test_any_nesting_but_the_shapes_is_refused() -> None:
    right: Any = ([[[1, 2]]], [1, 2])
    for data in right:
        assert decoded(FREE, nested(data)) == [[1, 2]]
    wrong: Any = ([[1, 2]], [[[1], [2]]], [[[1, 2]], [[1, 2]]], [[]], [[[1, 2], 3]], [[[[1, 2]]]])
    for data in wrong:
        assert "inputs[0].data: " in refused(FREE, nested(data))
