"""Answers to predictions are right or wrong, whatever is in them."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.simulator import SCHEMA
from loadtests.load import stub_server
from tools import answers

SHARES: Any = stub_server.PREDICTION["probabilities"]


def right(kind: str, rows: int) -> tuple[bytes, str]:
    """A right answer's body and the length of its head, as text."""
    path = "/v2/models/m/infer" if kind.startswith("v2") else "/classify" if rows == 1 else "/classify_batch"
    binary = ',"binary_data_output":true' if kind == "v2-binary" else ""
    asked = f'{{"shape":[{rows},2]{binary}}}' if kind.startswith("v2") else "{}" * rows
    body, header = stub_server.predicted(path, asked.encode())
    return body, header.decode().partition(": ")[2]


KINDS = [(kind, rows) for kind in ("json", "v2-json", "v2-binary") for rows in (1, 2, 64)]


@pytest.mark.parametrize(("kind", "rows"), KINDS)
def test_a_right_answer_is_right(kind: str, rows: int) -> None:
    body, length = right(kind, rows)
    assert answers.checker(kind, rows, SCHEMA)(body, length)
    assert len(body) < answers.most_bytes(rows, SCHEMA)


@pytest.mark.parametrize(("kind", "rows"), KINDS)
def test_an_answer_for_other_rows_or_of_another_kind_is_wrong(kind: str, rows: int) -> None:
    for other_kind, other_rows in KINDS:
        expected = (other_kind.removesuffix("-binary").removesuffix("-json"), other_rows)
        is_same = expected == (kind.removesuffix("-binary").removesuffix("-json"), rows)
        assert answers.checker(kind, rows, SCHEMA)(*right(other_kind, other_rows)) is is_same


@pytest.mark.parametrize("kind", ["json", "v2-json", "v2-binary"])
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"1", b'"defect"', b'{"defect"', b'["defect", "outputs"]', b"[" * 10**6]
)
@pytest.mark.parametrize("length", ["", "0", "2", "-1", "9" * 5000, "x"])
def test_what_is_no_answer_is_wrong(kind: str, body: bytes, length: str) -> None:
    assert not answers.checker(kind, 1, SCHEMA)(body, length)


@pytest.mark.parametrize(
    "changes",
    [
        {"defect": "nothing"}, {"defect": None}, {"defect": []}, {"defect": "crushed"}, {"model_version": ""},
        {"model_version": None}, {"model_version": 1}, {"probabilities": []}, {"probabilities": None},
        {"probabilities": {}}, {"probabilities": {"ok": 1.0}},
        *({"probabilities": {**SHARES, **p}} for p in (
            {"ok": 0.5}, {"ok": 1.5}, {"ok": None}, {"ok": "1"}, {"ok": True}, {"wet": -1.0}, {"wet": 0.5},
            {"other": 0.0}, {"ok": 1.5, "wet": -0.5}, {"ok": 1e308},
        )),
    ],
)  # fmt: skip
def test_a_wrong_prediction_is_wrong_alone_and_among_others(changes: dict[str, Any]) -> None:
    wrong = {**stub_server.PREDICTION, **changes}
    assert not answers.checker("json", 1, SCHEMA)(orjson.dumps(wrong), "")
    assert not answers.checker("json", 2, SCHEMA)(orjson.dumps([stub_server.PREDICTION, wrong]), "")
    check = answers.checker("json", 64, SCHEMA)  # of which some are looked at, others each time
    many = orjson.dumps([stub_server.PREDICTION] * 63 + [wrong])
    assert not all(check(many, "") for _ in range(200))


def test_labels_that_are_no_text_are_told_from_others_that_are_equal() -> None:
    schema = Schema((Feature("a"),), (DefectClass("True"), DefectClass("False")), label_type="boolean")
    check = answers.checker("json", 1, schema)
    for label, is_right in ((True, True), (1, False), ("True", False)):
        said = {"defect": label, "model_version": "1", "probabilities": {"True": 0.75, "False": 0.25}}
        assert check(orjson.dumps(said), "") is is_right


WRONG_TENSORS = [
    {"probabilities": {"data": [1.0, 0, 0, 0, 0]}}, {"probabilities": {"data": [0.5, 0, 0, 0, 0, 0]}},
    {"probabilities": {"data": [2.0, -1.0, 0, 0, 0, 0]}}, {"probabilities": {"data": ["1", "0", "0", "0", "0", "0"]}},
    {"probabilities": {"data": [None, 1.0, 0, 0, 0, 0]}}, {"probabilities": {"shape": [6]}},
    {"probabilities": {"data": [0, 1.0, 0, 0, 0, 0]}}, {"probabilities": {"name": "other"}},
    {"class_index": {"data": [1]}}, {"class_index": {"data": [-6]}}, {"class_index": {"data": [10**9]}},
    {"class_index": {"data": [0.0]}},
    {"class_index": {"shape": [2]}}, {"label": {"data": ["crushed"]}}, {"label": {"data": "ok"}},
    {"label": {"parameters": {"binary_data_size": 4}}}, {"label": {"parameters": {"binary_data_size": -1}}},
    {"label": {"parameters": 5}}, {"label": {"shape": []}},
]  # fmt: skip


@pytest.mark.parametrize("changes", WRONG_TENSORS)
def test_wrong_tensors_are_wrong(changes: dict[str, Any]) -> None:
    said = json.loads(right("v2-json", 1)[0])
    for output in said["outputs"]:
        output.update(changes.get(output["name"], {}))
    assert not answers.checker("v2-json", 1, SCHEMA)(orjson.dumps(said), "")


def test_binary_tensors_must_fit_their_sizes() -> None:
    body, length = right("v2-binary", 2)
    check = answers.checker("v2-binary", 2, SCHEMA)
    for wrong in (body[:-1], body + b"x", body.replace(b"\x02\x00\x00\x00ok", b"\x02\x00\x00\x00no")):
        assert not check(wrong, length)
    assert not check(body.replace(b'"stub"', b'""    '), length)
