"""Decision trees as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CODES = 256  # categories that scikit-learn's boosted trees tell apart: 0, 1, …


class NotConvertible(Exception):
    """There is no exact graph for a part of the pipeline; the message names it."""


@dataclass(frozen=True)
class Tree:
    """A decision tree: a row goes `left` where its `feature` is at most `threshold`, or is missing and
    `missing_left`. All `[nodes]`; node 0 is the root, and a parent comes before its children.

    A node in `members` splits by category instead: the codes that go left.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    missing_left: NDArray[np.bool_]
    leaf: NDArray[np.bool_]
    value: Floats  # [nodes, outputs]; only of leaves
    members: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def constant_tree(value: float) -> Tree:
    """Return a tree that is but a leaf."""
    zero = np.zeros(1, np.int64)
    return Tree(zero, np.zeros(1), zero, zero, np.ones(1, bool), np.ones(1, bool), np.array([[value]]))
