"""Read JSON in which `NaN`, the infinities, or numbers that no float holds stand for numbers, as `Constant`.

Each is replaced in the text by an integer that the text doesn't have, orjson reads the rest, and where the integers
come out the constants are put. Nothing here calls Python for each value or each string of the text.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.problems import NAN, Constant

Place = tuple[Any, Any]  # a list or an object, and the index or the key of a value in it

CONSTANTS = (NAN, Constant("Infinity"), Constant("-Infinity"))
# Bytes that no JSON has stand in the text for the N and I of what strings contain, and for numbers beyond floats.
_N, _I, _BEYOND, _BELOW = b"\x01", b"\x02", b"\x03", b"\x04"
_ONLY = re.compile(rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")  # a number in JSON
_IN_NUMBERS = b"+-.0123456789eE"
_RUN = re.compile(rb"[-+.0-9eE]*+")
_BLOCK = 64  # digits: a number without an exponent of 3 digits has so many together, if no float holds it
MAX_LARGE = 200  # numbers that are looked at as to whether a float holds them: if one doesn't, the request is refused
_NESTED = frozenset({dict, list})


@dataclass(frozen=True, slots=True)
class Replaced:
    """A text in which `count` constants are replaced by the integers of `meaning`."""

    text: bytes
    count: int
    meaning: Mapping[int, Constant]


def replaced(text: bytes) -> Replaced | None:
    """Replace the constants of a text; return `None` where bytes are in it that no JSON has.

    Takes a time that depends on the text's length, hardly on what is in it.
    """
    if any(mark in text for mark in (_N, _I, _BEYOND, _BELOW)):
        return None
    inside = in_strings(text)
    marked = np.frombuffer(text, np.uint8).copy()
    for letter, mark in ((b"N", _N), (b"I", _I)):
        found = np.flatnonzero(marked == letter[0])
        marked[found[inside[found]]] = mark[0]
    _mark_large(text, marked, inside)
    return _with_integers(text, marked.tobytes())


def _with_integers(text: bytes, marked: bytes) -> Replaced:
    while (digits := b"%d" % random.randrange(10**15, 10**16)) in text:  # noqa: S311 - unknown to the caller is enough
        pass
    # Of 17 digits and odd: no float is equal to it. The spaces keep it apart from what stands beside it.
    integers = [digits + end for end in (b"1", b"3", b"5")]
    nan, beyond, below = (b" %b " % integer for integer in integers)
    count = 0
    for byte, old, new in (
        (b"N", b"NaN", nan),
        (b"I", b"-Infinity", below),
        (b"I", b"Infinity", beyond),
        (_BELOW, _BELOW, below),
        (_BEYOND, _BEYOND, beyond),
    ):
        if byte in marked:  # to look for one byte is by far the fastest
            count += marked.count(old)
            marked = marked.replace(old, new)
    for mark, letter in ((_N, b"N"), (_I, b"I")):
        marked = marked.replace(mark, letter) if mark in marked else marked
    return Replaced(marked, count, dict(zip(map(int, integers), CONSTANTS, strict=True)))


def without_escapes(text: bytes) -> bytes:
    """Return a text of the same length, where each quote begins or ends a string, if the text is JSON."""
    return text.replace(rb"\\", b"__").replace(rb"\"", b"__") if b"\\" in text else text


def in_strings(text: bytes) -> NDArray[np.bool_]:
    """Tell for each byte of a text whether it is within a string, if the text is JSON."""
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(np.frombuffer(without_escapes(text), np.uint8) == ord('"'))
    return inside


def _mark_large(text: bytes, marked: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    """Mark the numbers that no float holds, of the first `MAX_LARGE` of each kind that might be such."""
    found = (_large_exponents(marked, inside), _many_digits(marked, inside))
    end = 0
    for position in sorted(position for kind in found for position in kind[:MAX_LARGE].tolist()):
        if position < end:
            continue  # in the number before
        start = end + len(text[end:position].rstrip(_IN_NUMBERS))
        end = _RUN.match(text, position).end()  # type: ignore[union-attr] # it matches nothing, too
        if _ONLY.fullmatch(text, start, end) and math.isinf(value := float(text[start:end])):
            marked[start:end] = ord(" ")
            marked[start] = (_BEYOND if value > 0 else _BELOW)[0]


def _large_exponents(data: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where the exponents of 3 or more digits are that are not negative."""
    found = np.flatnonzero((data | 0x20) == ord("e"))
    found = found[(found > 0) & (found < len(data) - 3)]
    found = found[~inside[found] & _digit(data[found - 1])]
    first = found + 1 + (data[found + 1] == ord("+"))
    return found[_digit(data[first]) & _digit(data[first + 1]) & _digit(data[np.minimum(first + 2, len(data) - 1)])]


def _many_digits(data: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return where blocks of digits are, after something else."""
    digits = (_digit(data) & ~inside)[: len(data) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    blocks = np.logical_and.reduce(digits, axis=1)
    blocks[1:] &= ~blocks[:-1]
    return np.flatnonzero(blocks) * _BLOCK


def _digit(data: NDArray[np.uint8]) -> NDArray[np.bool_]:
    digit: NDArray[np.bool_] = (data - np.uint8(ord("0"))) < 10  # bytes below wrap around
    return digit


def put_back(places: Iterable[Place], meaning: Mapping[int, Constant]) -> int:
    """Put the constants where their integers are: at `places` and in what is there; return how many there were."""
    count, containers = 0, []
    for holder, key in places:
        value = holder[key]
        if type(value) is int and value in meaning:
            holder[key] = meaning[value]
            count += 1
        elif type(value) in _NESTED:
            containers.append(value)
    for container in containers:  # which grows
        count += (_in_object if type(container) is dict else _in_list)(container, meaning, containers)
    return count


def _in_object(found: dict[str, Any], meaning: Mapping[int, Constant], containers: list[Any]) -> int:
    count = 0
    for key, value in found.items():
        if type(value) is int:
            if value in meaning:
                found[key] = meaning[value]
                count += 1
        elif type(value) in _NESTED:
            containers.append(value)
    return count


def _in_list(found: list[Any], meaning: Mapping[int, Constant], containers: list[Any]) -> int:
    kinds = set(map(type, found))
    if not kinds.isdisjoint(_NESTED):
        containers += [value for value in found if type(value) in _NESTED]
        count = sum(map(found.count, meaning)) if int in kinds else 0
    else:
        count = 0 if int not in kinds or meaning.keys().isdisjoint(found) else sum(map(found.count, meaning))
    if count:
        found[:] = [meaning.get(value, value) if type(value) is int else value for value in found]
    return count
