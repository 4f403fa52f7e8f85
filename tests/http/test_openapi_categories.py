"""What the OpenAPI document says of categories is what is taken."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from defects.features import DefectClass, Feature
from defects.http import openapi, openapi_tensors
from defects.problems import InvalidInput
from defects.protocols import v1, v2
from defects.schema import Schema

CATEGORIES = Schema(
    (
        Feature("size", kind="category", categories=("L", "S"), example=1),
        Feature("deck", kind="category", categories=("1", "2"), optional=True),
        Feature("kind", kind="category", categories=("a",), optional=True, unknown="missing"),
        Feature("line", kind="category", categories=("7", "8"), optional=True, unknown="missing"),
    ),
    (DefectClass("a"), DefectClass("b")),
)
VALUES: list[tuple[str, Any, bool]] = [
    ("size", "L", True), ("size", "l", False), ("size", "", False), ("size", None, False), ("size", 1, False),
    ("size", ["L"], False), ("deck", "1", True), ("deck", 1, True), ("deck", 1.0, True), ("deck", 1.5, False),
    ("deck", True, False), ("deck", "3", False), ("deck", 3, False), ("deck", None, True), ("kind", "b", True),
    ("kind", "", True), ("kind", None, True), ("kind", 1, False), ("kind", False, False), ("line", "9", True),
    ("line", 9, True), ("line", 9.5, True), ("line", False, False), ("line", {}, False),
]  # fmt: skip


def valid(document: dict[str, Any], name: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(("name", "value", "right"), VALUES)
def test_what_is_valid_for_a_category_is_taken_and_nothing_else(name: str, value: Any, right: bool) -> None:
    described = openapi.document(CATEGORIES, "1", {})
    scan = {"size": "L", "deck": "2", "kind": "a", "line": "7"} | {name: value}
    for schema, body in (("Scan", scan), ("Row", [*scan.values()])):
        assert valid(described, schema, body) is right
        taken = True
        try:
            v1.decode(CATEGORIES, {"instances": [body]}, 1)
        except InvalidInput:
            taken = False
        assert taken is right
    given = described["components"]["schemas"]["Scan"]["properties"]["kind"]
    assert given["description"] == "kind; one of 'a', or null; anything else counts as missing"
    assert given["examples"] == ["a"]


def test_tensors_of_texts_are_described() -> None:
    described = openapi.document(CATEGORIES, "1", {})
    texts = {"name": "size", "datatype": "BYTES", "shape": [1], "data": ["L"]}
    codes = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, None, 0]}
    for tensor, right in (
        (texts, True), (codes, True), (texts | {"data": [1]}, False), (codes | {"data": ["L", 1, None, 0]}, False),
        (texts | {"datatype": "STRING"}, False), (texts | {"data": ["L", None]}, True),
    ):  # fmt: skip
        assert valid(described, "InputTensor", tensor) is right
    for name, request in openapi_tensors.examples(CATEGORIES).items():
        assert valid(described, "InferenceRequest", request), name
        v2.decode(CATEGORIES, json.dumps(request).encode(), None, json.loads, 1)
