"""Measure how good a model is on held-out rows, and keep what training saw, to compare production with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support

from defects.schema import Rows, Schema
from defects.scoring import Probabilities

REFERENCE_BINS = 10


def evaluate(labels: NDArray[np.int64], probabilities: Probabilities, schema: Schema) -> dict[str, Any]:
    """Return accuracy, macro-F1 and log loss (natural logarithm), over all and by class."""
    classes = np.arange(len(schema.classes))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0.0
    )
    surprise = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1))
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)),
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "classes": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "log_loss": float(surprise[labels == i].mean()) if support[i] else None,
                "rows": int(support[i]),
            }
            for i, name in enumerate(schema.class_names)
        },
    }


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
