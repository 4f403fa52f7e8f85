"""Read rows that come as JSON objects, with one value for each feature, and name what is wrong with them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from defects.features import Codes, Feature
from defects.kinds import BOOLEAN, CATEGORY
from defects.problems import (
    MAX_NAME,
    NAN,
    NUMBER_OR_MISSING,
    Constant,
    Problem,
    as_float,
    field_name,
    is_number,
    kind_of,
    row_name,
)


class Malformed(Exception):
    """An object is no row; `ObjectReader.problems` finds out why not."""


class ObjectReader:
    """Reads objects as rows of these features. `codes` has those of the categories, by column."""

    def __init__(self, features: Sequence[Feature]):
        self._features = features
        self._names = tuple(feature.name for feature in features)
        self._index = {name: column for column, name in enumerate(self._names)}
        self.codes = {column: Codes(feature) for column, feature in enumerate(features) if feature.kind == CATEGORY}

    def values_with_nan(self, item: Any) -> list[float | None] | None:
        """Return the row's values in model order, missing where NaN stands for that; `None` if it is malformed."""
        if type(item) is dict and Constant in set(map(type, item.values())):
            item = {name: None if type(v) is Constant and v == NAN else v for name, v in item.items()}
        try:
            return self.values(item)
        except Malformed:
            return None

    def values(self, item: Any) -> list[float | None]:
        """Return the values of an object in model order; raises `Malformed`, which says no more than that."""
        if type(item) is not dict or len(item) > len(self._names) or not item.keys() <= self._index.keys():
            raise Malformed
        values = [*map(item.get, self._names)]
        for column, code in self.codes.items():
            try:
                values[column] = code(values[column])
            except KeyError:
                raise Malformed from None
        if not NUMBER_OR_MISSING.issuperset(map(type, values)) and not self._booleans_in_place(values):
            raise Malformed
        return values

    def _booleans_in_place(self, values: list[Any]) -> bool:
        """Whether all that is no number or missing are booleans, of features that are."""
        return all(
            type(value) in NUMBER_OR_MISSING or (type(value) is bool and feature.kind == BOOLEAN)
            for value, feature in zip(values, self._features, strict=True)
        )

    def problems(self, item: Any, row: int, single: bool, suggest: bool) -> Iterable[Problem]:
        """Yield what is wrong with an object; if `suggest`, also which category may have been meant."""
        if type(item) is not dict:
            yield Problem(row_name(row, single), f"is {kind_of(item)}", "an object with one value for each feature")
            return
        unknown = (name for name in item if name not in self._index)
        for count, name in enumerate(unknown):
            yield Problem(field_name(row, name, single), "unknown field", self.known_features(name, suggest=not count))
        for column, feature in enumerate(self._features):
            place, value = field_name(row, feature.name, single), item.get(feature.name)
            if feature.kind == CATEGORY:
                if not self._takes(column, value):
                    yield feature.problem_with_category(value, place, suggest=suggest)
                    suggest = False
            elif not (is_number(value) or (type(value) is bool and feature.kind == BOOLEAN)):
                yield Problem(place, f"is {kind_of(value)}", feature.expected)
            elif not feature.allows(as_float(value)):
                yield feature.problem_with(value, place)

    def _takes(self, column: int, value: Any) -> bool:
        """Whether a category's column may have a caller's value."""
        feature, code = self._features[column], self.codes[column]
        try:
            missing = (type(value) is Constant and value == NAN) or code(value) is None
        except KeyError:
            return False
        return feature.optional or not missing

    def known_features(self, unknown: str, *, suggest: bool) -> str:
        """Say which features there are, and which one an unknown name may stand for."""
        close = difflib.get_close_matches(unknown[:MAX_NAME], self._names, n=1) if suggest else []
        return f"one of the {len(self._names)} features{f'; did you mean {close[0]}?' if close else ''}"
