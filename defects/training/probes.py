"""Make rows at which an engine that is nearly right is wrong: a model's own thresholds and their neighbours, the
extremes of what is accepted, patterns of missing values that training never saw, and rows that no parcel ever had."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from defects.features import FLOAT32_MAX
from defects.kinds import BOOLEAN
from defects.schema import Rows, Schema
from defects.training.graph import Tree, classifier_of, offsets_of, trees_of

SEED = 0
BASES = 4  # rows in which each extreme is tried
PATTERNS = 256  # of missing values
MIXED = 1_000  # rows, each value of another row
MOST_THRESHOLDS = 100_000  # of a forest's, of which there may be many more; each costs three rows or four

Floats = NDArray[np.float64]


def probes(pipeline: Pipeline, schema: Schema, rows: Rows) -> Iterator[Rows]:
    """Yield rows that the schema allows, in its precision, made of training rows and the model's thresholds.

    They come in parts, for there may be a million.
    """
    random = np.random.default_rng(SEED)
    complete = _complete(rows)
    mixed = random.permuted(rows[random.integers(len(rows), size=MIXED)], axis=0)
    yield _allowed(schema, np.concatenate([_extremes(schema, complete), _missing(schema, complete, random), mixed]))
    for made in _at_thresholds(pipeline, schema, complete):
        if len(allowed := _allowed(schema, made)):  # not where a value that has to be there is missing
            yield allowed


def _complete(rows: Rows) -> Rows:
    """Return the rows with a column's median where a value is missing."""
    return np.where(np.isnan(rows), np.nanmedian(rows, axis=0), rows)


def _allowed(schema: Schema, rows: Rows) -> Rows:
    low, high, required = schema.limits
    rows = np.clip(rows, low, high)
    booleans = [feature.kind == BOOLEAN for feature in schema.features]
    rows[:, booleans] = np.rint(rows[:, booleans])
    held = np.clip(schema.held(rows).astype(np.float64), low, high)
    return held[~(np.isnan(held) & required).any(axis=1)]


# --- thresholds ----------------------------------------------------------------------------------------------------


def _at_thresholds(pipeline: Pipeline, schema: Schema, rows: Rows) -> Iterator[Rows]:
    """Yield, for each threshold of the model, rows that come to a node that has it: with the value at which it splits,
    both of its neighbours, and none where it may be missing. Of more than `MOST_THRESHOLDS`, an even share is taken.
    """
    classifier = classifier_of(pipeline)
    offsets = _offsets(pipeline, len(schema.features))
    narrow = [isinstance(classifier, RandomForestClassifier) or not feature.wide for feature in schema.features]
    trees = trees_of(classifier)
    every = max(1, -(-sum(int((~tree.leaf).sum()) for tree in trees) // MOST_THRESHOLDS))
    seen: set[tuple[int, float]] = set()
    for number, tree in enumerate(trees):
        nodes = [node for node in np.flatnonzero(~tree.leaf).tolist()[::every] if _is_new(tree, node, seen)]
        if not nodes:
            continue
        base = rows[(number + np.arange(len(nodes))) % len(rows)] - offsets
        coming = _coming(tree, np.array(nodes), base, np.array(narrow))
        columns, thresholds = tree.feature[nodes], np.clip(tree.threshold[nodes], -FLOAT32_MAX, FLOAT32_MAX)
        lasts = _last(thresholds, np.array(narrow)[columns])
        before, after = (_next(lasts, np.array(narrow)[columns], towards) for towards in (-np.inf, np.inf))
        for values in (before, lasts, after, np.full(len(nodes), np.nan)):
            probe = coming.copy()
            probe[np.arange(len(nodes)), columns] = values
            yield probe + offsets


def _is_new(tree: Tree, node: int, seen: set[tuple[int, float]]) -> bool:
    split = (int(tree.feature[node]), float(tree.threshold[node]))
    if split in seen:
        return False
    seen.add(split)
    return True


def _offsets(pipeline: Any, width: int) -> Floats:
    """Return what the pipeline subtracts before its trees see a row."""
    if isinstance(pipeline, Pipeline):
        offsets: Floats = np.sum([_offsets(step, width) for _, step in pipeline.steps], axis=0)
        return offsets
    return offsets_of(pipeline) if isinstance(pipeline, FunctionTransformer) else np.zeros(width)


def _coming(tree: Tree, nodes: NDArray[np.int64], rows: Rows, narrow: NDArray[np.bool_]) -> Rows:
    """Return the rows, changed as little as makes each of them come to its node."""
    low = np.full((len(tree.leaf), rows.shape[1]), -np.inf)
    high = np.full_like(low, np.inf)
    for node in np.flatnonzero(~tree.leaf).tolist():  # a parent comes before its children
        column, threshold = tree.feature[node], tree.threshold[node]
        for child in (tree.left[node], tree.right[node]):
            low[child], high[child] = low[node], high[node]
        high[tree.left[node], column] = min(high[node, column], threshold)
        low[tree.right[node], column] = max(low[node, column], threshold)
    highest = _last(np.clip(high[nodes], -FLOAT32_MAX, FLOAT32_MAX), narrow)
    lowest = _next(_last(np.clip(low[nodes], -FLOAT32_MAX, FLOAT32_MAX), narrow), narrow, np.inf)
    return np.clip(rows, np.where(np.isinf(low[nodes]), -FLOAT32_MAX, lowest), highest)


def _last(values: Floats, narrow: NDArray[np.bool_]) -> Floats:
    """Return the largest value not above each that a column holds."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype(np.float32)
        last = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return np.where(narrow, last, values)


def _next(values: Floats, narrow: NDArray[np.bool_], towards: float) -> Floats:
    """Return the neighbour of each value that a column holds."""
    with np.errstate(over="ignore", under="ignore"):
        near = np.nextafter(values.astype(np.float32), np.float32(towards)).astype(np.float64)
        return np.clip(np.where(narrow, near, np.nextafter(values, towards)), -FLOAT32_MAX, FLOAT32_MAX)


# --- extremes, missing values --------------------------------------------------------------------------------------


def _extremes(schema: Schema, rows: Rows) -> Rows:
    """Return rows with each feature at the ends of what is accepted and of what training saw, and around zero."""
    made: list[Rows] = []
    for column, feature in enumerate(schema.features):
        ends = np.array([*feature.limits, rows[:, column].min(), rows[:, column].max()])
        narrow = np.array(not feature.wide)
        near = [_next(ends, narrow, towards) for towards in (-np.inf, np.inf)]
        tiny = np.array([0.0, -0.0, float(np.finfo(np.float32).smallest_subnormal)])
        for value in np.concatenate([ends, *near, tiny, -tiny[2:]]):
            changed = rows[(len(made) + np.arange(BASES)) % len(rows)].copy()
            changed[:, column] = value
            made.append(changed)
    return np.concatenate(made)


def _missing(schema: Schema, rows: Rows, random: np.random.Generator) -> Rows:
    """Return rows in which each optional value is missing alone, all are, and some of them are."""
    optional = np.flatnonzero([feature.optional for feature in schema.features])
    gaps = np.zeros((len(optional) + 1 + PATTERNS, rows.shape[1]), bool)
    gaps[np.arange(len(optional)), optional] = True
    gaps[len(optional), optional] = True
    gaps[len(optional) + 1 :, optional] = random.random((PATTERNS, len(optional))) < 0.5
    return np.where(gaps, np.nan, rows[np.arange(len(gaps)) % len(rows)])
