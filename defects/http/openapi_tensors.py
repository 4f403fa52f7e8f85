"""JSON schemas of the Open Inference Protocol (V2), made from a model's schema.

JSON Schema has no words for some of what `protocols.v2` asks: that a tensor has as many values as its shape says, that
inputs and outputs are named once, which value belongs to which feature. The descriptions say it.
"""

from __future__ import annotations

from typing import Any

from defects.http.openapi_common import JSONSchema, described_object, reference
from defects.identifiers import PATTERN
from defects.kinds import BOOLEAN, CATEGORY
from defects.protocols import v2
from defects.protocols.tensors import BF16, BOOL, BYTES, DATATYPES, MAX_SIZES
from defects.schema import Schema
from defects.serving.model import MAX_ROWS

BINARY_DESCRIPTION = (
    "The JSON part, which is an `InferenceRequest` whose tensors have the parameter `binary_data_size` instead of "
    "`data`. After it, in the order of the inputs, the tensors' values, little-endian. The header "
    "`inference-header-content-length` has the length of the JSON part; without it, the body is all JSON."
)
_POSITIVE: JSONSchema = {"type": "integer", "minimum": 1}


def request(schema: Schema) -> dict[str, JSONSchema]:
    """Return the schemas of a request, by their names among the components."""
    return {
        "InferenceRequest": _inference_request(schema),
        "InputTensor": _input(schema),
        "RequestedOutput": _requested_output(),
    }


def _inference_request(schema: Schema) -> JSONSchema:
    width = len(schema.names)
    named = {"items": {"properties": {"name": {"enum": [*schema.names]}}}}
    return described_object(
        {
            "inputs": {
                "type": "array",
                "description": f"One tensor [n, {width}], or one for each feature by its name; n is 1 to {MAX_ROWS}. "
                "Each name stands once. Features that may be missing may be left out.",
                "items": reference("schemas", "InputTensor"),
                "minItems": 1,
                "maxItems": width,
                "anyOf": [{"maxItems": 1}, named],
            }
        },
        id={"type": ["string", "null"], "description": "Comes back in the answer."},
        parameters={
            "type": ["object", "null"],
            "properties": {"binary_data_output": {"type": "boolean", "description": "All outputs in binary."}},
        },
        outputs={
            "type": ["array", "null"],
            "description": f"Each at most once; without them: {', '.join(v2.OUTPUTS)}.",
            "items": reference("schemas", "RequestedOutput"),
            "maxItems": len(v2.REQUESTABLE),
        },
    )


def _input(schema: Schema) -> JSONSchema:
    width = len(schema.names)
    booleans = any(feature.kind == BOOLEAN for feature in schema.features)
    optional = any(feature.optional for feature in schema.features)
    types = ["number", "array", *(["boolean"] if booleans else []), *(["null"] if optional else [])]
    values: JSONSchema = {"type": types, "minimum": -schema.reach, "maximum": schema.reach}
    numeric = [*DATATYPES, BF16, *([BOOL] if booleans else [])]
    if schema.codes:
        values = {**values, "type": [*types, "string"]}
    described = described_object(
        {
            "name": {"type": "string", "description": "A feature's, or any name of a tensor with all features."},
            "datatype": {"type": "string", "enum": [*numeric, *([BYTES] if schema.codes else [])]},
            "shape": {
                "type": "array",
                "description": f"[n, {width}], or [{width}] for one row, of all features; [n] or [n, 1] of one "
                "feature. Sizes of 1 may come before. Written without a fraction.",
                "items": {**_POSITIVE, "maximum": max(width, MAX_ROWS)},
                "minItems": 1,
                "maxItems": MAX_SIZES,
            },
            "data": {
                "type": "array",
                "description": "As many values as the shape says, row by row: flat, or nested as the shape says. The "
                "datatype holds each. Instead of null, NaN is taken too, where a value may be missing.",
                "items": values,
                "minItems": 1,
            },
        },
        parameters={"type": ["object", "null"], "properties": {"binary_data_size": {"type": "null"}}},
    )
    return described | _numbers_or_texts(schema, numeric, types) if schema.codes else described


