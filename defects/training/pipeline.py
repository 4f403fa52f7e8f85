"""From a labelled table to the files of an artifact: pipeline, evaluation, ONNX export, card, reference, golden."""

from __future__ import annotations

import math
import platform
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from defects import artifact, scoring
from defects.schema import Schema
from defects.training.dataset import BadData, Table

# The largest difference of a probability between scikit-learn and ONNX Runtime with which ONNX is served.
PARITY_TOLERANCE = 1e-4
GOLDEN_ROWS = 64
REFERENCE_BINS = 10

Progress = Callable[[str], AbstractContextManager[None]]
Probabilities = NDArray[np.float64]


def _hist_gradient_boosting(seed: int) -> ClassifierMixin:
    return HistGradientBoostingClassifier(random_state=seed)


def _logistic_regression(seed: int) -> ClassifierMixin:
    return make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed)
    )


def _random_forest(seed: int) -> ClassifierMixin:
    forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=seed)
    return make_pipeline(SimpleImputer(strategy="median"), forest)


ESTIMATORS: dict[str, Callable[[int], ClassifierMixin]] = {
    "hist-gradient-boosting": _hist_gradient_boosting,
    "logistic-regression": _logistic_regression,
    "random-forest": _random_forest,
}


@dataclass(frozen=True)
class Trained:
    """The files of an artifact, its card, and the fitted pipeline itself."""

    files: dict[str, bytes]
    card: dict[str, Any]
    pipeline: Pipeline


@dataclass(frozen=True)
class _Engine:
    """What serves the model, why, and what it needs."""

    name: str
    reason: str
    file: str
    model: bytes
    parity: dict[str, Any]


def train(table: Table, estimator: str, seed: int, test_share: float, progress: Progress) -> Trained:
    """Fit `ESTIMATORS[estimator]` on a stratified split and evaluate it on the rest.

    The same table, estimator, seed and library versions give the same model. Raises `BadData` where the table is too
    small to be split.
    """
    schema = table.schema.observe(table.features)
    fit_x, test_x, fit_y, test_y = _split(table, test_share, seed)
    pipeline = Pipeline([("classifier", ESTIMATORS[estimator](seed))])
    with progress(f"fitting {estimator} on {len(fit_x):,} rows of {fit_x.shape[1]} features"):
        pipeline.fit(fit_x, fit_y)
    with progress(f"evaluating on {len(test_x):,} held-out rows"):
        probabilities = pipeline.predict_proba(test_x)
        metrics = evaluate(test_y, probabilities, schema)
    with progress("exporting to ONNX and comparing with scikit-learn"):
        engine = _export(pipeline, test_x, probabilities)
    model_digest = artifact.digest_of(engine.model)
    created = datetime.now(UTC)
    card = {
        "version": f"{created:%Y%m%d-%H%M%S}-{model_digest[7:15]}",
        "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "data": table.source,
        "estimator": {"name": estimator, "seed": seed, "parameters": _parameters(pipeline)},
        "split": {"fitted_rows": len(fit_x), "held_out_rows": len(test_x), "held_out_share": test_share},
        "metrics": metrics,
        "engine": {"name": engine.name, "reason": engine.reason, "parity": engine.parity},
        "libraries": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scikit-learn", "skl2onnx", "onnxruntime", "skops")},
    }
    files = {
        engine.file: engine.model,
        "schema.json": artifact.dump(schema.to_json()),
        "card.json": artifact.dump(card),
        "reference.json": artifact.dump(reference(schema, fit_x, fit_y, probabilities)),
        "golden.json": artifact.dump(_golden(test_x, probabilities)),
    }
    return Trained(files, card, pipeline)


def _split(table: Table, test_share: float, seed: int) -> tuple[Any, Any, Any, Any]:
    try:
        parts = train_test_split(
            table.features, table.labels, test_size=test_share, stratify=table.labels, random_state=seed
        )
    except ValueError as error:
        raise BadData(
            f"{table.source['source']}: {len(table.labels)} rows can't be split into a fitted and a held-out part "
            f"with all {len(table.schema.classes)} classes in both: {error}"
        ) from None
    fit_x, test_x, fit_y, test_y = parts
    if len(np.unique(fit_y)) < len(table.schema.classes):
        rare = table.schema.class_names[int(np.bincount(fit_y, minlength=len(table.schema.classes)).argmin())]
        raise BadData(f"{table.source['source']}: class {rare!r} has no row left to fit on; expected more of them")
    empty = np.isnan(fit_x).all(axis=0)
    if empty.any():
        name = table.schema.names[int(empty.argmax())]
        raise BadData(f"{table.source['source']}: column {name!r} has too few values; expected more than a handful")
    return fit_x, test_x, fit_y, test_y


