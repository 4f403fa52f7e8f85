"""LightGBM's and XGBoost's trees are read exactly from what they save, or are left to the library itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

from defects import scoring
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import boosters, conversion, ensembles, export, options, probes, steps
from defects.training.fitted import Fitted
from defects.training.trees import NotConvertible, Tree

SCHEMA = Schema(tuple(Feature(name, optional=True) for name in "abc"), (DefectClass("0"), DefectClass("1")))
THREE = Schema(SCHEMA.features, (*SCHEMA.classes, DefectClass("2")))


def rows(gaps: float = 0.1) -> Any:
    """Rows in which zero, and numbers that LightGBM takes for zero, are as frequent as others."""
    random = np.random.default_rng(0)
    made = np.column_stack(
        [random.integers(-9, 10, 300) / 4, random.normal(size=300), random.choice([0, 9e-36, 1], 300)]
    )
    made[random.random(made.shape) < gaps] = np.nan
    return SCHEMA.held(made).astype(np.float64)


def labels(classes: int = 2) -> Any:
    return (np.nan_to_num(rows(0))[:, 0] > np.linspace(-1, 1, classes + 1)[1:-1, np.newaxis]).sum(axis=0)


def light(**parameters: Any) -> Any:
    return lightgbm.LGBMClassifier(**{"n_estimators": 12, "verbose": -1, "n_jobs": 1} | parameters)


def extreme(**parameters: Any) -> Any:
    return xgboost.XGBClassifier(**{"n_estimators": 12, "n_jobs": 1} | parameters)


def proof(fitted: Any, schema: Schema = SCHEMA) -> export.Proof:
    asked, known = Fitted.on_rows(fitted, schema), rows()
    score = scoring.onnx_scorer(conversion.to_onnx(fitted, steps.numbers(schema), wide=False))
    return export.prove(asked, score, export.ask(asked, known), probes.probes(fitted, schema, known))


EXACT: dict[str, Callable[[], Any]] = {
    "lightgbm": lambda: light().fit(rows(), labels()),
    "lightgbm, which takes missing values for zero where it saw none": lambda: light().fit(rows(0), labels()),
    "lightgbm that stopped early": lambda: light(n_estimators=60, early_stopping_round=2).fit(
        rows(), np.roll(labels(), 1), eval_X=rows()[:60], eval_y=labels()[:60]
    ),
    "lightgbm with another sigmoid": lambda: light(sigmoid=0.7).fit(rows(), labels()),
    "lightgbm with splits by category": lambda: light(min_data_per_group=1, cat_smooth=1, max_cat_to_onehot=1).fit(
        np.add(np.nan_to_num(rows() * [4, 1, 1]), [9, 0, 0]),
        (np.nan_to_num(rows())[:, 0] * 4 % 5 > 2).astype(int),
        categorical_feature=[0],
    ),
    "xgboost": lambda: extreme().fit(rows(), labels()),
    "xgboost that never saw a missing value": lambda: extreme().fit(rows(0), labels()),
    "xgboost that stopped early": lambda: extreme(n_estimators=60, early_stopping_rounds=2).fit(
        rows(), np.roll(labels(), 1), eval_set=[(rows()[:60], labels()[:60])], verbose=False
    ),
    "xgboost with a forest in each step": lambda: extreme(num_parallel_tree=3, subsample=0.8).fit(rows(), labels()),
    "xgboost that begins with a rare class": lambda: extreme(base_score=0.01).fit(rows(), labels()),
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_read_answers_as_the_library_does(name: str) -> None:
    fitted = EXACT[name]()
    found = proof(fitted)
    assert found.problem is None
    assert any(tree.members for tree in ensembles.trees_of(fitted)) == ("category" in name)
    assert found.parity["probes"]["rows"] > 1_300  # those at thresholds are among them


@pytest.mark.parametrize("made", [light, extreme])
def test_three_classes_answer_as_the_library_does(made: Any) -> None:
    assert proof(made().fit(rows(), labels(3)), THREE).problem is None


OTHERS: dict[str, Callable[[], Any]] = {
    "averaged trees": lambda: light(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6).fit(rows(), labels()),
    "takes zero for missing": lambda: light(zero_as_missing=True).fit(rows(), labels()),
    "linear trees": lambda: light(linear_tree=True, min_child_samples=5).fit(rows(0), labels()),
    "the objective multiclassova": lambda: light(objective="multiclassova").fit(rows(), labels(3)),
    "dart": lambda: extreme(booster="dart", rate_drop=0.5).fit(rows(), labels()),
    "gblinear": lambda: extreme(booster="gblinear").fit(rows(), labels()),
    "the objective binary:hinge": lambda: extreme(objective="binary:hinge").fit(rows(), labels()),
    "a marker for missing values": lambda: extreme(missing=0.0).fit(rows(0), labels()),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # XGBoost's, of gblinear
def test_what_is_not_known_to_be_exact_is_left_to_the_library(name: str) -> None:
    with pytest.raises(NotConvertible, match=name):
        conversion.to_onnx(OTHERS[name](), steps.numbers(SCHEMA), wide=False)


def test_a_value_at_a_threshold_of_xgboost_goes_right_and_the_proof_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """XGBoost goes left below a threshold, other libraries at it, too: no held-out row need show the difference."""
    fitted = extreme().fit(rows(), labels())
    exact = boosters._of_xgboost

    def at_most(tree: Any) -> Tree:
        from dataclasses import replace

        made = exact(tree)
        return replace(made, threshold=np.nextafter(made.threshold.astype(np.float32), np.float32(np.inf)))

    monkeypatch.setattr(boosters, "_of_xgboost", at_most)
    assert "differs on" in str(proof(fitted).problem)


def test_what_lightgbm_takes_for_zero_is_taken_for_zero() -> None:
    near = [float(np.float32(1e-35)), float(np.nextafter(np.float32(1e-35), np.float32(1))), 9e-36, 0.0]
    asked = np.array([[0.25, 0.1, sign * value] for value in near for sign in (-1, 1)])
    fitted = light().fit(rows(), labels())
    score = scoring.onnx_scorer(conversion.to_onnx(fitted, steps.numbers(SCHEMA), wide=False))
    np.testing.assert_allclose(score(SCHEMA.held(asked)), fitted.predict_proba(asked), rtol=0, atol=1e-12)


def test_trees_stop_at_the_best_iteration() -> None:
    for name, per_step in (("lightgbm that stopped early", 1), ("xgboost that stopped early", 1)):
        fitted = EXACT[name]()
        best = fitted.best_iteration_ if "light" in name else fitted.best_iteration + 1
        assert 0 < len(ensembles.trees_of(fitted)) == best * per_step < 60


def test_a_library_that_is_not_installed_is_one_line_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from defects.training import estimators

    monkeypatch.setattr(estimators, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        options.parse(["--estimator", "xgboost"], "")
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        "--estimator: xgboost is not installed here; expected the extra 'xgboost': pip install -e '.[xgboost]'"
    )
