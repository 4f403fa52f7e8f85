"""Identifiers are UUIDs of version 7, and sort by when they were made."""

from __future__ import annotations

import random
import time
import uuid
from itertools import islice

import pytest

from defects.identifiers import FIRST, identifiers, new_id

MILLISECOND = 1_000_000


def test_they_are_uuids_of_version_7_with_the_time_before_all() -> None:
    before = time.time_ns() // MILLISECOND
    names = [new_id() for _ in range(10_000)]
    after = time.time_ns() // MILLISECOND
    for name in names:
        assert len(name) == 32
        assert name == name.lower()
        read = uuid.UUID(name)
        assert (read.version, read.variant) == (7, uuid.RFC_4122)
        assert before <= int(name[:12], 16) <= after
    assert names == sorted({*names})


def test_they_sort_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    chance = random.Random(3)
    times = [5_000 * MILLISECOND + chance.randrange(-50, 50) * MILLISECOND // 7 for _ in range(20_000)]
    names = list(islice(identifiers(iter(times).__next__), len(times)))
    assert names == sorted({*names})
    assert max(int(name[:12], 16) for name in names) == max(times) // MILLISECOND


def test_they_sort_when_a_millisecond_has_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "f" * 2 * size)  # the counter begins as high as it may
    monkeypatch.setattr("defects.identifiers.LAST", FIRST + 2**29 + 1)
    names = list(islice(identifiers(lambda: 7 * MILLISECOND), 7))
    assert names == sorted({*names})
    assert [int(name[:12], 16) for name in names] == [7, 7, 7, 8, 8, 8, 9]
    assert {(uuid.UUID(name).version, uuid.UUID(name).variant) for name in names} == {(7, uuid.RFC_4122)}


def test_two_processes_do_not_make_the_same() -> None:
    one, two = (set(islice(identifiers(lambda: MILLISECOND), 1000)) for _ in range(2))
    assert not one & two
