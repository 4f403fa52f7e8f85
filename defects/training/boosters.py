"""The trees of LightGBM and XGBoost, from what they save, which is exact.

Neither is imported: who has such a classifier has its library. How each walks its trees is in its source:
LightGBM's `include/LightGBM/tree.h`, XGBoost's `src/predictor/predict_fn.h`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.training.trees import NotConvertible, Tree, constant_tree

LIGHTGBM, XGBOOST = "lightgbm.sklearn.LGBMClassifier", "xgboost.sklearn.XGBClassifier"
ZERO = float(np.float32(1e-35))  # LightGBM takes nothing that is not further from zero for another number
MISSING_IS_NAN, MISSING_IS_ZERO = 2, 1  # LightGBM's types of missing values


def name_of(classifier: Any) -> str:
    """Return the name of a classifier's type, with its module."""
    return f"{type(classifier).__module__}.{type(classifier).__qualname__}"


# --- LightGBM ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LightGBM:
    """A model of LightGBM: its trees in turn for each score, and by what scores are multiplied before its link."""

    trees: list[Tree]
    scores: int
    factor: float


def read_lightgbm(classifier: Any) -> LightGBM:
    """Read a fitted classifier, up to its best iteration; raises `NotConvertible`."""
    header, *parts = classifier.booster_.model_to_string().split("\nTree=")
    fields = _fields(header)
    objective, *settings = fields.get("objective", "").split()
    if objective not in ("binary", "multiclass") or "average_output" in header.split():
        raise NotConvertible(f"LGBMClassifier with the objective {objective or 'of a function'}, or averaged trees")
    given = dict(setting.split(":") for setting in settings)
    parts = [*parts[:-1], parts[-1].partition("\nend of trees")[0]] if parts else []
    trees = [_of_lightgbm(_fields(part)) for part in parts]
    return LightGBM(trees, int(fields["num_tree_per_iteration"]), float(given.get("sigmoid", 1)))


def _fields(text: str) -> dict[str, str]:
    return {name: value for name, equals, value in (line.partition("=") for line in text.splitlines()) if equals}


def _numbers(text: str, kind: type = float) -> NDArray[Any]:
    return np.array([*map(kind, text.split())])


def _of_lightgbm(fields: Mapping[str, str]) -> Tree:
    """Make a tree of inner nodes, which come first, and leaves: the children of LightGBM's are -1, -2, … for leaves."""
    if fields.get("is_linear", "0") != "0":
        raise NotConvertible("LGBMClassifier with linear trees")
    values = _numbers(fields["leaf_value"])
    inner = len(values) - 1
    if not inner:
        return constant_tree(float(values[0]))
    kinds = _numbers(fields["decision_type"], int)
    thresholds = _numbers(fields["threshold"])
    missing = kinds >> 2 & 3
    if (missing == MISSING_IS_ZERO).any():
        raise NotConvertible("LGBMClassifier that takes zero for missing")
    missing_left = np.where(missing == MISSING_IS_NAN, kinds & 2 > 0, thresholds >= 0)  # else it takes it for zero
    left, right = (_numbers(fields[name], int) for name in ("left_child", "right_child"))
    places = [np.where(children < 0, inner - 1 - children, children) for children in (left, right)]
    members = _members(fields, np.flatnonzero(kinds & 1), thresholds)
    missing_left[[*members]] = False
    rest = np.full(len(values), -1)
    return _tree(
        [*np.zeros(inner), *values],
        feature=[*_numbers(fields["split_feature"], int), *rest],
        threshold=[*thresholds, *rest],
        left=[*places[0], *rest],
        right=[*places[1], *rest],
        missing_left=[*missing_left, *(rest < 0)],
        members=members,
    )


def _members(fields: Mapping[str, str], nodes: NDArray[Any], thresholds: NDArray[Any]) -> dict[int, tuple[int, ...]]:
    """Return the categories that go left at nodes that split by category: bits of 32-bit words."""
    if not len(nodes):
        return {}
    bounds, words = (_numbers(fields[name], int) for name in ("cat_boundaries", "cat_threshold"))
    members = {}
    for node in nodes.tolist():
        begin, end = bounds[int(thresholds[node])], bounds[int(thresholds[node]) + 1]
        bits = (words[begin:end, np.newaxis] >> np.arange(32)) & 1
        members[node] = tuple(np.flatnonzero(bits.ravel()).tolist())
        thresholds[node] = 0.0
    return members


def _tree(
    value: Any, *, feature: Any, threshold: Any, left: Any, right: Any, missing_left: Any,
    members: Mapping[int, tuple[int, ...]] | None = None,
) -> Tree:  # fmt: skip
    """Make a tree; leaves are the nodes whose children are negative."""
    return Tree(
        np.array(feature, np.int64),
        np.array(threshold, np.float64),
        np.array(left, np.int64),
        np.array(right, np.int64),
        np.array(missing_left, bool),
        np.array(left, np.int64) < 0,
        np.array(value, np.float64)[:, np.newaxis],
        members or {},
    )


# --- XGBoost -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class XGBoost:
    """A model of XGBoost: its trees, to which score each adds, and what each score begins with, in 32 bits."""

    trees: list[Tree]
    targets: NDArray[np.int64]
    first: NDArray[np.float32]


def read_xgboost(classifier: Any) -> XGBoost:
    """Read a fitted classifier, up to its best iteration; raises `NotConvertible`."""
    learner = json.loads(classifier.get_booster().save_raw("json"))["learner"]
    parameters, objective = learner["learner_model_param"], learner["objective"]["name"]
    booster = learner["gradient_booster"]
    if objective not in ("binary:logistic", "multi:softprob") or booster["name"] != "gbtree":
        raise NotConvertible(f"XGBClassifier with {booster['name']} and the objective {objective}")
    if not np.isnan(classifier.missing) or int(parameters["num_target"]) > 1:
        raise NotConvertible("XGBClassifier with several targets, or with a marker for missing values other than NaN")
    model = booster["model"]
    count = len(model["trees"])
    if "best_iteration" in learner["attributes"]:
        count = model["iteration_indptr"][int(learner["attributes"]["best_iteration"]) + 1]
    scores = max(1, int(parameters["num_class"]))
    base = np.array(json.loads(parameters["base_score"]), np.float32)
    if objective == "binary:logistic":
        base = -np.log(np.float32(1) / base - np.float32(1))
    trees = [_of_xgboost(tree) for tree in model["trees"][:count]]
    return XGBoost(trees, np.array(model["tree_info"][:count], np.int64), np.broadcast_to(base, scores))


def _of_xgboost(tree: Mapping[str, Any]) -> Tree:
    """Make a tree that is split at the largest number below a threshold: XGBoost goes left only below it."""
    if any(tree["split_type"]) or int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
        raise NotConvertible("XGBClassifier with splits by category or several targets in a tree")
    left = np.array(tree["left_children"])
    numbers = np.array(tree["split_conditions"], np.float32)
    return _tree(
        np.where(left < 0, numbers, 0),
        feature=tree["split_indices"],
        threshold=np.where(left < 0, 0, np.nextafter(numbers, np.float32(-np.inf))),
        left=left,
        right=tree["right_children"],
        missing_left=tree["default_left"],
    )


READERS: dict[str, Callable[[Any], list[Tree]]] = {
    LIGHTGBM: lambda classifier: read_lightgbm(classifier).trees,
    XGBOOST: lambda classifier: read_xgboost(classifier).trees,
}
