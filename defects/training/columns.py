"""Read a column of a table as numbers: those in the file, or one line that says why not.

Every number is the float64 nearest to what the file says. Where that is not enough, because an integer is not exact in
it or two different numbers become one, the column is refused: a model would be given another number than was meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from defects.features import LARGEST
from defects.training.bad_data import BadData, shown
from defects.training.precision import EXACT_INTEGERS
from defects.training.tables import Column

# What counts as a missing measurement in text; a label is missing only where its cell is empty.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")
TRUTHS = {text: value for value in (False, True) for text in (str(value), str(value).lower(), str(value).upper())}

_NUMBER = re.compile(r"[+-]?(inf(inity)?|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
USABLE = "expected a number, or true or false, or text"
NO_DATE = "make numbers of it before training, such as the hour, the weekday or the age in days"
_INSTEAD = "leave the column out if it identifies rows, else subtract a constant from it or split it into two"

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]  # [rows]; the place of each row's text among the distinct ones, or -1 where it is missing


@dataclass(frozen=True)
class Numbers:
    """One column as float64 `[rows]`, NaN where missing; `boolean` where the file says true (1) and false (0)."""

    values: Floats
    boolean: bool = False


@dataclass(frozen=True)
class Texts:
    """A column's `distinct` texts, in the order of their first rows, and each row's place among them, or -1."""

    distinct: Any
    codes: Codes

    def row(self, place: int) -> int:
        """Return the first row that has the text of this place."""
        return int((self.codes == place).argmax())


def numbers(column: Column) -> Numbers:
    """Return the column's values; raises `BadData` for the first cell that is no finite number that 64 bits hold."""
    check_type(column)
    kind = column.cells.type
    if pa.types.is_boolean(kind):
        return Numbers(column.cells.cast(pa.uint8()).cast(pa.float64()).to_numpy(), boolean=True)
    if pa.types.is_large_string(kind):
        return numbers_of(column, texts(column))
    if pa.types.is_decimal(kind):
        return numbers_of(column, Texts(*encoded(column.cells.cast(pa.large_string()))))
    values = _from_integers(column) if pa.types.is_integer(kind) else column.cells.cast(pa.float64()).to_numpy()
    large = np.abs(values) > LARGEST
    if large.any():
        row = int(large.argmax())
        raise column.bad(row, f"{values[row]:g}; expected a finite 32-bit number")
    return Numbers(values)


def check_type(column: Column) -> None:
    """Raise `BadData` where the column's type is none of numbers, booleans and text."""
    kind, types = column.cells.type, pa.types
    if types.is_temporal(kind):
        raise column.bad(0, f"is a date or a duration; {USABLE}; {NO_DATE}")
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    plain = number or types.is_large_string(kind) or types.is_boolean(kind) or types.is_null(kind)
    if column.foreign or not plain:
        raise column.bad(0, f"is of type {shown(str(kind))}; {USABLE}")


def _from_integers(column: Column) -> Floats:
    given = pc.fill_null(column.cells, 0).to_numpy()
    values: Floats = given.astype(np.float64)
    for row in np.flatnonzero(np.abs(values) >= EXACT_INTEGERS).tolist():
        if int(values[row]) != int(given[row]):
            raise column.bad(row, f"{inexact(str(given[row]))}; {_INSTEAD}")
    values[pc.is_null(column.cells).to_numpy()] = np.nan
    return values


def inexact(text: str) -> str:
    """Return the problem with an integer that is another one as a float64."""
    return f"{shown(text)} is an integer that a 64-bit float does not hold exactly"


# --- text ------------------------------------------------------------------------------------------------------------


def texts(column: Column) -> Texts:
    """Return a text column's texts without spaces around them; those that stand for a missing value are missing."""
    text = pc.utf8_trim_whitespace(column.cells)
    markers = pa.array([*MISSING, *column.reading.na], pa.large_string())
    return Texts(*encoded(pc.if_else(pc.is_in(text, value_set=markers), pa.scalar(None, pa.large_string()), text)))


