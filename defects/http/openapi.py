"""The OpenAPI document of every route, made from the schema."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from defects.protocols import v2
from defects.pydantic_models import answer_model, request_model
from defects.schema import Schema
from defects.serving.model import MAX_ROWS

TITLE = "Defect classifier"
REFERENCE = "#/components/schemas/{model}"


class FieldProblem(BaseModel):
    """One thing wrong with one field."""

    field: str
    problem: str
    expected: str


class Error(BaseModel):
    """Every error has this shape."""

    error: str = Field(description="What is wrong and what was expected.")
    fields: list[FieldProblem] | None = Field(None, description="The fields concerned, where the input is invalid.")


def document(schema: Schema, name: str, version: str) -> dict[str, Any]:
    """OpenAPI 3.1 for a model with this schema, name (in V1 and V2 URLs) and version."""
    _, definitions = models_json_schema(
        [(request_model(schema), "validation"), (answer_model(schema), "serialization"), (Error, "serialization")],
        ref_template=REFERENCE,
    )
    scan, prediction = _reference("Scan"), _reference("Prediction")
    scans = {"type": "array", "items": scan, "minItems": 1, "maxItems": MAX_ROWS, "example": [schema.example]}
    row = list(schema.example.values())
    tensor = {
        "name": v2.MATRIX,
        "datatype": v2.datatype(schema),
        "shape": [1, len(row)],
        "data": row,
    }
    infer = {"type": "object", "required": ["inputs"], "example": {"inputs": [tensor]}}
    instances = {"type": "object", "required": ["instances"], "example": {"instances": [row]}}
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": _description(schema)},
        "servers": [{"url": "."}],
        "components": {"schemas": definitions["$defs"]},
        "paths": {
            "/classify": {"post": _operation("classify", "Classify one scan", scan, prediction)},
            "/classify_batch": {
                "post": _operation(
                    "classify_batch", f"Classify 1 to {MAX_ROWS} scans", scans, {"type": "array", "items": prediction}
                )
            },
            f"/v2/models/{name}/infer": {
                "post": _operation("v2_infer", "Open Inference Protocol: infer", infer, {"type": "object"})
            },
            f"/v2/models/{name}": {"get": _get("v2_metadata", "Open Inference Protocol: model metadata")},
            "/v2/health/ready": {"get": _get("v2_ready", "Open Inference Protocol: server ready")},
            f"/v1/models/{name}:predict": {
                "post": _operation("v1_predict", "KServe V1: predict", instances, {"type": "object"})
            },
            "/model": {"get": _get("model", "The model's card, schema, version, digest and engine")},
            "/metrics": {"get": _get("metrics", "Prometheus metrics")},
            "/livez": {"get": _get("livez", "Can the process make progress?")},
            "/readyz": {"get": _get("readyz", "Does this replica answer correctly now?")},
        },
    }


def _description(schema: Schema) -> str:
    classes = "\n".join(f"- `{c.name}`{': ' + c.description if c.description else ''}" for c in schema.classes)
    # BentoML's page hides the document's title, so the heading is here.
    return f"# {TITLE}\n\nSays which defect, if any, a row of the {schema.title} shows:\n\n{classes}"


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=name)}


def _operation(name: str, summary: str, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    errors = {
        "400": "Invalid input: each field, what is wrong with it and what was expected",
        "413": "Body too large",
        "415": "Not JSON",
        "503": "Overloaded or not ready; `Retry-After` says when to try again",
    }
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Classify"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": _response("Success", answer),
            **{status: _response(text, _reference("Error")) for status, text in errors.items()},
        },
    }


def _get(name: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["Operate"],
        "responses": {"200": _response("Success", {"type": "object"})},
    }


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def curl(url: str, schema: Schema) -> str:
    """A command that classifies the schema's example."""
    return f"curl -s {url}/classify -H 'content-type: application/json' -d {shlex.quote(json.dumps(schema.example))}"
