"""Training warns of what makes a model useless, by name, and does not warn where all is well."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import datasets

from conftest import quiet
from defects import simulator
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import pipeline, suspects
from defects.training.bootstrap import Bootstrap
from defects.training.dataset import Table
from defects.training.evaluation import HeldOut, evaluate
from defects.training.findings import Finding, of_model
from defects.training.options import Recipe

Floats = NDArray[np.float64]


def schema(columns: int, classes: int = 2, **features: Feature) -> Schema:
    named = tuple(features.get(f"x{i}", Feature(f"x{i}")) for i in range(columns))
    return Schema(named, tuple(DefectClass(f"class {i}") for i in range(classes)))


def of_table(rows: Any, labels: Any, **features: Feature) -> list[Finding]:
    rows = np.asarray(rows, np.float64)
    order = np.random.default_rng(0).permutation(len(labels))
    cut = len(labels) * 4 // 5
    made = schema(rows.shape[1], int(labels.max()) + 1, **features)
    return suspects.of_table(made, rows, labels, order[:cut], order[cut:])


def kinds(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.name) for finding in found]


def noise(rows: int, columns: int = 4) -> tuple[Floats, NDArray[np.int64]]:
    random = np.random.default_rng(0)
    return random.normal(size=(rows, columns)), random.integers(2, size=rows)


# --- leaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits"])
def test_easy_data_has_no_leak(name: str) -> None:
    data = getattr(datasets, f"load_{name}")()
    found = of_table(data.data, data.target)
    assert [finding.text for finding in found if finding.kind in ("leakage", "identifier")] == []


def test_the_built_in_data_has_nothing_suspicious() -> None:
    scans = simulator.Tunnel(seed=0).scans(3_000)
    parts = np.split(np.arange(3_000), [2_400])
    assert suspects.of_table(simulator.SCHEMA, scans.features.astype(np.float64), scans.labels, *parts) == []


def test_a_copy_of_the_answer_is_a_leak() -> None:
    rows, labels = noise(300)
    rows[:, 2] = labels * 10 + 3
    (found,) = of_table(rows, labels)
    assert (found.kind, found.name) == ("leakage", "x2")
    assert "column 'x2' alone gives 100 % of the answers" in found.text


def test_two_copies_are_two_leaks() -> None:
    rows, labels = noise(300)
    rows[:, 0], rows[:, 3] = labels, -labels
    assert kinds(of_table(rows, labels)) == [("leakage", "x0"), ("leakage", "x3")]


def test_what_is_known_afterwards_is_a_leak_though_not_a_perfect_one() -> None:
    """Such as the lifeboat of the people who were saved: a few were saved without, a few died in one."""
    random = np.random.default_rng(0)
    rows, labels = noise(1_300)
    labels = (rows[:, 0] + random.normal(size=1_300) > 0.4).astype(np.int64)  # the others say something too
    boat = np.where(labels == 1, random.integers(1, 20, 1_300).astype(float), np.nan)
    changed = random.random(1_300) < 0.02
    boat[changed & (labels == 1)] = np.nan
    boat[changed & (labels == 0)] = 5
    (found,) = of_table(np.column_stack([rows, boat]), labels)
    assert (found.kind, found.name) == ("leakage", "x4")
    assert "alone gives 9" in found.text


def test_a_leak_is_seen_where_one_class_is_rare() -> None:
    rows, _ = noise(4_000)
    labels = (np.random.default_rng(1).random(4_000) < 0.01).astype(np.int64)
    rows[:, 1] += 20 * labels
    assert kinds(of_table(rows, labels)) == [("leakage", "x1")]
    assert of_table(noise(4_000)[0], labels) == []


def test_no_column_is_a_leak_where_no_row_of_the_rare_class_is_looked_at() -> None:
    rows, labels = noise(60_000, 2)
    labels[:] = 0
    labels[:3] = 1
    assert suspects.leaks(schema(2), rows, labels) == []


def test_values_that_32_bits_do_not_tell_apart_leak_too() -> None:
    rows, labels = noise(300)
    rows[:, 0] = 1.7e15 + labels
    assert ("leakage", "x0") in kinds(of_table(rows, labels))


# --- identifiers, constants, duplicates ------------------------------------------------------------------------------


def test_identifiers_are_named() -> None:
    rows, labels = noise(200)
    random = np.random.default_rng(0)
    rows[:, 0] = np.arange(200)
    rows[:, 1] = random.permutation(200) + 5_000
    rows[:, 2] = np.cumsum(random.random(200))
    found = of_table(rows, labels)
    assert kinds(found) == [("identifier", "x0"), ("identifier", "x1"), ("identifier", "x2")]
    assert "'x0' rises from each row to the next" in found[0].text
    assert "'x1' has another whole number in every row" in found[1].text
    assert "--ignore x1" in found[1].text


def test_whole_numbers_that_are_measured_are_no_identifiers() -> None:
    rows, labels = noise(200)
    random = np.random.default_rng(0)
    rows[:, 0] = random.permutation(1_000_000)[:200]  # all different, by chance
    rows[:, 1] = random.integers(60, size=200)
    assert of_table(rows, labels) == []
    named = of_table(rows, labels, x0=Feature("customer_id"))
    assert kinds(named) == [("identifier", "customer_id")]


def test_a_category_that_nearly_every_row_has_for_itself_is_an_identifier() -> None:
    rows, labels = noise(60)
    rows[:, 0] = np.arange(60) % 50
    texts = Feature("ticket", kind="category", categories=tuple(f"t{i:02}" for i in range(50)))
    assert kinds(of_table(rows, labels, x0=texts)) == [("identifier", "ticket")]


def test_constant_columns_are_named() -> None:
    rows, labels = noise(100)
    rows[:, 1] = 7
    rows[:, 2] = np.where(np.arange(100) % 3, 7, np.nan)  # whether it is missing may say something
    assert kinds(of_table(rows, labels)) == [("constant", "x1")]


def test_rows_on_both_sides_are_counted() -> None:
    rows, labels = noise(400)
    rows[200:], labels[200:] = rows[:200], labels[:200]
    rows[250, 1] = rows[50, 1] = np.nan
    labels[300] = 1 - labels[300]
    order = np.arange(400)
    (found,) = suspects.duplicates(rows, labels, order[:300], order[300:])
    assert found.text.startswith("100 of 100 held-out rows have the same features as a row that was fitted on, 99 of")
    assert suspects.duplicates(rows, labels, order[:200], order[200:220])[0].text.startswith("20 of 20 ")
    assert suspects.duplicates(*noise(400), order[:200], order[200:]) == []


def test_columns_of_few_values_repeat_by_nature() -> None:
    rows = np.random.default_rng(0).integers(4, size=(500, 3)).astype(np.float64)
    labels = np.arange(500) % 2
    assert suspects.duplicates(rows, labels, np.arange(400), np.arange(400, 500)) == []


# --- models ----------------------------------------------------------------------------------------------------------


def judged(labels: NDArray[np.int64], probabilities: Floats, shares: list[float], **more: Any) -> list[Finding]:
    names = [f"class {i}" for i in range(len(shares))]
    held = HeldOut(labels, names, np.array(shares), Bootstrap(labels, len(shares), 0))
    return of_model(held, probabilities, evaluate(held, probabilities), **more)


def test_a_class_that_is_never_predicted_and_one_of_few_rows_are_named() -> None:
    labels = np.array([0] * 50 + [1] * 40 + [2] * 5)
    probabilities = np.where(np.eye(3)[labels] == 1, 0.8, 0.1)
    probabilities[labels == 2] = [0.8, 0.1, 0.1]
    found = judged(labels, probabilities, [0.5, 0.4, 0.1])
    assert kinds(found) == [("never_predicted", "class 2"), ("few_rows", "class 2")]
    assert "5 held-out rows, fewer than 30" in found[1].text


def test_a_model_that_is_better_than_the_majority_is_not_said_to_be_worse() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(3_000) < 0.05).astype(np.int64)
    second = np.clip(0.02 + 0.3 * labels + 0.02 * random.normal(size=3_000), 0.001, 0.999)
    found = judged(labels, np.column_stack([1 - second, second]), [0.95, 0.05])
    assert kinds(found) == [("never_predicted", "class 1"), ("imbalance", "class 0")]


def test_accuracy_below_the_majority_is_said_though_log_loss_is_better() -> None:
    labels = np.array([0] * 900 + [1] * 100)
    second = np.where(labels, 0.9, 0.1)
    second[:150] = 0.55
    found = judged(labels, np.column_stack([1 - second, second]), [0.9, 0.1])
    assert kinds(found)[0] == ("no_better", "class 0")
    assert "worse than" in found[0].text


@pytest.mark.parametrize("estimator", ["hist-gradient-boosting", "logistic-regression"])
def test_a_useless_model_is_said_to_be_worse_than_the_majority(estimator: str) -> None:
    """0.35 % of the rows are positive, and nothing tells which: accuracy is 99.6 %, and means nothing."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(4_000, 4)).astype(np.float32)
    labels = (random.random(4_000) < 0.0035).astype(np.int64)
    card = pipeline.train(Table(rows, labels, schema(4), {"source": "made.csv"}), Recipe(estimator), quiet).card
    assert card["metrics"]["accuracy"] > 0.99
    first = card["warnings"][0]
    assert first["kind"] == "no_better"
    assert first["text"].startswith("the model is worse than always answering 'class 0', the majority")
    assert ("imbalance", "class 0") in [(finding["kind"], finding["name"]) for finding in card["warnings"]]
