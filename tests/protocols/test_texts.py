"""Categories in every protocol: texts as objects, lists and BYTES tensors, or their codes in a matrix."""

from __future__ import annotations

import json
import math
import struct
from functools import partial
from typing import Any

import numpy as np
import pytest

from defects.artifact import Golden
from defects.features import DefectClass, Feature
from defects.http import verification
from defects.http.messages import Request, read_json
from defects.problems import InvalidInput
from defects.protocols import v1, v2
from defects.schema import Rows, Schema
from defects.serving.metrics import Metrics
from defects.serving.model import ServedModel, body_bytes

SIZE = Feature("size", kind="category", categories=("L", "M", "S", "größer"), example=1)
DECK = Feature("deck", kind="category", categories=("1", "2", "3"), optional=True)
PORT = Feature("port", kind="category", categories=("C", "Q"), optional=True, unknown="missing")
CLASSES = (DefectClass("a"), DefectClass("b"))
SCHEMA = Schema((SIZE, Feature("mass"), DECK, PORT), CLASSES)
ALL = Schema((SIZE, DECK), CLASSES)
ONE = Schema((SIZE,), CLASSES)
NAN = math.nan
SIZES = "one of 'L', 'M', 'S', 'größer'"
NUMERIC = "FP16, FP32, FP64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BF16, BOOL"


def reading(**more: Any) -> Any:
    return partial(read_json, Request("POST", "/", {}, receive=None), **more)  # type: ignore[arg-type]


def infer(schema: Schema, *inputs: dict[str, Any], raw: bytes = b"") -> Rows:
    text = json.dumps({"inputs": inputs}).encode()
    read = reading(constant_places=v2.constant_places)
    return v2.decode(schema, text + raw, len(text), read, 1024).rows


def framed(*texts: str | bytes) -> bytes:
    """Return texts as a BYTES tensor has them in binary."""
    parts = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def texts(name: str, *data: Any, shape: list[int] | None = None, datatype: str = "BYTES", **more: Any) -> Any:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": [*data]} | more


def binary(name: str, raw: bytes, shape: list[int], datatype: str = "BYTES") -> Any:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}


SIZE_RAW, PORT_RAW = framed("S", "größer"), framed("", "Q")
MASS, MASS_RAW = texts("mass", 1.5, 2, datatype="FP32"), np.array([1.5, 2], "<f4").tobytes()
TAKEN: list[tuple[Schema, list[Any], bytes, list[list[float]]]] = [
    (SCHEMA, [texts("size", "S", "größer"), MASS], b"", [[2, 1.5, NAN, NAN], [3, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L", shape=[2, 1]), MASS], b"", [[2, 1.5, NAN, NAN], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", ["S"], ["L"], shape=[2, 1]), MASS], b"", [[2, 1.5, NAN, NAN], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L", shape=[1, 1, 2, 1]), MASS], b"", [[2, 1.5, NAN, NAN], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L"), MASS, texts("deck", "3", "")], b"", [[2, 1.5, 2, NAN], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L"), MASS, texts("deck", None, NAN)], b"", [[2, 1.5, NAN, NAN], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L"), MASS, texts("port", "Q", "X")], b"", [[2, 1.5, NAN, 1], [0, 2, NAN, NAN]]),
    (SCHEMA, [texts("size", "S", "L"), MASS, texts("port", " Q", "C\n")], b"", [[2, 1.5, NAN, 1], [0, 2, NAN, 0]]),
    (SCHEMA, [texts("size", "S"), texts("mass", 2, datatype="FP32"), binary("port", framed(" Q"), [1])], framed(" Q"),
     [[2, 2, NAN, 1]]),
    (SCHEMA, [binary("size", SIZE_RAW, [2]), MASS], SIZE_RAW, [[2, 1.5, NAN, NAN], [3, 2, NAN, NAN]]),
    (
        SCHEMA,  # binary, in JSON, binary, binary
        [binary("port", PORT_RAW, [2, 1]), texts("deck", "1", "2"), binary("mass", MASS_RAW, [2], "FP32"),
         binary("size", SIZE_RAW, [1, 2, 1])],
        PORT_RAW + MASS_RAW + SIZE_RAW,
        [[2, 1.5, 0, NAN], [3, 2, 1, 1]],
    ),
    (SCHEMA, [texts("x", 2, 1.5, 0, None, datatype="FP64", shape=[4])], b"", [[2, 1.5, 0, NAN]]),
    (SCHEMA, [texts("x", 2, 1, 0, 1, datatype="INT8", shape=[1, 4])], b"", [[2, 1, 0, 1]]),
    (SCHEMA, [texts("x", 3, 1, 2, NAN, datatype="FP16", shape=[1, 4])], b"", [[3, 1, 2, NAN]]),
    (ALL, [texts("x", "S", "1", "L", None, shape=[2, 2])], b"", [[2, 0], [0, NAN]]),
    (ALL, [texts("x", ["S", "1"], ["L", ""], shape=[2, 2])], b"", [[2, 0], [0, NAN]]),
    (ALL, [binary("x", framed("M", "3"), [2])], framed("M", "3"), [[1, 2]]),
    (ALL, [texts("x", 2, 0, datatype="INT64", shape=[1, 2])], b"", [[2, 0]]),
    (ONE, [texts("size", "M", "L")], b"", [[1], [0]]),
    (ONE, [texts("size", "M", "L", shape=[2, 1])], b"", [[1], [0]]),
    (ONE, [texts("x", "M", "L", shape=[2, 1])], b"", [[1], [0]]),
    (ONE, [texts("x", 1, 0, shape=[2, 1], datatype="INT64")], b"", [[1], [0]]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "inputs", "raw", "rows"), TAKEN)
