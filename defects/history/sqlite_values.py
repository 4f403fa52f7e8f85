"""Give SQLite's values the types that PostgreSQL's have: UUID, times in UTC, arrays of floats, truth values.

A column is told by its declared type; an expression, which has none, by its name: call it as the column that it is of,
as in `max(received_at) AS received_at`.
"""

from __future__ import annotations

import math
import sqlite3
import struct
from collections.abc import Callable, ItemsView, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from defects.identifiers import EPOCH

MICROSECOND = timedelta(microseconds=1)
CAST = "::"  # PostgreSQL's; SQLite takes it for a part of the parameter's name

REAL = struct.Struct("<f")

Converter = Callable[[Any], Any]


def microseconds(instant: datetime) -> int:
    """Return the microseconds since 1970 of a time with an offset."""
    return (instant - EPOCH) // MICROSECOND


def instant(since_1970: int | bytes) -> datetime:
    """Return the time, in UTC, of microseconds since 1970."""
    return EPOCH + int(since_1970) * MICROSECOND


def uuid(packed: bytes) -> UUID:
    """Return the UUID of its 16 bytes."""
    return UUID(bytes=packed)


def reals(packed: bytes) -> list[float]:
    """Return the numbers of little-endian floats of 32 bits."""
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def doubles(packed: bytes) -> list[float]:
    """Return the numbers of little-endian floats of 64 bits."""
    return list(struct.unpack(f"<{len(packed) // 8}d", packed))


TYPES: dict[str, Converter] = {  # that columns of `migrations/sqlite` declare
    "UUID": uuid,
    "INSTANT": instant,
    "REALS": reals,
    "DOUBLES": doubles,
    "BOOLEAN": lambda text: text != b"0",
}
COLUMNS = {
    "id": uuid,
    "prediction_id": uuid,
    "features": reals,
    "wide_features": doubles,
    "probabilities": reals,
}


def register() -> None:
    """Teach the `sqlite3` module the declared types, and how values are packed."""
    for name, converter in TYPES.items():
        sqlite3.register_converter(name, converter)
    sqlite3.register_adapter(UUID, lambda value: value.bytes)
    sqlite3.register_adapter(datetime, microseconds)


def add_functions(connection: sqlite3.Connection) -> None:
    """Add the functions that `sql.SQLITE` names, and those of mathematics, which some builds of SQLite lack."""
    functions: list[tuple[str, int, Callable[..., float | None]]] = [
        ("element_of", 2, element_of),
        ("seconds_from", 2, seconds_from),
        ("ln", 1, lambda value: None if value is None else math.log(value)),
        ("floor", 1, lambda value: None if value is None else math.floor(value)),
    ]
    for name, values, function in functions:
        connection.create_function(name, values, function, deterministic=True)


def element_of(packed: bytes, place: int) -> float:
    """Return one of little-endian floats of 32 bits."""
    value: float = REAL.unpack_from(packed, 4 * place)[0]
    return value


def seconds_from(id_: bytes, instant: int) -> float:
    """Return the seconds from when an id was made until so many microseconds since 1970."""
    return instant / 1e6 - int.from_bytes(id_[:6], "big") / 1e3


class Values(dict[str, Any]):
    """The values of `$1`, `$2`, … by their names in SQLite, which are `1`, `2`, …, and `1::type` with a cast."""

    def __init__(self, values: Sequence[Any]):
        super().__init__((str(no), value) for no, value in enumerate(values, 1))

    def __missing__(self, name: str) -> Any:
        number, cast, _ = name.partition(CAST)
        if not cast:
            raise KeyError(name)
        return self[number]


class Row(sqlite3.Row):
    """A row as PostgreSQL's client has it: values by name and by number; iterating gives the values."""

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or the default where there is no such column."""
        return dict(self.items()).get(name, default)

    def values(self) -> Iterator[Any]:
        """Return the values."""
        return iter(self)

    def items(self) -> ItemsView[str, Any]:
        """Return names and values."""
        return dict(zip(self.keys(), self, strict=True)).items()


class RowMaker:
    """Makes the rows of one statement; values of expressions, which no declared type tells, are converted by name."""

    def __init__(self, names: Sequence[str]):
        self._places = [(place, convert) for place, name in enumerate(names) if (convert := _by_name(name)) is not None]

    def __call__(self, cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
        for place, convert in self._places:
            if isinstance(values[place], (bytes, int)):  # else it is NULL, or converted
                values = (*values[:place], convert(values[place]), *values[place + 1 :])
        return Row(cursor, values)


def _by_name(name: str) -> Converter | None:
    return instant if name.endswith("_at") else COLUMNS.get(name)
