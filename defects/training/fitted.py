"""A fitted pipeline, asked about rows: whatever it was fitted on itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.decoding import ROWS, Decoder
from defects.kinds import CATEGORY
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.sklearn_engine import UNKNOWN_CATEGORIES
from defects.training.steps import Column, numbers


@dataclass(frozen=True)
class Fitted:
    """A fitted pipeline, and how rows become what it takes. Its classes are those of the schema, in order."""

    pipeline: Any
    decode: Decoder

    @classmethod
    def on_rows(cls, pipeline: Any, schema: Schema) -> Fitted:
        """Return a pipeline that was fitted on rows."""
        return cls(pipeline, Decoder(schema))

    @property
    def schema(self) -> Schema:
        """What the rows are."""
        return self.decode.schema

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the pipeline gets, column by column."""
        if self.decode.input == ROWS:
            return numbers(self.schema)
        return tuple(
            Column(place, tuple(self.decode.known_as(feature)) if feature.kind == CATEGORY else ())
            for place, feature in enumerate(self.schema.features)
        )

    def predict_proba(self, rows: Rows) -> Probabilities:
        """Return probabilities `[n, classes]`, float64."""
        with _quiet():
            return np.asarray(self.pipeline.predict_proba(self.decode(rows)), np.float64)

    def predict(self, rows: Rows) -> NDArray[np.intp]:
        """Return the number of the predicted class of each row."""
        with _quiet():
            found: NDArray[np.intp] = np.searchsorted(self.pipeline.classes_, self.pipeline.predict(self.decode(rows)))
        return found

    @property
    def classes_(self) -> Any:
        """The classes that it was fitted on, as scikit-learn has them."""
        return self.pipeline.classes_

    def to_json(self) -> Mapping[str, Any]:
        """Return what a replica needs to know of what the pipeline gets."""
        return self.decode.to_json()


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what an encoder warns of that ignores unknown categories, as it was told to, and scikit-learn's own
    look for infinities."""
    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        warnings.filterwarnings("ignore", UNKNOWN_CATEGORIES, UserWarning)
        yield
