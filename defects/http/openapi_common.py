"""What the OpenAPI document says of every route: headers of requests and answers, and the answers that any may have."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from defects.http.messages import BINARY, SANE_ID
from defects.identifiers import PATTERN
from defects.protocols.outcomes import DEFAULT_SINCE, GROUPS, PREDICTION_ID, SANE_ORIGIN, SINCE
from defects.settings import MAX_TIMEOUT_MS

JSONSchema = dict[str, Any]

JSON_TYPE, BINARY_TYPE = "application/json", BINARY.decode()
_DURATIONS = ", ".join(rf"{phase};dur=[0-9]+\.[0-9]{{3}}" for phase in ("queue", "score", "total"))

# Answers that any request may get, whatever its route: the status, and when.
ERRORS = {
    "400": "The input or a header is invalid, or the request is no HTTP/1.1; `fields` has each problem of the input",
    "408": "The head or the body did not arrive in time",
    "413": "The body is too large",
    "414": "The URL is too long",
    "415": "The content type or encoding is not supported",
    "431": "The head is too large, or has too many fields",
    "503": "Not ready or overloaded; `Retry-After` says in how many seconds to try again",
}
# Answers to what is none of the document's operations. They stand among the components, and nothing refers to them.
UNDESCRIBED = {
    "404": "No such path, model or version",
    "409": "The `Idempotency-Key` was used for another request",
    "405": "Another method is expected; `Allow` names those that work",
}


def _without_default(made: JSONSchema) -> None:
    del made["default"]  # it is left out, not null


class FieldProblem(BaseModel):
    """One thing wrong with one field."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    field: str
    problem: str
    expected: str


