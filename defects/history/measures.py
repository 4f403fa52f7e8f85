"""Measures of predictions whose outcomes are known, from counts. Where scikit-learn has a measure, it is the same."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

BINS = 10  # of confidence, as the card's
LEAST = float(np.finfo(np.float32).eps)  # a probability counts as at least that, and at most 1 without it
DELAYS = 20  # steps of a delay within a factor of e: 5 %
LEAST_DELAY = 0.001  # seconds
Z_95 = 1.959963984540054
MAX_CLASSES, MAX_CELLS = 1_000, 10_000  # that a summary has: the largest


@dataclass
class Bin:
    """Labelled rows whose confidence is in one of the bins."""

    rows: int = 0
    right: int = 0
    confidence: float = 0.0  # the sum


@dataclass
class Tally:
    """What is counted of some predictions."""

    predicted: Counter[str] = field(default_factory=Counter)  # rows by predicted class
    cells: Counter[tuple[str, str]] = field(default_factory=Counter)  # labelled rows by true and predicted class
    bins: defaultdict[int, Bin] = field(default_factory=lambda: defaultdict(Bin))
    delays: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))  # outcomes, by a sample
    loss: float = 0.0

    @classmethod
    def of(cls, tallies: Iterable[Tally]) -> Self:
        """Return the sum of tallies."""
        total = cls()
        for tally in tallies:
            total.predicted.update(tally.predicted)
            total.cells.update(tally.cells)
            for bucket, number in tally.delays.items():
                total.delays[bucket] += number
            total.loss += tally.loss
            for place, one in tally.bins.items():
                bin_ = total.bins[place]
                bin_.rows, bin_.right = bin_.rows + one.rows, bin_.right + one.right
                bin_.confidence += one.confidence
        return total

    def add(self, predicted: str, truth: str | None, counted: Mapping[str, Any]) -> None:
        """Add rows of a predicted class and, where it is known, a true one: `number`, and sums of what they have."""
        number = counted["number"]
        self.predicted[predicted] += number
        if truth is None:
            return
        self.cells[truth, predicted] += number
        self.loss += counted["loss"]
        bin_ = self.bins[min(int(counted["bin"]), BINS - 1)]
        bin_.rows += number
        bin_.right += number if truth == predicted else 0
        bin_.confidence += counted["confidence"]

    def add_delay(self, bucket: int, number: float) -> None:
        """Add delays in seconds whose natural logarithm, times `DELAYS`, is from `bucket` to the next integer."""
        self.delays[bucket] += number

    @property
    def rows(self) -> int:
        return self.predicted.total()

    @property
    def labelled(self) -> int:
        return self.cells.total()

    def to_json(self) -> dict[str, Any]:
        """Return the measures; `None` is what nobody can know."""
        labelled = self.labelled
        right = sum(number for (truth, predicted), number in self.cells.items() if truth == predicted)
        low, high = wilson(right, labelled)
        return {
            "rows": self.rows,
            "labelled": labelled,
            "labelled_share": share(labelled, self.rows),
            "delay_seconds": {"median": self.delay(0.5), "p90": self.delay(0.9)},
            "accuracy": {"value": share(right, labelled), "low": low, "high": high},
            "log_loss": self.loss / labelled if labelled else None,
            "calibration_error": self._calibration_error(),
            "reliability": self._reliability(),
            "classes": self._classes(),
            "confusion": [
                {"true": truth, "predicted": predicted, "rows": number}
                for (truth, predicted), number in _largest(self.cells, MAX_CELLS)
            ],
        }

    def delay(self, quantile: float) -> float | None:
        """Return a quantile of the delays in seconds, to 2.5 %; `None` where there is none."""
        wanted, passed = quantile * sum(self.delays.values()), 0.0
        for bucket, number in sorted(self.delays.items()):
            passed += number
            if passed >= wanted * (1 - 1e-9):  # it may be rounded
                return math.exp((bucket + 0.5) / DELAYS)
        return None

    def _calibration_error(self) -> float | None:
        """Return the expected calibration error: Naeini, Cooper and Hauskrecht (AAAI 2015)."""
        if not self.labelled:
            return None
        return sum(abs(one.confidence - one.right) for one in self.bins.values()) / self.labelled

    def _reliability(self) -> list[dict[str, Any]]:
        return [
            {
                "low": place / BINS,
                "high": (place + 1) / BINS,
                "rows": one.rows,
                "confidence": one.confidence / one.rows,
                "accuracy": one.right / one.rows,
            }
            for place, one in sorted(self.bins.items())
        ]

    def _classes(self) -> list[dict[str, Any]]:
        """Return, for each class, how much of it is labelled, its precision and its recall."""
        labelled, true = Counter[str](), Counter[str]()
        for (truth, predicted), number in self.cells.items():
            labelled[predicted] += number
            true[truth] += number
        return [
            {
                "class": name,
                "predicted": self.predicted[name],
                "labelled": labelled[name],
                "labelled_share": share(labelled[name], self.predicted[name]),
                "true": true[name],
                "right": self.cells[name, name],
                "precision": share(self.cells[name, name], labelled[name]),
                "recall": share(self.cells[name, name], true[name]),
            }
            for name, _ in _largest(self.predicted + true, MAX_CLASSES)
        ]


def _largest(counts: Counter[Any], most: int) -> list[tuple[Any, int]]:
    """Return the largest counts, in the order of their names."""
    return sorted(counts.most_common(most))


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def wilson(count: int, total: int) -> tuple[float | None, float | None]:
    """Return Wilson's score interval of a binomial share, 95 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    if not total:
        return None, None
    part, z2 = count / total, Z_95**2
    centre = (part + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * math.sqrt(part * (1 - part) / total + z2 / (4 * total * total))
    return max(centre - half, 0.0) if count else 0.0, min(centre + half, 1.0) if count < total else 1.0