def numbers_of(column: Column, found: Texts) -> Numbers:
    """Return numbers or booleans from text, of which each distinct one is read once; raises `BadData`."""
    boolean = is_boolean(found)
    if boolean:
        parsed = np.array([TRUTHS[word] for word in found.distinct.to_pylist()], np.float64)
    else:
        parsed = parsed_numbers(column, found.distinct)
        _refuse(column, found, parsed)
    return Numbers(np.append(parsed, np.nan)[found.codes], boolean)


def is_boolean(found: Texts) -> bool:
    """Whether all texts are true and false."""
    return 0 < len(found.distinct) <= len(TRUTHS) and TRUTHS.keys() >= set(found.distinct.to_pylist())


def encoded(text: Any) -> tuple[Any, Codes]:
    """Return the distinct texts, in the order of their first rows, and the place of each row's text among them."""
    found = text.combine_chunks().dictionary_encode()
    return found.dictionary, pc.fill_null(found.indices, -1).to_numpy().astype(np.int64)


def parsed_numbers(column: Column, distinct: Any) -> Floats:
    """Return the float64 nearest to each text; NaN for what is no number."""
    return _parsed(_with_points(column, distinct))


def _with_points(column: Column, distinct: Any) -> Any:
    """Return texts with points before their decimals; those that have other signs for that become no numbers."""
    if column.reading.decimal == ".":
        return distinct
    other = pc.match_substring(distinct, ".")
    return pc.if_else(other, pa.scalar("", pa.large_string()), pc.replace_substring(distinct, ",", "."))


def _parsed(distinct: Any) -> Floats:
    try:
        parsed: Floats = distinct.cast(pa.float64()).to_numpy()
        if not np.isnan(parsed).any():
            return parsed
    except pa.ArrowInvalid:  # something is no number, or one that only Python reads
        pass
    return np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in distinct.to_pylist()], np.float64)


def _refuse(column: Column, found: Texts, parsed: Floats) -> None:
    """Raise `BadData` for the first text that is not a finite number, or is another one than the float it became."""
    given = found.distinct

    def bad(place: int, problem: str) -> BadData:
        return column.bad(found.row(place), problem)

    if (wrong := np.isnan(parsed)).any():
        place = int(wrong.argmax())
        if place == 0 and given[0].as_py() in TRUTHS:
            place = next(place for place, text in enumerate(given.to_pylist()) if text not in TRUTHS)
            raise bad(
                place, f"{shown(given[place].as_py())!r} is neither true nor false; expected one, as in other rows"
            )
        raise bad(place, f"{shown(given[place].as_py())!r} is not a number; expected one")
    if (large := np.abs(parsed) > LARGEST).any():
        place = int(large.argmax())
        text = f"{parsed[place]:g}" if np.isfinite(parsed[place]) else shown(given[place].as_py())
        raise bad(place, f"{text}; expected a finite 32-bit number")
    exact = _with_points(column, given)
    for place in np.flatnonzero(np.abs(parsed) >= EXACT_INTEGERS).tolist():
        text = exact[place].as_py()
        if _WHOLE.fullmatch(text) and Decimal(text) != Decimal(parsed[place]):
            raise bad(place, f"{inexact(text)}; {_INSTEAD}")
    for one, other in merged(exact, parsed):
        first, second = (shown(given[place].as_py()) for place in (one, other))
        raise bad(other, f"{second} is the same 64-bit float as {first} in row {found.row(one) + 1}; {_INSTEAD}")


def merged(distinct: Any, parsed: Floats) -> list[tuple[int, int]]:
    """Return pairs of places, in order, whose texts are different numbers but one float64."""
    ordered = np.sort(parsed)
    if not (ordered[1:] == ordered[:-1]).any():
        return []
    order = np.argsort(parsed, kind="stable")
    same = np.flatnonzero(parsed[order][1:] == parsed[order][:-1])
    pairs = zip(order[same].tolist(), order[same + 1].tolist(), strict=True)
    return [(one, other) for one, other in pairs if _exact(distinct[one].as_py()) != _exact(distinct[other].as_py())]


def _exact(text: str) -> Decimal | str:
    """Return the number that a text is; the text itself where its exponent is beyond even what Decimal takes."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text
