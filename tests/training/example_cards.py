"""Cards as training writes them, of models that were never trained: as many classes and features as are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN, CATEGORY
from defects.schema import Schema

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
Example = tuple[dict[str, Any], Schema, dict[str, Any]]


def example(
    classes: Sequence[str] | int = 3, features: int = 4, rows: int = 600, *, name: str = "measurement", seed: int = 0
) -> Example:
    """Return a card, its schema, and its reference."""
    rng = np.random.default_rng(seed)
    names = [f"class {number:02}" for number in range(classes)] if isinstance(classes, int) else [*classes]
    columns = [_feature(number, name) for number in range(features)]
    schema = Schema(
        tuple(columns), tuple(DefectClass(label) for label in names), title="penguins of Palmer", label_name="species"
    )
    labels = rng.choice(len(names), rows, p=_shares(len(names)))
    scores = rng.normal(size=(rows, len(names))) + 3.0 * np.eye(len(names))[labels]
    probabilities = np.exp(1.6 * scores) / np.exp(1.6 * scores).sum(axis=1, keepdims=True)
    card = {
        "version": "20261127-021500-0123abcd",
        "created": "2026-11-27T02:15:00Z",
        "data": {
            "source": "penguins.csv", "rows": 5 * rows, "label": "species", "sha256": "ab" * 32,
            "notes": ["column 'id' was left out: it has another value in every row"],
            "format": {"separator": ";", "encoding": "utf-8"},
        },
        "estimator": {"name": "hist-gradient-boosting", "seed": 0, "parameters": {"max_iter": 100, "l2": 0.0}},
        "split": {"how": "stratified", "fitted_rows": 4 * rows, "held_out_rows": rows, "held_out_share": 0.2},
        "metrics": metrics(labels, probabilities, names),
        "importances": [
            {"feature": feature.name, "mean": 0.4 * 0.7**place - 0.002, "standard_deviation": 0.01 + 0.03 * 0.7**place}
            for place, feature in enumerate(columns)
        ],
        "warnings": [
            {"kind": "few_rows", "name": names[-1], "text": f"class {names[-1]!r} has only 12 held-out rows"}
        ],
        "engine": {
            "name": "onnxruntime", "reason": "ONNX answers as scikit-learn does, also on 1,234 probes", "input": "rows",
            "parity": {
                "rows": rows, "largest_difference": 1.2e-7, "different_class_rows": 0,
                "probes": {"rows": 1234, "largest_difference": 0.0, "different_class_rows": 0},
            },
        },
        "libraries": {"python": "3.11.2", "numpy": "2.4.0", "scikit-learn": "1.9.0"},
        "command": ["--data", "my penguins.csv", "--label", "species"],
    }  # fmt: skip
    return card, schema, reference(schema, 4 * rows, rng)


def _feature(number: int, name: str) -> Feature:
    kind = number % 4
    title = f"{name}_{number}"
    if kind == 2:
        return Feature(title, kind=CATEGORY, categories=("blue", "green", "red"), observed_low=0.0, observed_high=2.0)
    if kind == 3:
        return Feature(title, low=0, high=1, kind=BOOLEAN, optional=True, observed_low=0.0, observed_high=1.0)
    return Feature(title, unit="mm", optional=bool(number % 2), observed_low=-3.25, observed_high=1234.5, low=-10)


def _shares(count: int) -> NDArray[np.float64]:
    shares = 1.0 / (1.0 + np.arange(count))
    return np.asarray(shares / shares.sum())


def metrics(labels: NDArray[np.int64], probabilities: NDArray[np.float64], names: Sequence[str]) -> dict[str, Any]:
    """Return what the card has of the model's answers."""
    predicted = probabilities.argmax(axis=1)
    count = len(names)
    confusion = np.zeros((count, count), int)
    np.add.at(confusion, (labels, predicted), 1)
    own = probabilities[np.arange(len(labels)), labels]
    right = confusion.diagonal()
    recall = right / np.maximum(1, confusion.sum(axis=1))
    precision = right / np.maximum(1, confusion.sum(axis=0))
    f1 = 2 * precision * recall / np.maximum(1e-9, precision + recall)
    found = {
        "accuracy": float((predicted == labels).mean()), "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()), "log_loss": float(-np.log(own).mean()),
    }  # fmt: skip
    edges = np.linspace(0, 1, 11)
    return found | {
        "intervals": {key: [0.96 * value, 0.04 + 0.96 * value] for key, value in found.items()},
        "baseline": {
            "class": names[0], "accuracy": float((labels == 0).mean()), "balanced_accuracy": 1 / count,
            "macro_f1": 0.5 / count, "log_loss": 1.2,
        },
        "classes": {
            name: {
                "precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i]),
                "log_loss": float(-np.log(own[labels == i]).mean()) if (labels == i).any() else None,
                "rows": int((labels == i).sum()), "predicted": int((predicted == i).sum()),
            }
            for i, name in enumerate(names)
        },
        "confusion": confusion.tolist(),
        "reliability": reliability(probabilities.max(axis=1), predicted == labels, edges),
        "scores": {
            name: {
                "edges": edges.tolist(),
                "right": np.histogram(own[(labels == i) & (predicted == i)], edges)[0].tolist(),
                "wrong": np.histogram(own[(labels == i) & (predicted != i)], edges)[0].tolist(),
            }
            for i, name in enumerate(names)
        },
    }  # fmt: skip


