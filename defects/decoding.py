"""Make of rows what a pipeline was fitted on: the rows themselves, a pandas data frame with the columns' own names and
texts, or an array of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import values
from defects.features import Feature
from defects.kinds import BOOLEAN, CATEGORY
from defects.schema import Rows, Schema

ROWS, FRAME, OBJECTS = "rows", "frame", "objects"
INPUTS = (ROWS, FRAME, OBJECTS)


@dataclass(frozen=True)
class Decoder:
    """Decodes rows `[n, features]` into an `input` of a pipeline.

    `categories` has what the pipeline knows a feature's categories by, in their order, where that is not their text:
    numbers, or text with spaces around it.
    """

    schema: Schema
    input: str = ROWS
    categories: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @classmethod
    def of_card(cls, schema: Schema, engine: Mapping[str, Any]) -> Decoder:
        """Return the decoder that the card's `engine` describes; raises `ValueError`."""
        given = engine.get("input", ROWS)
        if given not in INPUTS:
            raise ValueError(f"engine.input is {values.shown(str(given))}; expected one of {', '.join(INPUTS)}")
        categories = values.mapping(engine.get("categories", {}), "engine.categories")
        for feature in schema.features:
            known = categories.get(feature.name, feature.categories)
            if len(values.items(list(known), "engine.categories", len(feature.categories))) < len(feature.categories):
                raise ValueError(f"engine.categories: expected {len(feature.categories)} for {feature.name!r}")
        return cls(schema, given, categories)

    def to_json(self) -> dict[str, Any]:
        """Return what `of_card` reads."""
        return {"input": self.input} | ({"categories": dict(self.categories)} if self.categories else {})

    def known_as(self, feature: Feature) -> Sequence[Any]:
        """Return what the pipeline knows each category of a feature by."""
        return self.categories.get(feature.name, feature.categories)

    def __call__(self, rows: Rows) -> Any:
        """Decode rows."""
        if self.input == ROWS:
            return rows
        columns = [self._column(feature, rows[:, place]) for place, feature in enumerate(self.schema.features)]
        return self._frame(columns) if self.input == FRAME else np.column_stack([c.astype(object) for c in columns])

    def _frame(self, columns: Sequence[NDArray[Any]]) -> Any:
        import pandas as pd

        text = pd.Series(["text"]).dtype  # str since pandas 3, object before
        series = {}
        for feature, column in zip(self.schema.features, columns, strict=True):
            is_text = feature.kind == CATEGORY and all(type(known) is str for known in self.known_as(feature))
            series[feature.name] = pd.Series(column, dtype=text if is_text else column.dtype)
        return pd.DataFrame(series)

    def _column(self, feature: Feature, codes: NDArray[np.float64]) -> NDArray[Any]:
        """Return a column as `pandas.read_csv` gives it: text as objects, NaN where it is missing."""
        if feature.kind == CATEGORY:
            known = np.array([*self.known_as(feature), np.nan], object)
            return known[np.where(np.isnan(codes), len(known) - 1, codes).astype(np.intp)]
        if feature.kind == BOOLEAN:
            missing, truths = np.isnan(codes), codes == 1
            return np.where(missing, np.nan, truths.astype(object)) if feature.optional else truths
        return codes
