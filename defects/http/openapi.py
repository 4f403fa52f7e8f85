"""The OpenAPI document, made from the schema and the table of routes; and what BentoML's clients ask for."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pydantic import BaseModel, TypeAdapter, create_model

from defects.http import openapi_bodies, openapi_common
from defects.http.openapi_common import Error, JSONSchema, reference
from defects.http.page import ASSETS
from defects.http.router import PredictionRoute, Route, Table
from defects.pydantic_models import answer_model, request_model
from defects.schema import Schema

__all__ = ["Error", "bentoml_schema", "curl", "document"]

DESCRIPTION = """\
Every path that takes GET takes HEAD too. Another method is answered 405, and an unknown path 404.

JSON is read strictly: a key that appears twice in an object is refused. Besides what JSON has, `NaN` is taken where a
value may be missing, and means the same as `null`. A limit is also taken as it is after rounding to 32 bits. A row for
which the model has no finite score is refused with 400. A body without a content type is JSON.

Every request may have the headers that stand among the components' parameters: `x-request-id`, `traceparent` and
`accept-encoding`. Predictions take `x-request-timeout-ms` and `content-encoding` too, those of V2 also
`inference-header-content-length`.
"""
_OF_ALL = ("x-request-id",)  # parameters
_PARAMETERS = {  # of some kinds of routes
    "ready": (*_OF_ALL, "verbose"),
    "record": (*_OF_ALL, "id"),
    "summary": (*_OF_ALL, "since", "by", "origin"),
}
_OF_200 = {  # headers of some answers
    "html": ("content-security-policy",),
    "card": ("content-security-policy",),
    "file": ("cache-control",),
    "tensors": ("x-prediction-id", "inference-header-content-length"),
}


def document(schema: Schema, version: str, table: Table) -> dict[str, Any]:
    """Make the document of OpenAPI 3.1 for a model with this schema and version, and these routes."""
    tags = dict.fromkeys(route.description.tag for route in table.values())
    return {
        "openapi": "3.1.0",
        "info": {"title": schema.heading, "version": version, "description": _description(schema)},
        "servers": [{"url": "."}],
        "tags": [{"name": name} for name in tags],
        "components": {"schemas": openapi_bodies.schemas(schema), **openapi_common.components()},
        "paths": {path: _operations(schema, path, route) for path, route in table.items()},
    }


def _description(schema: Schema) -> str:
    classes = "\n".join(f"- `{c.name}`{': ' + c.description if c.description else ''}" for c in schema.classes)
    return f"{schema.purpose}\n\n{classes}\n\n{DESCRIPTION}"


def _operations(schema: Schema, path: str, route: Route) -> dict[str, Any]:
    """Describe what a path takes. HEAD is not described for itself: it is GET without the body."""
    description = route.description
    operation: dict[str, Any] = {
        "operationId": description.id,
        "summary": description.summary,
        "tags": [description.tag],
        "parameters": [reference("parameters", name) for name in _PARAMETERS.get(description.content, _OF_ALL)],
        "responses": {"200": _success(path, route), **_errors(description.content)},
    }
    if "POST" not in route.methods:
        return {"get": operation}
    return {"post": operation | {"requestBody": _request_body(schema, description.content)}}


def _request_body(schema: Schema, kind: str) -> JSONSchema:
    content, examples = openapi_bodies.taken(schema, kind)
    described: dict[str, JSONSchema] = {name: {"schema": body} for name, body in content.items()}
    if examples:
        described["application/json"]["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": described}


def _success(path: str, route: Route) -> JSONSchema:
    kind = route.description.content
    if kind == "file":
        content_type = ASSETS[path.rpartition("/")[2]].decode().partition(";")[0]
        content: openapi_bodies.Content = {content_type: openapi_bodies.TEXT}
    else:
        content = openapi_bodies.answered(kind)
    headers = _OF_200.get(kind, ("x-prediction-id",) if isinstance(route, PredictionRoute) else ())
    return openapi_common.response("Success", content, *headers)


def _errors(kind: str) -> dict[str, JSONSchema]:
    errors = openapi_common.common_errors()
    if kind == "card":
        errors["404"] = openapi_common.error("404", "The model came without a card for people")
    elif kind == "record":
        errors["404"] = openapi_common.error("404", "No prediction with this id is recorded")
    if other := openapi_bodies.not_ready(kind):
        errors["503"] = openapi_common.error("503", openapi_common.ERRORS["503"], other)
    return errors


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
