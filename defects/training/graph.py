"""A fitted pipeline as an ONNX graph that adds the same numbers in the same order as scikit-learn, in 64 bits.

What varies by itself is left out. ONNX Runtime adds the trees of an ensemble in their order where it has one thread,
but a matrix product in an order that depends on the number of rows, so linear models are multiplied and then added up
one feature after the other (CumSum). What makes probabilities of the scores is in `scoring.LINKS`: ONNX Runtime's own
exponentials differ in the last bit by where in a batch a row stands.

The leaves of a forest hold a probability for each class, those of an ONNX ensemble one number: here it is the leaf's
own number, by which its probabilities are looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

OPSETS = {"": 21, "ai.onnx.ml": 5}  # the latter is the first with trees in 64 bits
IR_VERSION = 10
LEQ = 0  # nodes_modes: true where the value is at most the threshold
SUM = 1  # aggregate_function

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class NotConvertible(Exception):
    """There is no exact graph for a part of the pipeline; the message names it."""


@dataclass(frozen=True)
class Tree:
    """A decision tree: a row goes `left` where its `feature` is at most `threshold`, or is missing and
    `missing_left`. All `[nodes]`; node 0 is the root, and a parent comes before its children."""

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    missing_left: NDArray[np.bool_]
    leaf: NDArray[np.bool_]
    value: Floats  # [nodes, outputs]; only of leaves


def shift(offsets: Floats) -> FunctionTransformer:
    """Make a step that subtracts `offsets` `[features]`, of parts that scikit-learn's own loader trusts."""
    return FunctionTransformer(partial(np.add, -offsets))


def offsets_of(step: FunctionTransformer) -> Floats:
    """Return what a `shift` subtracts; raises `NotConvertible` for another function."""
    function = step.func
    if not isinstance(function, partial) or function.func is not np.add or len(function.args) != 1:
        raise NotConvertible(f"FunctionTransformer({function})")
    return -np.asarray(function.args[0], np.float64)


def trees_of(classifier: Any) -> list[Tree]:
    """Return the trees in the order in which scikit-learn adds them; none where the classifier has none."""
    if isinstance(classifier, HistGradientBoostingClassifier):
        return [_boosted(predictor.nodes) for iteration in classifier._predictors for predictor in iteration]
    if isinstance(classifier, RandomForestClassifier):
        return [_of_forest(estimator.tree_) for estimator in classifier.estimators_]
    return []


def _boosted(nodes: Any) -> Tree:
    if nodes["is_categorical"].any():
        raise NotConvertible("a split by category")
    return Tree(
        nodes["feature_idx"].astype(np.int64),
        nodes["num_threshold"].astype(np.float64),
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["missing_go_to_left"].astype(bool),
        nodes["is_leaf"].astype(bool),
        nodes["value"].astype(np.float64)[:, np.newaxis],
    )


def _of_forest(tree: Any) -> Tree:
    return Tree(
        tree.feature.astype(np.int64),
        tree.threshold.astype(np.float64),
        tree.children_left.astype(np.int64),
        tree.children_right.astype(np.int64),
        tree.missing_go_to_left.astype(bool),
        tree.children_left < 0,
        tree.value[:, 0, :],
    )


