"""Build an ONNX graph whose sums have the same terms in the same order as scikit-learn's, in 64 bits.

What varies by itself is left out. ONNX Runtime adds the trees of an ensemble in their order where it has one thread,
but a matrix product in an order that depends on the number of rows, so linear models are multiplied and then added up
one feature after the other (CumSum). What makes probabilities of the scores is in `scoring.LINKS`: ONNX Runtime's own
exponentials differ in the last bit by where in a batch a row stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from defects.training.trees import Integers, NotConvertible, Tree

OPSETS = {"": 21, "ai.onnx.ml": 5}  # the latter is the first with trees in 64 bits
IR_VERSION = 10
LEQ, MEMBER = 0, 6  # nodes_modes: true where the value is at most the threshold; where it is one of a set
SUM = 1  # aggregate_function
MAX_BYTES = (2 << 30) - 1  # of a protobuf message


@dataclass
class Graph:
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

    @property
    def last(self) -> str:
        """The name of what the last operation gives."""
        return str(self.nodes[-1].output[0])

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def cast(self, value: str, to: int) -> str:
        return self.add("Cast", value, to=to)

    def columns(self, value: str, chosen: Sequence[int]) -> str:
        """Choose columns of a matrix, by number."""
        return self.add("Gather", value, np.array(chosen, np.int64), axis=1)

    def last_sum(self, terms: str, axis: int, count: int) -> str:
        """Add up the terms along an axis, one after the other."""
        sums = self.add("CumSum", terms, np.array(axis))
        return self.add("Gather", sums, np.array(count - 1), axis=axis)

    def ensemble(self, rows: str, trees: Sequence[Tree], targets: Integers, leaves: Sequence[NDArray[Any]]) -> str:
        """Add up, for each target, the leaves that its trees lead to, in their order: `[n, targets]`.

        `targets` `[trees]` has each tree's; `leaves` has the number of each of its leaves, in the order of its nodes.
        `rows` are of the leaves' type, float32 or float64.
        """
        values = np.concatenate(leaves)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _NODE_ATTRIBUTES}
        roots, inner, outer = [], 0, 0
        for tree in trees:
            roots.append(inner)
            described = _described(tree, inner, outer)
            for name, part in described.items():
                parts[name].append(part)
            inner, outer = inner + len(described["nodes_modes"]), outer + int(tree.leaf.sum())
        joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        lists = {name: joined[name].tolist() for name in _NODE_ATTRIBUTES if name not in _TENSORS}
        joined["nodes_splits"] = joined["nodes_splits"].astype(values.dtype)
        tensors = {name: numpy_helper.from_array(joined[name]) for name in _TENSORS}
        if members := [(*tree.members[node], np.nan) for tree in trees for node in sorted(tree.members)]:
            tensors["membership_values"] = numpy_helper.from_array(np.concatenate(members).astype(values.dtype))
        return self.add(
            "TreeEnsemble",
            rows,
            n_targets=int(targets.max()) + 1,
            aggregate_function=SUM,
            post_transform=0,
            tree_roots=roots,
            leaf_targetids=np.repeat(targets, [*map(len, leaves)]).tolist(),
            leaf_weights=numpy_helper.from_array(values),
            **lists,
            **tensors,
        )

    def model(self, width: int, scores: int, *, wide: bool, link: str) -> bytes:
        """Return the graph as a model, whose last operation gives the `scores` of rows of so many features."""
        self.nodes[-1].output[:] = ["scores"]
        given = TensorProto.DOUBLE if wide else TensorProto.FLOAT
        described = helper.make_graph(
            self.nodes,
            "classifier",
            [helper.make_tensor_value_info("rows", given, [None, width])],
            [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, [None, scores])],
            self.constants,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(
            described, opset_imports=opsets, ir_version=IR_VERSION, producer_name="warehouse-defects"
        )
        helper.set_model_props(model, {"link": link})
        content: bytes = model.SerializeToString()
        if len(content) > MAX_BYTES:
            raise NotConvertible(f"its graph has {len(content):,} bytes; ONNX holds at most {MAX_BYTES:,}")
        return content


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
    modes = np.where(np.isin(nodes, [*tree.members]), MEMBER, LEQ).astype(np.uint8)
    if not len(nodes):  # a tree that is but a leaf: both ways lead to it
        left = right = feature = np.zeros(1, np.int64)
        threshold, missing, modes = np.zeros(1), np.ones(1, bool), np.full(1, LEQ, np.uint8)
    return {
        "nodes_modes": modes,
        "nodes_splits": threshold,
        "nodes_featureids": feature,
        "nodes_truenodeids": place[left],
        "nodes_falsenodeids": place[right],
        "nodes_trueleafs": tree.leaf[left].astype(np.int64),
        "nodes_falseleafs": tree.leaf[right].astype(np.int64),
        "nodes_missing_value_tracks_true": missing.astype(np.int64),
    }
