"""Estimate intervals of the difference between the means of two groups of runs."""

from __future__ import annotations

import math
import warnings
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
Floats = NDArray[np.float64]


class Difference:
    """mean(b) - mean(a), where `a` and `b` have a value for each run `[runs]`, of at least two runs each.

    SciPy takes a second or more to import, so that happens where it is needed.
    """

    def __init__(self, a: Floats, b: Floats):
        self._a, self._b = a, b
        self._varies = bool(np.ptp(a) > 0 or np.ptp(b) > 0)  # otherwise its bounds are the difference itself
        self.middle = float(b.mean() - a.mean())

    def bootstrap(self, random: np.random.Generator, level: float = LEVEL) -> tuple[float, float]:
        """Return bounds from resamples, expanded for few runs as `comparison` describes."""
        from scipy import special

        if not self._varies:
            return self.middle, self.middle
        tail = float(special.ndtr(-special.stdtrit(self._welch.df, (1 + level) / 2)))
        low, high = np.quantile(_resampled(self._b, random) - _resampled(self._a, random), [tail, 1 - tail]).tolist()
        return low, high

    def welch(self, level: float) -> tuple[float, float]:
        """Return bounds by Welch's t."""
        if not self._varies:
            return self.middle, self.middle
        bounds = self._welch.confidence_interval(level)
        return float(bounds.low), float(bounds.high)

    @cached_property
    def _welch(self) -> Any:
        """SciPy's result of Welch's t test."""
        from scipy import stats

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # where values hardly vary
            return stats.ttest_ind(self._b, self._a, equal_var=False)


def _resampled(values: Floats, random: np.random.Generator) -> Floats:
    """Return means of resamples, `[resamples]`, as far from the mean as unbiased variance is."""
    n, mean = len(values), values.mean()
    means = values[random.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    found: Floats = mean + (means - mean) * math.sqrt(n / (n - 1))
    return found


def bonferroni(count: int) -> float:
    """Return the confidence that each of `count` measures needs, for all of them together to have `LEVEL`."""
    return 1 - (1 - LEVEL) / max(1, count)
