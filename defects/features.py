"""One feature and one class of a model, as data.

In rows a feature is a number: 1 and 0 stand for true and false, and a category is its place among the feature's
categories, its *code*. So whatever is behind the codecs sees numbers only.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from defects import values
from defects.kinds import BOOLEAN, CATEGORY, MISSING, NUMBER, REFUSE
from defects.problems import MAX_NAME, NAN, Constant, Problem, as_float, kind_of, short

# Larger values would become infinite when they are cast to what the model was trained on.
FLOAT32_MAX = float(np.finfo(np.float32).max)
LARGEST = float(np.nextafter(FLOAT32_MAX + 2.0**103, 0.0))  # that is still rounded to it
MAX_CATEGORIES = values.MAX_LABELS  # of a feature
MAX_SHOWN = 10  # categories in a message
# How far an unknown text is looked for: characters of it, more or less of them in a category, and, as comparing takes
# their square, that square times the categories.
MAX_CLOSE, CLOSE_LENGTH, MAX_COMPARED = 50, 3, 10_000
_NAMED = frozenset({str, int, float})  # types of JSON's values that may name a category
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")  # as text, of those that are exact in 64 bits


@dataclass(frozen=True, slots=True)
class Feature:
    """One measured value. `low`/`high` are inclusive and in `unit`; `None` means that no limit is declared.

    `kind` is `number`; `boolean`, which is 1 for true and 0 for false in rows; or `category`, which is its place among
    `categories`. A text that is none of them is refused, or missing where `unknown` says so. The values of a `wide`
    feature are held in 64 bits, of others in 32.
    """

    name: str
    unit: str = ""
    description: str = ""
    low: float | None = None
    high: float | None = None
    optional: bool = False
    observed_low: float | None = None
    observed_high: float | None = None
    example: float | None = None
    kind: str = NUMBER
    wide: bool = False
    categories: tuple[str, ...] = ()
    unknown: str = REFUSE

    def __post_init__(self) -> None:
        values.check_fields(self)
        if self.kind not in (NUMBER, BOOLEAN, CATEGORY):
            raise ValueError(f"kind is {values.shown(self.kind)}; expected {NUMBER}, {BOOLEAN} or {CATEGORY}")
        object.__setattr__(self, "categories", tuple(self.categories))  # a list where it comes from JSON
        self._check_categories()
        low, high = self.limits
        if not low <= high:
            raise ValueError(f"low, {short(low)}, is above high, {short(high)}; expected a range of 32-bit numbers")
        for name in ("observed_low", "observed_high", "example"):
            if abs(getattr(self, name) or 0) > LARGEST:
                raise ValueError(f"{name} is {short(getattr(self, name))}; expected a 32-bit number")

    def _check_categories(self) -> None:
        if self.unknown not in (REFUSE, MISSING):
            raise ValueError(f"unknown is {values.shown(self.unknown)}; expected {REFUSE} or {MISSING}")
        if self.kind != CATEGORY:
            if self.categories or self.unknown != REFUSE:
                raise ValueError(f"categories are given for a {self.kind}; expected them for a {CATEGORY} only")
            return
        if not self.categories:
            raise ValueError("categories are missing; expected at least one")
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("a category appears twice; expected each once")
        if self.unknown == MISSING and not self.optional:
            raise ValueError(f"unknown is {MISSING}, but a value is required; expected an optional feature")
        if self.low is not None or self.high is not None or self.wide:
            raise ValueError(f"low, high or wide is given for a {CATEGORY}; expected them for numbers only")
        if self.example is not None and self.example not in range(len(self.categories)):
            raise ValueError(f"example is {short(self.example)}; expected the code of a category")

    @property
    def discrete(self) -> bool:
        """Whether only whole numbers within the limits are values, in rows: those of booleans and categories."""
        return self.kind != NUMBER

    @property
    def expected(self) -> str:
        """What a valid value is, in words."""
        if self.kind == BOOLEAN:
            return f"true or false{', or null' if self.optional else ''}"
        if self.kind == CATEGORY:
            return f"{self._some_categories()}{', or null' if self.optional else ''}"
        unit = f" {self.unit}" if self.unit else ""
        match self.low, self.high:
            case None, None:
                text = f"a number{' in' + unit if unit else ''}"
            case float() | int() as low, None:
                text = f"a number of at least {short(low)}{unit}"
            case None, float() | int() as high:
                text = f"a number of at most {short(high)}{unit}"
            case float() | int() as low, float() | int() as high:
                text = f"a number from {short(low)} to {short(high)}{unit}"
        return f"{text}, or null" if self.optional else text

    def _some_categories(self) -> str:
        names = ", ".join(values.shown(name, MAX_NAME) for name in self.categories[:MAX_SHOWN])
        many = len(self.categories) > MAX_SHOWN
        return f"one of {f'{len(self.categories)} texts, such as ' if many else ''}{names}"

    @property
    def limits(self) -> tuple[float, float]:
        """The enforced range, always finite, and so wide that a limit itself is allowed when it comes as float32."""
        if self.kind == BOOLEAN:
            return 0.0, 1.0
        if self.kind == CATEGORY:
            return 0.0, len(self.categories) - 1.0
        low = -LARGEST if self.low is None else max(self.low, -FLOAT32_MAX)
        high = LARGEST if self.high is None else min(self.high, FLOAT32_MAX)
        if max(low, -high) > LARGEST:
            return low, high  # nothing is in range
        return min(low, float(np.float32(low))), max(high, float(np.float32(high)))

    def allows(self, value: float) -> bool:
        """Whether a row may have this value; NaN is a missing one."""
        low, high = self.limits
        inside = low <= value <= high and (not self.discrete or value == math.floor(value))
        return inside or (self.optional and math.isnan(value))

    def shown(self, value: float) -> Any:
        """Return a value of a row as a caller would send it: a category's text, the fewest digits of a number."""
        if self.kind == CATEGORY:
            return self.categories[int(value)]
        if self.kind == BOOLEAN:
            return value >= 0.5
        return value if self.wide else float(str(np.float32(value)))

    @property
    def observed(self) -> str:
        """What training saw, to be put after other words; empty where that is not known, or said by the kind."""
        if self.observed_low is None or self.observed_high is None or self.kind == CATEGORY:
            return ""
        return f"; training saw {short(self.shown(self.observed_low))} to {short(self.shown(self.observed_high))}"

    @property
    def codes(self) -> dict[str | int, float]:
        """The code of each category, by its text; also by the integer that it is, where all of them are integers."""
        found: dict[str | int, float] = {name: float(code) for code, name in enumerate(self.categories)}
        if self.integers:
            found |= {int(name): float(code) for code, name in enumerate(self.categories)}
        return found

    @property
    def integers(self) -> bool:
        """Whether all categories are integers as text, so that JSON may have them as numbers too."""
        return bool(self.categories) and all(map(INTEGER.fullmatch, self.categories))

    def problem_with(self, value: Any, field: str) -> Problem:
        """Return what is wrong with a number, or a missing one, that `field` may not have."""
        number = as_float(value)
        expected = self.expected
        if type(value) is Constant:
            problem = f"is {value}"
        elif not math.isfinite(number):
            problem = "is missing" if math.isnan(number) else "is infinite"
        elif self.kind == CATEGORY:
            problem = f"{short(number)} is the code of no category"
            expected = f"a code from 0 to {len(self.categories) - 1}, of {self.expected}"
        else:
            problem = f"is {short(number)}" if self.kind == BOOLEAN else f"{short(number)} is out of range"
        return Problem(field, problem, expected)

    def problem_with_category(self, value: Any, field: str, *, suggest: bool) -> Problem:
        """Return what is wrong with a value that names no category; `suggest` which one may have been meant."""
        if value is None or type(value) is Constant:
            problem = "is missing" if value is None or value == NAN else f"is {value}"
            return Problem(field, problem, self.expected)
        if type(value) in (int, float) and self.integers:
            return Problem(field, f"{short(as_float(value))} is unknown", self.expected)
        if type(value) is not str:
            return Problem(field, f"is {kind_of(value)}", f"text: {self.expected}")
        close = self._closest(value) if suggest else None
        meant = "" if close is None else f"; did you mean {values.shown(close, MAX_NAME)}?"
        return Problem(field, f"{values.shown(value, MAX_NAME)} is unknown", f"{self.expected}{meant}")

    def _closest(self, text: str) -> str | None:
        """Return the category that a text was most probably meant to be.

        Compares with few that are about as long, so that a mistake costs little with a thousand categories too.
        """
        text = text.strip()
        if len(text) > MAX_CLOSE:
            return None
        folded = text.casefold()
        near = [name for name in self.categories if abs(len(name.strip()) - len(text)) <= CLOSE_LENGTH]
        near.sort(key=lambda name: name[:1].casefold() != folded[:1])
        compared = near[: MAX_COMPARED // max(len(text), 10) ** 2]
        same = [name for name in near if name.strip().casefold() == folded]
        return next(iter(same or difflib.get_close_matches(text, compared, n=1)), None)


class Codes:
    """The codes of a feature's categories, for values as callers send them."""

    def __init__(self, feature: Feature):
        self._codes: Mapping[Any, float] = feature.codes
        missing = dict.fromkeys((None, "", b""), math.nan)
        texts = {name: float(code) for code, name in enumerate(feature.categories)}
        # The codes of what tensors have: texts, and UTF-8.
        self.by_element: Mapping[Any, float] = missing | texts | {name.encode(): code for name, code in texts.items()}
        self._unknown_is_missing = feature.unknown == MISSING
        self._kinds = _NAMED if feature.integers else frozenset({str})

    def __call__(self, value: Any) -> float | None:
        """Return the code of a value; `None` where it is missing, or unknown and so missing. Raises `KeyError`."""
        if value is None:
            return None
        if type(value) not in self._kinds:  # true is equal to 1, and NaN of JSON to a text
            raise KeyError(value)
        found = self._codes.get(value)
        if found is None and not self._unknown_is_missing:
            raise KeyError(value)
        return self.stripped(value) if found is None and type(value) is str else found

    def stripped(self, text: str) -> float | None:
        """Return the code of a text without the spaces around it, as training reads it; `None` if it has none.

        Only for a feature that takes an unknown text for a missing value; others refuse it, and say which is meant.
        """
        return self._codes.get(text.strip())


@dataclass(frozen=True, slots=True)
class DefectClass:
    """One answer that the model can give, by its name: the label as text."""

    name: str
    description: str = ""

    def __post_init__(self) -> None:
        values.check_fields(self)