def reliability(
    given: NDArray[np.float64], right: NDArray[np.bool_], edges: NDArray[np.float64]
) -> list[dict[str, float]]:
    """Return the bins of a reliability diagram that have rows."""
    place = np.clip(np.digitize(given, edges) - 1, 0, len(edges) - 2)
    return [
        {
            "low": float(edges[i]), "high": float(edges[i + 1]), "rows": int((place == i).sum()),
            "confidence": float(given[place == i].mean()), "accuracy": float(right[place == i].mean()),
        }
        for i in range(len(edges) - 1)
        if (place == i).any()
    ]  # fmt: skip


def reference(schema: Schema, rows: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the distributions of features."""
    found: dict[str, Any] = {}
    for number, feature in enumerate(schema.features):
        if feature.kind == CATEGORY:
            found[feature.name] = {
                "missing": 0,
                "categories": dict(zip(feature.categories, (900, 300, 12), strict=True)),
            }
            continue
        values = np.sort(rng.gamma(2, 100, rows) if number % 2 else rng.normal(0, 1, rows))
        edges = np.quantile(values, np.linspace(0, 1, 11))
        found[feature.name] = {
            "missing": 31 if feature.optional else 0, "mean": 0.37, "standard_deviation": 1.0, "edges": edges.tolist(),
            "counts": np.histogram(values, edges)[0].tolist(),
        }  # fmt: skip
    return {"rows": rows, "features": found}


def with_everything(example: Example) -> Example:
    """Return an example with all parts that only some cards have."""
    card, schema, found = example
    names = schema.class_names
    bins, values = card["metrics"]["reliability"], [0.9, 0.91, 0.88, 0.92, 0.89]
    sure = [item | {"confidence": min(1.0, item["confidence"] + 0.1)} for item in bins]
    more = {
        "cross_validation": {
            "folds": 5,
            "metrics": {key: {"mean": 0.9, "low": 0.88, "high": 0.92, "values": values} for key in METRICS},
        },
        "calibration": {
            "method": "sigmoid",
            "before": {"log_loss": 0.41, "error": 0.09, "reliability": sure},
            "after": {"log_loss": 0.31, "error": 0.012, "reliability": bins},
        },
        "comparison": {
            "champion": {"version": "20260101-000000-ffffffff", "digest": "sha256:" + "0" * 64, "place": "latest"},
            "rows": 600, "margin": 0.01, "passed": True, "reasons": ["log loss is 0.02 lower, and no class is worse"],
            "log_loss": {"candidate": 0.31, "champion": 0.33, "difference": -0.02, "low": -0.04, "high": -0.001},
            "macro_f1": {"candidate": 0.91, "champion": 0.9, "difference": 0.01, "low": -0.01, "high": 0.03},
            "mcnemar": {"only_candidate": 21, "only_champion": 12, "p": 0.16},
            "classes": {
                name: {
                    "rows": 200, "verdict": "no worse",
                    "recall": {"candidate": 0.9, "champion": 0.88, "difference": 0.02, "low": 0.0, "high": 0.04},
                    "f1": {"candidate": 0.9, "champion": 0.91, "difference": -0.01, "low": -0.02, "high": 0.0},
                }
                for name in names
            },
        },
    }  # fmt: skip
    return card | more, schema, found
