"""What a model expects and answers, as data: its features and its classes.

The schema travels inside the artifact. Training writes it, and serving builds everything that depends on the
model's shape from it: validation, the typed request model, the OpenAPI document, protocol metadata, load payloads.

Two kinds of range: `low`/`high` say what is physically possible and are enforced; `observed_low`/`observed_high`
say what training saw and are not, because a value outside them is what drift looks like.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, create_model

# Larger values would become infinite when they are cast to what the model was trained on.
FLOAT32_MAX = float(np.finfo(np.float32).max)

# A caller who sends a thousand bad rows needs the first few problems, not a megabyte of them.
MAX_PROBLEMS = 50
MAX_NAME = 100

Rows = NDArray[np.float64]  # [rows, features]; NaN where a value is missing


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field of a request."""

    field: str
    problem: str
    expected: str


class InvalidInput(ValueError):
    """The caller's input breaks the schema; `problems` names the fields concerned, at most `MAX_PROBLEMS` of them."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems[:MAX_PROBLEMS])
        first, more = problems[0], len(problems) - 1
        text = f"{first.field}: {first.problem}; expected {first.expected}"
        at_least = "at least " if len(problems) > MAX_PROBLEMS else ""
        super().__init__(f"{text} (and {at_least}{more} more)" if more else text)


@dataclass(frozen=True, slots=True)
class Feature:
    """One measured number. `low`/`high` are inclusive and in `unit`; `None` means that no limit is declared."""

    name: str
    unit: str = ""
    description: str = ""
    low: float | None = None
    high: float | None = None
    optional: bool = False
    observed_low: float | None = None
    observed_high: float | None = None
    example: float | None = None

    @property
    def expected(self) -> str:
        """What a valid value is, in words."""
        unit = f" {self.unit}" if self.unit else ""
        match self.low, self.high:
            case None, None:
                text = f"a number{' in' + unit if unit else ''}"
            case low, None:
                text = f"a number of at least {low:g}{unit}"
            case None, high:
                text = f"a number of at most {high:g}{unit}"
            case low, high:
                text = f"a number from {low:g} to {high:g}{unit}"
        return f"{text}, or null" if self.optional else text

    @property
    def limits(self) -> tuple[float, float]:
        """The enforced range, always finite, and so wide that a limit itself is allowed when it comes as float32."""
        low = -FLOAT32_MAX if self.low is None else min(self.low, float(np.float32(self.low)))
        high = FLOAT32_MAX if self.high is None else max(self.high, float(np.float32(self.high)))
        return low, high


@dataclass(frozen=True, slots=True)
class DefectClass:
    """One answer that the model can give."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Schema:
    """The features in model order and the classes in the order of the probabilities."""

    features: tuple[Feature, ...]
    classes: tuple[DefectClass, ...]
    title: str = "rows"

    def __post_init__(self) -> None:
        for feature in self.features:
            if not all(isinstance(limit, int | float) for limit in feature.limits):
                raise ValueError(f"the limits of {feature.name} are not numbers")
        for kind, names in (("feature", self.names), ("class", self.class_names)):
            if not names:
                raise ValueError(f"a schema needs at least one {kind}")
            if len(set(names)) != len(names):
                raise ValueError(f"a {kind} name appears twice in {names}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(defect.name for defect in self.classes)

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each feature."""
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def limits(self) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """The enforced lowest and highest values and whether a value is required, each `[features]`."""
        low, high = zip(*(feature.limits for feature in self.features), strict=True)
        return np.array(low), np.array(high), np.array([not feature.optional for feature in self.features])

    @property
    def example(self) -> dict[str, Any]:
        """One realistic row, as a caller would send it."""
        return {feature.name: feature.example for feature in self.features}

    def observe(self, rows: NDArray[np.float32]) -> Schema:
        """This schema with the observed ranges, and the example where there is none, taken from training rows."""
        low, high, middle = (
            np.nanmin(rows, axis=0),
            np.nanmax(rows, axis=0),
            np.nanmedian(rows.astype(np.float64), axis=0),
        )
        return replace(
            self,
            features=tuple(
                replace(
                    feature,
                    observed_low=float(low[i]),
                    observed_high=float(high[i]),
                    example=float(f"{middle[i]:.6g}") if feature.example is None else feature.example,
                )
                for i, feature in enumerate(self.features)
            ),
        )

    # --- validation: one path for every protocol -----------------------------------------------------------------

    def rows_from_objects(self, objects: Sequence[Any], *, single: bool = False) -> Rows:
        """Objects by feature name as `[rows, features]`, validated.

        `single` leaves the row number out of the field names. Raises `InvalidInput`.
        """
        try:
            rows = np.array([self._values(item) for item in objects], dtype=np.float64)
        except (_Malformed, OverflowError):  # the latter for an integer that no float holds
            problems = (p for row, item in enumerate(objects) for p in self._problems_of(item, row, single))
            raise InvalidInput(list(islice(problems, MAX_PROBLEMS + 1))) from None
        return self.check(rows, single=single)

    def _values(self, item: Any) -> list[float | None]:
        """The row's values in model order; the fast path, which says only that something is wrong."""
        if type(item) is not dict or len(item) > len(self.names) or not item.keys() <= self.index.keys():
            raise _Malformed
        values = [*map(item.get, self.names)]
        if not _NUMBER_OR_MISSING.issuperset(map(type, values)):
            raise _Malformed
        return values

    def check(self, rows: Rows, *, single: bool = False) -> Rows:
        """`rows` unchanged when every value is allowed; raises `InvalidInput` otherwise."""
        if len(rows) == 1 and self._allows(rows.tolist()[0]):
            return rows
        low, high, required = self.limits
        missing = np.isnan(rows)
        bad = ~(missing | ((rows >= low) & (rows <= high))) | (missing & required)
        if bad.any():
            problems = (
                _problem_with_value(_field(row, self.names[column], single), self.features[column], rows[row, column])
                for row, column in zip(*bad.nonzero(), strict=True)
            )
            raise InvalidInput(list(islice(problems, MAX_PROBLEMS + 1)))
        return rows

    def _allows(self, row: list[float]) -> bool:
        """The same of one row, for which this takes a quarter of NumPy's time."""
        for value, (low, high, optional) in zip(row, self._ranges, strict=True):
            if not low <= value <= high and not (optional and math.isnan(value)):
                return False
        return True

    @cached_property
    def _ranges(self) -> list[tuple[float, float, bool]]:
        return [(*feature.limits, feature.optional) for feature in self.features]

    def _problems_of(self, item: Any, row: int, single: bool) -> Iterable[Problem]:
        if type(item) is not dict:
            yield Problem(_place(row, single), f"is {_kind(item)}", "an object with one value for each feature")
            return
        unknown = (name for name in item if name not in self.index)
        for count, name in enumerate(unknown):
            yield Problem(_field(row, name, single), "unknown field", self._known_fields(name, suggest=not count))
        for feature in self.features:
            place, value = _field(row, feature.name, single), item.get(feature.name)
            if type(value) not in _NUMBER_OR_MISSING:
                yield Problem(place, f"is {_kind(value)}", feature.expected)
            elif not _allowed(feature, value):
                yield _problem_with_value(place, feature, _as_float(value))

    def _known_fields(self, unknown: str, *, suggest: bool) -> str:
        close = difflib.get_close_matches(unknown[:MAX_NAME], self.names, n=1) if suggest else []
        return f"one of the {len(self.names)} features{f'; did you mean {close[0]}?' if close else ''}"

    # --- types ---------------------------------------------------------------------------------------------------

    @cached_property
    def request_model(self) -> type[BaseModel]:
        """The pydantic model of one row. Field names are aliases, so any column name of a CSV works."""
        fields: dict[str, Any] = {
            f"feature_{i}": (float | None if feature.optional else float, _request_field(feature))
            for i, feature in enumerate(self.features)
        }
        config = ConfigDict(
            extra="forbid", strict=True, allow_inf_nan=False, json_schema_extra={"example": self.example}
        )
        return create_model("Scan", __config__=config, __doc__=f"One row of the {self.title}.", **fields)

    @cached_property
    def answer_model(self) -> type[BaseModel]:
        """The pydantic model of one prediction."""
        names = list(self.class_names)
        meanings = "; ".join(f"`{c.name}`: {c.description}" for c in self.classes if c.description)
        return create_model(
            "Prediction",
            __doc__="What the service says of one row.",
            defect=(
                str,
                Field(
                    description=f"The most probable class. {meanings}".strip(),
                    json_schema_extra={"enum": list[Any](names)},
                ),
            ),
            confidence=(float, Field(ge=0, le=1, description="The probability of that class.")),
            probabilities=(
                dict[str, float],
                Field(
                    description="Every class's probability; they sum to 1.",
                    json_schema_extra={"example": dict.fromkeys(names, round(1 / len(names), 4))},
                ),
            ),
            prediction_id=(str, Field(description="Names this prediction.")),
            model_version=(str, Field(description="The version of the model that answered.")),
        )

    # --- as JSON -------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """Raises `TypeError`, `KeyError` or `ValueError` where `data` is not a schema."""
        return cls(
            features=tuple(Feature(**feature) for feature in data["features"]),
            classes=tuple(DefectClass(**defect) for defect in data["classes"]),
            title=data["title"],
        )


class _Malformed(Exception):
    """The fast path met something that it does not explain."""


_NUMBER_OR_MISSING = frozenset({float, int, type(None)})

_KINDS = {bool: "a boolean", str: "text", list: "a list", dict: "an object", type(None): "null", int: "a number"}


class Constant(str):
    """`NaN`, `Infinity` or `-Infinity` where JSON was expected to have a number."""


def _kind(value: Any) -> str:
    return str(value) if type(value) is Constant else _KINDS.get(type(value), "a number")


def _place(row: int, single: bool) -> str:
    return "body" if single else f"[{row}]"


def _field(row: int, name: str, single: bool) -> str:
    name = name[:MAX_NAME]  # it may be the caller's invention
    return name if single else f"[{row}].{name}"


def _allowed(feature: Feature, value: float | None) -> bool:
    low, high = feature.limits
    return feature.optional if value is None else low <= value <= high


def _as_float(value: float | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return math.inf


def _problem_with_value(field: str, feature: Feature, value: float) -> Problem:
    if math.isnan(value):
        problem = "is missing"
    elif math.isinf(value):
        problem = "is infinite"
    else:
        problem = f"{value:.10g} is out of range"
    return Problem(field, problem, feature.expected)


def _request_field(feature: Feature) -> Any:
    unit = f" ({feature.unit})" if feature.unit else ""
    seen = (
        "" if feature.observed_low is None else f"; training saw {feature.observed_low:g} to {feature.observed_high:g}"
    )
    return Field(
        None if feature.optional else ...,
        alias=feature.name,
        title=feature.name,
        description=f"{feature.description or feature.name}{unit}{seen}",
        ge=feature.low,
        le=feature.high,
        json_schema_extra={"example": feature.example, **({"x-unit": feature.unit} if feature.unit else {})},
    )
