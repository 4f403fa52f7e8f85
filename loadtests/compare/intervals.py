"""Estimate intervals of a ratio or difference between two groups of runs."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
RESAMPLES = 10_000
Floats = NDArray[np.float64]


# --- intervals ------------------------------------------------------------------------------------------------------


def interval(a: Floats, b: Floats, random: np.random.Generator, level: float = LEVEL) -> tuple[float, float]:
    """Bounds of mean(b) - mean(a), where each has a value for each of at least two runs; see above."""
    tail = 1 - NormalDist().cdf(_student(NormalDist().inv_cdf((1 + level) / 2), _freedom(a, b)))
    low, high = np.quantile(_resampled(b, random) - _resampled(a, random), [tail, 1 - tail]).tolist()
    return low, high


def welch(a: Floats, b: Floats, level: float) -> tuple[float, float]:
    """Bounds of mean(b) - mean(a) by Welch's t, where each has a value for each of at least two runs."""
    t = _student(NormalDist().inv_cdf((1 + level) / 2), _freedom(a, b))
    half = t * math.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    middle = float(b.mean() - a.mean())
    return middle - half, middle + half


def _resampled(values: Floats, random: np.random.Generator) -> Floats:
    """Means of resamples, as far from the mean as unbiased variance is."""
    n, mean = len(values), values.mean()
    means = values[random.integers(0, n, (RESAMPLES, n))].mean(axis=1)
    found: Floats = mean + (means - mean) * math.sqrt(n / (n - 1))
    return found


def _freedom(a: Floats, b: Floats) -> float:
    """Welch's degrees of freedom; of values that do not vary, the fewest."""
    parts = [(values.var(ddof=1) / len(values), len(values) - 1) for values in (a, b)]
    total = sum(variance for variance, _ in parts)
    fewest = min(freedom for _, freedom in parts)
    if total <= 0:
        return fewest
    return float(total**2 / sum(variance**2 / freedom for variance, freedom in parts))


def _student(z: float, freedom: float) -> float:
    """Student's t where the normal distribution has z (Abramowitz and Stegun, 26.7.5); 3 % low at 2 degrees."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def sure(count: int) -> float:
    """The confidence that each of so many measures needs, for all of them together to have `LEVEL`."""
    return 1 - (1 - LEVEL) / max(1, count)
