"""The trees of a fitted classifier, whoever's it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from defects.training import boosters
from defects.training.trees import CODES, Tree

FORESTS = (RandomForestClassifier, ExtraTreesClassifier)
SINGLE_TREES = (DecisionTreeClassifier, ExtraTreeClassifier)


def trees_of(classifier: Any) -> list[Tree]:
    """Return the trees in the order in which the classifier adds them; none where it has none.

    Raises `NotConvertible` where a tree is of a kind that can't be told.
    """
    reader = _READERS.get(type(classifier)) or boosters.READERS.get(boosters.name_of(classifier))
    return [] if reader is None else reader(classifier)


def sees_32_bits(classifier: Any) -> bool:
    """Whether a classifier casts what it is given to 32 bits."""
    return (
        isinstance(classifier, (*FORESTS, *SINGLE_TREES, GradientBoostingClassifier))
        or boosters.name_of(classifier) == boosters.XGBOOST
    )


def library_of(classifier: Any) -> str:
    """Return the name of the library that a classifier is of, for people."""
    return {boosters.LIGHTGBM: "LightGBM", boosters.XGBOOST: "XGBoost"}.get(
        boosters.name_of(classifier), "scikit-learn"
    )


def _of_hist_boosting(classifier: HistGradientBoostingClassifier) -> list[Tree]:
    known = _known_categories(classifier)
    return [_boosted(predictor, known) for iteration in classifier._predictors for predictor in iteration]


def _known_categories(classifier: HistGradientBoostingClassifier) -> dict[int, NDArray[np.bool_]]:
    """Return, for each feature with categories, which codes training saw."""
    if classifier.is_categorical_ is None:
        return {}
    bitsets, places = classifier._bin_mapper.make_known_categories_bitsets()
    columns = np.flatnonzero(classifier._bin_mapper.is_categorical_)
    return {int(column): _bits(bitsets[places[column]]) for column in columns}


def _bits(bitset: Any) -> NDArray[np.bool_]:
    """Return which of the numbers from 0 are in a set of 32-bit words."""
    words = np.asarray(bitset, np.uint32)
    return ((words[:, np.newaxis] >> np.arange(32, dtype=np.uint32)) & 1).astype(bool).ravel()[:CODES]


def _boosted(predictor: Any, known: Mapping[int, NDArray[np.bool_]]) -> Tree:
    nodes = predictor.nodes
    members: dict[int, tuple[int, ...]] = {}
    for node in np.flatnonzero(nodes["is_categorical"] & ~nodes["is_leaf"].astype(bool)).tolist():
        left = _bits(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        if nodes["missing_go_to_left"][node]:
            left = left | ~known[int(nodes["feature_idx"][node])]  # what training did not see goes where missing goes
        members[node] = tuple(np.flatnonzero(left).tolist())
    return Tree(
        nodes["feature_idx"].astype(np.int64),
        np.where(nodes["is_categorical"], 0.0, nodes["num_threshold"]).astype(np.float64),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["missing_go_to_left"].astype(bool),
        nodes["is_leaf"].astype(bool),
        nodes["value"].astype(np.float64)[:, np.newaxis],
        members,
    )


def _of_sklearn(tree: Any) -> Tree:
    return Tree(
        tree.feature.astype(np.int64),
        tree.threshold.astype(np.float64),
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        tree.missing_go_to_left.astype(bool),
        tree.children_left < 0,
        tree.value[:, 0, :],
    )


def _of_forest(classifier: Any) -> list[Tree]:
    return [_of_sklearn(estimator.tree_) for estimator in classifier.estimators_]


def _of_gradient_boosting(classifier: GradientBoostingClassifier) -> list[Tree]:
    return [_of_sklearn(estimator.tree_) for stage in classifier.estimators_ for estimator in stage]


_READERS: dict[type, Callable[[Any], list[Tree]]] = {
    HistGradientBoostingClassifier: _of_hist_boosting,
    GradientBoostingClassifier: _of_gradient_boosting,
    **dict.fromkeys(FORESTS, _of_forest),
    **dict.fromkeys(SINGLE_TREES, lambda classifier: [_of_sklearn(classifier.tree_)]),
}
