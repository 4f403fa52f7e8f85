"""Find values of a row at which a tree of a fitted pipeline turns: what its classifier sees is not what a row has,
where the pipeline moves, scales or encodes columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from defects.features import FLOAT32_MAX
from defects.kinds import NUMBER
from defects.schema import Rows, Schema
from defects.training.steps import Column
from defects.training.trees import CODES, Floats, Tree

Members = Mapping[int, frozenset[int]]  # the categories that come to a node, of each column that is split by category


@dataclass(frozen=True)
class Sight:
    """What a classifier sees of rows: `columns`, each of which comes from a column of the row.

    `narrow` is whether it rounds them to 32 bits.
    """

    schema: Schema
    columns: Sequence[Column]
    narrow: bool

    def sides(self, tree: Tree, node: int) -> list[float]:
        """Return values of a row's column around a node's split: the last that goes left, the first that goes right,
        neighbours of them, and a missing one."""
        column, threshold = self.columns[tree.feature[node]], float(tree.threshold[node])
        if node in tree.members:
            return self._sides_of_members(column, tree.members[node])
        if column.encoded:
            known = self._numbers(column)
            return _nearest(known, known[:, 1] <= threshold, threshold)
        return [*self._around(column, np.clip(threshold, -FLOAT32_MAX, FLOAT32_MAX)), np.nan]

    def _sides_of_members(self, column: Column, members: Sequence[int]) -> list[float]:
        known = self._numbers(column)
        return _nearest(known, np.isin(known[:, 1], members), 0.0)

    def _around(self, column: Column, threshold: float) -> Iterator[float]:
        feature, moved = self.schema.features[column.source], column.scale != 1 or column.offset != 0
        if feature.discrete:
            low = np.floor(_inverse(column, threshold))
            yield from (low, low + 1, *((low - 1, low + 2) if moved else ()))
        elif feature.wide:
            for value in _neighbours(threshold, self.narrow):
                yield float(_inverse(column, value))
        else:
            yield from _neighbours(float(_inverse(column, threshold)), True, more=moved)

    # --- encoded columns -------------------------------------------------------------------------------------------

    def _numbers(self, column: Column) -> Floats:
        """Return values of a row's column, `[values, 2]`, each with what an encoder makes of it: all that it knows, and
        one that it does not know, where there is one. Without encoder, a category is what it is."""
        if not column.encoded:
            feature = self.schema.features[column.source]
            codes = np.arange(feature.limits[1] + 1 if feature.discrete else CODES)
            parts = np.array([-0.5, 0.5, 1.5, -1.0] if not feature.discrete else [])  # of which a whole part is left
            given = np.concatenate([codes, parts])
            return np.column_stack([given, np.trunc(given) * column.scale + column.offset])
        known = [pair for pair in column.encoded if not np.isnan(pair[0])]
        return np.array([*known, *((value, column.other) for value in self._others(column))]).reshape(-1, 2)

    def _others(self, column: Column) -> list[float]:
        """Return the values of a row that any encoder of this column's source knows, but not this one; and another."""
        here = {value for value, _ in column.encoded}
        known = self._known[column.source]
        feature = self.schema.features[column.source]
        more = (0.5, -0.5) if feature.kind == NUMBER else np.arange(feature.limits[1] + 1).tolist()
        unknown = next((value for value in more if value not in known), np.nan)
        return sorted(value for value in (known | {unknown}) - here if not np.isnan(value))

    @cached_property
    def _known(self) -> dict[int, set[float]]:
        """What encoders know of each column of a row that is encoded."""
        known: dict[int, set[float]] = {}
        for column in self.columns:
            if column.encoded:
                known.setdefault(column.source, set()).update(value for value, _ in column.encoded)
        return known

    # --- rows that come to a node ----------------------------------------------------------------------------------

    def coming(self, tree: Tree, nodes: Sequence[int], rows: Rows) -> Rows:
        """Return the rows, changed as little as makes each of them come to its node."""
        low, high, members = _bounds(tree, len(self.columns))
        coming = rows.copy()
        bounded = ~np.isinf(low[nodes]) | ~np.isinf(high[nodes])
        for number in np.flatnonzero(bounded.any(axis=0)).tolist():
            column = self.columns[number]
            if not column.encoded:
                lows, highs = self._range(column, low[nodes, number], high[nodes, number])
                coming[:, column.source] = np.clip(coming[:, column.source], lows, highs)
        for place, node in enumerate(nodes):
            encoded = [n for n in np.flatnonzero(bounded[place]).tolist() if self.columns[n].encoded]
            self._encode(coming[place], encoded, low[node], high[node], members[node])
        return coming

    def _range(self, column: Column, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Return the lowest and highest values of a row's column that are above `low` and at most `high` when seen."""
        feature = self.schema.features[column.source]
        narrow = self.narrow if feature.wide else True
        ends = [np.clip(end, -FLOAT32_MAX, FLOAT32_MAX) for end in (low, high)]
        if not feature.wide:
            ends = [_inverse(column, end) for end in ends]
        if feature.discrete:
            lows, highs = np.floor(ends[0]) + 1, np.floor(ends[1])
        else:
            highest, lows = (last_held(end, np.array(narrow)) for end in (ends[1], ends[0]))
            lows, highs = next_held(lows, np.array(narrow), np.inf), highest
        lows = np.where(np.isinf(low), -FLOAT32_MAX, lows)
        highs = np.where(np.isinf(high), FLOAT32_MAX, highs)
        return (lows, highs) if not feature.wide else (_inverse(column, lows), _inverse(column, highs))

    def _encode(self, row: Floats, numbers: Sequence[int], low: Floats, high: Floats, members: Members) -> None:
        """Change each encoded column of a row to the first value that comes to the node, where there is one."""
        allowed: dict[int, set[float]] = {}
        for number in (*numbers, *members):
            column = self.columns[number]
            known = self._numbers(column)
            right = (low[number] < known[:, 1]) & (known[:, 1] <= high[number])
            if number in members:
                right &= np.isin(known[:, 1], [*members[number]])
            values = set(known[right, 0].tolist())
            allowed[column.source] = allowed.get(column.source, values) & values
        for source, found in allowed.items():
            if found and row[source] not in found:
                row[source] = min(found)


def _nearest(known: Floats, left: NDArray[np.bool_], threshold: float) -> list[float]:
    """Return the known values that are seen nearest to a threshold on its two sides, the ends, and a missing one."""
    near = np.abs(known[:, 1] - threshold)
    found = [known[side, 0][near[side].argmin()] for side in (left, ~left) if side.any()]
    return [*map(float, found), float(known[0, 0]), float(known[-1, 0]), np.nan]


def _bounds(tree: Tree, width: int) -> tuple[Floats, Floats, list[dict[int, frozenset[int]]]]:
    """Return what comes to each node: above `low` and at most `high`, `[nodes, columns]`, and the categories."""
    low = np.full((len(tree.leaf), width), -np.inf)
    high = np.full_like(low, np.inf)
    members: list[dict[int, frozenset[int]]] = [{} for _ in tree.leaf]
    for node in np.flatnonzero(~tree.leaf).tolist():  # a parent comes before its children
        column, threshold = int(tree.feature[node]), tree.threshold[node]
        left, right = tree.left[node], tree.right[node]
        for child in (left, right):
            low[child], high[child], members[child] = low[node], high[node], members[node]
        if node in tree.members:
            before, inside = members[node].get(column, ALL), frozenset(tree.members[node])
            members[left] = members[node] | {column: before & inside}
            members[right] = members[node] | {column: before - inside}
        else:
            high[left, column] = min(high[node, column], threshold)
            low[right, column] = max(low[node, column], threshold)
    return low, high, members


ALL = frozenset(range(CODES))


def _inverse(column: Column, seen: Floats | float) -> Floats:
    return (np.asarray(seen) - column.offset) / column.scale


def _neighbours(value: float, narrow: bool, *, more: bool = False) -> list[float]:
    """Return the largest number not above a value that a column holds, and its neighbours; or two to each side."""
    last = last_held(np.array(value), np.array(narrow))
    made = [last]
    for towards in (-np.inf, np.inf):
        step = last
        for _ in range(2 if more else 1):
            step = next_held(step, np.array(narrow), towards)
            made.append(step)
    return [float(number) for number in made]


def last_held(values: Floats, narrow: NDArray[np.bool_]) -> Floats:
    """Return the largest number not above each value that a column holds, in 32 bits where it is `narrow`."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = values.astype(np.float32)
        last = np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return np.where(narrow, last, values)


def next_held(values: Floats, narrow: NDArray[np.bool_], towards: float) -> Floats:
    """Return the neighbour of each value that a column holds."""
    with np.errstate(over="ignore", under="ignore"):
        near = np.nextafter(values.astype(np.float32), np.float32(towards)).astype(np.float64)
        return np.clip(np.where(narrow, near, np.nextafter(values, towards)), -FLOAT32_MAX, FLOAT32_MAX)
