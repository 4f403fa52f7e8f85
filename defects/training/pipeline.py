"""Train: make of a labelled table the files of an artifact (model, card, schema, reference, golden inputs)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from defects import artifact, scoring
from defects.schema import Schema
from defects.training import calibration, cost
from defects.training.assessment import assess, cross_validated, held_out
from defects.training.brought import Brought
from defects.training.card_page.page import page
from defects.training.conversion import classifier_of
from defects.training.dataset import BadData, Table
from defects.training.evaluation import reference
from defects.training.export import Engine, export
from defects.training.findings import Finding
from defects.training.fitting import checked
from defects.training.gate import Gate, warnings
from defects.training.importing import Loaded
from defects.training.making import Maker, parameters_of
from defects.training.options import Recipe
from defects.training.splitting import Split, split
from defects.values import printable

Progress = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Trained:
    """The files of an artifact, its card, and the fitted pipeline itself."""

    files: dict[str, bytes]
    card: dict[str, Any]
    pipeline: Pipeline


def train(table: Table, recipe: Recipe, progress: Progress, gate: Gate | None = None) -> Trained:
    """Fit the recipe's estimator on a part of the rows and assess it on the rest.

    The same table, recipe and library versions give the same model. Raises `BadData` where the table is too small to be
    split, or the estimator can't be fitted, and `Refused` where the model does not pass the gate.
    """
    schema = table.schema.observe(table.features)
    if gate is not None:
        gate.check(schema)
    parts = split(table, recipe.test_share, recipe.seed)
    maker = Maker(table, recipe, schema)
    fit_x, test_x = maker.rows[parts.fitted], maker.rows[parts.held]
    with np.errstate(over="ignore", invalid="ignore"):  # scikit-learn adds rows up, only to see whether they are finite
        with progress(f"fitting {maker.name} on {len(fit_x):,} rows of {fit_x.shape[1]} features"):
            fitted = maker.made(parts.fitted)
        scoring.use_one_thread(fitted.pipeline)
        with progress(f"evaluating on {len(test_x):,} held-out rows"):
            probabilities = checked(fitted.predict_proba(test_x), len(schema.classes))
            assessed = assess(table, parts, probabilities, fitted.predict_proba, recipe)
        if recipe.calibrate:
            assessed["calibration"] = found = calibration.assessed(
                recipe.calibrate, held_out(table, parts, recipe.seed), fitted, test_x
            )
            assessed["warnings"] += [finding.to_json() for finding in calibration.warnings(found)]
        if gate is not None:
            with progress(f"comparing with {gate.place}"):
                assessed = _compared(assessed, gate.judge(table, parts, probabilities, recipe))
        if recipe.folds:
            with progress(f"cross-validating: fitting {recipe.folds} times"):
                assessed |= cross_validated(table, recipe, maker.answer)
    with progress("exporting to ONNX and comparing with scikit-learn"):
        engine = export(fitted, test_x, fit_x)
    described = {
        "data": table.source | {"notes": list(table.notes)},
        "estimator": maker.to_json() | {"parameters": parameters_of(fitted.pipeline)},
        "split": parts.to_json() | {"test_share": recipe.test_share},
        **assessed,
        "command": [*recipe.arguments],
    }
    distribution = reference(schema, fit_x, table.labels[parts.fitted], probabilities)
    return Trained(*_made(table, schema, engine, described, distribution), fitted.pipeline)


def bring(brought: Brought, loaded: Loaded, recipe: Recipe, progress: Progress, gate: Gate | None = None) -> Trained:
    """Assess a fitted model on the rows that were brought with it, and make it an artifact.

    Raises `BadData` where it can't be served, and `Refused` where it does not pass the gate.
    """
    fitted, model = brought.fitted, loaded.model
    scoring.use_one_thread(model)
    schema = fitted.schema.observe(brought.table.features)
    if gate is not None:
        gate.check(schema)
    table = replace(brought.table, schema=schema)
    rows = table.features.astype(np.float64)
    parts = Split(np.arange(0), np.arange(len(rows)), "given")
    with progress(f"evaluating on {len(rows):,} rows"):
        probabilities = fitted.predict_proba(rows)
        assessed = assess(table, parts, probabilities, fitted.predict_proba, recipe)
    assessed["warnings"][:0] = [Finding("version", "", text).to_json() for text in loaded.versions]
    if gate is not None:
        with progress(f"comparing with {gate.place}"):
            assessed = _compared(assessed, gate.judge(table, parts, probabilities, recipe))
    with progress("exporting to ONNX and comparing with the model itself"):
        engine = export(fitted, rows, rows)
    content = loaded.path.read_bytes()
    described = {
        "data": table.source | {"notes": list(table.notes)},
        "estimator": {
            "name": type(classifier_of(model)).__name__,
            "file": printable(loaded.path.name),
            "sha256": artifact.digest_of(content).removeprefix("sha256:"),
            "seed": recipe.seed,
            "parameters": parameters_of(model),
            "shifts": {},
        },
        "split": parts.to_json(),
        "command": [*recipe.arguments],
        **assessed,
    }
    distribution = reference(schema, rows, table.labels, probabilities)
    return Trained(*_made(table, schema, engine, described, distribution), model)


def _compared(assessed: dict[str, Any], comparison: dict[str, Any]) -> dict[str, Any]:
    """Return what was assessed with the comparison with the champion, and its warnings."""
    found = [finding.to_json() for finding in warnings(comparison)]
    return assessed | {"comparison": comparison, "warnings": [*assessed["warnings"], *found]}


def _made(
    table: Table, schema: Schema, engine: Engine, described: dict[str, Any], distribution: dict[str, Any]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of an artifact that can be served, and its card, which says so where that is dear."""
    files, card = _artifact(schema, engine, described, distribution)
    _check_served(files, table)
    if large := cost.warning(files):
        files, card = _artifact(
            schema, engine, {**described, "warnings": [*described["warnings"], large]}, distribution
        )
    return files, card


def _artifact(
    schema: Schema, engine: Engine, described: dict[str, Any], distribution: dict[str, Any]
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of an artifact, and its card."""
    created = datetime.now(UTC)
    card = {
        "version": f"{created:%Y%m%d-%H%M%S}-{_unique(created, engine.model)}",
        "created": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        **described,
        "engine": engine.to_json(),
        "libraries": {"python": platform.python_version()}
        | {name: version(name) for name in ("numpy", "scikit-learn", "onnx", "onnxruntime", "skops")},
    }
    files = {
        engine.file: engine.model,
        "schema.json": artifact.dump(schema.to_json()),
        "card.json": artifact.dump(card),
        "reference.json": artifact.dump(distribution),
        "golden.json": artifact.dump(engine.golden),
        artifact.CARD_PAGE: page(card, schema, distribution).encode(),
    }
    return files, card


def _unique(created: datetime, model: bytes) -> str:
    """Return what tells a model from any other that was made in the same second, also by the same command."""
    moment = f"{created.timestamp()} {os.getpid()} {os.urandom(8).hex()} ".encode()
    return artifact.digest_of(moment + artifact.digest_of(model).encode())[7:15]


def _check_served(files: dict[str, bytes], table: Table) -> None:
    """Raise `BadData` where a replica would refuse these files: better here than in production."""
    try:
        made = artifact.parse(files, artifact.digest_of(artifact.listing(files)))
        scoring.verified(made, scoring.load(made))
    except artifact.BadArtifact as error:
        raise BadData(f"{table.source['source']}: a model of this data can't be served: {error}") from None
