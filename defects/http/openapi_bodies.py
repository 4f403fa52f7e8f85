"""JSON schemas of the bodies of requests and answers, made from a model's schema; V2's are in `openapi_tensors.py`."""

from __future__ import annotations

from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from defects.features import Feature
from defects.http import openapi_outcomes, openapi_tensors
from defects.http.openapi_common import (
    BINARY_TYPE,
    JSON_TYPE,
    Error,
    JSONSchema,
    described_object,
    reference,
)
from defects.kinds import BOOLEAN, CATEGORY
from defects.pydantic_models import (
    answer_model,
    description,
    documented_categories,
    documented_limits,
    request_model,
)
from defects.schema import Schema
from defects.serving.health import Verification
from defects.serving.model import MAX_ROWS

METRICS_TYPES = ("text/plain", "application/openmetrics-text")  # the second where a request's `accept` prefers it
Content = dict[str, JSONSchema]  # the schema of each content type
TEXT: JSONSchema = {"type": "string"}
OBJECT: JSONSchema = {"type": "object"}
TRUE: JSONSchema = {"const": True}
BINARY: JSONSchema = {"type": "string", "format": "binary"}


def schemas(schema: Schema) -> dict[str, JSONSchema]:
    """Return the schemas that the document's bodies refer to, by name."""
    _, definitions = models_json_schema(
        [(request_model(schema), "validation"), (answer_model(schema), "serialization"), (Error, "serialization")],
        ref_template=reference("schemas", "{model}")["$ref"],
    )
    made: dict[str, JSONSchema] = definitions["$defs"]
    made["Scan"]["example"] = schema.example  # pydantic has sorted its fields
    tensors = openapi_tensors.request(schema) | openapi_tensors.answer(schema)
    return made | {"Row": _row(schema), **tensors, **openapi_outcomes.schemas(schema)}


def _row(schema: Schema) -> JSONSchema:
    width = len(schema.names)
    return {
        "type": "array",
        "description": f"The values of one row, in this order: {', '.join(schema.names)}.",
        "prefixItems": [_value(feature) for feature in schema.features],
        "minItems": width,
        "maxItems": width,
    }


def _value(feature: Feature) -> JSONSchema:
    missing = [None] if feature.optional else []
    if feature.kind == BOOLEAN:
        return {"title": feature.name, "enum": [True, False, 0, 1, *missing]}
    if feature.kind == CATEGORY:
        return _category(feature, missing)
    low, high = documented_limits(feature)
    kind = ["number", "null"] if feature.optional else "number"
    return {"title": feature.name, "type": kind, "minimum": low, "maximum": high}


def _category(feature: Feature, missing: list[None]) -> JSONSchema:
    known = documented_categories(feature)
    if known:
        return {"title": feature.name, "enum": [*known, *missing]}
    types = ["string", "number", "null"] if feature.integers else ["string", "null"]
    return {"title": feature.name, "type": types, "description": description(feature)}


def taken(schema: Schema, kind: str) -> tuple[Content, dict[str, Any]]:
    """Return what a kind of prediction takes: a schema for each content type, and examples of JSON by name."""
    scan, row = schema.example, [*schema.example.values()]
    several = {"type": "array", "minItems": 1, "maxItems": MAX_ROWS}
    if kind == "scan":
        return {JSON_TYPE: reference("schemas", "Scan")}, {}
    if kind == "scans":
        return {JSON_TYPE: {**several, "items": reference("schemas", "Scan"), "example": [scan]}}, {}
    if kind == "instances":
        either = {"anyOf": [reference("schemas", "Row"), reference("schemas", "Scan")]}
        instances = described_object({"instances": {**several, "items": either}})
        examples = {"lists": {"instances": [row]}, "objects": {"instances": [scan]}}
        return {JSON_TYPE: {**instances, "example": examples["lists"]}}, examples
    if kind == "outcomes":
        return {JSON_TYPE: openapi_outcomes.taken()}, openapi_outcomes.examples(schema)
    examples = openapi_tensors.examples(schema)
    tensors = {**reference("schemas", "InferenceRequest"), "example": examples["flat"]}
    binary = {**BINARY, "description": openapi_tensors.BINARY_DESCRIPTION}
    return {JSON_TYPE: tensors, BINARY_TYPE: binary}, examples


def answered(kind: str) -> Content:
    """Return what a kind of route answers with 200, but for files: a schema for each content type."""
    match kind:
        case "html" | "card":
            return {"text/html": TEXT}
        case "metrics":
            return dict.fromkeys(METRICS_TYPES, TEXT)
        case "tensors":
            return {JSON_TYPE: reference("schemas", "InferenceResponse"), BINARY_TYPE: BINARY}
    return {JSON_TYPE: _JSON[kind]}


def not_ready(kind: str) -> JSONSchema | None:
    """Return what a kind of route answers with 503, where that is not only an error."""
    if kind != "ready":
        return None
    return {"anyOf": [reference("schemas", "Error"), _state(ready=False)]}


def _state(*, ready: bool) -> JSONSchema:
    """Return the schema of the state of a replica that is `ready` or isn't, which the query `verbose` asks for."""
    reasons = ["draining", "stuck", *(reason for reason in get_args(Verification) if reason != "ready")]
    state: dict[str, JSONSchema] = {
        "ready": {"const": ready},
        "reason": {"const": "ready"} if ready else {"type": "string", "enum": reasons},
        "problem": {"type": "null"} if ready else TEXT,
        "model_version": TEXT,
        "queued_rows": {"type": "integer", "minimum": 0},
        "startup_seconds": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    }
    return described_object(state if ready else {"error": TEXT, **state}, closed=True)


_PREDICTION = reference("schemas", "Prediction")
_PREDICTIONS = {"type": "array", "items": _PREDICTION, "minItems": 1, "maxItems": MAX_ROWS}
_TEXTS: JSONSchema = {"type": "array", "items": TEXT}
_JSON: dict[str, JSONSchema] = {
    "scan": _PREDICTION,
    "scans": _PREDICTIONS,
    "instances": described_object({"predictions": _PREDICTIONS}, closed=True),
    "live": described_object({"live": TRUE}, closed=True),
    "ready": {"anyOf": [described_object({"ready": TRUE}, closed=True), _state(ready=True)]},
    "model_ready": described_object({"name": TEXT, "ready": TRUE}, closed=True),
    "models": described_object({"models": _TEXTS}, closed=True),
    "server": described_object({"name": TEXT, "version": TEXT, "extensions": _TEXTS}, closed=True),
    "metadata": openapi_tensors.metadata(),
    "outcomes": openapi_outcomes.answered(),
    "record": reference("schemas", "Record"),
    "summary": reference("schemas", "Summary"),
    "model": described_object(
        {
            "name": TEXT,
            "version": TEXT,
            "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
            "engine": TEXT,
            "schema": OBJECT,
            "card": OBJECT,
        },
        closed=True,
    ),
    "openapi": described_object({"openapi": {"const": "3.1.0"}, "info": OBJECT, "paths": OBJECT, "components": OBJECT}),
    "bentoml": described_object({"name": TEXT, "type": {"const": "service"}, "routes": {"type": "array"}}),
}
