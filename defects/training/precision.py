"""What 32 bits can't hold: which columns are wide, and the shift that makes one narrow without losing anything."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EXACT_INTEGERS = 2.0**53  # beyond it a float64 is no certain integer either

Values = NDArray[np.float64]  # of one column, without missing ones


def is_wide(values: Values) -> bool:
    """Whether two distinct values become one float32, or an integer is not exact in it. 0.1 is not wide."""
    distinct = np.unique(values)
    narrow = distinct.astype(np.float32)
    if len(np.unique(narrow)) < len(distinct):
        return True
    integers = (distinct == np.rint(distinct)) & (np.abs(distinct) <= EXACT_INTEGERS)
    return bool((narrow[integers] != distinct[integers]).any())


def exact_shift(values: Values) -> float | None:
    """What to subtract from a wide column so that it is not wide; `None` where nothing that was tried is exact."""
    low, high = float(values.min()), float(values.max())
    for shift in (np.rint(low / 2 + high / 2), float(np.median(values)), low):
        shifted = values - shift
        if (shifted + shift == values).all() and not is_wide(shifted):
            return float(shift)
    return None
