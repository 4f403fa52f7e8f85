"""A fitted pipeline as an ONNX graph that gives the same scores as it gives itself.

The leaves of a forest hold a probability for each class, those of an ONNX ensemble one number: here it is the leaf's
own number, by which its probabilities are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from defects.training.boosters import LIGHTGBM, XGBOOST, ZERO, name_of, read_lightgbm, read_xgboost
from defects.training.calibration import add_calibration, base_of
from defects.training.ensembles import FORESTS, SINGLE_TREES, sees_32_bits, trees_of
from defects.training.graph import Graph
from defects.training.steps import Column, Matrix, chain
from defects.training.trees import NotConvertible, Tree, constant_tree


def classifier_of(pipeline: Any) -> Any:
    """Return the last step, also of pipelines in pipelines; of a calibrated one, what it calibrates."""
    pipeline = base_of(pipeline)
    while isinstance(pipeline, Pipeline):
        pipeline = pipeline.steps[-1][1]
    return pipeline


def _preparation(pipeline: Any) -> list[Any]:
    """Return the steps before the classifier, and what it does to rows before its trees see them."""
    steps = []
    pipeline = base_of(pipeline)
    while isinstance(pipeline, Pipeline):
        *before, (_, pipeline) = pipeline.steps
        steps += [step for _, step in before if step is not None]
    preprocessor = getattr(pipeline, "_preprocessor", None)  # of boosted trees with categories
    return steps if preprocessor is None else [*steps, preprocessor]


def prepared_columns(pipeline: Any, columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return what the classifier's trees see of the columns of a row; raises `NotConvertible`."""
    return chain(Graph(), _preparation(pipeline), Matrix("rows", tuple(columns))).columns


def to_onnx(pipeline: Any, columns: Sequence[Column], *, wide: bool) -> bytes:
    """Convert a pipeline to ONNX: input `rows` `[n, columns]`, float32, or float64 where a feature is `wide`; output
    `scores` float64, `[n, classes]`, or `[n, 1]` of the second one of two; what makes probabilities of them is named
    in its metadata as `link`. Raises `NotConvertible`.
    """
    graph = Graph()
    matrix = Matrix("rows" if wide else graph.cast("rows", TensorProto.DOUBLE), tuple(columns))
    matrix = chain(graph, _preparation(pipeline), matrix)
    classifier = classifier_of(pipeline)
    known = _CLASSIFIERS.get(type(classifier)) or _BOOSTERS.get(name_of(classifier))
    if known is None:
        raise NotConvertible(type(classifier).__name__)
    converter, link = known
    rows = matrix.numbers(classifier).name
    scores = converter(graph, classifier, rows)
    if sees_32_bits(classifier) and any(abs(column.scale) > 1 for column in matrix.columns):
        _without_infinite(graph, rows, scores)
    binary = len(classifier.classes_) == 2
    link = ("sigmoid" if binary else "softmax") + link if link != "identity" else link
    if base_of(pipeline) is not pipeline:
        link = add_calibration(graph, pipeline.steps[-1][1], graph.last, link)
    one = binary and link.startswith("sigmoid")
    return graph.model(len(columns), 1 if one else len(classifier.classes_), wide=wide, link=link)


def _without_infinite(graph: Graph, rows: str, scores: str) -> None:
    """Give a row no scores that a classifier of 32 bits refuses, because a step has made it too large for them."""
    infinite = graph.cast(graph.add("IsInf", graph.cast(rows, TensorProto.FLOAT)), TensorProto.FLOAT)
    refused = graph.cast(graph.add("ReduceMax", infinite, np.array([1]), keepdims=1), TensorProto.BOOL)
    graph.add("Where", refused, np.array(np.nan), scores)


# --- classifiers: each adds its scores to the graph ----------------------------------------------------------------


def _linear(graph: Graph, step: LogisticRegression, rows: str) -> str:
    coefficients = np.asarray(step.coef_, np.float64)
    if len(coefficients) > 1 and step.solver == "liblinear":
        raise NotConvertible("one against the rest")
    terms = graph.add("Mul", graph.add("Unsqueeze", rows, np.array([1])), coefficients)
    return graph.add("Add", graph.last_sum(terms, 2, coefficients.shape[1]), np.asarray(step.intercept_, np.float64))


def _hist_boosting(graph: Graph, step: HistGradientBoostingClassifier, rows: str) -> str:
    baseline = np.ravel(step._baseline_prediction).astype(np.float64)
    return _added(graph, rows, baseline, trees_of(step), 1.0)


