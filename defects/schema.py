"""Describe what a model expects and answers: its features and its classes, as data.

The schema travels inside the artifact. Training writes it, and serving builds everything that depends on the
model's shape from it: validation, the typed request model, the OpenAPI document, protocol metadata, load payloads.

Two kinds of range: `low`/`high` say what is physically possible and are enforced; `observed_low`/`observed_high`
say what training saw and are not, because a value outside them is what drift looks like.

Two precisions: a feature's values are held in 32 bits, rounded once, so that every protocol means the same by 0.1. A
*wide* feature, whose training values 32 bits can't tell apart (epochs, serial numbers, amounts in cents), has 64.
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

from defects import values
from defects.kinds import BOOLEAN, LABEL_TYPES, NUMBER, TEXT, Label, read_label
from defects.problems import (
    MAX_NAME,
    MAX_PROBLEMS,
    NAN,
    NUMBER_OR_MISSING,
    Constant,
    InvalidInput,
    Problem,
    as_float,
    field_name,
    is_number,
    kind_of,
    row_name,
    short,
)

# Larger values would become infinite when they are cast to what the model was trained on.
FLOAT32_MAX = float(np.finfo(np.float32).max)
LARGEST = float(np.nextafter(FLOAT32_MAX + 2.0**103, 0.0))  # that is still rounded to it
MAX_NAMES = 100_000  # features, and classes

Rows = NDArray[np.float64]  # [rows, features]; NaN where a value is missing
ModelRows = NDArray[np.float32] | NDArray[np.float64]  # the same, as the model takes them: see `Schema.held`


@dataclass(frozen=True, slots=True)
class Feature:
    """One measured value. `low`/`high` are inclusive and in `unit`; `None` means that no limit is declared.

    `kind` is `number` or `boolean`, which is 1 for true and 0 for false in rows. The values of a `wide` feature are
    held in 64 bits, of others in 32.
    """

    name: str
    unit: str = ""
    description: str = ""
    low: float | None = None
    high: float | None = None
    optional: bool = False
    observed_low: float | None = None
    observed_high: float | None = None
    example: float | None = None
    kind: str = NUMBER
    wide: bool = False

    def __post_init__(self) -> None:
        values.check_fields(self)
        if self.kind not in (NUMBER, BOOLEAN):
            raise ValueError(f"kind is {values.shown(self.kind)}; expected {NUMBER} or {BOOLEAN}")
        low, high = self.limits
        if not low <= high:
            raise ValueError(f"low, {short(low)}, is above high, {short(high)}; expected a range of 32-bit numbers")
        for name in ("observed_low", "observed_high", "example"):
            if abs(getattr(self, name) or 0) > LARGEST:
                raise ValueError(f"{name} is {short(getattr(self, name))}; expected a 32-bit number")

    @property
    def expected(self) -> str:
        """What a valid value is, in words."""
        if self.kind == BOOLEAN:
            return f"true or false{', or null' if self.optional else ''}"
        unit = f" {self.unit}" if self.unit else ""
        match self.low, self.high:
            case None, None:
                text = f"a number{' in' + unit if unit else ''}"
            case float() | int() as low, None:
                text = f"a number of at least {short(low)}{unit}"
            case None, float() | int() as high:
                text = f"a number of at most {short(high)}{unit}"
            case float() | int() as low, float() | int() as high:
                text = f"a number from {short(low)} to {short(high)}{unit}"
        return f"{text}, or null" if self.optional else text

    @property
    def limits(self) -> tuple[float, float]:
        """The enforced range, always finite, and so wide that a limit itself is allowed when it comes as float32."""
        if self.kind == BOOLEAN:
            return 0.0, 1.0
        low = -LARGEST if self.low is None else max(self.low, -FLOAT32_MAX)
        high = LARGEST if self.high is None else min(self.high, FLOAT32_MAX)
        if max(low, -high) > LARGEST:
            return low, high  # nothing is in range
        return min(low, float(np.float32(low))), max(high, float(np.float32(high)))

    def allows(self, value: float) -> bool:
        """Whether a row may have this value; NaN is a missing one."""
        low, high = self.limits
        inside = value in (0.0, 1.0) if self.kind == BOOLEAN else low <= value <= high
        return inside or (self.optional and math.isnan(value))

    def shown(self, value: float) -> Any:
        """Return a value as a caller would send it: the fewest digits that mean it."""
        if self.kind == BOOLEAN:
            return value >= 0.5
        return value if self.wide else float(str(np.float32(value)))

    @property
    def observed(self) -> str:
        """What training saw, to be put after other words; empty where that is not known."""
        if self.observed_low is None or self.observed_high is None:
            return ""
        return f"; training saw {short(self.shown(self.observed_low))} to {short(self.shown(self.observed_high))}"

    def problem_with(self, value: Any, field: str) -> Problem:
        """Return what is wrong with a number, or a missing one, that `field` may not have."""
        number = as_float(value)
        problem = f"is {short(number)}" if self.kind == BOOLEAN else f"{short(number)} is out of range"
        if type(value) is Constant:
            problem = f"is {value}"
        elif not math.isfinite(number):
            problem = "is missing" if math.isnan(number) else "is infinite"
        return Problem(field, problem, self.expected)


@dataclass(frozen=True, slots=True)
class DefectClass:
    """One answer that the model can give, by its name: the label as text."""

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        values.check_fields(self)


@dataclass(frozen=True)
class Schema:
    """The features in model order and the classes in the order of the probabilities.

    `label_type` is what the training's labels were: `text`, `integer`, `number` or `boolean`.
    """

    features: tuple[Feature, ...]
    classes: tuple[DefectClass, ...]
    title: str = "rows"
    label_type: str = TEXT

    def __post_init__(self) -> None:
        values.text(self.title, "title")
        if values.text(self.label_type, "label_type") not in LABEL_TYPES:
            raise ValueError(f"the label type {self.label_type!r} is none of {', '.join(LABEL_TYPES)}")
        for kind, names in (("feature", self.names), ("class", self.class_names)):
            if not names:
                raise ValueError(f"a schema needs at least one {kind}")
            if len(set(names)) != len(names):
                raise ValueError(f"a {kind} name appears twice in {values.shown(', '.join(names))}")
        _ = self.labels  # a class that is not of the label type

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        return tuple(defect.name for defect in self.classes)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """Each class as the training's labels had it, for answers in JSON."""
        return tuple(read_label(name, self.label_type) for name in self.class_names)

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each feature."""
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def limits(self) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """The enforced lowest and highest values and whether a value is required, each `[features]`."""
        low, high = zip(*(feature.limits for feature in self.features), strict=True)
        return np.array(low), np.array(high), np.array([not feature.optional for feature in self.features])

    @cached_property
    def reach(self) -> float:
        """The largest absolute value that any feature allows."""
        low, high, _ = self.limits
        return float(max(-low.min(), high.max()))

    @cached_property
    def wide(self) -> bool:
        """Whether any feature is."""
        return any(feature.wide for feature in self.features)

    @cached_property
    def _narrow(self) -> NDArray[np.intp]:
        return np.flatnonzero([not feature.wide for feature in self.features])

    def held(self, rows: Rows) -> ModelRows:
        """Return rows as the model takes them: float32, or float64 with all but the wide features rounded to 32 bits.

        Each value is rounded once, to nearest; `rows` is left as it is.
        """
        if not self.wide:
            return rows.astype(np.float32)
        held = np.array(rows, np.float64)
        held[:, self._narrow] = held[:, self._narrow].astype(np.float32)
        return held

    @property
    def example(self) -> dict[str, Any]:
        """One realistic row, as a caller would send it."""
        return {f.name: None if f.example is None else f.shown(f.example) for f in self.features}

    def observe(self, rows: ModelRows) -> Schema:
        """Return this schema with the observed ranges, and an example where there is none, of training rows."""
        low, high = np.nanmin(rows, axis=0), np.nanmax(rows, axis=0)
        middle = np.nanmedian(rows.astype(np.float64), axis=0)
        return replace(
            self,
            features=tuple(
                replace(
                    feature,
                    observed_low=float(low[i]),
                    observed_high=float(high[i]),
                    example=float(feature.shown(middle[i])) if feature.example is None else feature.example,
                )
                for i, feature in enumerate(self.features)
            ),
        )

    # --- validation: one path for every protocol -----------------------------------------------------------------

    def rows_from_objects(self, objects: Sequence[Any], *, single: bool = False) -> Rows:
        """Return objects by feature name as rows `[rows, features]`, validated.

        `single` leaves the row number out of the field names. Raises `InvalidInput`.
        """
        try:
            rows = np.array([self._values(item) for item in objects], dtype=np.float64)
        except (_Malformed, OverflowError):  # the latter for an integer that no float holds
            return self._rows_with_nan(objects, single)
        return self.check(rows, single=single)

    def _rows_with_nan(self, objects: Sequence[Any], single: bool) -> Rows:
        """Return the rows where only NaN stands for missing values; else name problems, of those rows that have any."""
        read = [self._values_with_nan(item) for item in objects]
        rows = np.array([[*map(as_float, values or [None] * len(self.names))] for values in read])
        wrong = np.logical_or.reduce(self._wrong(rows), axis=1) | np.array([values is None for values in read])
        found = (p for row in np.flatnonzero(wrong).tolist() for p in self._problems_of(objects[row], row, single))
        if problems := list(islice(found, MAX_PROBLEMS + 1)):
            raise InvalidInput(problems) from None
        return rows

    def _values_with_nan(self, item: Any) -> list[float | None] | None:
        """Return the row's values in model order, missing where NaN stands for that; `None` if it is malformed."""
        if type(item) is dict and Constant in set(map(type, item.values())):
            item = {name: None if type(v) is Constant and v == NAN else v for name, v in item.items()}
        try:
            return self._values(item)
        except _Malformed:
            return None

    def _values(self, item: Any) -> list[float | None]:
        """Return the row's values in model order; raises `_Malformed`, which says no more than that."""
        if type(item) is not dict or len(item) > len(self.names) or not item.keys() <= self.index.keys():
            raise _Malformed
        values = [*map(item.get, self.names)]
        if not NUMBER_OR_MISSING.issuperset(map(type, values)) and not self._booleans_in_place(values):
            raise _Malformed
        return values

    def _booleans_in_place(self, values: list[Any]) -> bool:
        """Whether all that is no number or missing are booleans, of features that are."""
        return all(
            type(value) in NUMBER_OR_MISSING or (type(value) is bool and feature.kind == BOOLEAN)
            for value, feature in zip(values, self.features, strict=True)
        )

    def check(self, rows: Rows, *, single: bool = False) -> Rows:
        """Return `rows` unchanged when every value is allowed; raises `InvalidInput` otherwise."""
        if len(rows) == 1 and self._allows(rows.tolist()[0]):
            return rows
        bad = self._wrong(rows)
        if bad.any():
            problems = (
                self.features[column].problem_with(rows[row, column], field_name(row, self.names[column], single))
                for row, column in zip(*bad.nonzero(), strict=True)
            )
            raise InvalidInput(list(islice(problems, MAX_PROBLEMS + 1)))
        return rows

    def _wrong(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell for each value whether a row may not have it."""
        low, high, required = self.limits
        missing = np.isnan(rows)
        bad: NDArray[np.bool_] = ~(missing | ((rows >= low) & (rows <= high))) | (missing & required)
        if self._booleans:
            values = rows[:, self._booleans]
            bad[:, self._booleans] |= (values != 0) & (values != 1) & ~np.isnan(values)
        return bad

    def _allows(self, row: list[float]) -> bool:
        """Whether every value of one row is allowed; takes a quarter of NumPy's time."""
        for value, (low, high, optional) in zip(row, self._ranges, strict=True):
            if not low <= value <= high and not (optional and math.isnan(value)):
                return False
        if not self._booleans:
            return True
        return all(row[column] in (0, 1) or math.isnan(row[column]) for column in self._booleans)

    @cached_property
    def _booleans(self) -> list[int]:
        return [column for column, feature in enumerate(self.features) if feature.kind == BOOLEAN]

    def check_scored(self, rows: Rows, unscored: NDArray[np.bool_], *, single: bool = False) -> None:
        """Raise `InvalidInput` for the rows that have no finite scores: each names its most suspicious field.

        That is the one furthest beyond what training saw, measured by the width of that range.
        """
        if not unscored.any():
            return
        problems = []
        for row in np.flatnonzero(unscored)[: MAX_PROBLEMS + 1]:
            column = self._most_suspicious(rows[row])
            feature = self.features[column]
            problem = f"{short(rows[row, column])} makes the model's scores infinite"
            expected = f"{feature.expected}{feature.observed}"
            problems.append(Problem(field_name(int(row), feature.name, single), problem, expected))
        raise InvalidInput(problems)

    def _most_suspicious(self, row: NDArray[np.floating[Any]]) -> int:
        beyond = []
        for feature, value in zip(self.features, row.tolist(), strict=True):
            low, high = feature.observed_low or 0.0, feature.observed_high or 0.0
            width = high - low or 1.0  # a constant column is not scaled
            beyond.append((max(low - value, value - high, 0.0) / width, abs(value)) if value == value else (-1.0, 0.0))  # noqa: PLR0124
        return beyond.index(max(beyond))

    @cached_property
    def _ranges(self) -> list[tuple[float, float, bool]]:
        return [(*feature.limits, feature.optional) for feature in self.features]

    def _problems_of(self, item: Any, row: int, single: bool) -> Iterable[Problem]:
        if type(item) is not dict:
            yield Problem(row_name(row, single), f"is {kind_of(item)}", "an object with one value for each feature")
            return
        unknown = (name for name in item if name not in self.index)
        for count, name in enumerate(unknown):
            yield Problem(field_name(row, name, single), "unknown field", self.known_features(name, suggest=not count))
        for feature in self.features:
            place, value = field_name(row, feature.name, single), item.get(feature.name)
            if not (is_number(value) or (type(value) is bool and feature.kind == BOOLEAN)):
                yield Problem(place, f"is {kind_of(value)}", feature.expected)
            elif not feature.allows(as_float(value)):
                yield feature.problem_with(value, place)

    def known_features(self, unknown: str, *, suggest: bool) -> str:
        """Say which features there are, and which one an unknown name may stand for."""
        close = difflib.get_close_matches(unknown[:MAX_NAME], self.names, n=1) if suggest else []
        return f"one of the {len(self.names)} features{f'; did you mean {close[0]}?' if close else ''}"

    # --- as JSON -------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the schema as `schema.json` has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """Read a schema; raises `ValueError` where `data` is none."""
        values.mapping(data, "the document")
        return cls(
            features=values.instances(Feature, values.member(data, "features"), "features", MAX_NAMES),
            classes=values.instances(DefectClass, values.member(data, "classes"), "classes", MAX_NAMES),
            title=values.member(data, "title"),
            label_type=data.get("label_type", TEXT),
        )


class _Malformed(Exception):
    """A row is malformed; `_problems_of` finds out in which way."""