# --- the graph -----------------------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """Nodes and constants so far; a value is named by the operation that gives it, and a number."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Add an operation; inputs are names of values, or arrays. Gives the name of its output."""
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        output = f"{operation}_{len(self.nodes)}"
        domain = "ai.onnx.ml" if operation == "TreeEnsemble" else ""
        self.nodes.append(helper.make_node(operation, names, [output], domain=domain, **attributes))
        return output

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, value: str, to: int) -> str:
        return self.add("Cast", value, to=to)

    def last_sum(self, terms: str, axis: int, count: int) -> str:
        """Add up the terms along an axis, one after the other."""
        sums = self.add("CumSum", terms, np.array(axis))
        return self.add("Gather", sums, np.array(count - 1), axis=axis)

    def ensemble(self, rows: str, trees: Sequence[Tree], targets: Integers, leaves: Sequence[Floats]) -> str:
        """Add up, for each target, the leaves that its trees lead to, in their order: `[n, targets]`.

        `targets` `[trees]` has each tree's; `leaves` has the number of each of its leaves, in the order of its nodes.
        """
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _NODE_ATTRIBUTES}
        roots, inner, outer = [], 0, 0
        for tree in trees:
            roots.append(inner)
            described = _described(tree, inner, outer)
            for name, part in described.items():
                parts[name].append(part)
            inner, outer = inner + len(described["nodes_modes"]), outer + int(tree.leaf.sum())
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        lists = {name: joined[name].tolist() for name in _NODE_ATTRIBUTES if name not in _TENSORS}
        tensors = {name: numpy_helper.from_array(joined[name]) for name in _TENSORS}
        return self.add(
            "TreeEnsemble",
            rows,
            n_targets=int(targets.max()) + 1,
            aggregate_function=SUM,
            post_transform=0,
            tree_roots=roots,
            leaf_targetids=np.repeat(targets, [len(values) for values in leaves]).tolist(),
            leaf_weights=numpy_helper.from_array(np.concatenate(leaves)),
            **lists,
            **tensors,
        )


_TENSORS = ("nodes_modes", "nodes_splits")
_NODE_ATTRIBUTES = (
    *_TENSORS, "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs",
    "nodes_missing_value_tracks_true",
)  # fmt: skip


def _described(tree: Tree, inner: int, outer: int) -> dict[str, NDArray[Any]]:
    """Return a tree's inner nodes as ONNX has them, after so many inner nodes and leaves of other trees."""
    nodes = np.flatnonzero(~tree.leaf)
    place = np.where(tree.leaf, outer + np.cumsum(tree.leaf) - 1, inner + np.cumsum(~tree.leaf) - 1)
    left, right = tree.left[nodes], tree.right[nodes]
    feature, threshold, missing = tree.feature[nodes], tree.threshold[nodes], tree.missing_left[nodes]
    if not len(nodes):  # a tree that is but a leaf: both ways lead to it
        left = right = feature = np.zeros(1, np.int64)
        threshold, missing = np.zeros(1), np.ones(1, bool)
    return {
        "nodes_modes": np.full(len(feature), LEQ, np.uint8),
        "nodes_splits": threshold,
        "nodes_featureids": feature,
        "nodes_truenodeids": place[left],
        "nodes_falsenodeids": place[right],
        "nodes_trueleafs": tree.leaf[left].astype(np.int64),
        "nodes_falseleafs": tree.leaf[right].astype(np.int64),
        "nodes_missing_value_tracks_true": missing.astype(np.int64),
    }


# --- steps: each takes the name of its input, and gives that of its output -------------------------------------------


def _shifted(graph: _Graph, step: FunctionTransformer, rows: str) -> str:
    return graph.add("Add", rows, -offsets_of(step))


def _imputed(graph: _Graph, step: SimpleImputer, rows: str) -> str:
    values = np.asarray(step.statistics_, np.float64)
    if np.isnan(values).any() or step.add_indicator or not np.isnan(step.missing_values):
        raise NotConvertible("SimpleImputer with an empty column, an indicator, or a marker other than NaN")
    return graph.add("Where", graph.add("IsNaN", rows), values, rows)


def _scaled(graph: _Graph, step: StandardScaler, rows: str) -> str:
    if step.mean_ is not None:
        rows = graph.add("Sub", rows, np.asarray(step.mean_, np.float64))
    return rows if step.scale_ is None else graph.add("Div", rows, np.asarray(step.scale_, np.float64))


def _linear(graph: _Graph, step: LogisticRegression, rows: str) -> str:
    coefficients = np.asarray(step.coef_, np.float64)
    if len(coefficients) > 1 and step.solver == "liblinear":
        raise NotConvertible("one against the rest")
    terms = graph.add("Mul", graph.add("Unsqueeze", rows, np.array([1])), coefficients)
    return graph.add("Add", graph.last_sum(terms, 2, coefficients.shape[1]), np.asarray(step.intercept_, np.float64))


