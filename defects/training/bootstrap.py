"""Intervals of a classifier's metrics, by the bootstrap: held-out rows, or whole groups of them, drawn again and again.

Every metric here is made of sums over rows (of each class: rows, predictions, and right ones; and of the loss), so a
resample is a weighted sum and no row is copied. Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter
13: the percentile interval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from defects.scoring import Probabilities

RESAMPLES = 1000
LEVEL = 0.95
MAX_UNITS = 20_000  # that are drawn; more rows are put together at random, which leaves the variance of sums as it is
BLOCK = 2_000_000  # numbers of resampled counts in memory at once
SMALLEST = float(np.finfo(np.float64).eps)  # probability that a loss is taken of, as scikit-learn's log_loss does

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """What a model said of held-out rows: the class `[rows]` and the loss `[rows]`, -log of the true class's
    probability."""

    predicted: Labels
    losses: Floats

    @classmethod
    def of(cls, probabilities: Probabilities, labels: Labels) -> Answers:
        """Return the answers with these probabilities `[rows, classes]`, where `labels` are true."""
        given = probabilities[np.arange(len(labels)), labels]
        return cls(probabilities.argmax(axis=1), -np.log(np.clip(given, SMALLEST, 1.0)))


@dataclass(frozen=True)
class Sums:
    """Sums over rows: of each class, how many are true, predicted, and both `[..., classes]`; the loss `[...]`."""

    true: Floats
    predicted: Floats
    right: Floats
    loss: Floats

    def metrics(self) -> dict[str, Floats]:
        """Return the four metrics `[...]`."""
        rows = self.true.sum(axis=-1)
        return {
            "accuracy": self.right.sum(axis=-1) / rows,
            "balanced_accuracy": _mean(self.recall()),
            "macro_f1": _mean(self.f1()),
            "log_loss": self.loss / rows,
        }

    def recall(self) -> Floats:
        """Return the recall of each class; NaN where no row is of it."""
        return _ratio(self.right, self.true)

    def f1(self) -> Floats:
        """Return the F1 of each class; NaN where no row is of it and none is said to be."""
        return _ratio(2 * self.right, self.true + self.predicted)


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    found = np.full(denominator.shape, np.nan)
    np.divide(numerator, denominator, out=found, where=denominator > 0)
    return found


def _mean(values: Floats) -> Floats:
    """Return the mean over classes of those that are not NaN."""
    found = ~np.isnan(values)
    total: Floats = np.where(found, values, 0.0).sum(axis=-1) / found.sum(axis=-1)
    return total


def total(labels: Labels, answers: Answers, classes: int) -> Sums:
    """Return the sums over all rows."""
    right = labels[labels == answers.predicted]
    counts = [np.bincount(part, minlength=classes).astype(np.float64) for part in (labels, answers.predicted, right)]
    return Sums(counts[0], counts[1], counts[2], np.asarray(answers.losses.sum()))


class Bootstrap:
    """Resamples of the same held-out rows, also for several models at once: what is drawn is the same for all.

    `groups` `[rows]` are drawn whole, where rows of a group belong together.
    """

    def __init__(self, labels: Labels, classes: int, seed: int, groups: NDArray[Any] | None = None):
        self._labels, self._classes, self._seed = labels, classes, seed
        units = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
        count = int(units.max()) + 1
        if count > MAX_UNITS:
            units = np.random.default_rng(seed).permutation(count)[units] % MAX_UNITS
            count = MAX_UNITS
        self._units, self.units = units, count

    def sums(self, *models: Answers) -> list[Sums]:
        """Return the sums of each model over each resample `[RESAMPLES, …]`."""
        parts = [self._by_unit(model) for model in models]
        drawn = self._drawn(sparse.hstack(parts, format="csr"))
        width, k = 3 * self._classes + 1, self._classes
        found = [drawn[:, i * width : (i + 1) * width] for i in range(len(models))]
        return [Sums(part[:, :k], part[:, k : 2 * k], part[:, 2 * k : 3 * k], part[:, 3 * k]) for part in found]

    def intervals(self, model: Answers) -> dict[str, list[float]]:
        """Return the interval of each metric of one model."""
        found = {name: interval(values) for name, values in self.sums(model)[0].metrics().items()}
        if (self._labels == model.predicted).all():
            for name in ("accuracy", "balanced_accuracy", "macro_f1"):
                found[name] = [self._lowest_of_perfect(), 1.0]
        return found

    def _lowest_of_perfect(self) -> float:
        """Return the low end where no row is wrong, and so none of any resample: that of a share (Clopper and Pearson),
        of all units, or of the smallest class where that is lower for a mean over classes."""
        alone = (1 - LEVEL) / 2
        counts = np.bincount(self._labels, minlength=self._classes)
        counts = np.minimum(counts[counts > 0], self.units)
        return float(min(alone ** (1 / self.units), 1 - (1 - alone ** (1 / counts.min())) / len(counts)))

    def _by_unit(self, model: Answers) -> Any:
        """Return a row of sums for each unit, sparse: `[units, 3 × classes + 1]`."""
        k, labels, predicted = self._classes, self._labels, model.predicted
        right = labels == predicted
        places = [(self._units, labels), (self._units, k + predicted), (self._units[right], 2 * k + labels[right])]
        places.append((self._units, np.full(len(labels), 3 * k)))
        rows, columns = (np.concatenate([place[i] for place in places]) for i in range(2))
        values = np.concatenate([np.ones(2 * len(labels) + int(right.sum())), model.losses])
        return sparse.csr_matrix((values, (rows, columns)), shape=(self.units, 3 * k + 1))

    def _drawn(self, by_unit: Any) -> Floats:
        """Return the sums over units that are drawn with replacement, as many as there are: `[RESAMPLES, …]`."""
        random, count = np.random.default_rng(self._seed), self.units
        step = max(1, BLOCK // count)
        drawn = []
        for start in range(0, RESAMPLES, step):
            size = min(step, RESAMPLES - start)
            places = random.integers(count, size=(size, count)) + np.arange(size)[:, np.newaxis] * count
            counts = np.bincount(places.ravel(), minlength=size * count).reshape(size, count)
            drawn.append((by_unit.T @ counts.T.astype(np.float64)).T)
        return np.concatenate(drawn)


def interval(values: Floats) -> list[float]:
    """Return the percentile interval of resampled values `[RESAMPLES]`, without those that are NaN."""
    low, high = np.quantile(values[~np.isnan(values)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]
