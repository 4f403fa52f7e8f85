"""Outcomes, that is what turned out to be true of predictions: JSON bodies ↔ `Outcome` and `Stored`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args
from uuid import UUID

from defects.kinds import Label
from defects.problems import MAX_NAME, InvalidInput, Problem, kind_of
from defects.values import shown

MAX_OUTCOMES = 1024  # in one request
MAX_ROW = 2**31 - 1  # what the column holds
MAX_CLASS = 1000  # characters, as in a schema
SANE_ORIGIN = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}")
SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
# An id as answers have it, or as PostgreSQL shows it, in either case.
PREDICTION_ID = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII)
SINCE = "[1-9][0-9]{0,5}[mhd]"  # so many minutes, hours or days ago
DEFAULT_SINCE = "24h"
GROUPS = ("revision", "model", "source", "day")  # what a summary may be split by
FIELDS = ("prediction_id", "request_id", "row", "class", "origin", "occurred_at", "replace")
ID_EXPECTED, TIME_EXPECTED = "32 hexadecimal digits, as answers have them", "a time such as 2026-11-27T05:00:00Z"
DEFAULT_ORIGIN = "default"

Result = Literal["stored", "duplicate", "unknown", "conflict"]
RESULTS: tuple[Result, ...] = get_args(Result)


class Outcome(NamedTuple):
    """What turned out to be true of one prediction, which its id or its request's id and its row name.

    `label` is the class, as an answer has it, or its name. `replace`: it corrects what the same origin said before.
    """

    prediction_id: UUID | None
    request_id: str | None
    row: int | None
    label: Label
    origin: str
    occurred_at: datetime  # in UTC
    replace: bool


class Stored(NamedTuple):
    """What became of an outcome. Where it is a conflict, `label` is the class that the same origin gave before."""

    result: Result
    prediction_id: UUID | None = None
    label: Label | None = None

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"result": self.result}
        if self.prediction_id is not None:
            made["prediction_id"] = self.prediction_id.hex
        if self.result == "conflict":
            made["class"] = self.label
        return made


def decode(value: Any, now: datetime) -> tuple[list[Outcome], bool]:
    """Return the outcomes of a body, and whether it is a single one, not a list; raises `InvalidInput`.

    One that doesn't say when it occurred did so `now`.
    """
    single = type(value) is dict
    items = [value] if single else value
    if type(items) is not list or not 1 <= len(items) <= MAX_OUTCOMES:
        found = f"is a list of {len(items)}" if type(items) is list else f"is {kind_of(value)}"
        raise InvalidInput([Problem("body", found, f"an outcome, or a list of 1 to {MAX_OUTCOMES:,} of them")])
    problems: list[Problem] = []
    outcomes = [_outcome(item, now, place_of(number, single), problems) for number, item in enumerate(items)]
    if problems:
        raise InvalidInput(problems)
    return outcomes, single


def place_of(number: int, single: bool) -> str:
    """Return where a request has an outcome: nothing where it is the only one."""
    return "" if single else f"[{number}]"


def field_of(place: str, name: str) -> str:
    """Return how problems name a field of the outcome at a place."""
    return f"{place}.{name}" if place else name


def read_id(text: str) -> UUID | None:
    """Return an id of a prediction; `None` where it is none."""
    return UUID(text) if PREDICTION_ID.fullmatch(text) else None


def read_time(text: str) -> datetime | None:
    """Return a time as RFC 3339 has it, in UTC; `None` where it is none."""
    if not RFC_3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):  # such as February 30; or the year 0 in UTC
        return None


def _outcome(item: Any, now: datetime, place: str, problems: list[Problem]) -> Outcome:
    """Return one outcome; add what is wrong with it to `problems`, and it may be anything then."""
    if type(item) is not dict:
        problems.append(Problem(place or "body", f"is {kind_of(item)}", "an object"))
        item = {}
    else:
        problems += _of_fields(item, place)
    occurred = item.get("occurred_at")
    return Outcome(
        prediction_id=read_id(item["prediction_id"]) if type(item.get("prediction_id")) is str else None,
        request_id=item.get("request_id"),
        row=int(item["row"]) if _whole(item.get("row")) else None,
        label=item.get("class", ""),
        origin=item.get("origin", DEFAULT_ORIGIN),
        occurred_at=(read_time(occurred) if type(occurred) is str else None) or now,
        replace=item.get("replace", False) is True,
    )


def _of_fields(item: Mapping[str, Any], place: str) -> list[Problem]:
    """Return what is wrong with the fields of an outcome."""
    found = [
        Problem(field_of(place, name[:MAX_NAME]), "unknown field", f"one of {', '.join(FIELDS)}")
        for name in item
        if name not in FIELDS
    ]
    if "class" not in item:
        found.append(Problem(field_of(place, "class"), "is missing", "the class that turned out to be true"))
    if "prediction_id" in item:
        found += [
            Problem(field_of(place, name), "is given beside prediction_id", "prediction_id, or request_id and row")
            for name in ("request_id", "row")
            if name in item
        ]
    elif not {"request_id", "row"} <= item.keys():
        missing = "row" if "request_id" in item else "request_id" if "row" in item else "prediction_id"
        found.append(Problem(field_of(place, missing), "is missing", "prediction_id, or request_id and row"))
    for name, value in item.items():
        if name in _CHECKS and (problem := _CHECKS[name](value)):
            found.append(Problem(field_of(place, name), *problem))
    return found


def _check_text(pattern: re.Pattern[str], expected: str) -> Any:
    def check(value: Any) -> tuple[str, str] | None:
        if type(value) is not str:
            return f"is {kind_of(value)}", expected
        return None if pattern.fullmatch(value) else (f"is {shown(value)}", expected)

    return check


def _whole(value: Any) -> bool:
    """Whether a JSON value is an integer; 1.0 is one too."""
    return type(value) is int or (type(value) is float and value.is_integer())


def _check_row(value: Any) -> tuple[str, str] | None:
    if _whole(value) and 0 <= value <= MAX_ROW:
        return None
    found = f"is {value}"[:MAX_NAME] if type(value) in (int, float) else f"is {kind_of(value)}"
    return found, "the row's place in its request, from 0"


def _check_class(value: Any) -> tuple[str, str] | None:
    """Refuse what is no class of any model; which ones the prediction's model has is seen later."""
    if type(value) not in (str, int, float, bool):
        return f"is {kind_of(value)}", "a class, as answers have it"
    if type(value) is str and len(value) > MAX_CLASS:
        return f"is {shown(value)}", f"a class, of at most {MAX_CLASS:,} characters"
    return None


def _check_time(value: Any) -> tuple[str, str] | None:
    if type(value) is not str:
        return f"is {kind_of(value)}", TIME_EXPECTED
    return (f"is {shown(value)}", TIME_EXPECTED) if read_time(value) is None else None


def _check_flag(value: Any) -> tuple[str, str] | None:
    return None if type(value) is bool else (f"is {kind_of(value)}", "true or false")


_SANE = "of the characters A-Z a-z 0-9 . _ : / + = @ -"
_CHECKS = {
    "prediction_id": _check_text(PREDICTION_ID, ID_EXPECTED),
    "request_id": _check_text(SANE_REQUEST_ID, f"an id of 1 to 128 {_SANE}"),
    "row": _check_row,
    "class": _check_class,
    "origin": _check_text(SANE_ORIGIN, f"a name of 1 to 64 {_SANE}"),
    "occurred_at": _check_time,
    "replace": _check_flag,
}


def results(stored: Sequence[Stored], single: bool) -> Any:
    """Return what became of the outcomes of a request, as its answer has it."""
    return stored[0].to_json() if single else [one.to_json() for one in stored]
