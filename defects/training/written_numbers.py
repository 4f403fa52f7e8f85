"""Recognise numbers that are written for people: with a decimal comma, separated thousands, a currency or a unit."""

from __future__ import annotations

import re
from collections.abc import Sequence

MANY = 20  # different texts that are a number and a unit are no categories any more,
MOST_UNITS = 3  # where so few units are in them

_COMMA = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_POINT = re.compile(r"[+-]?\d*\.\d+", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3}([,.'’ \u00a0\u202f]\d{3})+([.,]\d*)?", re.ASCII)
_SIGN = re.compile(r"[+-]?[$€£¥] ?[+-]?[\d.,]*\d|[+-]?[\d.,]*\d ?[%‰$€£¥]", re.ASCII)
_UNIT = re.compile(r"[+-]?\d+([.,]\d+)? ?([A-Za-zµ°²³/]{1,6})", re.ASCII)


def is_comma_number(text: str) -> bool:
    """Whether text is a number with a decimal comma."""
    return bool(_COMMA.fullmatch(text))


def problem(words: Sequence[str], decimal: str) -> tuple[str, str, bool] | None:
    """Return the first of a column's texts that is a number for people, what is wrong with it, and whether they may be
    meant as categories, such as "250 ml".

    None of the texts is a plain number. `None` where most are not such numbers.
    """
    other, name = (_POINT, "point") if decimal == "," else (_COMMA, "comma")
    sign = "comma" if decimal == "," else "point"
    for pattern, what in (
        (other, f"has a {name}; expected a {sign} before decimals"),
        (_THOUSANDS, f"has separated thousands; expected digits, and a {sign} only before decimals"),
        (_SIGN, "is a number with a sign; expected the number only"),
        (_UNIT, "is a number with a unit; expected the number only"),
    ):
        found = [word for word in words if pattern.fullmatch(word)]
        if len(found) * 2 > len(words) and (pattern is not _UNIT or _have_units(found)):
            return found[0], what, pattern in (_SIGN, _UNIT) and len(words) <= MANY
    return None


def _have_units(words: Sequence[str]) -> bool:
    units = {found[2] for word in words if (found := _UNIT.fullmatch(word))}
    return len(words) > MANY and len(units) <= MOST_UNITS
