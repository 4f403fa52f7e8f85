"""Say in a Parquet file of exported records what its columns are, so that training need not be told.

The file's metadata has the schema of the model that answered, and which columns are details that are no features.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from defects import files, values
from defects.features import Feature
from defects.schema import Schema

KEY = b"defects.exported"  # of the metadata


@dataclass(frozen=True)
class Exported:
    """What a file's columns are: the features and the label of `schema`, and `details` of each record."""

    schema: Schema
    details: tuple[str, ...] = ()

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return the metadata of the file."""
        made = {"schema": self.schema.to_json(), "details": self.details}
        return {KEY: json.dumps(made, ensure_ascii=False).encode()}

    def described(self, feature: Feature, values: NDArray[np.float64]) -> Feature:
        """Return a feature that was inferred from its `values` `[rows]`, with what the schema says of it.

        That is its unit and description, limits that all values keep, and that one may be missing, though none is.
        """
        known = next((known for known in self.schema.features if known.name == feature.name), None)
        if known is None or known.kind != feature.kind:
            return feature
        kept = np.nanmin(values) >= known.limits[0] and np.nanmax(values) <= known.limits[1]
        return replace(
            feature,
            unit=known.unit,
            description=known.description,
            low=known.low if kept else feature.low,
            high=known.high if kept else feature.high,
            optional=feature.optional or known.optional,
            unknown=known.unknown,
        )

    def description_of(self, label: str) -> str:
        """Return what the schema says of a class; empty where it has none of that name."""
        return next((known.description for known in self.schema.classes if known.name == label), "")


def exported(metadata: Mapping[bytes, bytes] | None) -> Exported | None:
    """Return what a file's metadata says; `None` where it is no exported file's. Raises `ValueError`."""
    if metadata is None or KEY not in metadata:
        return None
    made = values.mapping(files.read_json(metadata[KEY]), "the metadata")
    return Exported(
        Schema.from_json(values.member(made, "schema")), tuple(values.labels(values.member(made, "details"), "details"))
    )