def _boosting(graph: _Graph, step: HistGradientBoostingClassifier, rows: str) -> str:
    targets = step.n_trees_per_iteration_
    baseline = np.ravel(step._baseline_prediction).astype(np.float64)
    first = [_constant_tree(value) for value in baseline]  # scikit-learn begins with it, and the order matters
    trees = [*first, *trees_of(step)]
    leaves = [tree.value[tree.leaf, 0] for tree in trees]
    return graph.ensemble(rows, trees, np.arange(len(trees)) % targets, leaves)


def _constant_tree(value: float) -> Tree:
    zero = np.zeros(1, np.int64)
    return Tree(zero, np.zeros(1), zero, zero, np.ones(1, bool), np.ones(1, bool), np.array([[value]]))


def _forest(graph: _Graph, step: RandomForestClassifier, rows: str) -> str:
    trees = trees_of(step)
    counts = [int(tree.leaf.sum()) for tree in trees]
    numbers = np.split(np.arange(sum(counts), dtype=np.float64), np.cumsum(counts)[:-1])
    narrow = graph.cast(graph.cast(rows, TensorProto.FLOAT), TensorProto.DOUBLE)  # scikit-learn's trees see 32 bits
    reached = graph.cast(graph.ensemble(narrow, trees, np.arange(len(trees)), numbers), TensorProto.INT64)
    values = graph.add("Gather", np.concatenate([tree.value[tree.leaf] for tree in trees]), reached, axis=0)
    return graph.add("Div", graph.last_sum(values, 1, len(trees)), np.array(float(len(trees))))


def _chain(graph: _Graph, steps: Iterable[Any], rows: str) -> str:
    for step in steps:
        rows = _convert(graph, step, rows)
    return rows


_STEPS: dict[type, Callable[[_Graph, Any, str], str]] = {
    Pipeline: lambda graph, step, rows: _chain(graph, (part for _, part in step.steps), rows),
    FunctionTransformer: _shifted,
    SimpleImputer: _imputed,
    StandardScaler: _scaled,
    LogisticRegression: _linear,
    HistGradientBoostingClassifier: _boosting,
    RandomForestClassifier: _forest,
}


def _convert(graph: _Graph, step: Any, rows: str) -> str:
    if type(step) not in _STEPS:
        raise NotConvertible(type(step).__name__)
    return _STEPS[type(step)](graph, step, rows)


def classifier_of(pipeline: Any) -> Any:
    """Return the last step, also of pipelines in pipelines."""
    while isinstance(pipeline, Pipeline):
        pipeline = pipeline.steps[-1][1]
    return pipeline


def link_of(classifier: Any) -> str:
    """Return the name in `scoring.LINKS` of what makes probabilities of this classifier's scores."""
    if isinstance(classifier, RandomForestClassifier):
        return "identity"
    return "sigmoid" if len(classifier.classes_) == 2 else "softmax"


def to_onnx(pipeline: Pipeline, *, wide: bool) -> bytes:
    """Convert the pipeline to ONNX: input `rows` `[n, features]`, float32, or float64 where a feature is `wide`;
    output `scores` float64, `[n, classes]`, or `[n, 1]` of the second one of two; what makes probabilities of them is
    named in its metadata as `link`. Raises `NotConvertible`.
    """
    graph = _Graph()
    rows = "rows" if wide else graph.cast("rows", TensorProto.DOUBLE)
    _convert(graph, pipeline, rows)
    graph.nodes[-1].output[:] = ["scores"]
    given = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    classifier = classifier_of(pipeline)
    link = link_of(classifier)
    width = 1 if link == "sigmoid" else len(classifier.classes_)
    described = helper.make_graph(
        graph.nodes,
        "classifier",
        [helper.make_tensor_value_info("rows", given, [None, pipeline.n_features_in_])],
        [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, [None, width])],
        graph.constants,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    model = helper.make_model(described, opset_imports=opsets, ir_version=IR_VERSION, producer_name="warehouse-defects")
    helper.set_model_props(model, {"link": link})
    content: bytes = model.SerializeToString()
    return content