def test_texts_and_codes_become_rows(schema: Schema, inputs: list[Any], raw: bytes, rows: list[list[float]]) -> None:
    np.testing.assert_array_equal(infer(schema, *inputs, raw=raw), rows)


def size_of(raw: bytes, count: int = 2) -> list[Any]:
    return [binary("size", raw, [count]), MASS]


CUT = "inputs[0].data: {}; expected each text after its length, in 4 bytes, little-endian"
REFUSED: list[tuple[Schema, list[Any], bytes, str]] = [
    (SCHEMA, [texts("size", "s", "XL"), MASS], b"", f"[0].size: 's' is unknown; expected {SIZES}; did you mean 'S'? ("),
    (SCHEMA, [texts("size", "S", "grösser"), MASS], b"", f"[1].size: 'grösser' is unknown; expected {SIZES}; did you"),
    (SCHEMA, [texts("size", "S", ""), MASS], b"", f"[1].size: is missing; expected {SIZES}"),
    (SCHEMA, [texts("size", None, "S"), MASS], b"", f"[0].size: is missing; expected {SIZES}"),
    (SCHEMA, [texts("size", NAN, "S"), MASS], b"", f"[0].size: is missing; expected {SIZES}"),
    (SCHEMA, [MASS], b"", f"[0].size: is missing; expected {SIZES}"),
    (SCHEMA, [texts("size", "S", 1), MASS], b"", "inputs[0].data: has 1; expected texts or null"),
    (SCHEMA, [texts("size", "S", True), MASS], b"", "inputs[0].data: has True; expected texts or null"),
    (SCHEMA, [texts("size", "S", ["M"]), MASS], b"", "inputs[0].data: has a list; expected texts or null"),
    (SCHEMA, [texts("size", "S", math.inf), MASS], b"", "inputs[0].data: has Infinity; expected texts or null"),
    (SCHEMA, [texts("size", "S", "M", "L", shape=[2]), MASS], b"", "inputs[0].data: has 3 values; expected 2, as the"),
    (SCHEMA, [texts("size", ["S", "M"], shape=[2, 1]), MASS], b"", "is not nested as the shape says; expected 2 lists"),
    (SCHEMA, [texts("size", data=None, shape=[2]), MASS], b"", "inputs[0].data: is missing or not a list; expected a"),
    (SCHEMA, [texts("size", 1, 2, datatype="INT64"), MASS], b"",
     f"inputs[0].datatype: is INT64 for size: it may be a code or a value; expected BYTES, with texts: {SIZES}"),
    (SCHEMA, [texts("deck", 1, 2, datatype="INT64"), MASS], b"",
     "inputs[0].datatype: is INT64 for deck: it may be a code or a value; expected BYTES, with texts: one of '1', '2'"),
    (SCHEMA, [texts("size", True, False, datatype="BOOL"), MASS], b"", "inputs[0].datatype: is BOOL for size: it may"),
    (ONE, [texts("size", 1, shape=[1, 1], datatype="INT64")], b"", "inputs[0].datatype: is INT64 for size: it may be"),
    (SCHEMA, [texts("mass", "1", "2")], b"", "inputs[0].datatype: is BYTES, but mass is a number; expected one of"),
    (SCHEMA, [texts("x", "S", "1", "1", "C", shape=[1, 4])], b"",
     "inputs[0].datatype: is BYTES, but mass is a number; expected a tensor for each feature by its name, BYTES for c"),
    (SCHEMA, [texts("x", "S", 1, 1, None, shape=[1, 4], datatype="FP32")], b"",
     "inputs[0].data: has 'S' for size; expected its code, from 0 to 3; texts come in BYTES tensors, one for each fea"),
    (SCHEMA, [texts("x", 4, 1, 1, 1, shape=[1, 4], datatype="FP32")], b"",
     f"[0].size: 4 is the code of no category; expected a code from 0 to 3, of {SIZES}"),
    (SCHEMA, [texts("x", 0.5, 1, 1, 1, shape=[1, 4], datatype="FP32")], b"", "[0].size: 0.5 is the code of no categor"),
    (SCHEMA, [texts("x", -1, 1, 1, 1, shape=[1, 4], datatype="INT8")], b"", "[0].size: -1 is the code of no category"),
    (SCHEMA, [texts("x", None, 1, 1, 1, shape=[1, 4], datatype="FP32")], b"", "[0].size: is missing; expected"),
    (SCHEMA, [texts("x", True, 1, 1, 1, shape=[1, 4], datatype="FP32")], b"", "inputs[0].data: has True for size; exp"),
    (SCHEMA, size_of(SIZE_RAW[:-1]), SIZE_RAW[:-1], CUT.format("text 1 has the length 8, and 7 bytes are left")),
    (SCHEMA, size_of(SIZE_RAW[:7]), SIZE_RAW[:7], CUT.format("ends within the length of text 1")),
    (SCHEMA, size_of(SIZE_RAW[:5]), SIZE_RAW[:5], "inputs[0].data: has 1 values; expected 2, as the shape says"),
    (SCHEMA, size_of(b"\xff\xff\xff\xffS"), b"\xff\xff\xff\xffS",
     CUT.format("text 0 has the length 4294967295, and 1 bytes are left")),
    (SCHEMA, size_of(SIZE_RAW + b"\0"), SIZE_RAW + b"\0", "inputs[0].data: has 1 bytes after text 1; expected 2 texts"),
    (SCHEMA, size_of(SIZE_RAW, 3), SIZE_RAW, "inputs[0].data: has 2 values; expected 3, as the shape says"),
    (SCHEMA, size_of(framed("S", b"\xff\xfe")), framed("S", b"\xff\xfe"), "inputs[0].data: text 1 is not UTF-8; expec"),
    (SCHEMA, [binary("port", framed("C", b"\xc3"), [2])], framed("C", b"\xc3"), "inputs[0].data: text 1 is not UTF-8"),
    (SCHEMA, size_of(framed("S", "T\0"), 2), framed("S", "T\0"), f"[1].size: 'T\\x00' is unknown; expected {SIZES}"),
    (SCHEMA, size_of(SIZE_RAW), SIZE_RAW[:-1], "inputs[0].parameters.binary_data_size: is 17; expected a number of by"),
    (SCHEMA, size_of(SIZE_RAW), SIZE_RAW + b"\0", "body: has 1 bytes after the last tensor; expected what binary_data"),
    (SCHEMA, [binary("size", b"", [2]) | {"parameters": {"binary_data_size": True}}, MASS], b"", "binary_data_size: i"),
    (SCHEMA, [texts("size", datatype="TEXT", shape=[2])], b"", "inputs[0].datatype: is 'TEXT'; expected one of"),
    (SCHEMA, [texts("size", shape=[2**62]), MASS], b"", "inputs[0].shape: has 4611686018427387904 rows; expected at m"),
    (ALL, [texts("x", "S", "1", "L", "4", shape=[2, 2])], b"", "[1].deck: '4' is unknown; expected one of '1', '2', '"),
    (ALL, [binary("x", framed("S"), [2**62, 2])], framed("S"), "inputs[0].shape: has 4611686018427387904 rows; expect"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "inputs", "raw", "message"), REFUSED)
