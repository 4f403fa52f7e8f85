"""Rows are split as they will be met: by class, by group, by time; and what can't be split is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training.dataset import BadData, Table
from defects.training.splitting import split, splits

RANDOM = np.random.default_rng(0)
LABELS = RANDOM.choice(3, 400, p=[0.6, 0.3, 0.1])
GROUPS = RANDOM.integers(40, size=400)
TIMES = np.sort(RANDOM.integers(100, size=400)).astype(np.float64)[RANDOM.permutation(400)]


def table(labels: NDArray[np.int64] = LABELS, **more: Any) -> Table:
    schema = Schema((Feature("x"),), tuple(DefectClass(name) for name in ("good", "bad", "ugly")))
    source = {"source": "made.csv", "group": "machine", "time": "when"}
    return Table(np.arange(len(labels), dtype=np.float32)[:, np.newaxis], labels, schema, source, **more)


def test_every_row_is_in_one_part() -> None:
    for more in ({}, {"groups": GROUPS}, {"times": TIMES}):
        parts = split(table(**more), 0.25, 1)
        assert sorted([*parts.fitted, *parts.held]) == list(range(400))
        assert len(parts.held) / 400 == pytest.approx(0.25, abs=0.04)
        assert parts.to_json()["held_out_rows"] + parts.to_json()["fitted_rows"] == 400
        assert set(LABELS[parts.held]) == set(LABELS[parts.fitted]) == {0, 1, 2}


def test_groups_stay_whole_and_classes_keep_their_shares() -> None:
    parts = split(table(groups=GROUPS), 0.25, 1)
    assert not set(GROUPS[parts.held]) & set(GROUPS[parts.fitted])
    assert np.bincount(LABELS[parts.held]) / len(parts.held) == pytest.approx([0.6, 0.3, 0.1], abs=0.07)
    assert parts.to_json()["how"] == "group"
    assert parts.to_json()["column"] == "machine"
    again = split(table(groups=GROUPS), 0.25, 1)
    assert again.held.tolist() == parts.held.tolist() != split(table(groups=GROUPS), 0.25, 2).held.tolist()


def test_a_class_of_two_groups_is_on_both_sides() -> None:
    """At random, it is so in a third of the cases; of ten such classes, never."""
    labels = np.concatenate([np.zeros(400, np.int64), np.repeat(np.arange(1, 11), 2)])
    groups = np.concatenate([np.arange(400) % 80, 100 + np.arange(20)])
    schema = Schema((Feature("x"),), tuple(DefectClass(f"c{i}") for i in range(11)))
    data = Table(np.zeros((420, 1), np.float32), labels, schema, {"source": "made.csv"}, groups=groups)
    parts = split(data, 0.2, 0)
    assert set(labels[parts.held]) == set(labels[parts.fitted]) == set(range(11))
    assert len(parts.held) / 420 == pytest.approx(0.2, abs=0.05)


def test_the_newest_rows_are_held_out_and_ties_stay_together() -> None:
    parts = split(table(times=TIMES), 0.25, 1)
    assert TIMES[parts.held].min() > TIMES[parts.fitted].max()
    assert parts.to_json()["how"] == "time"


ONE_GROUP = np.where(LABELS == 2, 7, GROUPS)
SORTED = np.sort(LABELS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(groups=ONE_GROUP), "--group machine: class 'ugly' is in one group only"),
        (table(groups=np.zeros(400, np.int64)), "--group machine: .*one group"),
        (table(times=np.zeros(400)), "--time when: has one time for all rows"),
        (table(SORTED, times=np.arange(400.0)), "--time when: class 'ugly' is among the newest rows only"),
        (
            table(np.where(np.arange(400) < 300, LABELS, LABELS % 2), times=np.arange(400.0)),
            "--time when: class 'ugly' is not among the newest rows",
        ),
        (table(groups=GROUPS, times=TIMES), "--group and --time: expected one of them"),
    ],
)
def test_what_can_not_be_split_is_named(data: Table, message: str) -> None:
    with pytest.raises(BadData, match=message):
        split(data, 0.2, 0)


def test_folds_test_each_row_once_and_keep_groups() -> None:
    for groups in (None, GROUPS):
        tested: list[int] = []
        for fitted, held in splits(table(groups=groups), 5, 0):
            assert sorted([*fitted, *held]) == list(range(400))
            assert groups is None or not set(groups[held]) & set(groups[fitted])
            tested += held.tolist()
        assert sorted(tested) == list(range(400))


def test_folds_by_time_test_what_follows() -> None:
    found = list(splits(table(times=TIMES), 5, 0))
    assert len(found) == 5
    for fitted, held in found:
        assert TIMES[held].min() > TIMES[fitted].max()
        assert len(held) == pytest.approx(400 / 6, abs=15)
    assert [len(fitted) for fitted, _ in found] == sorted(len(fitted) for fitted, _ in found)


def test_too_many_folds_are_refused() -> None:
    few = np.array([0] * 20 + [1] * 20 + [2] * 3)
    with pytest.raises(BadData, match="--cv 5: the rarest class has fewer rows than there are folds"):
        list(splits(table(few), 5, 0))
    with pytest.raises(BadData, match="--cv 5: has 3 different times"):
        list(splits(table(times=TIMES // 40), 5, 0))
