"""Cross-validation: fit the same estimator on several splits, to say how much its quality varies with the rows.

The folds share most of their fitted rows, so the spread of their results is too small for the error of their mean:
the variance is corrected as Nadeau and Bengio (Machine Learning 52, 2003) do, by the share of tested to fitted rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.stats import t as student

from defects.scoring import Probabilities
from defects.training.bootstrap import LEVEL, Answers, Labels, total
from defects.training.evaluation import METRICS, metrics_of


def cross_validate(
    answer: Callable[[Any, Any], Probabilities], labels: Labels, splits: Iterable[tuple[Any, Any]]
) -> dict[str, Any]:
    """Return the card's `cross_validation`: `answer` fits on the rows with the first numbers, and returns the
    probabilities `[rows, classes]` of those with the second ones."""
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    shares = []
    for fitted, tested in splits:
        probabilities = answer(fitted, tested)
        answers = Answers.of(probabilities, labels[tested])
        for name, value in metrics_of(total(labels[tested], answers, probabilities.shape[1])).items():
            values[name].append(value)
        shares.append(len(tested) / len(fitted))
    share = float(np.mean(shares))
    found = {name: corrected(each, share) for name, each in values.items()}
    for name, metric in found.items():  # an interval of Student's t knows no limits
        metric["low"] = max(0.0, metric["low"])
        metric["high"] = metric["high"] if name == "log_loss" else min(1.0, metric["high"])
    return {"folds": len(shares), "metrics": found}


def corrected(values: list[float], tested_to_fitted: float) -> dict[str, Any]:
    """Return the mean over folds with its 95 % interval by Nadeau and Bengio's corrected variance."""
    count, mean = len(values), float(np.mean(values))
    error = float(np.sqrt((1 / count + tested_to_fitted) * np.var(values, ddof=1)))
    half = float(student.ppf((1 + LEVEL) / 2, count - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half, "values": values}
