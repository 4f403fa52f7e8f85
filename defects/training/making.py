"""Make the model of a recipe: fit the classifier that it asks for on some rows of a table, and calibrate it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, clone
from sklearn.pipeline import Pipeline

from defects.decoding import FRAME, ROWS, Decoder
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.training import calibration, folds
from defects.training.conversion import classifier_of
from defects.training.dataset import BadData, Table
from defects.training.estimators import ESTIMATORS, NARROW
from defects.training.fitted import Fitted
from defects.training.fitting import fit, probabilities_of, row_weights
from defects.training.options import Recipe
from defects.training.own_pipeline import build, users_errors
from defects.training.parameters import set_parameters
from defects.training.precision import exact_shift
from defects.training.steps import shift


@dataclass(frozen=True)
class Maker:
    """Makes the model of a recipe of any rows of a table, by their numbers."""

    table: Table
    recipe: Recipe
    schema: Schema

    @property
    def name(self) -> str:
        """What is fitted."""
        return self.recipe.pipeline or self.recipe.estimator

    def made(self, chosen: Any) -> Fitted:
        """Return the model fitted on these rows, and calibrated where that is asked for; raises `BadData`."""
        method, fitted = self.recipe.calibrate, self._fitted(chosen)
        if method is None:
            return fitted
        scored = ((chosen[tested], self._fitted(chosen[known])) for known, tested in self._folds(chosen, method))
        data = (self.rows, self.table.labels, self.table.weights)
        return Fitted(calibration.calibrate(method, fitted.pipeline, scored, data), self._decode)

    def answer(self, chosen: Any, tested: Any) -> Probabilities:
        """Return the probabilities of some rows by a model of other ones."""
        return probabilities_of(self.made(chosen), self.rows[tested], len(self.schema.classes))

    def to_json(self) -> dict[str, Any]:
        """Return what the card says of what is fitted."""
        recipe = self.recipe
        made: dict[str, Any] = {"name": recipe.estimator, "seed": recipe.seed, "shifts": self._shifts}
        if recipe.pipeline is not None:
            made |= {"name": type(classifier_of(self._classifier)).__name__, "pipeline": recipe.pipeline}
        if recipe.class_weight:
            made["class_weight"] = recipe.class_weight
        return made

    @cached_property
    def rows(self) -> Rows:
        """The table's rows, as pipelines are fitted on them."""
        return self.table.features.astype(np.float64)

    @cached_property
    def _shifts(self) -> dict[str, float]:
        narrow = self.recipe.pipeline is None and self.recipe.estimator in NARROW
        return _shifts(self.table) if narrow and self.schema.wide else {}

    @cached_property
    def _decode(self) -> Decoder:
        return Decoder(self.schema, ROWS if self.recipe.pipeline is None else FRAME)

    @cached_property
    def _classifier(self) -> ClassifierMixin:
        recipe = self.recipe
        if recipe.pipeline is None:
            classifier = ESTIMATORS[recipe.estimator](recipe.seed, self.schema)
        else:
            classifier = build(recipe.pipeline, recipe.seed)
        set_parameters(classifier, recipe.parameters)
        return classifier

    def _errors(self) -> AbstractContextManager[None]:
        """Make one line of whatever a library, or the user's own code, raises."""
        recipe = self.recipe
        own = f"--estimator {recipe.estimator}" if recipe.pipeline is None else f"--pipeline {recipe.pipeline}"
        return users_errors(own)

    def _fitted(self, chosen: Any) -> Fitted:
        table = self.table
        made = _pipeline(clone(self._classifier), self.schema, self._shifts)
        given = None if table.weights is None else table.weights[chosen]
        weights = row_weights(table.labels[chosen], given, self.recipe.class_weight)
        with self._errors():
            fit(made, self._decode(self.rows[chosen]), table.labels[chosen], weights)
        return Fitted(made, self._decode)

    def _folds(self, chosen: Any, method: str) -> Iterator[Any]:
        groups, times = (None if part is None else part[chosen] for part in (self.table.groups, self.table.times))
        try:
            yield from folds.folds(
                self.table.labels[chosen], calibration.FOLDS, self.recipe.seed, groups=groups, times=times
            )
        except folds.NotPossible as error:
            raise BadData(f"{self.table.source['source']}: --calibrate {method}: {error}") from None


def _pipeline(classifier: ClassifierMixin, schema: Schema, shifts: dict[str, float]) -> Pipeline:
    steps = [("classifier", classifier)]
    if shifts:
        steps.insert(0, ("shift", shift(np.array([shifts.get(name, 0.0) for name in schema.names]))))
    return Pipeline(steps)


def _shifts(table: Table) -> dict[str, float]:
    """Return what is subtracted from each wide column for an estimator that works in 32 bits; raises `BadData`."""
    shifts = {}
    for column, feature in enumerate(table.schema.features):
        if not feature.wide:
            continue
        values = table.features[:, column].astype(np.float64)
        found = exact_shift(values[~np.isnan(values)])
        if found is None:
            raise BadData(
                f"{table.source['source']}: column {feature.name!r} has values that 32 bits can't tell apart, and this "
                f"estimator works in 32 bits; expected --estimator {' or '.join(sorted(ESTIMATORS.keys() - NARROW))}, "
                "or the column as differences or as several columns"
            )
        shifts[feature.name] = found
    return shifts


def parameters_of(pipeline: Pipeline) -> dict[str, Any]:
    """Return the pipeline's parameters that JSON can hold."""
    return {name: value for name, value in sorted(pipeline.get_params().items()) if _is_json(value)}


def _is_json(value: Any) -> bool:
    return isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
