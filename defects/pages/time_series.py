"""Hold values over time that share one axis, as charts draw them and tables list them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

Values = list[float | None]


class Column(NamedTuple):
    """One measure over time: a value for each bucket, `None` where there is none."""

    key: str
    head: str
    values: Values


class Piece(NamedTuple):
    """A part of a step function: from `start` to `end`, it is `value`."""

    start: float
    end: float
    value: float


@dataclass(frozen=True)
class TimeSeries:
    """Columns by their keys, in the order of the table. Bucket i lies from `edges[i]` to `edges[i + 1]`.

    `pieces` has the columns whose changes are known to the moment: all pieces with a value, neighbours of different
    ones.
    """

    edges: list[float]
    columns: dict[str, Column]
    pieces: dict[str, list[Piece]] = field(default_factory=dict)

    def middle(self, index: int) -> float:
        """Return the middle of a bucket."""
        return (self.edges[index] + self.edges[index + 1]) / 2

    def __getitem__(self, key: str) -> Values:
        return self.columns[key].values

    def every_value(self, key: str) -> Values:
        """Return all values of a column, also those that lasted for less than a bucket."""
        return [piece.value for piece in self.pieces[key]] if key in self.pieces else self[key]

    def has(self, *keys: str) -> bool:
        """Return whether any of these columns has a value."""
        return any(value is not None for key in keys for value in self.every_value(key))

    def pieces_of(self, key: str) -> list[Piece]:
        """Return a column as a step function.

        Where its changes are not known to the moment, neighbouring buckets with the same value make a piece. Up to two
        buckets without a value belong to the value before.
        """
        return self.pieces[key] if key in self.pieces else list(self._from_buckets(key))

    def _from_buckets(self, key: str) -> Iterator[Piece]:
        values = self[key]
        for part in connected(values, 2):
            start = part[0]
            for before, index in pairwise(part):
                if values[index] != values[before]:
                    yield Piece(self.edges[start], self.edges[index], values[start] or 0.0)
                    start = index
            yield Piece(self.edges[start], self.edges[part[-1] + 1], values[start] or 0.0)


def connected(values: Values, bridge: int) -> Iterator[list[int]]:
    """Yield the indices of values that belong together: with at most `bridge` missing ones between neighbours."""
    part: list[int] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        if part and index - part[-1] > bridge + 1:
            yield part
            part = []
        part.append(index)
    if part:
        yield part
