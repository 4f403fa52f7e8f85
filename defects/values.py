"""Check values that come from a file: that each is of its type, and small enough to be passed on anywhere.

Every function here raises `ValueError`, whose message names the place and says what was expected.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Any, TypeVar

from defects.problems import kind_of

MAX_TEXT = 10_000  # characters
MAX_LABEL = 1_000  # of a name that stands in every answer, and in labels of metrics
MAX_LABELS = 1_000  # of one feature
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line ends
SEPARATOR = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

TURNING = re.compile(r"[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # characters that turn the direction of text around

Made = TypeVar("Made")


def one_line(text: str, most: int = 2_000) -> str:
    """Return text as one line: control characters are escaped, and what is longer is cut in its middle."""
    line = SEPARATOR.sub(lambda found: repr(found[0])[1:-1], text)
    return line if len(line) <= most else f"{line[: most // 2]} … {line[-most // 2 :]}"


def phrase(text: str, most: int = 80) -> str:
    """Return a name of data as it stands in a sentence: on one line, and cut in its middle where it is long."""
    return one_line(TURNING.sub("", text.replace("_", " ")), most)


def shown(text: str, most: int = 100) -> str:
    """Return text in quotes, as messages have it: its beginning and its length where it is long."""
    return repr(text) if len(text) <= most else f"{text[:most]!r}… ({len(text):,} characters)"


def printable(name: str) -> str:
    """Return a file's name as text; bytes that are not UTF-8, and control characters, can't be kept."""
    return CONTROL.sub("\ufffd", name.encode(errors="surrogateescape").decode(errors="replace"))


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8: bytes of another encoding were read as halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(value: Any, place: str, most: int = MAX_TEXT) -> str:
    """Return a text of at most `most` characters."""
    if type(value) is not str:
        raise ValueError(f"{place} is {kind_of(value)}; expected text")
    if len(value) > most:
        raise ValueError(f"{place} has {len(value):,} characters; expected at most {most:,}")
    if CONTROL.search(value) or not is_unicode(value):
        raise ValueError(f"{place} is {shown(value)}; expected text without control characters, as UTF-8")
    return value


def label(value: Any, place: str) -> str:
    """Return a text that names something, so that is not blank."""
    if not text(value, place, MAX_LABEL).strip():
        raise ValueError(f"{place} is {value[:100]!r}; expected a name")
    return str(value)


def number(value: Any, place: str) -> float:
    """Return a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{place} is {kind_of(value)}; expected a finite number")
    try:
        finite = math.isfinite(value)
    except OverflowError:
        finite = False
    if not finite:
        raise ValueError(f"{place} is not finite; expected a finite number")
    return value


def number_or_none(value: Any, place: str) -> float | None:
    """Return a finite number, or none."""
    return None if value is None else number(value, place)


def flag(value: Any, place: str) -> bool:
    """Return true or false."""
    if type(value) is not bool:
        raise ValueError(f"{place} is {kind_of(value)}; expected true or false")
    return value


def mapping(value: Any, place: str) -> dict[str, Any]:
    """Return an object of JSON."""
    if type(value) is not dict:
        raise ValueError(f"{place} is {kind_of(value)}; expected an object")
    return value


def items(value: Any, place: str, most: int) -> list[Any]:
    """Return a list of at most `most` items."""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{place} is {kind_of(value)}; expected a list")
    if len(value) > most:
        raise ValueError(f"{place} has {len(value):,} items; expected at most {most:,}")
    return [*value]


def member(value: Mapping[str, Any], name: str) -> Any:
    """Return what an object has by that name."""
    if name not in value:
        raise ValueError(f"{name} is missing")
    return value[name]


def labels(value: Any, place: str) -> list[str]:
    """Return a list of texts that name something, at most `MAX_LABELS`."""
    return [label(item, f"{place}[{index}]") for index, item in enumerate(items(value, place, MAX_LABELS))]


_CHECKS: dict[Any, Callable[[Any, str], Any]] = {
    "str": text, "float | None": number_or_none, "bool": flag, "tuple[str, ...]": labels,
}  # fmt: skip


@cache
def _fields(kind: Any) -> dict[str, tuple[Callable[[Any, str], Any], bool]]:
    """Return for each field of a data class what checks it, and whether it has to be given."""
    return {
        field.name: (label if field.name == "name" else _CHECKS[field.type], field.default is MISSING)
        for field in fields(kind)
    }


def check_fields(instance: Any) -> None:
    """Check the fields of a data class by their types: text, truth values, and numbers that may be missing."""
    for name, (check, _) in _fields(instance.__class__).items():
        check(getattr(instance, name), name)


def instances(kind: type[Made], value: Any, place: str, most: int) -> tuple[Made, ...]:
    """Return a list of objects as instances of a data class."""
    return tuple(_instance(kind, item, f"{place}[{index}]") for index, item in enumerate(items(value, place, most)))


def _instance(kind: Any, value: Any, place: str) -> Any:
    known = _fields(kind)
    for name in mapping(value, place):
        if name not in known:
            raise ValueError(f"{place} has the unknown key {shown(name)}; expected some of {', '.join(known)}")
    for name, (_, required) in known.items():
        if required and name not in value:
            raise ValueError(f"{place}.{name} is missing")
    try:
        return kind(**value)
    except ValueError as error:
        raise ValueError(f"{place}.{error}") from None
