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
from defects.training.precision import EXACT_INTEGERS
from defects.training.tables import BadData, Column, shown

# What counts as a missing measurement in text; a label is missing only where its cell is empty.
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A")
TRUTHS = {text: value for value in (False, True) for text in (str(value), str(value).lower(), str(value).upper())}

_NUMBER = re.compile(r"[+-]?(inf(inity)?|(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.ASCII | re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_INSTEAD = "leave the column out if it identifies rows, else subtract a constant from it or split it into two"

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]  # [rows]; the place of each row's text among the distinct ones, or -1 where it is missing


@dataclass(frozen=True)
class Numbers:
    """One column as float64 `[rows]`, NaN where missing; `boolean` where the file says true (1) and false (0)."""

    values: Floats
    boolean: bool = False


def numbers(column: Column) -> Numbers:
    """Return the column's values; raises `BadData` for the first cell that is no finite number that 64 bits hold."""
    kind = column.cells.type
    if pa.types.is_boolean(kind):
        return Numbers(column.cells.cast(pa.uint8()).cast(pa.float64()).to_numpy(), boolean=True)
    if pa.types.is_large_string(kind) or pa.types.is_decimal(kind):
        return _from_text(column)
    values = _from_integers(column) if pa.types.is_integer(kind) else column.cells.cast(pa.float64()).to_numpy()
    large = np.abs(values) > LARGEST
    if large.any():
        row = int(large.argmax())
        raise column.bad(row, f"{values[row]:g}; expected a finite 32-bit number")
    return Numbers(values)


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


def _from_text(column: Column) -> Numbers:
    """Return numbers or booleans from text, of which each distinct one is read once."""
    text = pc.utf8_trim_whitespace(column.cells.cast(pa.large_string()))
    missing = pc.is_in(text, value_set=pa.array(MISSING, pa.large_string()))
    distinct, codes = encoded(pc.if_else(missing, pa.scalar(None, pa.large_string()), text))
    boolean = 0 < len(distinct) <= len(TRUTHS) and set(distinct.to_pylist()) <= TRUTHS.keys()
    parsed = np.array([TRUTHS[word] for word in distinct.to_pylist()], np.float64) if boolean else _parsed(distinct)
    if not boolean:
        _refuse(column, distinct, parsed, codes)
    return Numbers(np.append(parsed, np.nan)[codes], boolean)


def encoded(text: Any) -> tuple[Any, Codes]:
    """Return the distinct texts, in the order of their first rows, and the place of each row's text among them."""
    found = text.combine_chunks().dictionary_encode()
    return found.dictionary, pc.fill_null(found.indices, -1).to_numpy().astype(np.int64)


def _parsed(texts: Any) -> Floats:
    """Return the float64 nearest to each text; NaN for what is no number."""
    try:
        parsed: Floats = texts.cast(pa.float64()).to_numpy()
        if not np.isnan(parsed).any():
            return parsed
    except pa.ArrowInvalid:  # something is no number, or one that only Python reads
        pass
    return np.array([float(text) if _NUMBER.fullmatch(text) else np.nan for text in texts.to_pylist()], np.float64)


def _refuse(column: Column, texts: Any, parsed: Floats, codes: Codes) -> None:
    """Raise `BadData` for the first text that is not a finite number, or is another one than the float it became."""

    def bad(place: int, problem: str) -> BadData:
        return column.bad(int((codes == place).argmax()), problem)

    if (wrong := np.isnan(parsed)).any():
        place = int(wrong.argmax())
        if place == 0 and texts[0].as_py() in TRUTHS:
            place = next(place for place, text in enumerate(texts.to_pylist()) if text not in TRUTHS)
            raise bad(
                place, f"{shown(texts[place].as_py())!r} is neither true nor false; expected one, as in other rows"
            )
        raise bad(place, f"{shown(texts[place].as_py())!r} is not a number; expected one")
    if (large := np.abs(parsed) > LARGEST).any():
        place = int(large.argmax())
        text = f"{parsed[place]:g}" if np.isfinite(parsed[place]) else shown(texts[place].as_py())
        raise bad(place, f"{text}; expected a finite 32-bit number")
    for place in np.flatnonzero(np.abs(parsed) >= EXACT_INTEGERS).tolist():
        text = texts[place].as_py()
        if _WHOLE.fullmatch(text) and Decimal(text) != Decimal(parsed[place]):
            raise bad(place, f"{inexact(text)}; {_INSTEAD}")
    for one, other in merged(texts, parsed):
        first, second = (shown(texts[place].as_py()) for place in (one, other))
        row = int((codes == one).argmax()) + 1
        raise bad(other, f"{second} is the same 64-bit float as {first} in row {row}; {_INSTEAD}")


def merged(texts: Any, parsed: Floats) -> list[tuple[int, int]]:
    """Return pairs of places, in order, whose texts are different numbers but one float64."""
    ordered = np.sort(parsed)
    if not (ordered[1:] == ordered[:-1]).any():
        return []
    order = np.argsort(parsed, kind="stable")
    same = np.flatnonzero(parsed[order][1:] == parsed[order][:-1])
    pairs = zip(order[same].tolist(), order[same + 1].tolist(), strict=True)
    return [(one, other) for one, other in pairs if _exact(texts[one].as_py()) != _exact(texts[other].as_py())]


def _exact(text: str) -> Decimal | str:
    """Return the number that a text is; the text itself where its exponent is beyond even what Decimal takes."""
    try:
        return Decimal(text)
    except InvalidOperation:
        return text
