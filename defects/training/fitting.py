"""Fit a pipeline, with what each row counts, and ask it for probabilities of all classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import compute_sample_weight

from defects.schema import Rows
from defects.scoring import Probabilities
from defects.training.bootstrap import Floats, Labels
from defects.training.dataset import BadData


def row_weights(labels: Labels, weights: Floats | None, class_weight: str | None) -> Floats | None:
    """Return how much each row counts in fitting `[rows]`, or `None` where all count alike.

    `balanced` gives all classes the same weight together, as scikit-learn's `class_weight` does, for every estimator.
    """
    if class_weight is None:
        return weights
    balanced: Floats = compute_sample_weight(class_weight, labels)
    return balanced if weights is None else balanced * weights


def fit(pipeline: Pipeline, rows: Rows, labels: Labels, weights: Floats | None) -> None:
    """Fit a pipeline on rows `[rows, features]`; raises `BadData` where it can't be."""
    try:
        pipeline.fit(rows, labels, **({} if weights is None else {_weight_parameter(pipeline): weights}))
    except (ValueError, TypeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise BadData(f"the estimator can't be fitted: {lines[0]}") from error


def _weight_parameter(pipeline: Any) -> str:
    """Return the name by which a pipeline's classifier is given weights, also in a pipeline in a pipeline."""
    steps = []
    while isinstance(pipeline, Pipeline):
        name, pipeline = pipeline.steps[-1]
        steps.append(name)
    return "__".join([*steps, "sample_weight"])


def probabilities_of(pipeline: Any, rows: Rows, classes: int) -> Probabilities:
    """Return probabilities `[rows, classes]`; 0 for a class that was not among the fitted rows."""
    found = np.zeros((len(rows), classes))
    found[:, pipeline.classes_] = pipeline.predict_proba(rows)
    return found


def are_probabilities(answered: Probabilities, classes: int) -> bool:
    """Tell whether a model's answers `[rows, …]` are probabilities of so many classes."""
    whole = answered.shape[1:] == (classes,) and (np.abs(answered.sum(axis=1) - 1) <= 1e-3).all()
    return bool(whole and (answered >= 0).all())


def checked(probabilities: Probabilities, classes: int) -> Probabilities:
    """Return probabilities that are some; raises `BadData` where a parameter has made other numbers of them."""
    if are_probabilities(probabilities, classes):
        return probabilities
    raise BadData(
        "the model's answers are no probabilities, which are numbers from 0 to 1 with the sum 1 for each row; "
        "expected other parameters (--set), or a model that is a classifier"
    )