def _gradient_boosting(graph: Graph, step: GradientBoostingClassifier, rows: str) -> str:
    if step.init is not None and step.init != "zero":
        raise NotConvertible("GradientBoostingClassifier that begins with another estimator")
    first = step._raw_predict_init(np.zeros((1, step.n_features_in_), np.float32))[0]
    return _added(graph, _narrow(graph, rows), first, trees_of(step), step.learning_rate)


def _added(graph: Graph, rows: str, first: Any, trees: Sequence[Tree], scale: float) -> str:
    """Add trees up, in turn for each score, to what is `first` of each: the order matters."""
    begun = [*map(constant_tree, first)]
    leaves = [tree.value[tree.leaf, 0] for tree in begun] + [tree.value[tree.leaf, 0] * scale for tree in trees]
    return graph.ensemble(rows, [*begun, *trees], np.arange(len(leaves)) % len(first), leaves)


def _narrow(graph: Graph, rows: str) -> str:
    """Round numbers to 32 bits, which is what scikit-learn's own trees see."""
    return graph.cast(graph.cast(rows, TensorProto.FLOAT), TensorProto.DOUBLE)


def _forest(graph: Graph, step: Any, rows: str) -> str:
    trees = trees_of(step)
    values = _reached(graph, _narrow(graph, rows), trees)
    return graph.add("Div", graph.last_sum(values, 1, len(trees)), np.array(float(len(trees))))


def _single_tree(graph: Graph, step: Any, rows: str) -> str:
    return graph.last_sum(_reached(graph, _narrow(graph, rows), trees_of(step)), 1, 1)


def _reached(graph: Graph, rows: str, trees: Sequence[Tree]) -> str:
    """Look up what the leaf that each tree leads to has: `[n, trees, values]`."""
    counts = [int(tree.leaf.sum()) for tree in trees]
    numbers = np.split(np.arange(sum(counts), dtype=np.float64), np.cumsum(counts)[:-1])
    reached = graph.cast(graph.ensemble(rows, trees, np.arange(len(trees)), numbers), TensorProto.INT64)
    return graph.add("Gather", np.concatenate([tree.value[tree.leaf] for tree in trees]), reached, axis=0)


def _lightgbm(graph: Graph, step: Any, rows: str) -> str:
    model = read_lightgbm(step)
    tiny = graph.add("LessOrEqual", graph.add("Abs", rows), np.array(ZERO))
    rows = graph.add("Where", tiny, np.zeros(1), rows)
    if any(tree.members for tree in model.trees):  # it takes the whole part of a number for a category
        split = np.isin(np.arange(step.n_features_in_), [t.feature[node] for t in model.trees for node in t.members])
        whole = graph.add("Mul", graph.add("Sign", rows), graph.add("Floor", graph.add("Abs", rows)))
        rows = graph.add("Where", split[np.newaxis], whole, rows)
    scores = _added(graph, rows, np.zeros(model.scores), model.trees, 1.0)
    return graph.add("Mul", scores, np.array(model.factor))


def _xgboost(graph: Graph, step: Any, rows: str) -> str:
    model = read_xgboost(step)
    trees = [*map(constant_tree, model.first.tolist()), *model.trees]
    leaves = [tree.value[tree.leaf, 0].astype(np.float32) for tree in trees]
    targets = np.concatenate([np.arange(len(model.first)), model.targets])
    scores = graph.ensemble(graph.cast(rows, TensorProto.FLOAT), trees, targets, leaves)
    return graph.cast(scores, TensorProto.DOUBLE)


# With what is added to the name of each one's link, which is for two classes or for more; or with the link itself.
_CLASSIFIERS: dict[type, tuple[Callable[[Graph, Any, str], str], str]] = {
    LogisticRegression: (_linear, ""),
    HistGradientBoostingClassifier: (_hist_boosting, ""),
    GradientBoostingClassifier: (_gradient_boosting, ""),
    **dict.fromkeys(FORESTS, (_forest, "identity")),
    **dict.fromkeys(SINGLE_TREES, (_single_tree, "identity")),
}
_BOOSTERS: dict[str, tuple[Callable[[Graph, Any, str], str], str]] = {
    LIGHTGBM: (_lightgbm, "_float64"),
    XGBOOST: (_xgboost, "_float32"),
}
