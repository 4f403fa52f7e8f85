"""Measure how good a model is on held-out rows, and keep what training saw, to compare production with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import Feature
from defects.kinds import CATEGORY
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.training.bootstrap import SMALLEST, Answers, Bootstrap, Floats, Labels, Sums, total

REFERENCE_BINS = 10
CONFIDENCE_BINS = 10  # of a reliability diagram
SCORE_BINS = 20
MAX_PICTURED = 100  # classes; the matrix of more would be larger than the model
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class HeldOut:
    """Rows that no model was fitted on: their classes `[rows]`, the names of all classes, the shares of these in the
    fitted part `[classes]`, which is what a model without features knows, and the resamples."""

    labels: Labels
    names: Sequence[str]
    shares: Floats
    bootstrap: Bootstrap

    def answers(self, probabilities: Probabilities) -> Answers:
        """Return the answers of a model with these probabilities `[rows, classes]`."""
        return Answers.of(probabilities, self.labels)

    def total(self, answers: Answers) -> Sums:
        """Return the sums over all rows."""
        return total(self.labels, answers, len(self.names))

    @cached_property
    def majority(self) -> Answers:
        """The answers of a model that knows no features: always the most frequent class, with the classes' shares."""
        losses = -np.log(np.clip(self.shares, SMALLEST, 1.0))
        return Answers(np.full(len(self.labels), self.shares.argmax()), losses[self.labels])


def evaluate(held: HeldOut, probabilities: Probabilities) -> dict[str, Any]:
    """Return the card's `metrics` of a model with these probabilities `[rows, classes]`, over all and by class.

    Log loss is in natural logarithms. A class counts in a mean over classes where it has held-out rows or is predicted.
    """
    labels, answers = held.labels, held.answers(probabilities)
    sums = held.total(answers)
    return {
        **metrics_of(sums),
        "intervals": held.bootstrap.intervals(answers),
        "baseline": {
            "class": held.names[int(held.shares.argmax())],
            **metrics_of(held.total(held.majority)),
        },
        "classes": _by_class(held, answers, sums),
        "reliability": reliability(labels, probabilities),
    } | (_pictured(held, probabilities) if len(held.names) <= MAX_PICTURED else {})


def _pictured(held: HeldOut, probabilities: Probabilities) -> dict[str, Any]:
    """Return what only a picture of few classes can show."""
    predicted = probabilities.argmax(axis=1)
    return {
        "confusion": confusion(held.labels, predicted, len(held.names)),
        "scores": _scores(held, probabilities),
    }


def metrics_of(sums: Sums) -> dict[str, float]:
    """Return the four metrics as plain numbers."""
    return {name: float(value) for name, value in sums.metrics().items()}


def _by_class(held: HeldOut, answers: Answers, sums: Sums) -> dict[str, Any]:
    precision = np.divide(sums.right, sums.predicted, out=np.zeros_like(sums.right), where=sums.predicted > 0)
    recall, f1 = np.nan_to_num(sums.recall()), np.nan_to_num(sums.f1())
    losses = np.bincount(held.labels, answers.losses, minlength=len(held.names)) / np.maximum(sums.true, 1)
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "log_loss": float(losses[i]) if sums.true[i] else None,
            "rows": int(sums.true[i]),
            "predicted": int(sums.predicted[i]),
        }
        for i, name in enumerate(held.names)
    }


def confusion(labels: Labels, predicted: Labels, classes: int) -> list[list[int]]:
    """Return how many rows of each class (a row of the matrix) were said to be of each (a column)."""
    counts: list[list[int]] = (
        np.bincount(labels * classes + predicted, minlength=classes**2).reshape(-1, classes).tolist()
    )
    return counts


def reliability(labels: Labels, probabilities: Probabilities) -> list[dict[str, Any]]:
    """Return, for bins of the highest probability that have rows, its mean and the share of rows that are right."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.arange(CONFIDENCE_BINS + 1) / CONFIDENCE_BINS
    places = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, CONFIDENCE_BINS - 1)
    return [
        {
            "low": float(edges[place]),
            "high": float(edges[place + 1]),
            "rows": int((places == place).sum()),
            "confidence": float(confidence[places == place].mean()),
            "accuracy": float(right[places == place].mean()),
        }
        for place in np.unique(places).tolist()
    ]


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, weighted by rows.

    Naeini, Cooper and Hauskrecht (AAAI 2015).
    """
    rows = sum(found["rows"] for found in bins)
    return float(sum(found["rows"] * abs(found["confidence"] - found["accuracy"]) for found in bins) / rows)


def _scores(held: HeldOut, probabilities: Probabilities) -> dict[str, Any]:
    """Return, for the rows of each class, a histogram of the probability that it was given."""
    edges, predicted = np.arange(SCORE_BINS + 1) / SCORE_BINS, probabilities.argmax(axis=1)
    found = {}
    for i, name in enumerate(held.names):
        right, wrong = (
            np.histogram(probabilities[(held.labels == i) & chosen, i], bins=edges)[0].tolist()
            for chosen in (predicted == i, predicted != i)
        )
        found[name] = {"edges": edges.tolist(), "right": right, "wrong": wrong}
    return found


def reference(schema: Schema, rows: Rows, labels: NDArray[np.int64], probabilities: Probabilities) -> dict[str, Any]:
    """Return the distribution of features and classes in training, and of answers on held-out rows."""
    count = len(schema.classes)
    confidence, edges = np.histogram(probabilities.max(axis=1), bins=REFERENCE_BINS, range=(0, 1))
    return {
        "rows": len(rows),
        "features": {feature.name: _distribution(feature, rows[:, i]) for i, feature in enumerate(schema.features)},
        "classes": dict(zip(schema.class_names, np.bincount(labels, minlength=count).tolist(), strict=True)),
        "answers": {
            "rows": len(probabilities),
            "classes": dict(
                zip(
                    schema.class_names,
                    np.bincount(probabilities.argmax(axis=1), minlength=count).tolist(),
                    strict=True,
                )
            ),
            "confidence": {"edges": edges.tolist(), "counts": confidence.tolist()},
        },
    }


def _distribution(feature: Feature, column: NDArray[np.float64]) -> dict[str, Any]:
    """Bin a column with about equal counts (fewer bins where values repeat): each bin carries the same evidence.

    Of a category, count each text.
    """
    values = column[~np.isnan(column)]
    if feature.kind == CATEGORY:
        counts = np.bincount(values.astype(np.int64), minlength=len(feature.categories)).tolist()
        return {
            "missing": int(len(column) - len(values)),
            "categories": dict(zip(feature.categories, counts, strict=True)),
        }
    edges = np.unique(np.quantile(values, np.linspace(0, 1, REFERENCE_BINS + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    binned, _ = np.histogram(values, bins=edges)
    return {
        "missing": int(len(column) - len(values)),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "edges": edges.tolist(),
        "counts": binned.tolist(),
    }
