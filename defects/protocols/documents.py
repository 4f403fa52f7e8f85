"""Read JSON bodies exactly: a key that appears twice is refused, and NaN or an infinity is named.

Whatever is wrong with a body, reading it takes about the time of one that is right: only orjson reads values, and what
has more parts than any request needs isn't read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from defects.problems import MAX_NAME, InvalidInput, Problem
from defects.protocols import constants
from defects.protocols.constants import Place

MAX_PARTS = 1 << 16  # values, lists and objects, where the caller of `read` doesn't say

_NESTED = (dict, list)
_MAX_ITEMS = 1 << 13  # values whose keys are counted one by one
_CONSTANTS_BEGIN = "NI-0123456789"

Places = Callable[[Any], Iterable[Place]]


class NotJSON(ValueError):
    """The text is no JSON document."""


class StrayConstant(ValueError):
    """The text has NaN or an infinity where nothing takes it."""


def read(text: bytes, most: int = MAX_PARTS, places: Places | None = None) -> Any:
    """Read a JSON document, where `NaN` and the infinities may stand for numbers: they come as `Constant`.

    `most` is how many values, lists and objects there may be in all, which take much longer than their bytes: commas
    and brackets that open.
    `places` tells where in the document, and in what is there, constants may be; without it, anywhere. Raises
    `NotJSON`, `StrayConstant`, or `InvalidInput` where there are too many, or an object has a key twice.
    """
    if len(text) > most:
        _refuse_many(text, most)
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return _with_constants(text, places, problem)
    _refuse_twice(text, value)
    return value


def _refuse_many(text: bytes, most: int) -> None:
    """Refuse a text with more than `most` values, lists and objects."""
    if sum(map(text.count, (b",", b"[", b"{"))) <= most:
        return
    if (count := int(_outside(text, b",[{").sum())) > most:
        raise InvalidInput([Problem("body", f"has {count} values, lists and objects", f"at most {most}")])


def _with_constants(text: bytes, places: Places | None, problem: orjson.JSONDecodeError) -> Any:
    """Read the text where NaN or an infinity was all that was wrong with it."""
    begins = problem.doc[problem.pos : problem.pos + 1]
    found = constants.replaced(text) if begins and begins in _CONSTANTS_BEGIN else None
    if found is None:
        raise NotJSON(str(problem))
    try:
        value = orjson.loads(found.text)
    except orjson.JSONDecodeError:
        raise NotJSON(str(problem)) from None
    _refuse_twice(found.text, value)
    document = [value]
    allowed = [(document, 0)] if places is None or type(value) is not dict else places(value)
    if constants.put_back(allowed, found.meaning) < found.count:
        raise StrayConstant
    return document[0]


def _refuse_twice(text: bytes, value: Any) -> None:
    """Refuse a text, which was read as `value`, where an object has a key twice.

    Each key in the text has a colon of its own, and `value` has each key once. So if there are as many colons as keys
    no key was lost. If not, all colons count, those within strings too: `value`, written again, lacks what was lost.
    """
    colons = text.count(b":")
    if (type(value) is dict and len(value) == colons) or _keys(value, colons) == colons:
        return
    try:
        written = orjson.dumps(value)
    except TypeError:
        raise NotJSON("it nests too deep") from None
    if b"\\u003" in text:
        plain = constants.without_escapes(text)
        colons += plain.count(rb"\u003a") + plain.count(rb"\u003A")
    if written.count(b":") != colons:
        _refuse_key(text)


def _keys(value: Any, most: int) -> int:
    """Count the keys of all objects in `value`, up to `most`, among the first values.

    A list is looked into where its first element says so: what is not counted only costs more to be found.
    """
    if not most:
        return 0
    keys, items = 0, [value]
    for item in islice(items, _MAX_ITEMS):  # which grows
        kind = type(item)
        if kind is dict:
            keys += len(item)
            if keys == most:
                break
            items += item.values()
        elif kind is list and item and type(item[0]) in _NESTED:
            items += item
    return keys


def _refuse_key(text: bytes) -> None:
    """Refuse the first key that its object has already."""
    data = np.frombuffer(constants.without_escapes(text), np.uint8)
    positions, quotes = np.flatnonzero(_outside(text, b"{:}")), np.flatnonzero(data == ord('"'))
    before = np.searchsorted(quotes, positions)  # of them, the last two are around the key, if this is a colon
    objects: list[set[bytes]] = []
    found = (data[positions], quotes[before - 2], quotes[before - 1])
    for byte, begin, end in zip(*(array.tolist() for array in found), strict=True):
        if byte == ord("{"):
            objects.append(set())
        elif byte == ord("}"):
            objects.pop()
        else:
            key = text[begin + 1 : end]
            if b"\\" in key:
                key = orjson.loads(text[begin : end + 1]).encode()
            if key in objects[-1]:
                name = key.decode()[:MAX_NAME]
                raise InvalidInput([Problem("body", f"{name} appears twice", "each key of an object once")])
            objects[-1].add(key)


def _outside(text: bytes, characters: bytes) -> NDArray[np.bool_]:
    """Tell for each byte of a text whether it is one of these characters, and in no string."""
    data = np.frombuffer(text, np.uint8)
    found: NDArray[np.bool_] = np.logical_or.reduce([data == character for character in characters])
    return found & ~constants.in_strings(text)
