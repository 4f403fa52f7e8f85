"""Pieces of SQL: those that PostgreSQL and SQLite both understand, and what each says in its own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Dialect:
    """What each kind of database says in its own words."""

    element: str  # of an `array` of floats, at a `place` from 0
    seconds: str  # from when an `id` was made until an `instant`
    sampled: str  # whether the last byte of an `id`, which is random, is `below` a number
    classes: str  # a query: the classes of all models, as `model`, `place` and `name`
    apart: str  # at the end of a subquery, so that what it computes is computed once
    counting: str  # a statement that prepares a transaction for counting many rows
    lock: str  # at the end of a query: nobody else changes its rows before the transaction ends


POSTGRES = Dialect(
    element="({array})[({place}) + 1]::double precision",  # a sum of 32-bit floats would be one too
    seconds="(extract(epoch FROM {instant})::double precision"
    " - ('x' || left({id}::text, 8) || substr({id}::text, 10, 4))::bit(48)::bigint / 1000.0::double precision)",
    sampled="get_byte(uuid_send({id}), 15) < {below:d}",
    classes="SELECT m.no AS model, (c.place - 1)::integer AS place, c.class ->> 'name' AS name "
    "FROM models m, json_array_elements(m.schema::json -> 'classes') WITH ORDINALITY AS c (class, place) OFFSET 0",
    apart="OFFSET 0",
    counting="SET LOCAL work_mem = '64MB'",
    lock="FOR UPDATE",
)
SQLITE = Dialect(
    element="element_of({array}, {place})",  # functions that each connection has
    seconds="seconds_from({id}, {instant})",
    sampled="substr({id}, 16) < x'{below:02x}'",
    classes="SELECT m.no AS model, c.key AS place, json_extract(c.value, '$.name') AS name "
    "FROM models m, json_each(m.schema, '$.classes') AS c",
    apart="LIMIT -1",
    counting="SELECT 1",
    lock="",  # a transaction that writes is the only one
)
