"""What a server says about its model, checked: it decides what is sent, and how much memory that takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from defects.features import Feature
from defects.kinds import NUMBER, REFUSE
from defects.schema import Schema
from defects.settings import SANE
from defects.values import MAX_LABELS

MOST = 4096  # features, and classes
KEYS = ("name", "version", "digest", "engine", "schema")

Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Text = Annotated[str, StringConstraints(max_length=10_000)]
Word = Annotated[str, StringConstraints(max_length=200)]
Sane = Annotated[str, StringConstraints(pattern=SANE)]
Number = Annotated[float, Field(allow_inf_nan=False)] | None


class _Said(BaseModel):
    model_config = ConfigDict(strict=True)


class _Feature(_Said):
    name: Name
    unit: Text = ""
    description: Text = ""
    low: Number = None
    high: Number = None
    observed_low: Number = None
    observed_high: Number = None
    example: Number = None
    optional: bool = False
    wide: bool = False
    kind: Word = NUMBER
    categories: list[Name] = Field(default=[], max_length=MAX_LABELS, strict=False)
    unknown: Word = REFUSE


class _Class(_Said):
    name: Name
    description: Text = ""


class _Schema(_Said):  # lists, or tuples as `Schema.to_json` has them
    features: list[_Feature] = Field(min_length=1, max_length=MOST, strict=False)
    classes: list[_Class] = Field(min_length=1, max_length=MOST, strict=False)
    title: Text
    label_name: Name = "defect"


class _Model(_Said):
    name: Sane
    version: Sane
    digest: Word
    engine: Word
    model_schema: _Schema = Field(alias="schema")


@dataclass(frozen=True)
class Served:
    """What a server says about its model."""

    name: str
    version: str
    digest: str
    engine: str
    schema: Schema

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Served:
        """Read what `/model` answered; raises `ValueError`, one line with the field, where it can't be used."""
        try:
            checked = _Model.model_validate(said)
            schema = Schema.from_json(said["schema"])
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            place = ".".join(map(str, first["loc"])) or "the answer"
            raise ValueError(f"{place}: {first['msg']}, got {str(first['input'])[:60]}") from None
        except (TypeError, KeyError) as error:
            raise ValueError(f"schema: {error}") from None
        for number, feature in enumerate(schema.features):
            if problem := _problem_of_range(feature):
                raise ValueError(f"schema.features.{number}: {problem}")
        return cls(checked.name, checked.version, checked.digest, checked.engine, schema)


def _problem_of_range(feature: Feature) -> str | None:
    """Say why no rows can be made in the range of a feature; `None` where they can."""
    for below, above in (("low", "high"), ("observed_low", "observed_high")):
        low, high = getattr(feature, below), getattr(feature, above)
        if low is not None and high is not None and low > high:
            return f"{below} {low:g} is above {above} {high:g}"
    for name in ("observed_low", "observed_high", "example"):
        value = getattr(feature, name)
        if value is not None and not feature.limits[0] <= value <= feature.limits[1]:
            return f"{name} is {value:g}; expected {feature.expected}"
    return None
