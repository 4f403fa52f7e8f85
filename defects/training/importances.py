"""How much each feature matters: how much worse the log loss is where its values are exchanged between rows.

Breiman, Random Forests (2001), section 10. What a feature shares with others, the others keep: two columns that say
the same have small importances both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from defects.schema import Rows
from defects.scoring import Probabilities
from defects.training.bootstrap import Answers, Labels

ROWS, FEWEST_ROWS, REPEATS = 2000, 100, 5
BUDGET = 50_000  # rows to predict: of many features, each gets fewer
MAX_FEATURES = 200

Predict = Callable[[Rows], Probabilities]


def importances(
    predict: Predict, rows: Rows, labels: Labels, names: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """Return the features by falling importance, of held-out `rows` `[rows, features]`; none where there are more than
    `MAX_FEATURES`, which would take too long.
    """
    if len(names) > MAX_FEATURES:
        return []
    random = np.random.default_rng(seed)
    count = min(len(rows), ROWS, max(FEWEST_ROWS, BUDGET // (REPEATS * len(names))))
    chosen = random.permutation(len(rows))[:count]
    rows, labels = rows[chosen], labels[chosen]
    before = Answers.of(predict(rows), labels).losses.mean()
    found = []
    for column, name in enumerate(names):
        losses = Answers.of(predict(_exchanged(rows, column, random)), np.tile(labels, REPEATS)).losses
        worse = losses.reshape(REPEATS, count).mean(axis=1) - before
        found.append({"feature": name, "mean": float(worse.mean()), "standard_deviation": float(worse.std())})
    return sorted(found, key=lambda feature: -float(str(feature["mean"])))


def _exchanged(rows: Rows, column: int, random: np.random.Generator) -> Rows:
    """Return `REPEATS` copies of the rows, each with this column's values in another order."""
    copies = np.tile(rows, (REPEATS, 1))
    copies[:, column] = np.concatenate([random.permutation(rows[:, column]) for _ in range(REPEATS)])
    return copies
