"""Describe what a model expects and answers: its features and its classes, as data.

The schema travels inside the artifact. Training writes it, and serving builds everything that depends on the
model's shape from it: validation, the typed request model, the OpenAPI document, protocol metadata, load payloads.

Two kinds of range: `low`/`high` say what is physically possible and are enforced; `observed_low`/`observed_high`
say what training saw and are not, because a value outside them is what drift looks like.

Two precisions: a feature's values are held in 32 bits, rounded once, so that every protocol means the same by 0.1. A
*wide* feature, whose training values 32 bits can't tell apart (epochs, serial numbers, amounts in cents), has 64.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import values
from defects.features import Codes, DefectClass, Feature
from defects.kinds import CATEGORY, LABEL_TYPES, TEXT, Label, read_label
from defects.objects import Malformed, ObjectReader
from defects.problems import (
    MAX_PROBLEMS,
    InvalidInput,
    Problem,
    as_float,
    field_name,
    short,
)

MAX_NAMES = 100_000  # features, and classes
ANSWER_FIELDS = ("confidence", "probabilities", "prediction_id", "model_version")  # beside the class

Rows = NDArray[np.float64]  # [rows, features]; NaN where a value is missing
ModelRows = NDArray[np.float32] | NDArray[np.float64]  # the same, as the model takes them: see `Schema.held`


@dataclass(frozen=True)
class Schema:
    """The features in model order and the classes in the order of the probabilities.

    `label_type` is what the training's labels were: `text`, `integer`, `number` or `boolean`. `label_name` is what the
    data calls them; answers have the class by that name.
    """

    features: tuple[Feature, ...]
    classes: tuple[DefectClass, ...]
    title: str = "rows"
    label_type: str = TEXT
    label_name: str = "defect"

    def __post_init__(self) -> None:
        values.text(self.title, "title")
        if values.label(self.label_name, "label_name") in ANSWER_FIELDS:
            raise ValueError(
                f"the label is named {self.label_name!r}, as another field of every answer; expected another name than "
                f"{', '.join(ANSWER_FIELDS)}"
            )
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

    @property
    def purpose(self) -> str:
        """Say in one sentence what a model of this schema does."""
        if self.label_name == "defect":
            return f"Says which defect, if any, a row of the {values.phrase(self.title)} shows."
        return f"Says which {values.phrase(self.label_name)} a row of the {values.phrase(self.title)} has."

    @property
    def heading(self) -> str:
        """Name a service with a model of this schema."""
        name = values.phrase(self.label_name)
        return f"{name[:1].upper()}{name[1:]} classifier"

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
        usual = [_usual(feature, rows[:, i].astype(np.float64)) for i, feature in enumerate(self.features)]
        return replace(
            self,
            features=tuple(
                replace(
                    feature,
                    observed_low=float(low[i]),
                    observed_high=float(high[i]),
                    example=usual[i] if feature.example is None else feature.example,
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
            rows = np.array([*map(self._objects.values, objects)], dtype=np.float64)
        except (Malformed, OverflowError):  # the latter for an integer that no float holds
            return self._rows_with_nan(objects, single)
        return self.check(rows, single=single)

    def _rows_with_nan(self, objects: Sequence[Any], single: bool) -> Rows:
        """Return the rows where only NaN stands for missing values; else name problems, of those rows that have any."""
        read = [*map(self._objects.values_with_nan, objects)]
        rows = np.array([[*map(as_float, values or [None] * len(self.names))] for values in read])
        wrong = np.logical_or.reduce(self._wrong(rows), axis=1) | np.array([values is None for values in read])
        places = np.flatnonzero(wrong).tolist()
        # To look for what was meant takes long: only in the first row.
        found = (p for row in places for p in self._objects.problems(objects[row], row, single, row == places[0]))
        if problems := list(islice(found, MAX_PROBLEMS + 1)):
            raise InvalidInput(problems) from None
        return rows

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
        if self._discrete:
            values = rows[:, self._discrete]
            bad[:, self._discrete] |= (values != np.floor(values)) & ~np.isnan(values)
        return bad

    def _allows(self, row: list[float]) -> bool:
        """Whether every value of one row is allowed; takes a quarter of NumPy's time."""
        for value, (low, high, optional) in zip(row, self._ranges, strict=True):
            if not low <= value <= high and not (optional and math.isnan(value)):
                return False
        if not self._discrete:
            return True
        return all(row[column].is_integer() or math.isnan(row[column]) for column in self._discrete)

    @cached_property
    def _discrete(self) -> list[int]:
        return [column for column, feature in enumerate(self.features) if feature.discrete]

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
            candidate = value == value and feature.kind != CATEGORY  # noqa: PLR0124
            beyond.append((max(low - value, value - high, 0.0) / width, abs(value)) if candidate else (-1.0, 0.0))
        return beyond.index(max(beyond))

    @cached_property
    def _ranges(self) -> list[tuple[float, float, bool]]:
        return [(*feature.limits, feature.optional) for feature in self.features]

    def known_features(self, unknown: str, *, suggest: bool) -> str:
        """Say which features there are, and which one an unknown name may stand for."""
        return self._objects.known_features(unknown, suggest=suggest)

    @property
    def codes(self) -> Mapping[int, Codes]:
        """The codes of each feature that is a category, by its column."""
        return self._objects.codes

    @cached_property
    def _objects(self) -> ObjectReader:
        return ObjectReader(self.features)

    # --- as JSON -------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the schema as `schema.json` has it: numbers and booleans without what only categories have."""
        made = asdict(self)
        for feature in made["features"]:
            if feature["kind"] != CATEGORY:
                del feature["categories"], feature["unknown"]
        return made

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """Read a schema; raises `ValueError` where `data` is none."""
        values.mapping(data, "the document")
        return cls(
            features=values.instances(Feature, values.member(data, "features"), "features", MAX_NAMES),
            classes=values.instances(DefectClass, values.member(data, "classes"), "classes", MAX_NAMES),
            title=values.member(data, "title"),
            label_type=data.get("label_type", TEXT),
            label_name=data.get("label_name", "defect"),
        )


def _usual(feature: Feature, column: NDArray[np.float64]) -> float:
    """Return the middle of a column's values `[rows]`, or the most frequent category, as a caller would send it."""
    if feature.kind == CATEGORY:
        return float(np.bincount(column[~np.isnan(column)].astype(np.int64)).argmax())
    return float(feature.shown(np.nanmedian(column)))
