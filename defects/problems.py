"""Name what is wrong with a value that a caller sent, in the words of every error message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# A caller who sends a thousand bad rows needs the first few problems, not a megabyte of them.
MAX_PROBLEMS = 50
MAX_NAME = 100  # characters of a name that the caller may have invented


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with one field of a request."""

    field: str
    problem: str
    expected: str


class InvalidInput(ValueError):
    """The caller's input breaks the schema; `problems` names the fields concerned, at most `MAX_PROBLEMS` of them."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems[:MAX_PROBLEMS])
        first, more = problems[0], len(problems) - 1
        text = f"{first.field}: {first.problem}; expected {first.expected}"
        at_least = "at least " if len(problems) > MAX_PROBLEMS else ""
        super().__init__(f"{text} (and {at_least}{more} more)" if more else text)


class Constant(str):
    """`NaN`, `Infinity` or `-Infinity` where JSON was expected to have a number."""


NAN = Constant("NaN")

NUMBER_OR_MISSING = frozenset({float, int, type(None)})  # the types of JSON's numbers and null

_KINDS = {bool: "a boolean", str: "text", list: "a list", dict: "an object", type(None): "null", int: "a number"}


def short(number: float) -> str:
    """Return a number for people, with as many digits as matter."""
    return f"{number:.15g}"


def kind_of(value: Any) -> str:
    """Return what a JSON value is, in words."""
    return str(value) if type(value) is Constant else _KINDS.get(type(value), "a number")


def row_name(row: int, single: bool) -> str:
    """Return the name of a row; `single` means that the request has but one."""
    return "body" if single else f"[{row}]"


def field_name(row: int, name: str, single: bool) -> str:
    """Return the name of a row's field, cut to `MAX_NAME` characters."""
    return name[:MAX_NAME] if single else f"[{row}].{name[:MAX_NAME]}"


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number or a missing one; NaN is the latter."""
    return type(value) in NUMBER_OR_MISSING or (type(value) is Constant and value == NAN)


def as_float(value: Any) -> float:
    """Return a number as a float: NaN where it is missing, an infinity where no float holds it."""
    try:
        return math.nan if value is None else float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
