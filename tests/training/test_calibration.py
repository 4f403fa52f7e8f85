"""Calibrated models are scikit-learn's, are served exactly, and say whether calibration helped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from conftest import quiet
from defects import artifact, scoring
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import calibration, export, pipeline
from defects.training.dataset import BadData, Table
from defects.training.estimators import ESTIMATORS
from defects.training.options import Recipe
from defects.training.splitting import split

FEW = {
    "hist-gradient-boosting": {"max_iter": 15},
    "random-forest": {"n_estimators": 10},
    "logistic-regression": {},
    "lightgbm": {"n_estimators": 5},
}


def table(classes: int, rows: int = 300, **more: Any) -> Table:
    random = np.random.default_rng(0)
    features = random.normal(size=(rows, 3)).astype(np.float32)
    labels = np.digitize(features[:, 0] + random.normal(size=rows), np.linspace(-1, 1, classes + 1)[1:-1])
    schema = Schema(tuple(map(Feature, "abc")), tuple(DefectClass(f"class {i}") for i in range(classes)))
    return Table(features, labels.astype(np.int64), schema, {"source": "made.csv"}, **more)


def sklearns(data: Table, recipe: Recipe, fitted: NDArray[np.int64]) -> CalibratedClassifierCV:
    base = Pipeline([("classifier", ESTIMATORS[recipe.estimator](0, data.schema))])
    step = base.steps[-1][1]
    (step.steps[-1][1] if isinstance(step, Pipeline) else step).set_params(**recipe.parameters)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    made = CalibratedClassifierCV(base, method=recipe.calibrate, ensemble=False, cv=folds)
    return made.fit(data.features[fitted].astype(np.float64), data.labels[fitted])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    ("estimator", "method"),
    [
        ("hist-gradient-boosting", "sigmoid"),
        ("hist-gradient-boosting", "temperature"),
        ("logistic-regression", "sigmoid"),
        ("logistic-regression", "temperature"),
        ("random-forest", "sigmoid"),
        ("lightgbm", "sigmoid"),
        ("lightgbm", "temperature"),
    ],
)
def test_calibration_is_that_of_scikit_learn_and_served_exactly(estimator: str, method: str, classes: int) -> None:
    data = table(classes)
    recipe = Recipe(estimator, parameters=FEW[estimator], calibrate=method)
    made = pipeline.train(data, recipe, quiet)
    engine = made.card["engine"]
    assert engine["name"] == "onnxruntime", engine["reason"]
    assert max(engine["parity"]["largest_difference"], engine["parity"]["probes"]["largest_difference"]) < 1e-12
    parts = split(data, 0.2, 0)
    rows = data.features[parts.held]
    expected = sklearns(data, recipe, parts.fitted).predict_proba(rows.astype(np.float64))
    served = artifact.parse(made.files, artifact.digest_of(artifact.listing(made.files)))
    assert np.abs(scoring.load(served)(rows) - expected).max() < 1e-7
    assert made.card["calibration"]["method"] == method
    after = made.card["calibration"]["after"]
    assert after["log_loss"] == pytest.approx(made.card["metrics"]["log_loss"])
    counts = [[one["rows"] for one in part["reliability"]] for part in (after, made.card["metrics"])]
    assert counts[0] == counts[1]


def test_an_overconfident_model_gets_better() -> None:
    """Trees that fit every row are surer than they are right."""
    recipe = Recipe(parameters={"max_iter": 40, "min_samples_leaf": 2}, calibrate="temperature")
    card = pipeline.train(table(2, 400), recipe, quiet).card
    before, after = card["calibration"]["before"], card["calibration"]["after"]
    assert after["log_loss"] < 0.9 * before["log_loss"]
    assert after["error"] < before["error"]
    assert "calibration" not in [finding["kind"] for finding in card["warnings"]]


def test_balanced_classes_get_their_shares_back() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(2_000, 3)).astype(np.float32)
    labels = (rows[:, 0] + random.normal(size=2_000) > 2.4).astype(np.int64)
    data = Table(rows, labels, table(2).schema, {"source": "made.csv"})
    recipe = Recipe("logistic-regression", class_weight="balanced", calibrate="sigmoid")
    found = pipeline.train(data, recipe, quiet).card["calibration"]
    assert found["after"]["error"] < found["before"]["error"] / 2


def test_calibration_that_does_not_help_is_said() -> None:
    found = {"method": "sigmoid", "before": {"log_loss": 0.1}, "after": {"log_loss": 0.2}}
    (warning,) = calibration.warnings(found)
    assert warning.text == "--calibrate sigmoid does not help: log loss 0.2000, without it 0.1000"
    assert calibration.warnings({**found, "after": {"log_loss": 0.05}}) == []


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
def test_scikit_learn_serves_a_calibrated_model_that_onnx_does_not(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no converter")

    monkeypatch.setattr(export, "to_onnx", fails)
    made = pipeline.train(table(3), Recipe("logistic-regression", calibrate=method), quiet)
    assert made.card["engine"]["name"] == "scikit-learn"


def test_groups_stay_whole_in_calibration_too() -> None:
    """Each row twice, in one group: what a model knows by heart does not count as right."""
    data = table(2)
    twice = np.repeat(np.arange(300), 2)
    doubled = Table(data.features[twice], data.labels[twice], data.schema, {"source": "made.csv"})
    recipe = Recipe(parameters={"max_iter": 30, "min_samples_leaf": 1, "max_leaf_nodes": None}, calibrate="temperature")
    factors = []
    for one in (doubled, replace(doubled, groups=twice)):
        model = pipeline.train(one, recipe, quiet).pipeline.steps[-1][1]
        factors.append(model.calibrated_classifiers_[0].calibrators[0].beta_)
    assert factors[0] > 2 * factors[1]


RARE = replace(table(2), labels=(np.arange(300) < 5).astype(np.int64))


@pytest.mark.parametrize(
    ("data", "recipe", "message"),
    [
        (table(2), Recipe("random-forest", calibrate="temperature"), "has no scores; expected --calibrate sigmoid"),
        (RARE, Recipe("logistic-regression", calibrate="sigmoid"), "--calibrate sigmoid: the rarest class has"),
    ],
)
def test_what_can_not_be_calibrated_is_refused(data: Table, recipe: Recipe, message: str) -> None:
    with pytest.raises(BadData, match=message):
        pipeline.train(data, recipe, quiet)
