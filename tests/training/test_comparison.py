"""A candidate passes where it is shown to be no worse than the champion, and is refused with a reason elsewhere."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from defects.training.bootstrap import Answers, Bootstrap
from defects.training.comparison import compare, mcnemar
from defects.training.evaluation import HeldOut

Floats = NDArray[np.float64]
NAMES = ["good", "bad", "ugly"]


def held_out(rows: int = 600, groups: Any = None) -> HeldOut:
    labels = np.random.default_rng(0).choice(3, rows, p=[0.5, 0.3, 0.2])
    return HeldOut(labels, NAMES, np.array([0.5, 0.3, 0.2]), Bootstrap(labels, 3, 0, groups))


def model(held: HeldOut, right: float, seed: int = 1, confidence: float = 0.8) -> Floats:
    """Make a model that is right on so large a share of the rows, and as sure of its errors."""
    random = np.random.default_rng(seed)
    other = (held.labels + random.integers(1, 3, len(held.labels))) % 3
    said = np.where(random.random(len(held.labels)) < right, held.labels, other)
    return np.where(np.eye(3)[said] == 1, confidence, (1 - confidence) / 2)


def test_the_same_model_passes_without_a_margin() -> None:
    held = held_out()
    answers = model(held, 0.8)
    found = compare(held, answers, answers, 0.0)
    assert found["passed"]
    assert found["mcnemar"] == {"only_candidate": 0, "only_champion": 0, "p": 1.0}
    assert {scores["verdict"] for scores in found["classes"].values()} == {"no worse"}


def test_a_better_model_passes_and_the_worse_one_does_not() -> None:
    held = held_out()
    good, bad = model(held, 0.9), model(held, 0.7, seed=2)
    assert compare(held, good, bad, 0.0)["passed"]
    found = compare(held, bad, good, 0.02)
    assert not found["passed"]
    assert [reason.partition(":")[0] for reason in found["reasons"][:3]] == [
        "worse in log loss",
        "worse in macro-F1",
        "worse in accuracy",
    ]
    assert any(reason.startswith("worse in class 'good': recall") for reason in found["reasons"])


def test_overconfidence_is_worse_though_every_class_is_the_same() -> None:
    held = held_out()
    found = compare(held, model(held, 0.8, confidence=0.999), model(held, 0.8), 0.02)
    assert [reason.partition(":")[0] for reason in found["reasons"]] == ["worse in log loss"]
    assert found["macro_f1"]["difference"] == 0


def test_one_class_that_is_worse_is_enough() -> None:
    """Better overall, but a class of one row in fifty is given up."""
    labels = np.array([0] * 600 + [1] * 600 + [2] * 40)
    held = HeldOut(labels, NAMES, np.array([0.48, 0.48, 0.04]), Bootstrap(labels, 3, 0))
    champion = model(held, 0.7)
    champion[labels == 2] = [0.1, 0.1, 0.8]
    candidate = model(held, 0.97, seed=2)
    candidate[labels == 2] = [0.45, 0.3, 0.25]
    found = compare(held, candidate, champion, 0.5)
    assert found["log_loss"]["high"] < 0
    assert [reason.partition(":")[0] for reason in found["reasons"]] == ["worse in class 'ugly'"]
    assert found["classes"]["ugly"]["verdict"] == "worse"
    assert found["classes"]["good"]["verdict"] == "no worse"


def test_what_few_rows_can_not_show_does_not_pass() -> None:
    held = held_out(60)
    found = compare(held, model(held, 0.8, seed=3), model(held, 0.8, seed=4), 0.02)
    assert not found["passed"]
    assert found["reasons"][0].startswith("undecided in ")
    tiny = held_out(20)
    same = compare(tiny, model(tiny, 1.0), model(tiny, 1.0), 0.02)
    assert same["reasons"] == ["undecided: 20 held-out rows show nothing; expected at least 30 rows"]


def test_equal_models_pass_with_a_margin_and_enough_rows_and_a_rare_class_is_said_to_be_undecided() -> None:
    labels = np.array([0] * 4_000 + [1] * 4_000 + [2] * 20)
    held = HeldOut(labels, NAMES, np.array([0.4, 0.4, 0.2]), Bootstrap(labels, 3, 0))
    candidate, champion = model(held, 0.9, seed=3), model(held, 0.9, seed=4)
    candidate[labels == 2] = champion[labels == 2]
    found = compare(held, candidate, champion, 0.1)
    assert found["passed"], found["reasons"]
    assert found["undecided"] == ["ugly"]


def test_groups_decide_and_not_their_rows() -> None:
    """Eight patients with a hundred rows each are eight, not eight hundred."""
    groups = np.arange(800) % 8
    held = held_out(800, groups)
    answers = model(held, 0.8)
    assert compare(held, answers, answers, 0.0)["reasons"] == [
        "undecided: 800 held-out rows in 8 groups show nothing; expected at least 30 rows in 10 groups"
    ]


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (3, 3), (1, 9), (12, 4), (0, 5)])
def test_mcnemars_test_is_the_exact_one(ours: int, theirs: int) -> None:
    labels = np.zeros(40, np.int64)
    one, other = np.zeros(40, np.int64), np.zeros(40, np.int64)
    other[:ours] = 1
    one[ours : ours + theirs] = 1
    found = mcnemar(labels, Answers(one, np.zeros(40)), Answers(other, np.zeros(40)))
    both, fewest = ours + theirs, min(ours, theirs)
    tail = sum(comb(both, i) for i in range(fewest + 1)) / 2**both
    assert found == {"only_candidate": ours, "only_champion": theirs, "p": pytest.approx(min(1.0, 2 * tail))}


def test_few_equal_candidates_are_refused_and_nearly_all_worse_ones_are() -> None:
    """Over seeds: equal models with a margin pass nearly always; models that are worse by twice the margin never."""
    held = held_out(3_000)
    passed = {0.85: 0, 0.75: 0}
    for seed in range(6):
        champion = model(held, 0.85, seed=100 + seed)
        for right in passed:
            passed[right] += compare(held, model(held, right, seed=200 + seed), champion, 0.05)["passed"]
    assert passed[0.85] >= 5
    assert passed[0.75] == 0
