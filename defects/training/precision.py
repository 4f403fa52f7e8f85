"""What 32 bits can't hold: which columns are wide, and the shift that makes one narrow without losing anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXACT_INTEGERS = 2.0**53  # beyond it a float64 is no certain integer either
WRITTEN_DIGITS = 15  # of a decimal that somebody wrote; a computed float64 has 17
MANY = 0.01

Values = NDArray[np.float64]  # of one column, without missing ones


def is_wide(values: Values) -> bool:
    """Whether two distinct values become one float32, or an integer is not exact in it. 0.1 is not wide."""
    distinct = np.unique(values)
    narrow = distinct.astype(np.float32)
    if len(np.unique(narrow)) < len(distinct):
        return True
    return not _holds_integers(distinct, narrow)


def is_blurred(values: Values) -> bool:
    """Whether what 32 bits lose of a column matters to an estimator that works in them.

    Of full-precision measurements a few are so near to one another that they become one, by chance: that doesn't. It
    does where integers, or decimals as people write them, are lost, or one in a hundred of any values.
    """
    distinct = np.unique(values)
    narrow = distinct.astype(np.float32)
    if not _holds_integers(distinct, narrow):
        return True
    lost = np.flatnonzero(narrow[1:] == narrow[:-1])
    if len(lost) > MANY * len(distinct):
        return True
    return any(_is_written(distinct[place]) and _is_written(distinct[place + 1]) for place in lost.tolist())


def _is_written(value: float) -> bool:
    return float(f"{value:.{WRITTEN_DIGITS}g}") == value


def _holds_integers(distinct: Values, narrow: NDArray[np.float32]) -> bool:
    integers = (distinct == np.rint(distinct)) & (np.abs(distinct) <= EXACT_INTEGERS)
    return bool((narrow[integers] == distinct[integers]).all())


def exact_shift(values: Values) -> float | None:
    """What to subtract from a column, exactly, so that it is not blurred; `None` where nothing that was tried is."""
    low, high = float(values.min()), float(values.max())
    for shift in (float(np.rint(low / 2 + high / 2)), float(np.median(values)), low):
        shifted = values - shift
        if abs(shift) <= EXACT_INTEGERS and (shifted + shift == values).all() and not is_blurred(shifted):
            return shift
    return None
