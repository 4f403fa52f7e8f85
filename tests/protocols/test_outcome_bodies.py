"""Bodies with outcomes: what is read of them, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from defects.problems import InvalidInput
from defects.protocols import outcomes
from defects.protocols.outcomes import Outcome, Stored

ID = "019aa8e1c3f57a39b183f64ed287b956"
NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)
ONE = {"prediction_id": ID, "class": "ok"}
ROW = {"request_id": "r-1", "row": 3, "class": "ok"}


def test_an_outcome_is_read() -> None:
    assert outcomes.decode(ONE, NOW) == ([Outcome(UUID(ID), None, None, "ok", "default", NOW, replace=False)], True)
    given = ROW | {"class": 7, "origin": "audit", "occurred_at": "2026-11-27t06:30:00.25+02:00", "replace": True}
    occurred = datetime(2026, 11, 27, 4, 30, 0, 250_000, UTC)
    assert outcomes.decode([given], NOW) == ([Outcome(None, "r-1", 3, 7, "audit", occurred, replace=True)], False)


@pytest.mark.parametrize("text", [ID.upper(), str(UUID(ID)), str(UUID(ID)).upper()])
def test_an_id_may_have_dashes_and_capital_letters(text: str) -> None:
    assert outcomes.read_id(text) == UUID(ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ID[:-1],
        ID + "0",
        "g" * 32,
        f"{{{UUID(ID)}}}",
        f"urn:uuid:{UUID(ID)}",
        "٠" * 32,
        ID[:8] + "-" + ID[8:],
        ID + "\n",
    ],
)
def test_what_is_no_id(text: str) -> None:
    assert outcomes.read_id(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-11-27", "2026-11-27T05:00:00", "2026-11-27 05:00:00Z", "20261127T050000Z",
        "2026-W48-5T05:00:00Z",
        "2026-02-30T05:00:00Z", "2026-11-27T24:00:01Z", "2026-11-27T05:00:60Z", "2026-11-27T05:00:00+24:00",
        "0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00", "٢٠٢٦-11-27T05:00:00Z",
        "2026-11-27T05:00:00.Z", "2026-11-27T05:00:00Z\n",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    assert outcomes.read_time(text) is None
    with pytest.raises(InvalidInput) as refused:
        outcomes.decode(ONE | {"occurred_at": text}, NOW)
    assert [problem.field for problem in refused.value.problems] == ["occurred_at"]


def test_a_time_may_be_finer_than_microseconds() -> None:
    assert outcomes.read_time("2026-11-27T05:00:00.123456789Z") == NOW.replace(microsecond=123_456)


BAD: list[tuple[Any, list[str]]] = [
    (None, ["body"]), (5, ["body"]), ("x", ["body"]), ([], ["body"]), ([ONE] * 1_025, ["body"]),
    ([ONE, 5], ["[1]"]),
    ({}, ["class", "prediction_id"]), ({"class": "ok"}, ["prediction_id"]), ({"prediction_id": ID}, ["class"]),
    ({"request_id": "r", "class": "ok"}, ["row"]), ({"row": 0, "class": "ok"}, ["request_id"]),
    (ONE | {"row": 0}, ["row"]), (ONE | {"request_id": "r", "row": 0}, ["request_id", "row"]),
    (ONE | {"colour": 1}, ["colour"]), ([ONE, ONE | {"Class": "x"}], ["[1].Class"]),
    (ONE | {"prediction_id": 5}, ["prediction_id"]), (ONE | {"prediction_id": "x"}, ["prediction_id"]),
    (ONE | {"prediction_id": None}, ["prediction_id"]),
    (ROW | {"row": -1}, ["row"]), (ROW | {"row": 2**31}, ["row"]), (ROW | {"row": 1e300}, ["row"]),
    (ROW | {"row": 0.5}, ["row"]), (ROW | {"row": True}, ["row"]), (ROW | {"row": "0"}, ["row"]),
    (ROW | {"row": None}, ["row"]), (ROW | {"row": 2**64 - 1}, ["row"]),
    (ROW | {"request_id": ""}, ["request_id"]), (ROW | {"request_id": "a b"}, ["request_id"]),
    (ROW | {"request_id": "x" * 129}, ["request_id"]), (ROW | {"request_id": 7}, ["request_id"]),
    (ONE | {"class": None}, ["class"]), (ONE | {"class": ["ok"]}, ["class"]), (ONE | {"class": {}}, ["class"]),
    (ONE | {"class": "x" * 1_001}, ["class"]),
    (ONE | {"origin": ""}, ["origin"]), (ONE | {"origin": "ä"}, ["origin"]), (ONE | {"origin": "x" * 65}, ["origin"]),
    (ONE | {"origin": None}, ["origin"]), (ONE | {"occurred_at": 5}, ["occurred_at"]),
    (ONE | {"occurred_at": None}, ["occurred_at"]), (ONE | {"replace": 1}, ["replace"]),
    (ONE | {"replace": None}, ["replace"]),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fields"), BAD, ids=range(len(BAD)))
def test_what_is_wrong_is_named(body: Any, fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        outcomes.decode(body, NOW)
    assert sorted(problem.field for problem in refused.value.problems) == sorted(fields)


def test_an_integer_may_be_written_as_a_number() -> None:
    (outcome,), _ = outcomes.decode(ROW | {"row": 3.0}, NOW)
    assert outcome.row == 3
    assert type(outcome.row) is int


def test_answers() -> None:
    stored = [Stored("stored", UUID(ID)), Stored("unknown"), Stored("conflict", UUID(ID), label=False)]
    assert outcomes.results(stored, single=False) == [
        {"result": "stored", "prediction_id": ID},
        {"result": "unknown"},
        {"result": "conflict", "prediction_id": ID, "class": False},
    ]
    assert outcomes.results(stored[:1], single=True) == {"result": "stored", "prediction_id": ID}
