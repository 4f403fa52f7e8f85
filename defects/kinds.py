"""Kinds of features and labels, and how a class's name is read as the label that training had."""

from __future__ import annotations

import math
from collections.abc import Callable

from defects import files, values

NUMBER, BOOLEAN, CATEGORY = "number", "boolean", "category"  # of a feature
TEXT, INTEGER = "text", "integer"  # of a label, besides the first two
REFUSE, MISSING = "refuse", "missing"  # what happens to a category that training didn't know

Label = str | int | float | bool

LABEL_TYPES: dict[str, Callable[[str], Label]] = {
    TEXT: str,
    INTEGER: int,
    NUMBER: float,
    BOOLEAN: lambda name: {"True": True, "False": False}[name],
}


def read_label(name: str, kind: str) -> Label:
    """Return a class's name as a label of that kind; raises `ValueError` where that is not its only spelling.

    Nor may it be what JSON can't hold.
    """
    try:
        label = LABEL_TYPES[kind](name)
    except (ValueError, KeyError):
        label = math.nan
    unbounded = isinstance(label, int) and not files.INT64 <= label < files.UINT64
    if str(label) != name or unbounded or label in (math.inf, -math.inf) or label != label:  # noqa: PLR0124
        raise ValueError(f"the class {values.shown(name)} is no label of type {kind}")
    return label
