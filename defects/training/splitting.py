"""Split a table into the rows that a model is fitted on, and those on which it is evaluated."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from defects.training.dataset import BadData, Table


def split(table: Table, test_share: float, seed: int) -> tuple[Any, Any, Any, Any]:
    """Return the fitted and the held-out rows, float64 `[rows, features]`, and their labels; raises `BadData`."""
    try:
        parts = train_test_split(
            table.features.astype(np.float64),
            table.labels,
            test_size=test_share,
            stratify=table.labels,
            random_state=seed,
        )
    except ValueError as error:
        raise BadData(
            f"{table.source['source']}: {len(table.labels)} rows can't be split into a fitted and a held-out part "
            f"with all {len(table.schema.classes)} classes in both ({error}); expected more rows, or another "
            "--test-share"
        ) from None
    fit_x, test_x, fit_y, test_y = parts
    if len(np.unique(fit_y)) < len(table.schema.classes):
        rare = table.schema.class_names[int(np.bincount(fit_y, minlength=len(table.schema.classes)).argmin())]
        raise BadData(f"{table.source['source']}: class {rare!r} has no row left to fit on; expected more of them")
    empty = np.isnan(fit_x).all(axis=0)
    if empty.any():
        name = table.schema.names[int(empty.argmax())]
        raise BadData(f"{table.source['source']}: column {name!r} has too few values; expected more than a handful")
    return fit_x, test_x, fit_y, test_y
