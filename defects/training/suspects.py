"""Find what is wrong with a table before a model hides it: leaks, identifiers, constant columns, rows on both sides.

A column leaks where it is known only after the answer is, such as the lifeboat of somebody who was saved. No statistic
proves that, so what is said is what can be counted: how many of the answers this column gives alone.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from defects.features import Feature
from defects.schema import Rows, Schema
from defects.training.bootstrap import Labels
from defects.training.findings import Finding

# Of the errors that the most frequent class alone makes, a column alone avoids so many: then it gives the answer …
ALONE = 0.995
# … or only so many, where all other columns together make `TIMES` as many errors as it does, or more. Of the irises'
# errors, the petal's width avoids 0.94, and the other columns do as well without it: an easy task is no leak.
NEARLY, TIMES = 0.90, 3.0
LEAK_CELLS, LEAK_ROWS, FEWEST_LEAK_ROWS = 400_000, 5_000, 500  # that are looked at; a few rows show a leak too
LEAVES, TREES = 64, 20
MIN_ROWS = 30  # below, numbers rise from row to row, or give all answers, by chance
IDENTIFIER = re.compile(r"(?:^|[\W_])(?:id|uuid|guid|index|key|rowid)$|[a-z](?:Id|ID|UUID)$")
DENSE = 2.0  # whole numbers that are all different, within a range of so many times their number, count something
COARSE = 10.0  # a table with at most so many possible rows for each row repeats rows by chance
SEED = 0

Column = NDArray[np.float64]


def of_table(schema: Schema, rows: Rows, labels: Labels, fitted: NDArray[Any], held: NDArray[Any]) -> list[Finding]:
    """Return the warnings about a table `[rows, features]` with these labels, split into `fitted` and `held` rows."""
    found = [*leaks(schema, rows, labels)]
    for place, feature in enumerate(schema.features):
        found += [*_identifier(feature, rows[:, place]), *_constant(feature, rows[:, place])]
    return [*found, *duplicates(rows, labels, fitted, held)]


# --- columns ---------------------------------------------------------------------------------------------------------


def _constant(feature: Feature, column: Column) -> list[Finding]:
    if np.isnan(column).any() or column.min() != column.max():
        return []
    text = f"column {feature.name!r} has one value in all rows: it says nothing; --ignore {feature.name} leaves it out"
    return [Finding("constant", feature.name, text)]


def _identifier(feature: Feature, column: Column) -> list[Finding]:
    """Return a warning where a column tells rows apart rather than describing them."""
    if len(column) < MIN_ROWS or np.isnan(column).any():
        return []
    why = _what_identifies(feature, column)
    if why is None:
        return []
    text = f"column {feature.name!r} {why}: new rows have other values; --ignore {feature.name} leaves it out"
    return [Finding("identifier", feature.name, text)]


def _what_identifies(feature: Feature, column: Column) -> str | None:
    steps = np.diff(column)
    if feature.discrete:
        distinct = len(np.unique(column))
        return f"has {distinct:,} texts in {len(column):,} rows" if 2 * distinct > len(column) else None
    if (steps > 0).all() or (steps < 0).all():
        return f"{'rises' if steps[0] > 0 else 'falls'} from each row to the next, as a row number or a time does"
    if (column != np.rint(column)).any() or len(np.unique(column)) < len(column):
        return None
    if np.ptp(column) < DENSE * len(column) or IDENTIFIER.search(feature.name):
        return "has another whole number in every row, as an identifier has"
    return None


# --- leaks -----------------------------------------------------------------------------------------------------------


def leaks(schema: Schema, rows: Rows, labels: Labels) -> list[Finding]:
    """Return a warning for each column that gives the answers alone, as a small tree on other rows shows."""
    if len(labels) < MIN_ROWS:
        return []
    ranks, labels = _sample(rows, labels)
    counts = np.bincount(labels)
    frequent = int(len(labels) - counts.max())  # errors of the most frequent class
    if not frequent:  # a class so rare that no row of it is looked at: every column gives all of these answers
        return []
    tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, random_state=SEED)
    found = []
    for place, name in enumerate(schema.names):
        if np.isnan(ranks[:, place]).all():
            continue
        errors = _errors(tree, ranks[:, [place]], labels)
        if errors <= (1 - NEARLY) * frequent and (
            errors <= (1 - ALONE) * frequent or _others_fail(np.delete(ranks, place, axis=1), labels, errors)
        ):
            found.append(_leak(name, 1 - errors / len(labels), float(counts.max() / len(labels))))
    return found


def _leak(name: str, alone: float, frequent: float) -> Finding:
    text = (
        f"column {name!r} alone gives {_percent(alone)} of the answers (the most frequent class alone: "
        f"{_percent(frequent)}): is it known before the answer is? If not, --ignore {name}"
    )
    return Finding("leakage", name, text)


def _percent(share: float) -> str:
    return f"{np.floor(share * 1000) / 10:g} %"  # not 100 % where a row is wrong


def _sample(rows: Rows, labels: Labels) -> tuple[Rows, Labels]:
    """Return at most so many rows, chosen by chance, with each column's values replaced by their ranks.

    Trees work in 32 bits; ranks are exact in them.
    """
    most = min(LEAK_ROWS, max(FEWEST_LEAK_ROWS, LEAK_CELLS // rows.shape[1]))
    if len(labels) > most:
        chosen = np.random.default_rng(SEED).permutation(len(labels))[:most]
        rows, labels = rows[chosen], np.unique(labels[chosen], return_inverse=True)[1]
    ranks = np.empty(rows.shape)
    for place in range(rows.shape[1]):
        ranks[:, place] = np.unique(rows[:, place], return_inverse=True)[1]
    ranks[np.isnan(rows)] = np.nan
    return ranks, labels


def _errors(classifier: Any, rows: Rows, labels: Labels) -> int:
    """Count the rows that a classifier gets wrong when it is fitted on the other half."""
    wrong = 0
    random = np.random.default_rng(SEED)
    half = np.empty(len(labels), bool)
    order = np.lexsort((random.random(len(labels)), labels))  # by class, in a random order within each
    half[order] = np.arange(len(labels)) % 2 == 0
    for fitted in (half, ~half):
        answered = classifier.fit(rows[fitted], labels[fitted]).predict(rows[~fitted])
        wrong += int((answered != labels[~fitted]).sum())
    return wrong


def _others_fail(others: Rows, labels: Labels, errors: int) -> bool:
    """Whether all other columns together are far from what this one reaches alone."""
    if not others.shape[1]:
        return True
    forest = RandomForestClassifier(TREES, min_samples_leaf=2, random_state=SEED)
    return _errors(forest, others, labels) >= TIMES * max(errors, 1)


# --- rows ------------------------------------------------------------------------------------------------------------


def duplicates(rows: Rows, labels: Labels, fitted: NDArray[Any], held: NDArray[Any]) -> list[Finding]:
    """Return a warning where held-out rows were fitted on too: the metrics are better than those of new rows.

    None where the columns have so few values that different things have the same row.
    """
    if _is_coarse(rows):
        return []
    known: dict[bytes, set[int]] = {}
    for key, label in zip(_keys(rows[fitted]), labels[fitted].tolist(), strict=True):
        known.setdefault(key, set()).add(label)
    asked = list(zip(_keys(rows[held]), labels[held].tolist(), strict=True))
    twice = sum(key in known for key, _ in asked)
    if not twice:
        return []
    agreeing = sum(label in known.get(key, ()) for key, label in asked)
    text = (
        f"{twice:,} of {len(asked):,} held-out rows have the same features as a row that was fitted on, {agreeing:,} "
        "of them the same class too: the metrics are too good; leave duplicates out, or keep them together with --group"
    )
    return [Finding("duplicates", "", text)]


def _is_coarse(rows: Rows) -> bool:
    """Whether the values of the columns can make so few different rows that rows are the same by chance."""
    possible = 1.0
    for column in rows.T:
        possible *= len(np.unique(column))
        if possible > COARSE * len(rows):
            return False
    return True


def _keys(rows: Rows) -> list[bytes]:
    """Return bytes that are the same for the same row; all missing values are the same, and both zeros."""
    same = np.where(np.isnan(rows), np.nan, rows + 0.0)
    return [row.tobytes() for row in same]