def evaluate(labels: NDArray[np.int64], probabilities: Probabilities, schema: Schema) -> dict[str, Any]:
    """Accuracy, macro-F1 and log loss (natural logarithm), over all and by class."""
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


def _export(pipeline: Pipeline, rows: NDArray[np.float32], expected: Probabilities) -> _Engine:
    """ONNX where it answers as scikit-learn does on `rows`, else scikit-learn itself."""
    try:
        model = to_onnx(pipeline)
        answered = scoring.onnx_scorer(model)(rows)
    except Exception as error:  # whatever the converter can't do, scikit-learn still can
        return _sklearn_engine(pipeline, f"the model can't be converted to ONNX: {_root_cause(error)}", {})
    parity = compare(expected, answered)
    if parity["different_class_rows"] or not parity["largest_difference"] <= PARITY_TOLERANCE:
        return _sklearn_engine(
            pipeline,
            f"ONNX differs on held-out rows by up to {parity['largest_difference']:.2g} "
            f"(allowed {PARITY_TOLERANCE:g}), with another class on {parity['different_class_rows']}",
            parity,
        )
    return _Engine("onnxruntime", "ONNX answers as scikit-learn does", artifact.ONNX, model, parity)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _sklearn_engine(pipeline: Pipeline, reason: str, parity: dict[str, Any]) -> _Engine:
    import skops.io

    model = skops.io.dumps(pipeline)
    scoring.sklearn_scorer(model)  # refuses here, not in production, a type that is not pinned
    return _Engine("scikit-learn", reason, artifact.SKOPS, model, parity)


def to_onnx(pipeline: Pipeline) -> bytes:
    """The pipeline as an ONNX model: input `rows` `[n, features]` float32, output `probabilities` `[n, classes]`."""
    from skl2onnx import to_onnx as convert
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter's own deprecations are not the user's business
        model = convert(
            pipeline,
            initial_types=[("rows", FloatTensorType([None, pipeline.n_features_in_]))],
            options={"zipmap": False},
        )
    content: bytes = model.SerializeToString()
    return content


def compare(expected: Probabilities, answered: scoring.Probabilities) -> dict[str, Any]:
    """How far two engines' probabilities for the same rows are apart; another class counts unless it was a tie."""
    best = np.sort(expected, axis=1)
    tie = best[:, -1] - best[:, -2] <= PARITY_TOLERANCE
    other = (expected.argmax(axis=1) != answered.argmax(axis=1)) & ~tie
    return {
        "rows": len(expected),
        "largest_difference": float(np.abs(expected - answered).max()),
        "different_class_rows": int(other.sum()),
    }


def _parameters(pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline's parameters that JSON can hold."""
    return {name: value for name, value in sorted(pipeline.get_params().items()) if _is_json(value)}


def _is_json(value: Any) -> bool:
    return isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))


def reference(
    schema: Schema, rows: NDArray[np.float32], labels: NDArray[np.int64], probabilities: Probabilities
) -> dict[str, Any]:
    """The training distribution, to compare production with: features and classes as fitted, answers as held out."""
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


def _distribution(column: NDArray[np.float32]) -> dict[str, Any]:
    """Bins with about equal counts (fewer where values repeat), so that each carries the same evidence."""
    values = column[~np.isnan(column)].astype(np.float64)
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


def _golden(rows: NDArray[np.float32], probabilities: Probabilities) -> dict[str, Any]:
    """Held-out rows with scikit-learn's probabilities; what serves the model must give the same."""
    return {
        "tolerance": PARITY_TOLERANCE,
        "rows": [[None if np.isnan(v) else float(v) for v in row] for row in rows[:GOLDEN_ROWS]],
        "probabilities": probabilities[:GOLDEN_ROWS].tolist(),
    }
