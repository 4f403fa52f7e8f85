"""Find columns that 32 bits can't hold, and the shift that makes one narrow without losing anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

INTEGERS = 2.0**64  # larger ones are measurements
EXACT_INTEGERS = 2.0**53  # from here on, not every integer is a float64
WRITTEN_DIGITS = 13  # of a decimal that somebody wrote; of computed float64s, one in two thousand has as few
SAME = 4  # float64s that are so many apart, or nearer, are one value computed in two ways
LEVELS = 2.0**16  # between the bulk of a column's values, that 32 bits have to tell apart

Values = NDArray[np.float64]  # of one column, without missing ones


def is_wide(values: Values) -> bool:
    """Whether 32 bits lose what matters of a column: an integer, or a decimal as people write it, is not the same any
    more; or so many values become one that the column is coarse.

    0.1 is rounded and still told apart from its neighbours, so it is not wide. Of thousands of computed values a few
    are always so near to one another that they become one, by chance: that does not matter either.
    """
    distinct = np.unique(values)
    narrow = distinct.astype(np.float32)
    integers = (distinct == np.rint(distinct)) & (np.abs(distinct) <= INTEGERS)
    if (narrow[integers] != distinct[integers]).any():
        return True
    below, above = distinct[:-1], distinct[1:]
    lost = (narrow[1:] == narrow[:-1]) & (above - below > SAME * np.spacing(np.maximum(abs(below), abs(above))))
    if not lost.any():
        return False
    if any(_is_written(one) and _is_written(other) for one, other in zip(below[lost], above[lost], strict=True)):
        return True
    low, high = np.quantile(values, (0.05, 0.95))
    return bool(np.median(np.spacing(abs(narrow))) * LEVELS > high - low)


def _is_written(value: float) -> bool:
    return float(f"{value:.{WRITTEN_DIGITS}g}") == value


def exact_shift(values: Values) -> float | None:
    """Return what to subtract, exactly, to make a wide column narrow; `None` where nothing that was tried does."""
    low, high = float(values.min()), float(values.max())
    for shift in (float(np.rint(low / 2 + high / 2)), float(np.median(values)), low):
        shifted = values - shift
        if abs(shift) <= INTEGERS and (shifted + shift == values).all() and not is_wide(shifted):
            return shift
    return None
