"""What training says of a model's quality: metrics, intervals, importances and cross-validation."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from conftest import quiet
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import cross_validation, pipeline
from defects.training.bootstrap import Answers, Bootstrap, total
from defects.training.dataset import BadData, Table
from defects.training.estimators import ESTIMATORS
from defects.training.evaluation import HeldOut, calibration_error, evaluate, reliability
from defects.training.fitting import checked, fit, row_weights
from defects.training.importances import MAX_FEATURES, importances
from defects.training.options import Recipe

Floats = NDArray[np.float64]


def answered(rows: int, classes: int, known: float = 0.3) -> tuple[NDArray[np.int64], Floats]:
    """Make labels, and probabilities that are right rather often."""
    random = np.random.default_rng(0)
    labels = random.choice(classes, rows, p=np.arange(classes, 0, -1) / sum(range(1, classes + 1)))
    probabilities = random.dirichlet(np.ones(classes), rows)
    probabilities[np.arange(rows), labels] += known
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def held_out(labels: NDArray[np.int64], classes: int, groups: Any = None) -> HeldOut:
    shares = np.bincount(labels, minlength=classes) / len(labels)
    return HeldOut(labels, [f"class {i}" for i in range(classes)], shares, Bootstrap(labels, classes, 0, groups))


def table(features: Floats, labels: NDArray[np.int64], **more: Any) -> Table:
    schema = Schema(
        tuple(Feature(f"x{i}") for i in range(features.shape[1])),
        tuple(DefectClass(f"class {i}") for i in range(int(labels.max()) + 1)),
    )
    return Table(features.astype(np.float32), labels, schema, {"source": "made.csv", "rows": len(labels)}, **more)


def of_sklearn(labels: Any, probabilities: Floats) -> dict[str, float]:
    predicted, classes = probabilities.argmax(axis=1), np.arange(probabilities.shape[1])
    return {
        "accuracy": metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, predicted),
        "macro_f1": metrics.f1_score(labels, predicted, average="macro"),
        "log_loss": metrics.log_loss(labels, probabilities, labels=classes),
    }


def plainly(labels: NDArray[np.int64], probabilities: Floats) -> dict[str, float]:
    """Return the metrics of few rows, class by class; scikit-learn takes a minute for a thousand resamples."""
    predicted = probabilities.argmax(axis=1)
    right, classes = predicted == labels, range(probabilities.shape[1])
    counts = [((labels == i).sum(), (predicted == i).sum(), (right & (labels == i)).sum()) for i in classes]
    return {
        "accuracy": right.mean(),
        "balanced_accuracy": float(np.mean([both / true for true, _, both in counts])),
        "macro_f1": float(np.mean([2 * both / (true + said) for true, said, both in counts])),
        "log_loss": -np.log(probabilities[np.arange(len(labels)), labels]).mean(),
    }


def test_metrics_are_those_of_scikit_learn() -> None:
    labels, probabilities = answered(500, 4)
    found = evaluate(held_out(labels, 4), probabilities)
    predicted = probabilities.argmax(axis=1)
    assert {name: found[name] for name in of_sklearn(labels, probabilities)} == pytest.approx(
        of_sklearn(labels, probabilities)
    )
    assert found["confusion"] == metrics.confusion_matrix(labels, predicted).tolist()
    each = metrics.precision_recall_fscore_support(labels, predicted)
    assert [c["f1"] for c in found["classes"].values()] == pytest.approx(each[2])
    assert [c["predicted"] for c in found["classes"].values()] == np.bincount(predicted).tolist()
    prior = DummyClassifier().fit(labels[:, np.newaxis], labels).predict_proba(labels[:, np.newaxis])
    assert {k: v for k, v in found["baseline"].items() if k != "class"} == pytest.approx(of_sklearn(labels, prior))
    counts = [sum(scores["right"]) + sum(scores["wrong"]) for scores in found["scores"].values()]
    assert counts == np.bincount(labels).tolist()


def test_intervals_are_those_of_rows_that_are_drawn_again() -> None:
    labels, probabilities = answered(300, 3)
    found = evaluate(held_out(labels, 3), probabilities)["intervals"]
    random = np.random.default_rng(1)
    drawn = [random.integers(300, size=300) for _ in range(1000)]
    plain = [plainly(labels[rows], probabilities[rows]) for rows in drawn]
    for name, (low, high) in found.items():
        expected = np.quantile([one[name] for one in plain], [0.025, 0.975])
        assert [low, high] == pytest.approx(expected, abs=0.15 * (expected[1] - expected[0])), name


def test_groups_are_drawn_whole() -> None:
    """Each row stands there ten times: that is no more to go by than having it once."""
    labels, probabilities = answered(200, 3)
    ten = np.repeat(np.arange(200), 10)
    once = evaluate(held_out(labels, 3), probabilities)["intervals"]["accuracy"]
    rows = evaluate(held_out(labels[ten], 3), probabilities[ten])["intervals"]["accuracy"]
    groups = evaluate(held_out(labels[ten], 3, groups=ten), probabilities[ten])["intervals"]["accuracy"]
    assert np.ptp(groups) == pytest.approx(np.ptp(once), rel=0.2)
    assert np.ptp(rows) < np.ptp(once) / 2


def test_a_model_without_an_error_is_not_certain_to_make_none() -> None:
    labels = np.repeat(np.arange(3), 10)
    found = evaluate(held_out(labels, 3), np.eye(3)[labels])["intervals"]
    assert found["accuracy"] == pytest.approx([0.025 ** (1 / 30), 1.0])  # Clopper and Pearson's
    assert found["macro_f1"][0] <= found["accuracy"][0]


def test_many_rows_and_classes_need_little_memory() -> None:
    labels, probabilities = answered(30_000, 50, 0.03)
    tracemalloc.start()
    found = evaluate(held_out(labels, 50), probabilities)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6  # 1,000 resamples of all rows and classes would be 12,000 MB
    width = np.ptp(found["intervals"]["accuracy"])
    share = found["accuracy"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 30_000), rel=0.2)


def test_reliability_is_what_it_says() -> None:
    probabilities = np.array([[0.95, 0.05], [0.92, 0.08], [0.3, 0.7], [0.35, 0.65], [1.0, 0.0]])
    bins = reliability(np.array([0, 1, 1, 0, 0]), probabilities)
    assert [(found["low"], found["rows"]) for found in bins] == [
        (pytest.approx(0.6), 1),
        (pytest.approx(0.7), 1),
        (0.9, 3),
    ]
    assert bins[2]["confidence"] == pytest.approx((0.95 + 0.92 + 1) / 3)
    assert bins[2]["accuracy"] == pytest.approx(2 / 3)
    assert calibration_error(bins) == pytest.approx((0.65 + 0.3 + 3 * abs(2.87 / 3 - 2 / 3)) / 5)


def test_importances_tell_signal_from_noise() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(800, 4))
    labels = (rows[:, 2] + 0.3 * rows[:, 1] > 0).astype(np.int64)
    model = LogisticRegression().fit(rows, labels)
    found = importances(model.predict_proba, rows, labels, ("a", "b", "c", "d"), seed=0)
    assert [feature["feature"] for feature in found[:2]] == ["c", "b"]
    assert found[0]["mean"] > 1
    assert all(abs(feature["mean"]) < 0.05 for feature in found[2:])
    assert found == importances(model.predict_proba, rows, labels, ("a", "b", "c", "d"), seed=0)


def test_importances_of_many_features_are_bounded() -> None:
    asked = 0

    def predict(rows: Floats) -> Floats:
        nonlocal asked
        asked += len(rows)
        return np.full((len(rows), 2), 0.5)

    rows, labels = np.zeros((5_000, MAX_FEATURES)), np.zeros(5_000, np.int64)
    assert len(importances(predict, rows, labels, tuple(map(str, range(MAX_FEATURES))), 0)) == MAX_FEATURES
    assert asked < 150_000
    assert importances(predict, np.zeros((9, 201)), labels[:9], tuple(map(str, range(201))), 0) == []


def test_cross_validation_is_corrected_for_the_rows_that_folds_share() -> None:
    found = cross_validation.corrected([1.0, 2.0, 3.0], tested_to_fitted=0.5)
    half = 4.302653 * np.sqrt((1 / 3 + 0.5) * 1.0)  # Student's t with 2 degrees of freedom
    assert found == {
        "mean": 2.0,
        "low": pytest.approx(2 - half),
        "high": pytest.approx(2 + half),
        "values": [1.0, 2.0, 3.0],
    }


def test_cross_validation_knows_what_a_share_is() -> None:
    labels = np.repeat([0, 1], 20)
    right = iter([1.0, 1.0, 0.0])  # of the three folds

    def answer(_: Any, tested: Any) -> Floats:
        share = next(right)
        answered: Floats = np.eye(2)[labels[tested]] * share + np.eye(2)[1 - labels[tested]] * (1 - share)
        return answered

    splits = [(np.arange(40), np.arange(40))] * 3
    accuracy = cross_validation.cross_validate(answer, labels, splits)["metrics"]["accuracy"]
    assert (accuracy["low"], accuracy["high"], accuracy["values"]) == (0.0, 1.0, [1.0, 1.0, 0.0])


def test_cross_validation_fits_the_same_estimator_and_changes_no_model() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 3))
    data = table(rows, (rows[:, 0] + random.normal(size=300) > 0).astype(np.int64))
    plain = pipeline.train(data, Recipe("logistic-regression", 0, 0.2), quiet)
    found = pipeline.train(data, Recipe("logistic-regression", 0, 0.2, folds=5), quiet)
    assert found.files["model.onnx"] == plain.files["model.onnx"]
    assert "cross_validation" not in plain.card
    validated = found.card["cross_validation"]
    assert validated["folds"] == 5 == len(validated["metrics"]["log_loss"]["values"])
    accuracy = validated["metrics"]["accuracy"]
    assert accuracy["low"] < accuracy["mean"] < accuracy["high"]
    assert abs(accuracy["mean"] - found.card["metrics"]["accuracy"]) < 0.15


def test_rows_count_as_much_as_they_weigh() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 2))
    labels = (rows.sum(axis=1) + random.normal(size=400) > 1.5).astype(np.int64)
    plain, heavy = (
        pipeline.train(table(rows, labels, weights=weights), Recipe("logistic-regression", 0, 0.3), quiet).card[
            "metrics"
        ]
        for weights in (None, np.where(labels, 9.0, 1.0))
    )
    assert heavy["classes"]["class 1"]["predicted"] > 1.5 * plain["classes"]["class 1"]["predicted"]
    assert heavy["baseline"] == plain["baseline"]  # held-out rows count alike


@pytest.mark.parametrize("name", ["hist-gradient-boosting", "logistic-regression", "random-forest"])
def test_balanced_classes_are_those_of_scikit_learn(name: str) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 2)).astype(np.float32).astype(np.float64)
    labels = (rows.sum(axis=1) + random.normal(size=300) > 1.5).astype(np.int64)
    schema = table(rows, labels).schema
    ours = Pipeline([("classifier", ESTIMATORS[name](0, schema))])
    theirs = Pipeline([("classifier", ESTIMATORS[name](0, schema))])
    theirs.set_params(
        **{parameter: "balanced" for parameter in ours.get_params() if parameter.endswith("class_weight")}
    )
    fit(ours, rows, labels, row_weights(labels, None, "balanced"))
    theirs.fit(rows, labels)
    assert np.abs(ours.predict_proba(rows) - theirs.predict_proba(rows)).max() < 1e-6
    plain = Pipeline([("classifier", ESTIMATORS[name](0, schema))]).fit(rows, labels)
    assert np.abs(ours.predict_proba(rows) - plain.predict_proba(rows)).max() > 0.01


def test_parameters_of_the_estimator_are_set_and_kept() -> None:
    labels, rows = answered(200, 3)
    recipe = Recipe("random-forest", 0, 0.3, parameters={"n_estimators": 7, "max_depth": None, "criterion": "entropy"})
    found = pipeline.train(table(rows, labels), recipe, quiet)
    kept = {name.rpartition("__")[2]: value for name, value in found.card["estimator"]["parameters"].items()}
    assert (kept["n_estimators"], kept["max_depth"], kept["criterion"]) == (7, None, "entropy")


@pytest.mark.parametrize("answer", [[1.2, -0.2], [0.7, 0.7], [np.nan, np.nan], [0.2, 0.3, 0.5]])
def test_answers_that_are_no_probabilities_are_refused(answer: list[float]) -> None:
    with pytest.raises(BadData, match="answers are no probabilities"):
        checked(np.array([answer]), 2)
    assert checked(np.array([[0.25, 0.75]]), 2).shape == (1, 2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learning_rat": 0.1}, "--set learning_rat: HistGradientBoostingClassifier has no such parameter"),
        ({"learning_rat": 0.1}, "did you mean 'learning_rate'"),
        ({"random_state": 1}, "--set random_state: expected --seed"),
        ({"learning_rate": "fast"}, "can't be fitted: .*learning_rate"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    labels, rows = answered(60, 2)
    with pytest.raises(BadData, match=message):
        pipeline.train(table(rows, labels), Recipe(parameters=parameters), quiet)


def test_what_a_library_raises_with_an_error_of_its_own_is_one_line() -> None:
    labels, rows = answered(60, 2)
    with pytest.raises(BadData, match=r"^--estimator lightgbm: LightGBMError: .*num_leaves.*$"):
        pipeline.train(table(rows, labels), Recipe("lightgbm", parameters={"num_leaves": 1}), quiet)


def test_sums_agree_with_a_plain_count() -> None:
    labels, probabilities = answered(50, 3)
    sums = total(labels, Answers.of(probabilities, labels), 3)
    assert sums.true.tolist() == np.bincount(labels).tolist()
    assert sums.right.sum() == (probabilities.argmax(axis=1) == labels).sum()


def test_the_figures_of_many_classes_stay_small() -> None:
    """A matrix of two thousand classes would have four million numbers."""
    labels = np.arange(4_000) % 2_000
    probabilities = np.full((4_000, 2_000), 1 / 2_000)
    found = evaluate(held_out(labels, 2_000), probabilities)
    assert "confusion" not in found
    assert "scores" not in found
    assert len(found["classes"]) == 2_000
    assert found["classes"]["class 7"]["log_loss"] == pytest.approx(np.log(2_000))
