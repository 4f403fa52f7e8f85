"""Assess a fitted model on held-out rows: the parts of the card that say whether it is any good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from defects.scoring import Probabilities
from defects.training import suspects
from defects.training.bootstrap import Bootstrap
from defects.training.cross_validation import cross_validate
from defects.training.dataset import Table
from defects.training.evaluation import HeldOut, evaluate
from defects.training.findings import of_model
from defects.training.importances import MAX_FEATURES, Predict, importances
from defects.training.options import Recipe
from defects.training.splitting import Split, splits


def held_out(table: Table, parts: Split, seed: int) -> HeldOut:
    """Return the held-out rows of a table; resampled by group where the split is by group.

    Without fitted rows, as for a model that was fitted elsewhere, the classes' shares are those of the held-out rows.
    """
    count = len(table.schema.classes)
    labels = table.labels[parts.held]
    groups = table.groups[parts.held] if parts.how == "group" and table.groups is not None else None
    known = table.labels[parts.fitted if len(parts.fitted) else parts.held]
    shares = np.bincount(known, minlength=count) / len(known)
    return HeldOut(labels, table.schema.class_names, shares, Bootstrap(labels, count, seed, groups))


def assess(
    table: Table, parts: Split, probabilities: Probabilities, predict: Predict, recipe: Recipe
) -> dict[str, Any]:
    """Return the card's `metrics`, `warnings` and `importances` of a model with these probabilities of held-out rows.

    `predict` gives the model's probabilities of other rows.
    """
    held, schema = held_out(table, parts, recipe.seed), table.schema
    metrics = evaluate(held, probabilities)
    rows = table.features.astype(np.float64)
    uncalibrated = recipe.class_weight is not None and recipe.calibrate is None
    found = of_model(held, probabilities, metrics, balanced=uncalibrated)
    found += suspects.of_table(schema, rows, table.labels, parts.fitted, parts.held)
    card: dict[str, Any] = {
        "metrics": metrics,
        "warnings": [finding.to_json() for finding in sorted(found, key=lambda finding: finding.rank)],
    }
    card["importances"] = importances(predict, rows[parts.held], held.labels, schema.names, recipe.seed)
    if len(schema.names) > MAX_FEATURES:
        card["importances_left_out"] = f"{len(schema.names):,} features; they are computed for up to {MAX_FEATURES}"
    return card


def cross_validated(table: Table, recipe: Recipe, answer: Callable[[Any, Any], Probabilities]) -> dict[str, Any]:
    """Return the card's `cross_validation` with the recipe's folds; `answer` fits and predicts, by numbers of rows."""
    found = splits(table, recipe.folds, recipe.seed)
    return {"cross_validation": cross_validate(answer, table.labels, found)}
