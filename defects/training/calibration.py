"""Calibrate a fitted classifier: make its probabilities agree with how often they hold.

The scores that calibration learns from are of rows that each fold's model was not fitted on; the model that is served
is fitted on all of them, and the held-out rows stay out of both. Methods are scikit-learn's: `sigmoid` (Platt 1999; of
more than two classes one against the rest, normalised) and `temperature` (Guo et al. 2017), which leaves the order of
the classes as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from defects.schema import Rows
from defects.scoring import Probabilities
from defects.training.bootstrap import Floats, Labels
from defects.training.dataset import BadData
from defects.training.evaluation import HeldOut, calibration_error, reliability
from defects.training.findings import Finding
from defects.training.fitted import Fitted
from defects.training.graph import Graph
from defects.training.trees import NotConvertible

FOLDS = 5
STEP = "calibrated"


class _Known(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Stands for a classifier while its calibration is fitted: it knows the scores of numbered rows."""

    def __init__(self, scores: Floats, classes: Labels):
        self.scores = scores
        self.classes = classes
        self.classes_ = classes

    def fit(self, numbers: Rows, labels: Labels, sample_weight: Floats | None = None) -> Self:  # noqa: ARG002
        """Do nothing: the scores are those of models that were fitted on other rows."""
        return self

    def predict(self, numbers: Rows) -> Labels:
        """Never asked for, but what has none is no classifier."""
        raise NotImplementedError

    def _of(self, numbers: Rows) -> Floats:
        return self.scores[numbers[:, 0].astype(np.int64)]


class _KnownScores(_Known):
    def decision_function(self, numbers: Rows) -> Floats:
        return self._of(numbers)


class _KnownShares(_Known):
    def predict_proba(self, numbers: Rows) -> Floats:
        return self._of(numbers)


def calibrate(
    method: str,
    base: Pipeline,
    scored: Iterable[tuple[Any, Fitted]],
    data: tuple[Rows, Labels, Floats | None],
) -> Pipeline:
    """Return a pipeline of a fitted one and its calibration.

    `scored` yields the numbers of rows, and a model that was fitted on others. `data` are all rows, their labels and
    what each counts. Raises `BadData`.
    """
    rows, labels, weights = data
    if method == "temperature" and not hasattr(base, "decision_function"):
        raise BadData("--calibrate temperature: this estimator has no scores; expected --calibrate sigmoid")
    parts = [(tested, _scores(model.pipeline, model.decode(rows[tested]))) for tested, model in scored]
    tested = np.concatenate([part for part, _ in parts])
    scores = np.concatenate([found for _, found in parts])
    if scores.shape[1:] not in ((), (len(base.classes_),)) or len(np.unique(labels[tested])) < len(base.classes_):
        raise BadData(f"--calibrate {method}: a fold lacks a class; expected more rows of the rarest one")
    kind = _KnownScores if hasattr(base, "decision_function") else _KnownShares
    known = kind(scores, base.classes_)
    made = CalibratedClassifierCV(known, method=method, ensemble=False, cv=2)
    numbers = np.arange(len(tested), dtype=np.float64)[:, np.newaxis]
    made.fit(numbers, labels[tested], sample_weight=None if weights is None else weights[tested])
    made.set_params(estimator=FrozenEstimator(base))
    made.calibrated_classifiers_[0].estimator = base
    made.n_features_in_ = rows.shape[1]
    return Pipeline([(STEP, made)])


def _scores(pipeline: Pipeline, rows: Any) -> Floats:
    found: Floats = (
        pipeline.decision_function(rows) if hasattr(pipeline, "decision_function") else pipeline.predict_proba(rows)
    )
    return found


def base_of(pipeline: Any) -> Any:
    """Return what a pipeline that `calibrate` made calibrates; any other pipeline itself."""
    if isinstance(pipeline, Pipeline) and [name for name, _ in pipeline.steps] == [STEP]:
        made = pipeline.steps[0][1]
        if isinstance(made, CalibratedClassifierCV) and len(made.calibrated_classifiers_) == 1:
            return made.calibrated_classifiers_[0].estimator
    return pipeline


def assessed(method: str, held: HeldOut, fitted: Fitted, rows: Rows) -> dict[str, Any]:
    """Return the card's `calibration`: how reliable held-out `rows` are, before and after."""
    base = Fitted(base_of(fitted.pipeline), fitted.decode)
    before, after = (_reliable(held, model.predict_proba(rows)) for model in (base, fitted))
    return {"method": method, "before": before, "after": after}


def _reliable(held: HeldOut, probabilities: Probabilities) -> dict[str, Any]:
    bins = reliability(held.labels, probabilities)
    loss = float(held.answers(probabilities).losses.mean())
    return {"log_loss": loss, "error": calibration_error(bins), "reliability": bins}


def warnings(calibration: dict[str, Any]) -> list[Finding]:
    """Return a warning where calibration has made the log loss of held-out rows higher."""
    before, after = (calibration[when]["log_loss"] for when in ("before", "after"))
    if after <= before:
        return []
    text = f"--calibrate {calibration['method']} does not help: log loss {after:.4f}, without it {before:.4f}"
    return [Finding("calibration", "", text)]


# --- the graph -------------------------------------------------------------------------------------------------------


def add_calibration(graph: Graph, model: CalibratedClassifierCV, scores: str, link: str) -> str:
    """Add what a calibration makes of its classifier's scores to the graph, and return the link for that.

    `link` is the classifier's own. Raises `NotConvertible`.
    """
    made = model.calibrated_classifiers_[0]
    binary = len(model.classes_) == 2
    has_scores = hasattr(made.estimator, "decision_function")
    link = link.removesuffix("_float64")  # of LightGBM, whose scores are as scikit-learn's
    if link not in ("sigmoid", "softmax", "identity") or has_scores == (link == "identity"):
        raise NotConvertible(f"{made.method} calibration of probabilities that are no shares of leaves")
    if made.method == "temperature":
        if not has_scores:
            raise NotConvertible("temperature calibration of probabilities")
        factor = float(made.calibrators[0].beta_) * (2 if binary else 1)  # of two classes, the scores are -s and s
        graph.add("Mul", scores, np.array(factor))
        return link
    if binary and not has_scores:
        scores = graph.columns(scores, [1])
    slopes, offsets = (np.array([getattr(one, name) for one in made.calibrators]) for name in ("a_", "b_"))
    graph.add("Neg", graph.add("Add", graph.add("Mul", scores, slopes), offsets))
    return "sigmoid" if binary else "sigmoids"
