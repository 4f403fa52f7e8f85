"""JSON schemas of outcomes, of recorded predictions, and of the summary of both."""

from __future__ import annotations

from typing import Any

from defects.http.openapi_common import JSONSchema, described_object, reference
from defects.identifiers import PATTERN
from defects.protocols.outcomes import (
    DEFAULT_ORIGIN,
    GROUPS,
    MAX_OUTCOMES,
    MAX_ROW,
    PREDICTION_ID,
    RESULTS,
    SANE_ORIGIN,
    SANE_REQUEST_ID,
)
from defects.schema import Schema
from defects.serving.recording import KINDS, PROTOCOLS

_TEXT: JSONSchema = {"type": "string"}
_TIME: JSONSchema = {"type": "string", "format": "date-time"}
_ID: JSONSchema = {"type": "string", "pattern": PATTERN}
_LABEL: JSONSchema = {"type": ["string", "number", "boolean"]}
_COUNT: JSONSchema = {"type": "integer", "minimum": 0}
_SHARE: JSONSchema = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
_MEASURE: JSONSchema = {"type": ["number", "null"], "minimum": 0}


def schemas(schema: Schema) -> dict[str, JSONSchema]:
    """Return the schemas that others refer to, by their names among the components."""
    return {
        "OutcomeOfPrediction": _outcome(
            schema,
            prediction_id={"type": "string", "pattern": f"^({PREDICTION_ID.pattern})$"},
        ),
        "OutcomeOfRow": _outcome(
            schema,
            request_id={
                "type": "string",
                "pattern": f"^{SANE_REQUEST_ID.pattern}$",
                "description": "`x-request-id` of the answer. Where several have it, the newest is meant.",
            },
            row={"type": "integer", "minimum": 0, "maximum": MAX_ROW, "description": "Its place in the request."},
        ),
        "StoredOutcome": _stored(),
        "Record": _record(),
        "Measures": _measures(),
        "Summary": _summary(),
    }


def _outcome(schema: Schema, **which: JSONSchema) -> JSONSchema:
    """Describe an outcome, of the prediction that some fields name."""
    label = {
        "description": "What turned out to be true, as answers have it, or the class's name. For a prediction of "
        "another model, the classes of that model are taken.",
        "enum": list(dict.fromkeys([*schema.labels, *schema.class_names])),
    }
    return described_object(
        which | {"class": label},
        closed=True,
        origin={
            "type": "string",
            "pattern": f"^{SANE_ORIGIN.pattern}$",
            "default": DEFAULT_ORIGIN,
            "description": "Who says so. A prediction has one current outcome of each origin.",
        },
        occurred_at={**_TIME, "description": "When that was seen (RFC 3339); without it, now."},
        replace={
            "type": "boolean",
            "default": False,
            "description": "It corrects what this origin said before, which is kept.",
        },
    )


def _stored() -> JSONSchema:
    result = {
        "type": "string",
        "enum": [*RESULTS],
        "description": "`unknown`: no such prediction is recorded as yet; the outcome is kept for a day, and joined "
        "when the record arrives. `conflict`: the same origin said `class` before; nothing was changed.",
    }
    made = described_object({"result": result}, closed=True, prediction_id=_ID)
    made["properties"]["class"] = _LABEL
    return made


def taken() -> JSONSchema:
    """Return what `POST /outcomes` takes."""
    one = {"anyOf": [reference("schemas", "OutcomeOfPrediction"), reference("schemas", "OutcomeOfRow")]}
    return {"anyOf": [*one["anyOf"], {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_OUTCOMES}]}


def examples(schema: Schema) -> dict[str, Any]:
    """Return examples of what it takes, by name."""
    one = {"prediction_id": "019aa8e1c3f57a39b183f64ed287b956", "class": schema.labels[0]}
    row = {"request_id": "tunnel-7-4711", "row": 0, "class": schema.labels[-1], "origin": "audit"}
    return {"one": one, "several": [one, {**row, "occurred_at": "2026-11-27T05:00:00Z"}]}


def answered() -> JSONSchema:
    """Return what it answers: for one outcome an object, for a list a list."""
    one = reference("schemas", "StoredOutcome")
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1, "maxItems": MAX_OUTCOMES}]}


def _record() -> JSONSchema:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    outcome = {
        "origin": _TEXT,
        "class": _LABEL,
        "occurred_at": _TIME,
        "received_at": _TIME,
        "replaced_at": {"type": ["string", "null"], "format": "date-time", "description": "null: it is current."},
    }
    features = {"type": ["object", "null"], "description": "null: values are left out (`DEFECTS_HISTORY_FEATURES`)."}
    return described_object(
        {
            "prediction_id": _ID,
            "time": _TIME,
            "kind": {"type": "string", "enum": [*KINDS]},
            "request_id": _TEXT,
            "row": _COUNT,
            "model_version": _TEXT,
            "model_digest": _TEXT,
            "revision": _TEXT,
            "source": {"type": ["string", "null"], "description": "What `x-source` said."},
            "protocol": {"type": "string", "enum": [*PROTOCOLS]},
            "features": features,
            "class": _LABEL,
            "confidence": probability,
            "probabilities": {"type": "object", "additionalProperties": probability},
            "latency_ms": {"type": "number", "minimum": 0},
            "outcomes": {"type": "array", "items": described_object(outcome, closed=True)},
        },
        closed=True,
    )


def _summary() -> JSONSchema:
    group = {"group": {**_TEXT, "description": "`other` has all beyond the largest."}}
    return described_object(
        {
            "since": _TIME,
            "until": _TIME,
            "by": {"enum": [*GROUPS, None]},
            "origin": {"type": ["string", "null"]},
            "overall": reference("schemas", "Measures"),
            "groups": {
                "type": "array",
                "items": described_object({**group, "measures": reference("schemas", "Measures")}, closed=True),
            },
        },
        closed=True,
    )


def _measures() -> JSONSchema:
    """Describe the measures of some predictions: `null` is what nobody can know without outcomes."""
    delay = described_object({"median": _MEASURE, "p90": _MEASURE}, closed=True)
    accuracy = described_object({"value": _SHARE, "low": _SHARE, "high": _SHARE}, closed=True)
    one_class = {"class": _TEXT, "predicted": _COUNT, "labelled": _COUNT, "labelled_share": _SHARE, "true": _COUNT}
    one_class |= {"right": _COUNT, "precision": _SHARE, "recall": _SHARE}
    cell = {"true": _TEXT, "predicted": _TEXT, "rows": _COUNT}
    a_bin = {"low": _SHARE, "high": _SHARE, "rows": _COUNT, "confidence": _SHARE, "accuracy": _SHARE}
    return described_object(
        {
            "rows": _COUNT,
            "labelled": _COUNT,
            "labelled_share": _SHARE,
            "delay_seconds": {**delay, "description": "From a prediction until its outcome was received."},
            "accuracy": {**accuracy, "description": "With Wilson's interval, 95 %."},
            "log_loss": _MEASURE,
            "calibration_error": {**_SHARE, "description": "Expected calibration error, over `reliability`."},
            "reliability": {"type": "array", "items": described_object(a_bin, closed=True)},
            "classes": {"type": "array", "items": described_object(one_class, closed=True)},
            "confusion": {"type": "array", "items": described_object(cell, closed=True)},
        },
        closed=True,
    )
