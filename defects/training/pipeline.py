"""Train: make of a labelled table the files of an artifact (model, card, schema, reference, golden inputs)."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from defects import artifact, scoring
from defects.schema import Schema
from defects.training.dataset import BadData, Table
from defects.training.evaluation import evaluate, reference
from defects.training.export import export
from defects.training.graph import shift
from defects.training.precision import exact_shift

Progress = Callable[[str], AbstractContextManager[None]]


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
NARROW = frozenset({"random-forest"})  # cast what they are given to 32 bits


@dataclass(frozen=True)
class Trained:
    """The files of an artifact, its card, and the fitted pipeline itself."""

    files: dict[str, bytes]
    card: dict[str, Any]
    pipeline: Pipeline


def train(table: Table, estimator: str, seed: int, test_share: float, progress: Progress) -> Trained:
    """Fit `ESTIMATORS[estimator]` on a stratified split and evaluate it on the rest.

    The same table, estimator, seed and library versions give the same model. Raises `BadData` where the table is too
    small to be split.
    """
    schema = table.schema.observe(table.features)
    fit_x, test_x, fit_y, test_y = _split(table, test_share, seed)
    shifts = _shifts(table) if estimator in NARROW and schema.wide else {}
    pipeline = _pipeline(ESTIMATORS[estimator](seed), schema, shifts)
    with np.errstate(over="ignore", invalid="ignore"):  # scikit-learn adds rows up, only to see whether they are finite
        with progress(f"fitting {estimator} on {len(fit_x):,} rows of {fit_x.shape[1]} features"):
            pipeline.fit(fit_x, fit_y)
        scoring.use_one_thread(pipeline)
        with progress(f"evaluating on {len(test_x):,} held-out rows"):
            probabilities = pipeline.predict_proba(test_x)
            metrics = evaluate(test_y, probabilities, schema)
    with progress("exporting to ONNX and comparing with scikit-learn"):
        engine = export(pipeline, schema, test_x, fit_x)
    model_digest = artifact.digest_of(engine.model)
    created = datetime.now(UTC)
    card = {
        "version": f"{created:%Y%m%d-%H%M%S}-{model_digest[7:15]}",
        "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "data": table.source,
        "estimator": {"name": estimator, "seed": seed, "parameters": _parameters(pipeline), "shifts": shifts},
        "split": {"fitted_rows": len(fit_x), "held_out_rows": len(test_x), "held_out_share": test_share},
        "metrics": metrics,
        "engine": {"name": engine.name, "reason": engine.reason, "parity": engine.parity},
        "libraries": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scikit-learn", "onnx", "onnxruntime", "skops")},
    }
    files = {
        engine.file: engine.model,
        "schema.json": artifact.dump(schema.to_json()),
        "card.json": artifact.dump(card),
        "reference.json": artifact.dump(reference(schema, fit_x, fit_y, probabilities)),
        "golden.json": artifact.dump(engine.golden),
    }
    _check_served(files, table)
    return Trained(files, card, pipeline)


def _check_served(files: dict[str, bytes], table: Table) -> None:
    """Raise `BadData` where a replica would refuse these files: better here than in production."""
    try:
        made = artifact.parse(files, artifact.digest_of(artifact.listing(files)))
        scoring.verified(made, scoring.load(made))
    except artifact.BadArtifact as error:
        raise BadData(f"{table.source['source']}: a model of this data can't be served: {error}") from None


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


def _split(table: Table, test_share: float, seed: int) -> tuple[Any, Any, Any, Any]:
    try:
        parts = train_test_split(
            table.features.astype(np.float64),
            table.labels,
            test_size=test_share,
            stratify=table.labels,
            random_state=seed,
        )
    except ValueError as error:
        raise BadData(
            f"{table.source['source']}: {len(table.labels)} rows can't be split into a fitted and a held-out part "
            f"with all {len(table.schema.classes)} classes in both ({error}); expected more rows, or another "
            "--test-share"
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


def _parameters(pipeline: Pipeline) -> dict[str, Any]:
    """Return the pipeline's parameters that JSON can hold."""
    return {name: value for name, value in sorted(pipeline.get_params().items()) if _is_json(value)}


def _is_json(value: Any) -> bool:
    return isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value))
