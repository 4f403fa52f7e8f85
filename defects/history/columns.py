"""Turn the numbers of records into columns of a table, whichever model they are of: by name, and by the kind.

In records a category is its place among the categories that its own model knows, so codes of different models differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from defects.features import DefectClass, Feature
from defects.history.database import Row
from defects.kinds import CATEGORY
from defects.schema import Rows, Schema

DETAILS = (
    "prediction_id",
    "prediction_time",
    "prediction_request_id",
    "prediction_row",
    "prediction_model",
    "prediction_revision",
    "prediction_source",
    "prediction_class",
    "prediction_confidence",
    "outcome_origin",
    "outcome_occurred_at",
    "outcome_received_at",
)


@dataclass(frozen=True)
class Columns:
    """The columns of a table: features and the label of `schema`, which knows the categories and classes of all models.

    `details` are the names of further columns.
    """

    schema: Schema
    details: tuple[str, ...]


def columns_of(schemas: Sequence[Schema], *, details: bool) -> Columns:
    """Return the columns for records of models with these schemas, all with the same columns, the newest last."""
    newest = schemas[-1]
    features = tuple(_feature(feature, schemas) for feature in newest.features)
    classes: dict[str, DefectClass] = {}
    for schema in reversed(schemas):
        classes = {defect.name: defect for defect in schema.classes} | classes
    taken = {*newest.names, newest.label_name}
    return Columns(
        replace(newest, features=features, classes=tuple(classes.values())),
        tuple(_free(name, taken) for name in DETAILS) if details else (),
    )


def _free(name: str, taken: set[str]) -> str:
    """Return the name, with lines before it where a feature has it."""
    while name in taken:
        name = f"_{name}"
    return name


def _feature(feature: Feature, schemas: Sequence[Schema]) -> Feature:
    """Return a feature that has every value that one of the models has."""
    same = [schema.features[schema.index[feature.name]] for schema in reversed(schemas)]
    categories = tuple(dict.fromkeys(name for one in same for name in one.categories))
    wide = any(one.wide for one in same)
    lows, highs = [one.low for one in same], [one.high for one in same]
    return replace(
        feature,
        optional=any(one.optional for one in same),
        wide=wide,
        categories=categories,
        low=None if None in lows else min(low for low in lows if low is not None),
        high=None if None in highs else max(high for high in highs if high is not None),
    )


class Decoder:
    """Reads the records of one model as rows of a table with `width` columns of features."""

    def __init__(self, schema: Schema, columns: Columns):
        names = columns.schema.names
        self.width = len(names)
        self.wide = schema.wide
        self._order = np.array([schema.index[name] for name in names])
        self._codes = {
            column: _codes(schema.features[schema.index[feature.name]], feature)
            for column, feature in enumerate(columns.schema.features)
            if feature.kind == CATEGORY
        }

    def values(self, records: Sequence[Row]) -> Rows:
        """Return the values `[records, columns]`, exact; NaN where one is missing, categories as the table's codes."""
        name = "wide_features" if self.wide else "features"
        values = np.array([record[name] for record in records], np.float64)[:, self._order]
        for column, codes in self._codes.items():
            there = ~np.isnan(values[:, column])
            values[there, column] = codes[values[there, column].astype(np.intp)]
        return values


def _codes(own: Feature, of_table: Feature) -> NDArray[np.float64]:
    """Return the table's code of each category of a model's feature."""
    return np.array([of_table.categories.index(name) for name in own.categories], np.float64)
