"""Make rows at which an engine that is nearly right is wrong: a model's own thresholds and their neighbours, the
extremes of what is accepted, every category, patterns of missing values that training never saw, and rows that nobody
ever had."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import Feature
from defects.schema import Rows, Schema
from defects.training.conversion import classifier_of, prepared_columns
from defects.training.ensembles import sees_32_bits, trees_of
from defects.training.sight import Sight, next_held
from defects.training.steps import Column, numbers
from defects.training.trees import NotConvertible, Tree

SEED = 0
BASES = 4  # rows in which each extreme is tried
PATTERNS = 256  # of missing values
MIXED = 1_000  # rows, each value of another row
MOST_THRESHOLDS = 100_000  # of a forest's, of which there may be many more; each costs three rows or four
MOST_CODES = 300  # of a category's, each of which costs `BASES` rows

Floats = NDArray[np.float64]


def probes(pipeline: Any, schema: Schema, rows: Rows, columns: Sequence[Column] = ()) -> Iterator[Rows]:
    """Yield rows that the schema allows, in its precision, made of training rows and the model's thresholds.

    They come in parts, for there may be a million. `columns` says what the pipeline gets, where that is not the rows.
    """
    columns = columns or numbers(schema)
    random = np.random.default_rng(SEED)
    complete = _complete(rows)
    mixed = random.permuted(rows[random.integers(len(rows), size=MIXED)], axis=0)
    yield _allowed(schema, np.concatenate([_extremes(schema, complete), _missing(schema, complete, random), mixed]))
    for made in _at_thresholds(pipeline, schema, complete, columns):
        if len(allowed := _allowed(schema, made)):  # not where a value that has to be there is missing
            yield allowed


def _complete(rows: Rows) -> Rows:
    """Return the rows with a column's median where a value is missing, or the number that is nearest to it."""
    return np.where(np.isnan(rows), np.nanquantile(rows, 0.5, axis=0, method="nearest"), rows)


def _allowed(schema: Schema, rows: Rows) -> Rows:
    low, high, required = schema.limits
    rows = np.clip(rows, low, high)
    discrete = [feature.discrete for feature in schema.features]
    rows[:, discrete] = np.rint(rows[:, discrete])
    held = np.clip(schema.held(rows).astype(np.float64), low, high)
    return held[~(np.isnan(held) & required).any(axis=1)]


# --- thresholds ----------------------------------------------------------------------------------------------------


def _at_thresholds(pipeline: Any, schema: Schema, rows: Rows, columns: Sequence[Column]) -> Iterator[Rows]:
    """Yield, for each threshold of the model, rows that come to a node that has it: with the value at which it splits,
    both of its neighbours, and none where it may be missing. Of more than `MOST_THRESHOLDS`, an even share is taken.
    """
    classifier = classifier_of(pipeline)
    try:
        sight = Sight(schema, prepared_columns(pipeline, columns), sees_32_bits(classifier))
        trees = trees_of(classifier)
    except NotConvertible:  # nobody knows where its thresholds are
        return
    every = max(1, -(-sum(int((~tree.leaf).sum()) for tree in trees) // MOST_THRESHOLDS))
    seen: set[tuple[int, float]] = set()
    for number, tree in enumerate(trees):
        nodes = [node for node in np.flatnonzero(~tree.leaf).tolist()[::every] if _is_new(tree, node, seen)]
        if not nodes:
            continue
        coming = sight.coming(tree, nodes, rows[(number + np.arange(len(nodes))) % len(rows)])
        sides = [sight.sides(tree, node) for node in nodes]
        sources = [sight.columns[tree.feature[node]].source for node in nodes]
        counts = [*map(len, sides)]
        probe = np.repeat(coming, counts, axis=0)
        probe[np.arange(len(probe)), np.repeat(sources, counts)] = np.concatenate(sides)
        yield probe


def _is_new(tree: Tree, node: int, seen: set[tuple[int, float]]) -> bool:
    if node in tree.members:
        return True
    split = (int(tree.feature[node]), float(tree.threshold[node]))
    if split in seen:
        return False
    seen.add(split)
    return True


# --- extremes, missing values --------------------------------------------------------------------------------------


def _extremes(schema: Schema, rows: Rows) -> Rows:
    """Return rows with each feature at the ends of what is accepted and of what training saw, and around zero."""
    made: list[Rows] = []
    for column, feature in enumerate(schema.features):
        for value in _codes(feature) if feature.discrete else _ends(feature, rows[:, column]):
            changed = rows[(len(made) + np.arange(BASES)) % len(rows)].copy()
            changed[:, column] = value
            made.append(changed)
    return np.concatenate(made)


def _codes(feature: Feature) -> Floats:
    """Return the values of a boolean or a category; of very many, an even share."""
    low, high = feature.limits
    return np.unique(np.rint(np.linspace(low, high, min(int(high - low) + 1, MOST_CODES))))


def _ends(feature: Feature, values: Floats) -> Floats:
    ends = np.array([*feature.limits, values.min(), values.max()])
    narrow = np.array(not feature.wide)
    near = [next_held(ends, narrow, towards) for towards in (-np.inf, np.inf)]
    tiny = np.array([0.0, -0.0, float(np.finfo(np.float32).smallest_subnormal)])
    return np.concatenate([ends, *near, tiny, -tiny[2:]])


def _missing(schema: Schema, rows: Rows, random: np.random.Generator) -> Rows:
    """Return rows in which each optional value is missing alone, all are, and some of them are."""
    optional = np.flatnonzero([feature.optional for feature in schema.features])
    gaps = np.zeros((len(optional) + 1 + PATTERNS, rows.shape[1]), bool)
    gaps[np.arange(len(optional)), optional] = True
    gaps[len(optional), optional] = True
    gaps[len(optional) + 1 :, optional] = random.random((PATTERNS, len(optional))) < 0.5
    return np.where(gaps, np.nan, rows[np.arange(len(gaps)) % len(rows)])
