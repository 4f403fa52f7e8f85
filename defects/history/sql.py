"""Pieces of SQL that PostgreSQL and SQLite both understand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

SOME = 256  # rows of values in one statement


def marks(count: int, first: int = 1) -> str:
    """Return the places of so many values, such as `$1, $2`."""
    return ", ".join(f"${place}" for place in range(first, first + count))


def rows(count: int, width: int) -> str:
    """Return the places of rows of values, such as `($1, $2), ($3, $4)`."""
    return ", ".join(f"({marks(width, place * width + 1)})" for place in range(count))


def parts(items: Sequence[T], size: int = SOME) -> Iterator[Sequence[T]]:
    """Yield the items, some at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
