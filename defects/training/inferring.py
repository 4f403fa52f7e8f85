"""Infer the kind of each feature column of a table: numbers, true and false, or categories; or say what to do instead.

A column that can't be used is refused with the option of the command that helps: one that holds dates, that identifies
rows, that is nearly a number, or whose type has no values that a model takes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from defects.features import MAX_CATEGORIES
from defects.kinds import BOOLEAN, CATEGORY, NUMBER
from defects.training import written_numbers
from defects.training.bad_data import BadData, option, shown
from defects.training.categories import category_texts, codes, in_order
from defects.training.columns import (
    NO_DATE,
    TRUTHS,
    Floats,
    Numbers,
    Texts,
    is_boolean,
    numbers,
    numbers_of,
    parsed_numbers,
    texts,
)
from defects.training.dates import is_date
from defects.training.tables import Column
from defects.training.written_numbers import is_comma_number

MANY_CATEGORIES = 255  # more are only taken for categories where the command says so
FEW = 5  # so many different texts are never too many, as in a table of ten rows
LOOKED_AT = 1_000  # distinct texts by which dates are recognised
FEW_CATEGORIES = 20  # that numbers beside other texts may be meant as
MOST_MISSING = 3  # different texts that may stand for a missing number

_SIGNS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Values:
    """A feature's column as float64 `[rows]`, NaN where missing: numbers, 1 and 0 for true and false, or codes."""

    values: Floats
    kind: str = NUMBER
    categories: tuple[str, ...] = ()


def infer(column: Column) -> Values:
    """Return the column's values, of the kind that the command says or that its cells show; raises `BadData`."""
    said_number = column.name in column.reading.number
    if column.name in column.reading.category:
        return _categories(column, MAX_CATEGORIES)
    if column.categorical and not said_number:
        return _categories(column, MANY_CATEGORIES)
    if not pa.types.is_large_string(column.cells.type):
        found = numbers(column)
        return Values(found.values) if said_number else _of(found)
    return _said_number(column) if said_number else _from_text(column)


def _of(found: Numbers) -> Values:
    return Values(found.values, BOOLEAN if found.boolean else NUMBER)


def _said_number(column: Column) -> Values:
    found = texts(column)
    if words := _words(column, found):
        _refuse_words(column, found, words, len(found.distinct) - len(words), said=True)
    return Values(numbers_of(column, found).values)


def _from_text(column: Column) -> Values:
    found = texts(column)
    words = _words(column, found)
    if not words:
        return _of(numbers_of(column, found))
    count = len(found.distinct) - len(words)
    if count > sum(not _SIGNS.fullmatch(word) for word in words):
        _refuse_words(column, found, words, count)
    _refuse_half_booleans(column, found)
    _refuse_written_numbers(column, found, words)
    _refuse_dates(column, found)
    return _categories(column, MANY_CATEGORIES)


def _words(column: Column, found: Texts) -> list[str]:
    """Return the distinct texts that are no numbers; none where all are true and false."""
    wrong = pa.array(np.isnan(parsed_numbers(column, found.distinct)))
    return [] if is_boolean(found) else list(found.distinct.filter(wrong).to_pylist())


def _place(found: Texts, text: str) -> int:
    return found.row(found.distinct.index(text).as_py())


def _refuse_words(column: Column, found: Texts, words: list[str], count: int, *, said: bool = False) -> None:
    """Raise `BadData` for the first text that is no number, beside `count` different numbers."""
    if all(map(_SIGNS.fullmatch, words)) or (len(words) <= MOST_MISSING and count > FEW_CATEGORIES):
        options = [option("--na", word) for word in words]
    else:
        categories = count + len(words) <= FEW_CATEGORIES
        options = [] if said else [option("--category" if categories else "--ignore", column.name)]
    if column.reading.decimal == "." and all(map(is_comma_number, words)):
        options = ["--decimal ,"]
    why = "--number says" if said else "in other rows"
    raise column.bad(_place(found, words[0]), f"{shown(words[0])!r} is not a number; expected one, as {why}", options)


def _refuse_half_booleans(column: Column, found: Texts) -> None:
    """Raise `BadData` for the first text that is neither true nor false beside one that is."""
    some: list[str] = found.distinct[:LOOKED_AT].to_pylist()
    others = [text for text in some if text not in TRUTHS]
    if len(others) < len(some):
        problem = f"{shown(others[0])!r} is neither true nor false; expected one, as in other rows"
        raise column.bad(_place(found, others[0]), problem, [option("--category", column.name)])


def _refuse_written_numbers(column: Column, found: Texts, words: list[str]) -> None:
    """Raise `BadData` for numbers that are written for people."""
    problem = written_numbers.problem(words[:LOOKED_AT], column.reading.decimal)
    if problem is None:
        return
    first, what, may_be_categories = problem
    options = [option("--category" if may_be_categories else "--ignore", column.name)]
    if column.reading.decimal == "." and all(map(is_comma_number, words)):
        options = ["--decimal ,"]
    raise column.bad(_place(found, first), f"{shown(first)!r} {what}", options)


def _refuse_dates(column: Column, found: Texts) -> None:
    some: list[str] = found.distinct[:LOOKED_AT].to_pylist()
    dates = [text for text in some if is_date(text)]
    if len(dates) * 2 > len(some):
        raise column.bad(_place(found, dates[0]), f"{shown(dates[0])!r} is a date or a time; {NO_DATE}")


def _categories(column: Column, most: int) -> Values:
    """Return the codes of a column's categories, of which there may be `most`."""
    found = category_texts(column)
    count, rows = len(found.distinct), int((found.codes >= 0).sum())
    if count > most:
        raise _too_many(column, count, rows, f"at most {most:,} different texts")
    if most < MAX_CATEGORIES and count > FEW and count * 2 > rows:
        raise _too_many(column, count, rows, "categories, which repeat")
    names = in_order(found.distinct.to_pylist())
    return Values(codes(found, names), CATEGORY, names)


def _too_many(column: Column, count: int, rows: int, expected: str) -> BadData:
    identifier = "; does it identify rows?" if count * 2 > rows else ""
    fits = count <= MAX_CATEGORIES and count * 10 <= rows * 9
    options = [option("--category" if fits and not identifier else "--ignore", column.name)]
    return column.bad(None, f"has {count:,} different texts in {rows:,} rows; expected {expected}{identifier}", options)


def all_missing(column: Column) -> bool:
    """Whether no row has a value."""
    kind: Any = column.cells.type
    if len(column.cells) > LOOKED_AT and not all_missing(replace(column, cells=column.cells[:LOOKED_AT])):
        return False
    if pa.types.is_large_string(kind):
        return bool((texts(column).codes < 0).all())
    if pa.types.is_floating(kind):
        return bool(np.isnan(column.cells.to_numpy()).all())
    return bool(column.cells.null_count == len(column.cells))
