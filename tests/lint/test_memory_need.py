"""What a replica can need of memory, by its settings."""

from __future__ import annotations

import pytest

from defects.lint import memory
from defects.replica import limits
from defects.serving.model import MAX_ROWS, ServedModel
from defects.settings import Settings
from defects.simulator import SCHEMA

MODEL = ServedModel(SCHEMA, "m", "1", "none", {})


def needed(**settings: object) -> memory.MemoryNeed:
    return memory.need(Settings.from_environment({name: str(value) for name, value in settings.items()}))


@pytest.mark.parametrize("given", [{}, {"DEFECTS_MAX_BODY_BYTES": 10**9}, {"DEFECTS_MAX_BODIES_BYTES": 10**9}])
def test_bodies_need_more_than_the_server_lets_in(given: dict[str, object]) -> None:
    bound = limits(Settings.from_environment({name: str(value) for name, value in given.items()}), MODEL).bodies_bytes
    assert bound < needed(**given).bodies < 2 * bound


def test_each_bound_is_in_the_need() -> None:
    usual = needed()
    assert usual.total == sum(usual)
    more = {
        "rows": needed(DEFECTS_MAX_QUEUED_ROWS=1_000_000),
        "bodies": needed(DEFECTS_MAX_BODIES_BYTES=10**9),
        "decoding": needed(DEFECTS_MAX_BODY_BYTES=10_000_000),
        "connections": needed(DEFECTS_MAX_CONNECTIONS=100_000),
    }
    for part, found in more.items():
        changed = {name for name in usual._fields if getattr(found, name) != getattr(usual, name)}
        assert changed == {part}
        assert getattr(found, part) > getattr(usual, part)


def test_rows_need_what_they_are_held_in() -> None:
    rows = needed(DEFECTS_MAX_QUEUED_ROWS=MAX_ROWS).rows
    held = SCHEMA.held(SCHEMA.rows_from_objects([SCHEMA.example] * MAX_ROWS))
    assert rows > held.nbytes + held.shape[0] * held.shape[1] * 8


def test_it_says_what_needs_how_much() -> None:
    assert "127 MB process" in str(needed())