class Error(BaseModel):
    """Every error has this shape."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})

    error: str = Field(description="What is wrong and what was expected.")
    fields: list[FieldProblem] | SkipJsonSchema[None] = Field(
        None,
        description="The fields concerned, where the input is invalid.",
        json_schema_extra=_without_default,
    )


def _header(description: str, schema: JSONSchema, *, required: bool = False) -> JSONSchema:
    return {"description": description, "schema": schema, **({"required": True} if required else {})}


ON_EVERY_ANSWER = {
    "x-request-id": _header(
        "The caller's id, if it sent a usable one, else a new one.",
        {"type": "string", "pattern": f"^{SANE_ID.pattern}$"},
        required=True,
    ),
    "x-model-version": _header("Which model answered.", {"type": "string"}, required=True),
    "x-revision": _header("Which revision answered.", {"type": "string"}, required=True),
    "server-timing": _header(
        "Milliseconds in the queue, in the scorer, and in total.",
        {"type": "string", "pattern": f"^{_DURATIONS}$"},
        required=True,
    ),
    "x-content-type-options": _header(
        "Browsers take the content type as it is.", {"type": "string", "enum": ["nosniff"]}, required=True
    ),
}
ON_SOME_ANSWERS = {
    "retry-after": _header("Seconds until another try.", {"type": "integer", "minimum": 1}, required=True),
    "allow": _header("The methods that work.", {"type": "string", "pattern": "^(GET, HEAD|POST)$"}, required=True),
    "content-encoding": _header("The body is packed.", {"type": "string", "enum": ["gzip"]}),
    "vary": _header("Whether the body is packed depends on it.", {"type": "string", "enum": ["accept-encoding"]}),
    "idempotency-replayed": _header(
        "The answer is the first one to the request's `Idempotency-Key`, again.", {"type": "string", "enum": ["true"]}
    ),
    "x-prediction-id": _header(
        "The prediction's id, where the answer has one prediction.", {"type": "string", "pattern": PATTERN}
    ),
    "inference-header-content-length": _header(
        "Bytes of the JSON part, where binary tensors follow it.", {"type": "integer", "minimum": 2}
    ),
    "cache-control": _header("How long it may be kept.", {"type": "string"}, required=True),
    "content-security-policy": _header("What the page may load.", {"type": "string"}, required=True),
}
_OF_STATUS = {"405": ("allow",), "503": ("retry-after",)}
_OPTIONAL = ("content-encoding", "vary")  # on each answer that is large enough


def _parameter(name: str, description: str, schema: JSONSchema, place: str = "header") -> JSONSchema:
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": description, "schema": schema, **required}


_TEXT: JSONSchema = {"type": "string"}
# Operations refer only to those that do what they say with any value. A client made from the document, or a tool that
# tries it out, would send the others without packing the body, without binary tensors, or with a deadline of 1 ms.
PARAMETERS = {
    "x-request-id": _parameter(
        "x-request-id",
        "Names the request, in the answer and in the log. An id that is not usable is replaced by a new one: usable "
        "are 1 to 128 of `A-Z a-z 0-9 . _ : / + = @ -`.",
        _TEXT,
    ),
    "x-source": _parameter(
        "x-source",
        "Which tunnel or site the request is from, for the history: up to 64 of `A-Z a-z 0-9 . _ : / + = @ -`. Another "
        "one is ignored.",
        _TEXT,
    ),
    "idempotency-key": _parameter(
        "idempotency-key",
        "Predictions with the same key, route and body get the first answer for 24 hours, where answers are recorded "
        "before they leave (`DEFECTS_HISTORY=acknowledged`). Where they are recorded later, it is refused.",
        {"type": "string", "pattern": "^[ -~]{1,255}$"},
    ),
    "traceparent": _parameter("traceparent", "Its trace id goes into the log (W3C Trace Context).", _TEXT),
    "accept-encoding": _parameter(
        "accept-encoding", "With `gzip` in it, an answer of 4 KiB or more may be packed.", _TEXT
    ),
    "x-request-timeout-ms": _parameter(
        "x-request-timeout-ms",
        "The deadline in milliseconds, instead of the server's own. 503 is the answer where it can't be met.",
        {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
    ),
    "content-encoding": _parameter(
        "content-encoding", "With `gzip`, the body is packed.", {"type": "string", "enum": ["gzip", "identity"]}
    ),
    "inference-header-content-length": _parameter(
        "inference-header-content-length",
        "Bytes of the body's JSON part, where binary tensors follow it. At most the length of the body.",
        {"type": "integer", "minimum": 0},
    ),
    "id": _parameter(
        "id",
        "The prediction's id, as its answer has it. Dashes and capital letters are taken too.",
        {"type": "string", "pattern": f"^({PREDICTION_ID.pattern})$"},
        "path",
    ),
    "since": _parameter(
        "since",
        "Only predictions since then: so many minutes, hours or days ago, such as `30m`, `24h` or `7d`; or a time as "
        "RFC 3339 has it, such as `2026-11-27T05:00:00Z`.",
        {"type": "string", "anyOf": [{"pattern": f"^{SINCE}$"}, {"format": "date-time"}], "default": DEFAULT_SINCE},
        "query",
    ),
    "by": _parameter("by", "Also for each of these, apart.", {"type": "string", "enum": [*GROUPS]}, "query"),
    "origin": _parameter(
        "origin",
        "Only outcomes of this origin. Without it, the one counts that came last.",
        {"type": "string", "pattern": f"^{SANE_ORIGIN.pattern}$"},
        "query",
    ),
    "verbose": _parameter("verbose", "With any value, or none, the answer says more.", _TEXT, "query"),
}


def reference(kind: str, name: str) -> JSONSchema:
    """Return a reference to one of the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def described_object(required: dict[str, JSONSchema], *, closed: bool = False, **optional: JSONSchema) -> JSONSchema:
    """Return the schema of an object with these properties, and with others where it is not `closed`."""
    made = {"type": "object", "properties": required | optional, "required": [*required]}
    return made | {"additionalProperties": False} if closed else made


def response(description: str, content: dict[str, JSONSchema], *headers: str) -> JSONSchema:
    """Describe an answer; `content` has the schema of each content type, and `headers` are named besides the common."""
    names = (*ON_EVERY_ANSWER, *_OPTIONAL, *headers)
    return {
        "description": description,
        "headers": {name: reference("headers", name) for name in names},
        "content": {kind: {"schema": schema} for kind, schema in content.items()},
    }


def error(status: str, description: str, schema: JSONSchema | None = None) -> JSONSchema:
    """Describe an error, which has the one shape where no `schema` is given."""
    content = {JSON_TYPE: schema or reference("schemas", "Error")}
    return response(description, content, *_OF_STATUS.get(status, ()))


def components() -> dict[str, Any]:
    """Return the components that do not depend on the model."""
    return {
        "headers": ON_EVERY_ANSWER | ON_SOME_ANSWERS,
        "parameters": PARAMETERS,
        "responses": {status: error(status, text) for status, text in (ERRORS | UNDESCRIBED).items()},
    }


def common_errors() -> dict[str, JSONSchema]:
    """Return, by status, references to the answers that any request may get."""
    return {status: reference("responses", status) for status in ERRORS}
