"""Read JSON bodies exactly: a key that appears twice is refused, and NaN or an infinity is named.

orjson reads the usual document. Python's own reader, which is slower, reads only what may be refused.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from defects.problems import MAX_NAME, Constant, InvalidInput, Problem

_NESTED, _NESTED_OR_TEXT = (dict, list), (dict, list, str)


class NotJSON(ValueError):
    """The text is no JSON document."""


class StrayConstant(ValueError):
    """The text has NaN or an infinity where nothing takes it."""


def read(text: bytes, stray: Callable[[Any], bool]) -> Any:
    """Read a JSON document, where `NaN` and the infinities may stand for numbers: they come as `Constant`.

    `stray` tells whether a value has one where nobody would look at it. Raises `NotJSON`, `StrayConstant`, or
    `InvalidInput` where an object has a key twice.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return _with_constants(text, stray, problem)
    # Each key in the text has a colon of its own, and `value` has each key once. So if there are as many colons as keys
    # no key was lost.
    colons = text.count(b":")
    if type(value) is dict and len(value) == colons:
        return value
    keys = _keys(value, colons)
    # Colons within strings count too, where no backslash could hide or make one.
    if keys != colons and (b"\\" in text or keys + _colons(value) != colons):
        _read_again(text)
    return value


def has_constant(value: Any) -> bool:
    """Tell whether NaN or an infinity is anywhere in `value`."""
    if type(value) is dict:
        return any(map(has_constant, value.values()))
    return any(map(has_constant, value)) if type(value) is list else type(value) is Constant


def _keys(value: Any, most: int) -> int:
    """Count the keys of all objects in `value`, up to `most`.

    A list is looked into where its first element says so: what is not counted only costs a second reading.
    """
    keys, items = 0, [value]
    for item in items:
        kind = type(item)
        if kind is dict:
            keys += len(item)
            if keys == most:
                break
            items += item.values()
        elif kind is list and item and type(item[0]) in _NESTED:
            items += item
    return keys


def _colons(value: Any) -> int:
    """Count the colons within the strings of `value`, as far as `_keys` looks, and in lists that begin with one."""
    colons, items = 0, [value]
    for item in items:
        if type(item) is str:
            colons += item.count(":")
        elif type(item) is dict:
            colons += sum(key.count(":") for key in item)
            items += item.values()
        elif type(item) is list and item and type(item[0]) in _NESTED_OR_TEXT:
            items += item
    return colons


class _Objects:
    """Makes objects of their pairs, and notes a key that appears twice."""

    def __init__(self) -> None:
        self.twice: str | None = None

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs) and self.twice is None:
            counts = Counter(key for key, _ in pairs)
            self.twice = next(key for key, count in counts.items() if count > 1)
        return made

    def check(self) -> None:
        if self.twice is not None:
            name = self.twice[:MAX_NAME]
            raise InvalidInput([Problem("body", f"{name} appears twice", "each key of an object once")])


def _read_again(text: bytes) -> None:
    """Refuse a key that appears twice in an object."""
    objects = _Objects()
    try:
        json.loads(text.decode(), object_pairs_hook=objects, parse_int=str, parse_float=str)
    except RecursionError:
        raise NotJSON("it nests too deep") from None
    objects.check()


def _with_constants(text: bytes, stray: Callable[[Any], bool], problem: ValueError) -> Any:
    """Read the text with Python's own, laxer reader, where NaN or an infinity was all that was wrong with it."""
    found, objects = False, _Objects()

    def constant(name: str) -> Constant:
        nonlocal found
        found = True
        return Constant(name)

    def number(digits: str) -> float | Constant:
        value = float(digits)  # gives infinity for what no float holds, an integer too
        return value if math.isfinite(value) else constant("Infinity" if value > 0 else "-Infinity")

    def whole(digits: str) -> int | float | Constant:
        short = len(digits) <= 20 and -(2**63) <= int(digits) < 2**64  # as orjson has it
        return int(digits) if short else number(digits)

    try:
        value = json.loads(
            text.decode(), parse_constant=constant, parse_float=number, parse_int=whole, object_pairs_hook=objects
        )
        orjson.dumps(value)  # refuses what else is no JSON: halves of surrogate pairs, nesting without end
    except (ValueError, TypeError, RecursionError):
        raise NotJSON(str(problem)) from None
    if not found:
        raise NotJSON(str(problem))
    objects.check()
    if stray(value):
        raise StrayConstant
    return value