def test_what_is_wrong_with_a_tensor_of_texts_is_said(
    schema: Schema, inputs: list[Any], raw: bytes, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        infer(schema, *inputs, raw=raw)
    assert message in str(caught.value)


def test_no_more_unknown_texts_are_named_than_help() -> None:
    with pytest.raises(InvalidInput) as caught:
        infer(SCHEMA, texts("size", *["m" for _ in range(1024)]))
    assert len(caught.value.problems) == 50
    assert [problem.expected.endswith("did you mean 'M'?") for problem in caught.value.problems] == [True] + 49 * [
        False
    ]
    assert "(and at least 50 more)" in str(caught.value)


def test_a_model_without_categories_takes_no_texts() -> None:
    schema = Schema((Feature("mass"), Feature("size")), CLASSES)
    with pytest.raises(InvalidInput, match=rf"datatype: is 'BYTES'; expected one of {NUMERIC}$"):
        infer(schema, texts("mass", "1"), texts("size", "1"))


def test_v1_takes_texts_in_lists_and_objects() -> None:
    instances = [["S", 1.5, "3", None], {"size": "L", "mass": 2, "deck": 3, "port": "X"}, ["L", 1, 1, ""]]
    rows = v1.decode(SCHEMA, {"instances": instances}, 3)
    np.testing.assert_array_equal(rows, [[2, 1.5, 2, NAN], [0, 2, 2, NAN], [0, 1, 0, NAN]])
    with pytest.raises(InvalidInput) as caught:
        v1.decode(SCHEMA, {"instances": [["S", 1, None, None], [2, 1, 7, None]]}, 3)
    assert [(problem.field, problem.problem, problem.expected) for problem in caught.value.problems] == [
        ("[1].size", "is a number", f"text: {SIZES}"),
        ("[1].deck", "7 is unknown", "one of '1', '2', '3', or null"),
    ]


def test_the_metadata_is_enough_to_make_a_request() -> None:
    """Make a row of each category's last text and any number, of nothing but the metadata."""
    (described,) = v2.metadata(SCHEMA, "m", "1", "onnxruntime")["inputs"]
    columns = described["parameters"]["columns"]
    assert [column.get("unknown") for column in columns] == ["refuse", None, "refuse", "missing"]
    inputs = [
        texts(c["name"], c["categories"][-1] if c["kind"] == "category" else 7, datatype=c.get("datatype", "FP32"))
        for c in columns
    ]
    np.testing.assert_array_equal(infer(SCHEMA, *inputs), [[3, 7, 2, 1]])
    codes = [len(c["categories"]) - 1 if c["kind"] == "category" else 7 for c in columns]
    matrix = texts(described["name"], *codes, datatype=described["datatype"], shape=[1, 4])
    np.testing.assert_array_equal(infer(SCHEMA, matrix), [[3, 7, 2, 1]])


# --- before a port is opened ------------------------------------------------------------------------------------------

ODD = ("'", '"', "\\", "a\tb", "a\nb", " a ", "a\u2028b", "null", "NaN", "1e999", "😀" * 500, "{", ",", "a")


def verified(schema: Schema) -> str | None:
    """Return what is wrong with the answers of a model of this schema, for two rows."""
    rows = np.array([[feature.limits[1] for feature in schema.features], [0.0] * len(schema.features)], np.float32)
    golden = Golden(rows, np.array([[0.7, 0.3], [0.2, 0.8]]), 1e-6, np.array([0, 1]))
    model = ServedModel(schema, "m", "1", "e", {})
    return verification.problem_with_answers(model, Metrics("1", "none", "e", schema.class_names), golden)


def test_any_text_can_be_a_category_and_a_label() -> None:
    odd = Feature("odd", kind="category", categories=tuple(sorted(ODD)))
    for name in ODD:
        if name.strip():
            assert verified(Schema((odd, PORT), CLASSES, label_name=name)) is None


def test_a_codec_that_reads_other_categories_is_found_before_a_port_is_opened() -> None:
    schema = Schema((SIZE, DECK), CLASSES)
    assert verified(schema) is None
    codes = schema.codes[0]
    codes.by_element = {**codes.by_element, "L": 1.0, "M": 0.0}
    assert verified(schema) == "V2 can't be answered: a golden row is another one once it was read; expected the same"


def test_a_body_of_the_longest_texts_fits_however_they_are_escaped() -> None:
    for text in ("ü" * 1000, "😀" * 1000, '"' * 1000, "a"):
        schema = Schema((Feature("x", kind="category", categories=(text,)),), CLASSES)
        assert body_bytes(schema) > len(json.dumps([{"x": text}] * 1024))
