"""Read JSON bodies exactly: a key that appears twice is refused, and NaN or an infinity is named.

Whatever is wrong with a body, reading it takes about the time of one that is right: orjson reads it, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import orjson

from defects.problems import MAX_NAME, InvalidInput, Problem
from defects.protocols import constants
from defects.protocols.constants import Place

_NESTED = (dict, list)
_MAX_ITEMS = 1 << 13  # values whose keys are counted one by one
_MAX_TOKENS = 1 << 15  # strings and braces among which the key that appears twice is looked for
_TOKEN = re.compile(rb'"([^"]*+)"[ \t\n\r]*+:|"[^"]*+"|[{}]')

Places = Callable[[Any], Iterable[Place]]


class NotJSON(ValueError):
    """The text is no JSON document."""


class StrayConstant(ValueError):
    """The text has NaN or an infinity where nothing takes it."""


def read(text: bytes, places: Places | None = None) -> Any:
    """Read a JSON document, where `NaN` and the infinities may stand for numbers: they come as `Constant`.

    `places` tells where in the document, and in what is there, they may be; without it, anywhere. Raises `NotJSON`,
    `StrayConstant`, or `InvalidInput` where an object has a key twice.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as problem:
        return _with_constants(text, places, problem)
    _refuse_twice(text, value)
    return value


def _with_constants(text: bytes, places: Places | None, problem: ValueError) -> Any:
    """Read the text where NaN or an infinity was all that was wrong with it."""
    found = constants.replaced(text)
    if found is None:
        raise NotJSON(str(problem))
    try:
        value = orjson.loads(found.text)
        orjson.dumps(value)  # refuses nesting without end
    except (ValueError, TypeError):
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
    if written.count(b":") == colons:
        return
    key = _key_twice(text)
    problem = "a key appears twice" if key is None else f"{key[:MAX_NAME]} appears twice"
    raise InvalidInput([Problem("body", problem, "each key of an object once")])


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


def _key_twice(text: bytes) -> str | None:
    """Return the first key that its object has already; `None` where it is not among the first of them."""
    objects: list[set[str]] = []
    for token in islice(_TOKEN.finditer(constants.without_escapes(text)), _MAX_TOKENS):
        if token.lastindex:
            key = text[slice(*token.span(1))]
            name: str = orjson.loads(b'"%b"' % key) if b"\\" in key else key.decode()
            if name in objects[-1]:
                return name
            objects[-1].add(name)
        elif token[0] == b"{":
            objects.append(set())
        elif token[0] == b"}":
            objects.pop()
    return None
