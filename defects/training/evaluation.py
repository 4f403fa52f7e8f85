"""Measure how good a model is on held-out rows, and keep what training saw, to compare production with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.training.bootstrap import Answers, Bootstrap, Labels, Sums, total

REFERENCE_BINS = 10
CONFIDENCE_BINS = 10  # of a reliability diagram
SCORE_BINS = 20
METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


def evaluate(
    labels: Labels, probabilities: Probabilities, baseline: Probabilities, schema: Schema, bootstrap: Bootstrap
) -> dict[str, Any]:
    """Return the card's `metrics`: of held-out rows with these `labels` `[rows]`, over all and by class.

    `baseline` `[classes]` are the shares of the classes in the fitted part. Log loss is in natural logarithms. A class
    counts in a mean over classes where it has held-out rows, or is predicted.
    """
    answers = Answers.of(probabilities, labels)
    sums = total(labels, answers, len(schema.classes))
    return {
        **metrics_of(sums),
        "intervals": bootstrap.intervals(answers),
        "baseline": {
            "class": schema.class_names[int(baseline.argmax())],
            **metrics_of(total(labels, majority(baseline, labels), len(schema.classes))),
        },
        "classes": _by_class(labels, answers, sums, schema),
        "confusion": confusion(labels, answers.predicted, len(schema.classes)),
        "reliability": reliability(labels, probabilities),
        "scores": _scores(labels, probabilities, schema),
    }


def metrics_of(sums: Sums) -> dict[str, float]:
    """Return the four metrics as plain numbers."""
    return {name: float(value) for name, value in sums.metrics().items()}


def majority(baseline: Probabilities, labels: Labels) -> Answers:
    """Return the answers of a model that knows no features: always the most frequent class, with these shares."""
    return Answers.of(np.tile(baseline, (len(labels), 1)), labels)


def _by_class(labels: Labels, answers: Answers, sums: Sums, schema: Schema) -> dict[str, Any]:
    precision = np.divide(sums.right, sums.predicted, out=np.zeros_like(sums.right), where=sums.predicted > 0)
    recall, f1 = np.nan_to_num(sums.recall()), np.nan_to_num(sums.f1())
    return {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "log_loss": float(answers.losses[labels == i].mean()) if sums.true[i] else None,
            "rows": int(sums.true[i]),
            "predicted": int(sums.predicted[i]),
        }
        for i, name in enumerate(schema.class_names)
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
    edges = np.linspace(0, 1, CONFIDENCE_BINS + 1)
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


def _scores(labels: Labels, probabilities: Probabilities, schema: Schema) -> dict[str, Any]:
    """Return, for the rows of each class, a histogram of the probability that it was given."""
    edges, predicted = np.linspace(0, 1, SCORE_BINS + 1), probabilities.argmax(axis=1)
    found = {}
    for i, name in enumerate(schema.class_names):
        right, wrong = (
            np.histogram(probabilities[(labels == i) & chosen, i], bins=edges)[0].tolist()
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
        "features": {name: _distribution(rows[:, i]) for i, name in enumerate(schema.names)},
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


def _distribution(column: NDArray[np.float64]) -> dict[str, Any]:
    """Bin a column with about equal counts (fewer bins where values repeat): each bin carries the same evidence."""
    values = column[~np.isnan(column)]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, REFERENCE_BINS + 1)))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    counts, _ = np.histogram(values, bins=edges)
    return {
        "missing": int(len(column) - len(values)),
        "mean": float(values.mean()),
        "standard_deviation": float(values.std()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }
