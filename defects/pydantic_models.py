"""Make the pydantic models of a schema: of the row that a caller sends, and of the prediction that it gets."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from defects.features import FLOAT32_MAX, Feature
from defects.identifiers import PATTERN
from defects.kinds import BOOLEAN, CATEGORY, INTEGER, MISSING, NUMBER, TEXT
from defects.schema import Schema


@lru_cache(16)
def request_model(schema: Schema) -> type[BaseModel]:
    """Make the pydantic model of one row. Field names are aliases, so any column name of a CSV works."""
    fields: dict[str, Any] = {
        f"feature_{i}": (_request_type(feature), _request_field(feature)) for i, feature in enumerate(schema.features)
    }
    config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"example": schema.example})
    return create_model("Scan", __config__=config, __doc__=f"One row of the {schema.title}.", **fields)


@lru_cache(16)
def answer_model(schema: Schema) -> type[BaseModel]:
    """Make the pydantic model of one prediction. Its class, the attribute `defect`, has the label's name in JSON."""
    names = list(schema.class_names)
    label: Any = {TEXT: str, INTEGER: int, NUMBER: float, BOOLEAN: bool}[schema.label_type]
    meanings = "; ".join(f"`{c.name}`: {c.description}" for c in schema.classes if c.description)
    return create_model(
        "Prediction",
        __doc__="What the service says of one row.",
        __config__=ConfigDict(serialize_by_alias=True, json_schema_extra={"additionalProperties": False}),
        defect=(
            label,
            Field(
                alias=schema.label_name,
                title=schema.label_name.capitalize(),
                description=f"The most probable class. {meanings}".strip(),
                json_schema_extra={"enum": list[Any](schema.labels)},
            ),
        ),
        confidence=(float, Field(ge=0, le=1, description="The probability of that class.")),
        probabilities=(
            dict[str, float],
            Field(
                description="Every class's probability; they sum to 1.",
                json_schema_extra={
                    "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in names},
                    "required": list[Any](names),
                    "additionalProperties": False,
                    "example": dict.fromkeys(names, round(1 / len(names), 4)),
                },
            ),
        ),
        prediction_id=(str, Field(description="Names this prediction.", json_schema_extra={"pattern": PATTERN})),
        model_version=(str, Field(description="The version of the model that answered.")),
    )


def _request_type(feature: Feature) -> Any:
    kind: Any = bool | Literal[0, 1] if feature.kind == BOOLEAN else float
    if feature.kind == CATEGORY:
        known = documented_categories(feature)
        kind = Literal[*known] if known else str | int | float if feature.integers else str
    return kind | None if feature.optional else kind


def documented_categories(feature: Feature) -> list[str | int]:
    """Return what names a category, in JSON; empty where an unknown one is taken too, and counts as missing."""
    return [] if feature.unknown == MISSING else list(feature.codes)


def description(feature: Feature) -> str:
    """Describe a feature in words: with its unit, what training saw, and what an unknown category means."""
    unit = f" ({feature.unit})" if feature.unit else ""
    seen = "" if feature.discrete else feature.observed
    other = f"; {feature.expected}; anything else counts as missing" if feature.unknown == MISSING else ""
    return f"{feature.description or feature.name}{unit}{seen}{other}"


def documented_limits(feature: Feature) -> tuple[float, float]:
    """Return the range of a number as it is declared; where it isn't, what is taken."""
    low, high = feature.limits
    return (
        low if feature.low is None or feature.low < -FLOAT32_MAX else feature.low,
        high if feature.high is None or feature.high > FLOAT32_MAX else feature.high,
    )


def _request_field(feature: Feature) -> Any:
    low, high = documented_limits(feature) if feature.kind == NUMBER else (None, None)
    return Field(
        None if feature.optional else ...,
        alias=feature.name,
        title=feature.name,
        description=description(feature),
        ge=low,
        le=high,
        json_schema_extra={
            "example": None if feature.example is None else feature.shown(feature.example),
            **({"x-unit": feature.unit} if feature.unit else {}),
            **({"examples": list(feature.categories)} if feature.unknown == MISSING else {}),
        },
    )
