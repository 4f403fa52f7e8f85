"""The load tests read the tables that training reads, and send each value digit for digit as the model is given it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.simulator import SCHEMA
from defects.training import dataset
from loadtests.load import stub_server
from tools import payloads, served
from tools.payloads import BadPayload, rows_from_file

ROWS: list[dict[str, Any]] = [
    {"f": 20000003, "on": True, "x": 0.1}, {"f": 20000004, "on": None, "x": 1e-7}, {"f": 1, "on": False, "x": None},
    {"f": 2, "on": True, "x": 123456.789},
]  # fmt: skip
LINES = (
    "f,on,x,label,id",
    "20000003,True,0.1,a,n1",
    "20000004,NA,1e-7,a,",
    "1,FALSE,None,b,n3",
    "2,true,123456.789,b,",
)
TABLE = "\ufeff" + "\r\n".join(LINES)
HELD = [[20000003, 1, 0.1], [20000004, math.nan, 1e-7], [1, 0, math.nan], [2, 1, 123456.789]]

CLASSES = (DefectClass("a"), DefectClass("b"))
WIDE = Schema(
    (
        Feature("f", wide=True, observed_low=1, observed_high=20000004),
        Feature("on", "", "", 0, 1, optional=True, kind="boolean", observed_low=0, observed_high=1),
        Feature("x", optional=True, observed_low=0.1, observed_high=123456.789),
    ),
    CLASSES,
)
NARROW = Schema((Feature("f"), *WIDE.features[1:]), CLASSES)


def held(schema: Schema) -> np.ndarray:
    expected = np.array(HELD)
    expected[:, 2] = expected[:, 2].astype(np.float32)
    return expected if schema.wide else expected.astype(np.float32)


def write(path: Path, name: str, content: str | list[Any]) -> Path:
    file = path / name
    if name.endswith(".parquet"):
        extra = {"label": list("aabb"), "id": [b"1", None, b"3", b"4"]}
        pq.write_table(pa.table({key: [row[key] for row in ROWS] for key in ROWS[0]} | extra), file)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8", newline="")
    return file


def refused(file: Path, schema: Schema = NARROW) -> str:
    with pytest.raises(BadPayload) as caught:
        rows_from_file(file, schema)
    text = str(caught.value)
    assert text.startswith("--payload: "), text
    assert file.name in text
    return text


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [WIDE, NARROW], ids=["64 bits", "32 bits"])
@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.parquet", "t.json", "T.JSON"])
def test_every_format_gives_the_same_rows(name: str, schema: Schema, tmp_path: Path) -> None:
    rows = rows_from_file(write(tmp_path, name, ROWS if name.lower().endswith("json") else TABLE), schema)
    assert rows.dtype == held(schema).dtype
    np.testing.assert_array_equal(rows, held(schema))
    np.testing.assert_array_equal(payloads.rows_from_bytes(schema, rows.tobytes()), rows)


def test_what_was_trained_on_is_a_payload(tmp_path: Path) -> None:
    for file in (
        write(tmp_path, "t.csv", TABLE.replace(",n1", ",1").replace(",n3", ",")),
        write(tmp_path, "t.parquet", ""),
    ):
        if file.suffix == ".parquet":
            pq.write_table(pq.read_table(file).drop_columns("id"), file)
        table = dataset.read(file, "label")
        np.testing.assert_array_equal(rows_from_file(file, table.schema), table.features)


def test_zeros_and_ones_are_booleans_where_the_model_has_them(tmp_path: Path) -> None:
    file = write(tmp_path, "t.csv", "f,on,x\n1,1,0\n2,0,1\n")
    np.testing.assert_array_equal(rows_from_file(file, NARROW)[:, 1], [1, 0])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("f,x\n1,2\n", "column 'on' is missing; expected it among 'f', 'x'"),
        ("f,on,x\n", "has no rows; expected at least one"),
        ("", "is empty"),
        ("f,on,x\n1,True,2\n1,True\n", "row 2: has 2 cells; expected 3, as in the header"),
        ("f,on,x\n1,True,2\ntwo,True,2\n", "column 'f', row 2: 'two' is not a number; expected one"),
        ("f,on,x\n1,True,2\n2,yes,2\n", "column 'on', row 2: 'yes' is neither true nor false"),
        ("f,on,x\n1,1,2\n2,2,2\n", "column 'on', row 2: is 2; expected true or false, or null"),
        ("f,on,x\n1,1,2\nNA,1,2\n", "column 'f', row 2: is missing; expected a number"),
        ("f,on,x\nNA,1,2\nTrue,1,2\n", "column 'f', row 2: is true or false; expected a number"),
        ("f,on,x\n1,1,2\n1e39,1,2\n", "column 'f', row 2: 1e+39; expected a finite 32-bit number"),
        ("f,on,x\n1,1,2\n1,1,9007199254740993\n", "column 'x', row 2: 9007199254740993 is an integer"),
        ("f;on;x\n1;1\n", "row 1: has 2 cells; expected 3"),
    ],
)
def test_a_table_that_can_not_be_sent_is_refused_as_training_does(content: str, problem: str, tmp_path: Path) -> None:
    assert problem in refused(write(tmp_path, "t.csv", content))


COLOURED = Schema(
    (Feature("colour", kind="category", categories=("blue", "red"), optional=True), Feature("x")), CLASSES
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_of_a_table_is_sent_as_categories(separator: str, tmp_path: Path) -> None:
    content = "id,colour,x\nn1, red ,1\nn2,,2\nn3,blue,3\n".replace(",", separator)
    rows = rows_from_file(write(tmp_path, "t.csv", content), COLOURED)
    np.testing.assert_array_equal(rows, [[1, 1], [math.nan, 2], [0, 3]])
    assert [value[0] for value in payloads.values_of(COLOURED, rows)] == ["red", None, "blue"]


def test_an_unknown_category_in_a_table_is_refused(tmp_path: Path) -> None:
    message = refused(write(tmp_path, "t.csv", "colour,x\nred,1\nBlue,2\n"), COLOURED)
    assert "column 'colour', row 2: 'Blue' is unknown; expected one of 'blue', 'red'" in message
    assert message.endswith("did you mean 'blue'?")


def test_limits_hold_in_a_table(tmp_path: Path) -> None:
    schema = Schema((Feature("f", "g", "", 0, 100),), CLASSES)
    file = write(tmp_path, "t.csv", "f\n1\n101\n")
    assert "column 'f', row 2: 101 is out of range; expected a number from 0 to 100 g" in refused(file, schema)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "has no rows; expected a list of objects"),
        ("{}", "has no rows; expected a list of objects"),
        ("", "can't be read"),
        ("[" * 100_000, "can't be read"),
        ('[{"f": 1, "f": 2}]', "the key 'f' appears twice in one object"),
        ('[{"f": Infinity}]', "[0].f: is Infinity"),
        ('[{"f": NaN}]', "[0].f: is NaN; expected a number"),
        ('[{"f": 1e999}]', "[0].f: is infinite"),
        ('[{"f": 1}, {"f": true}]', "[1].f: is a boolean; expected a number"),
        ('[{"f": "1"}]', "[0].f: is text"),
        ('[{"f": 1, "g": 2}]', "[0].g: unknown field"),
        ('[{"f": 9007199254740993}]', "[0].f: 9007199254740993 is an integer that a 64-bit float does not"),
        ('[{"f": %s}]' % ("1" * 400), "[0].f: is infinite"),
        ('[{"f": %s}]' % ("1" * 5000), "can't be read"),
        ("[[1]]", "[0]: is a list; expected an object"),
    ],
)  # fmt: skip
def test_json_that_can_not_be_sent_is_refused(content: str, problem: str, tmp_path: Path) -> None:
    assert problem in refused(write(tmp_path, "t.json", content))


def test_json_may_say_nan_and_have_a_byte_order_mark(tmp_path: Path) -> None:
    rows = rows_from_file(write(tmp_path, "t.json", '\ufeff[{"f": 1, "x": NaN}]'), NARROW)
    np.testing.assert_array_equal(rows, [[1, math.nan, math.nan]])


@pytest.mark.parametrize("name", ["t.jsonl", "t.xlsx", "t.json.gz", "t.npy"])
def test_other_formats_are_refused_with_those_that_there_are(name: str, tmp_path: Path) -> None:
    assert "expected .csv, .parquet or .json" in refused(write(tmp_path, name, "f\n1\n"))


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.json"])
def test_a_file_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    refused(tmp_path / name)
    (tmp_path / name).mkdir()
    refused(tmp_path / name)


# --- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [WIDE, NARROW, SCHEMA], ids=["64 bits", "32 bits", "tunnel"])
def test_drawn_rows_are_valid_and_in_the_model_s_precision(schema: Schema) -> None:
    rows = payloads.rows_for(schema, 500, seed=1)
    assert rows.dtype == (np.float64 if schema.wide else np.float32)
    schema.check(rows.astype(np.float64))
    np.testing.assert_array_equal(schema.held(rows.astype(np.float64)), rows)
    np.testing.assert_array_equal(payloads.rows_for(schema, 500, seed=1), rows)
    if schema is not SCHEMA:
        assert set(rows[:, 1]) == {0, 1}
        assert len(set(rows[:, 2].tolist())) > 400


def test_a_boolean_that_training_saw_one_way_is_drawn_so() -> None:
    for low, high in ((0, 0), (1, 1)):
        feature = Feature("on", "", "", 0, 1, kind="boolean", observed_low=low, observed_high=high)
        assert set(payloads.rows_for(Schema((feature,), CLASSES), 50, seed=1)[:, 0]) == {low}


# --- sending ---------------------------------------------------------------------------------------------------------


def test_json_has_the_fewest_digits_that_mean_the_value() -> None:
    rows = WIDE.held(np.array([[20000003, 1, 0.1], [0.1 + 0.2, 0, 123456.789], [2**53, math.nan, math.nan]]))
    values = payloads.values_of(WIDE, rows)
    assert values == [[20000003, True, 0.1], [0.1 + 0.2, False, 123456.79], [2.0**53, None, None]]
    assert values[0][1] is True
    narrow = payloads.values_of(NARROW, NARROW.held(np.array([[20000003, 1, 1 / 3], [1234567, 0, 1e-45]])))
    assert narrow == [[20000004, True, 0.33333334], [1234567, False, 1e-45]]


@pytest.mark.parametrize("schema", [WIDE, NARROW], ids=["64 bits", "32 bits"])
def test_what_is_sent_is_held_as_it_was(schema: Schema) -> None:
    rng = np.random.default_rng(1)
    drawn = np.column_stack([rng.normal(2e7, 1e3, 2000), rng.integers(0, 2, 2000), 10.0 ** rng.uniform(-38, 38, 2000)])
    rows = schema.held(drawn)
    sent = json.loads(payloads.dump(payloads.objects(schema.names, payloads.values_of(schema, rows))))
    np.testing.assert_array_equal(schema.held(schema.rows_from_objects(sent)), rows)


@pytest.mark.parametrize("schema", [WIDE, NARROW], ids=["64 bits", "32 bits"])
def test_v2_tensors_have_the_model_s_precision(schema: Schema) -> None:
    datatype, dtype = ("FP64", "<f8") if schema.wide else ("FP32", "<f4")
    rows = held(schema)
    (tensor,) = json.loads(payloads.v2_json(payloads.values_of(schema, rows), wide=schema.wide))["inputs"]
    assert (tensor["datatype"], tensor["shape"]) == (datatype, [4, 3])
    assert not any(isinstance(value, bool) for value in tensor["data"])
    sent = np.array(tensor["data"], np.float64).reshape(4, 3)
    np.testing.assert_array_equal(schema.held(sent), rows)

    head, raw = payloads.v2_binary(rows)
    (tensor,) = json.loads(head)["inputs"]
    assert (tensor["datatype"], tensor["parameters"]) == (datatype, {"binary_data_size": len(raw)})
    np.testing.assert_array_equal(np.frombuffer(raw, dtype).reshape(4, 3), rows)


def test_every_kind_of_request_carries_the_value() -> None:
    said = stub_server.MODEL | {"schema": WIDE.to_json()}
    model, row = served.Served.from_json(said), np.array([[20000003, 1, 0.1]])
    for kind, there in (("json", b'{"f":20000003.0,"on":true,"x":0.1}'), ("v2-json", b'"data":[20000003.0,1.0,0.1]')):
        made = payloads.prepare(kind, 1, "http://127.0.0.1:3000", model, WIDE.held(row), deadline_ms=None)
        assert there in made.requests[0]
    made = payloads.prepare("v2-binary", 1, "http://127.0.0.1:3000", model, WIDE.held(row), deadline_ms=None)
    assert made.requests[0].endswith(WIDE.held(row).tobytes())
