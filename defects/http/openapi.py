"""The OpenAPI document, made from the schema and the table of routes; and what BentoML's clients ask for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, create_model
from pydantic.json_schema import models_json_schema

from defects.http.messages import BINARY
from defects.http.page import ASSETS, TITLE, summary
from defects.http.router import PredictionRoute, Route, Table
from defects.protocols import v2
from defects.pydantic_models import answer_model, request_model
from defects.schema import Schema
from defects.serving.model import MAX_ROWS

REFERENCE = "#/components/schemas/{model}"
OBJECT = {"type": "object"}
CONTENT_TYPES = {"text": "text/plain", "html": "text/html"}  # of answers that are not JSON
ERRORS = {
    "400": "Invalid input: each field, what is wrong with it and what was expected",
    "413": "Body too large",
    "415": "Not JSON",
    "503": "Overloaded or not ready; `Retry-After` says when to try again",
}
DESCRIPTION = "Every path that takes GET takes HEAD too."


class FieldProblem(BaseModel):
    """One thing wrong with one field."""

    field: str
    problem: str
    expected: str


class Error(BaseModel):
    """Every error has this shape."""

    error: str = Field(description="What is wrong and what was expected.")
    fields: list[FieldProblem] | None = Field(None, description="The fields concerned, where the input is invalid.")


def document(schema: Schema, version: str, table: Table) -> dict[str, Any]:
    """Make the document of OpenAPI 3.1 for a model with this schema and version, and these routes."""
    _, definitions = models_json_schema(
        [(request_model(schema), "validation"), (answer_model(schema), "serialization"), (Error, "serialization")],
        ref_template=REFERENCE,
    )
    bodies = _bodies(schema)
    tags = dict.fromkeys(route.description.tag for route in table.values())
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": version, "description": _description(schema)},
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in tags],
        "components": {"schemas": definitions["$defs"]},
        "paths": {path: _operations(path, route, bodies) for path, route in table.items()},
    }


def _description(schema: Schema) -> str:
    classes = "\n".join(f"- `{c.name}`{': ' + c.description if c.description else ''}" for c in schema.classes)
    return f"{summary(schema)}\n\n{classes}\n\n{DESCRIPTION}"


def _bodies(schema: Schema) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Return what each kind of prediction takes, and what it answers."""
    scan, prediction = _reference("Scan"), _reference("Prediction")
    row = list(schema.example.values())
    tensor = {"name": v2.MATRIX, "datatype": v2.datatype(schema), "shape": [1, len(row)], "data": row}
    scans = {"type": "array", "items": scan, "minItems": 1, "maxItems": MAX_ROWS, "example": [schema.example]}
    instances = {**OBJECT, "required": ["instances"], "example": {"instances": [row]}}
    tensors = {**OBJECT, "required": ["inputs"], "example": {"inputs": [tensor]}}
    predictions = {"type": "array", "items": prediction}
    return {
        "scan": (scan, prediction),
        "scans": (scans, predictions),
        "instances": (instances, {**OBJECT, "properties": {"predictions": predictions}}),
        "tensors": (tensors, OBJECT),
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(model=name)}


def _operations(path: str, route: Route, bodies: Mapping[str, tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Describe what a path takes. HEAD is not described for itself: it is GET without the body."""
    description = route.description
    operation = {"operationId": description.id, "summary": description.summary, "tags": [description.tag]}
    if isinstance(route, PredictionRoute):
        return {"post": operation | _prediction(route, *bodies[description.content])}
    content_type = CONTENT_TYPES.get(description.content, "application/json")
    if description.content == "file":
        content_type = ASSETS[path.rpartition("/")[2]].decode().partition(";")[0]
    answered = _response("Success", OBJECT if description.content == "object" else {"type": "string"}, content_type)
    return {"get": operation | {"responses": {"200": answered}}}


def _prediction(route: PredictionRoute, body: dict[str, Any], answered: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": body}}
    if BINARY in route.takes:
        content[BINARY.decode()] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": _response("Success", answered),
            **{status: _response(text, _reference("Error")) for status, text in ERRORS.items()},
        },
    }


def _response(description: str, schema: dict[str, Any], content_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {content_type: {"schema": schema}}}


def bentoml_schema(schema: Schema, name: str, description: str) -> dict[str, Any]:
    """Make what BentoML answers at `/schema.json`, which its clients ask for first, without its SDK.

    `name` and `description` are the service's. The same as `bentoml.Service.schema` gives, which a test compares.
    """
    Scan: Any = request_model(schema)  # noqa: N806 - a type
    Prediction: Any = answer_model(schema)  # noqa: N806
    scan: dict[str, Any] = _derived("ScanIODescriptor", Scan)
    prediction: dict[str, Any] = _derived("PredictionIODescriptor", Prediction)
    scans = TypeAdapter(list[Scan]).json_schema()
    predictions = TypeAdapter(list[Prediction]).json_schema()
    apis = {
        "classify": (scan, prediction),
        "classify_batch": (scans, predictions),
    }
    routes: list[dict[str, Any]] = [
        {
            "name": api,
            "route": f"/{api}",
            "batchable": False,
            "input": {**body, "root_input": True},
            "output": answered,
            "is_task": False,
        }
        for api, (body, answered) in apis.items()
    ]
    paths = {f"/{api}": {"mounted": False} for api in apis}
    return {"name": name, "type": "service", "routes": routes, "description": description, "paths": paths}


def _derived(name: str, model: type[BaseModel]) -> dict[str, Any]:
    """Make the JSON schema of a model that is derived from `model`, as BentoML does: it says nothing of null."""
    derived = create_model(name, __base__=model)
    made = derived.model_json_schema()
    for field in made["properties"].values():
        field.update(field.pop("anyOf", [{}])[0])
    return made


def curl(url: str, schema: Schema) -> str:
    """Return a command that classifies the schema's example."""
    return f"curl -s {url}/classify -H 'content-type: application/json' -d {shlex.quote(json.dumps(schema.example))}"