def _numbers_or_texts(schema: Schema, numeric: list[str], types: list[str]) -> JSONSchema:
    """Say which values and which names go with which datatypes."""
    texts = {"type": ["string", "array", *(["null"] if "null" in types else [])]}
    categories = [schema.names[column] for column in schema.codes]
    of_texts: JSONSchema = {"datatype": {"const": BYTES}, "data": {"items": texts}}
    if len(categories) < len(schema.names):
        of_texts["name"] = {"enum": categories}
    of_numbers = {"datatype": {"enum": numeric}, "data": {"items": {"type": types}}}
    return {
        "description": f"Categories are texts in BYTES tensors of their names ({', '.join(categories)}), or codes in "
        "one tensor of numbers with all features: 0 for the first category in the model's description, and so on.",
        "anyOf": [{"properties": of_texts}, {"properties": of_numbers}],
    }


def _requested_output() -> JSONSchema:
    classification = {
        **_POSITIVE,
        "description": "So many of the most probable classes, of probabilities only; without a fraction.",
    }
    return described_object(
        {"name": {"type": "string", "enum": [*v2.REQUESTABLE]}},
        parameters={
            "type": ["object", "null"],
            "properties": {
                "binary_data": {"type": "boolean", "description": "This output in binary."},
                "classification": classification,
            },
        },
    ) | {
        "anyOf": [
            {"properties": {"name": {"const": "probabilities"}}},
            {"properties": {"parameters": {"properties": {"classification": False}}}},
        ]
    }


def answer(schema: Schema) -> dict[str, JSONSchema]:
    """Return the schemas of an answer in JSON, by their names among the components."""
    tensors = {"type": "array", "items": reference("schemas", "OutputTensor"), "minItems": 1}
    model = {"model_name": {"type": "string"}, "model_version": {"type": "string"}}
    return {
        "InferenceResponse": described_object(model | {"outputs": tensors}, closed=True, id={"type": "string"}),
        "OutputTensor": {"oneOf": _outputs(schema)},
    }


def _outputs(schema: Schema) -> list[JSONSchema]:
    classes = [*schema.class_names]
    count = len(classes)
    return [
        _output("label", "BYTES", 1, {"type": "string", "enum": classes}),
        _output("class_index", "INT64", 1, {"type": "integer", "minimum": 0, "maximum": count - 1}),
        _output("probabilities", "FP32", 2, {"type": "number", "minimum": 0, "maximum": 1}),
        _output(v2.PREDICTION_ID, "BYTES", 1, {"type": "string", "pattern": PATTERN}),
        _output("probabilities", "BYTES", 2, {"type": "string", "description": "value:index:label"}),
    ]


def _output(name: str, datatype: str, sizes: int, values: JSONSchema) -> JSONSchema:
    return described_object(
        {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": {"type": "array", "items": _POSITIVE, "minItems": sizes, "maxItems": sizes},
            "data": {"type": "array", "items": values, "minItems": 1},
        },
        closed=True,
    )


def metadata() -> JSONSchema:
    """Return the schema of the model's description, as `v2.metadata` makes it."""
    text = {"type": "string"}
    tensor = described_object(
        {"name": text, "datatype": text, "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}},
        parameters={"type": "object"},
    )
    tensors = {"type": "array", "items": tensor, "minItems": 1}
    return described_object(
        {
            "name": text,
            "versions": {"type": "array", "items": text, "minItems": 1},
            "platform": text,
            "inputs": tensors,
            "outputs": tensors,
        }
    )


def examples(schema: Schema) -> dict[str, Any]:
    """Return requests to try out, by name, the first of which is the usual one."""
    scan = [*schema.example.values()]
    kind = v2.datatype(schema)
    row = [f.example if f.kind == CATEGORY else value for f, value in zip(schema.features, scan, strict=True)]
    shaped = {"name": v2.MATRIX, "datatype": kind, "shape": [1, len(row)]}
    columns = [
        {
            "name": feature.name,
            "datatype": BYTES if feature.kind == CATEGORY else kind,
            "shape": [1],
            "data": [value],
        }
        for feature, value in zip(schema.features, scan, strict=True)
    ]
    requested = [
        {"name": "label", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"classification": min(3, len(schema.classes))}},
        {"name": v2.PREDICTION_ID},
    ]
    flat = {**shaped, "data": row}
    return {
        "flat": {"inputs": [flat]},
        "nested": {"inputs": [{**shaped, "data": [row]}]},
        "columns": {"inputs": columns},
        "options": {"id": "parcel-17", "inputs": [flat], "outputs": requested},
        "binary_outputs": {"parameters": {"binary_data_output": True}, "inputs": [flat]},
    }
