"""A graph adds what scikit-learn adds, in its order; and what is exported otherwise is found out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

from conftest import quiet
from defects import scoring
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import conversion, dataset, ensembles, export, pipeline, precision, probes, sight, steps, trees
from defects.training.dataset import BadData, Table
from defects.training.estimators import ESTIMATORS, EXTRAS, NARROW
from defects.training.options import Recipe


def table(features: Any, labels: Any, **kinds: Any) -> Table:
    """A table of numbers with `labels` by number; columns are called a, b, …"""
    rows = np.atleast_2d(np.asarray(features, np.float64).T).T
    labels = np.asarray(labels, np.int64)
    columns = tuple(
        Feature(chr(97 + i), optional=bool(np.isnan(c).any()), wide=precision.is_wide(c[~np.isnan(c)]), **kinds)
        for i, c in enumerate(rows.T)
    )
    schema = Schema(columns, tuple(DefectClass(str(i)) for i in range(labels.max() + 1)))
    return Table(schema.held(rows), labels, schema, {"source": "test"})


def trained(data: Table, estimator: str) -> tuple[pipeline.Trained, scoring.Scorer]:
    result = pipeline.train(data, Recipe(estimator, 0, 0.25), quiet)
    assert result.card["engine"]["name"] == "onnxruntime", result.card["engine"]
    return result, scoring.onnx_scorer(result.files["model.onnx"])


def most_apart(estimator: str) -> float:
    """How far probabilities may be apart: XGBoost computes them in 32 bits, with another exponential."""
    return 2e-7 if estimator == "xgboost" else 1e-12


def half_steps() -> Table:
    x = np.repeat(np.arange(40) / 10, 8)
    return table(x, x > 1.95)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_half_step_of_a_decimal_grid_is_on_the_side_where_scikit_learn_has_it(estimator: str) -> None:
    data = half_steps()
    result, score = trained(data, estimator)
    steps = data.schema.held((np.arange(80) / 20).reshape(-1, 1))
    expected = result.pipeline.predict_proba(steps.astype(np.float64))
    np.testing.assert_allclose(score(steps), expected, rtol=0, atol=most_apart(estimator))
    np.testing.assert_array_equal(score(steps).argmax(axis=1), result.pipeline.predict(steps.astype(np.float64)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("rows", [40, 4000])
def test_a_model_without_a_single_split_is_exported(estimator: str, rows: int) -> None:
    """All that it can learn of a column that never changes is how frequent each class is."""
    data = table(np.full((rows, 2), 0.25), np.arange(rows) % 4 == 0)
    result, score = trained(data, estimator)
    held = data.schema.held(np.array([[0.25, 0.25], [-3.0, 1e30]]))
    expected = result.pipeline.predict_proba(held.astype(np.float64))
    np.testing.assert_allclose(score(held), expected, rtol=0, atol=most_apart(estimator))


def test_a_rounded_threshold_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter of old: thresholds rounded to 32 bits, sometimes upwards. No held-out row shows it."""
    exact = ensembles.trees_of

    def rounded(classifier: Any) -> list[trees.Tree]:
        from dataclasses import replace

        return [replace(t, threshold=t.threshold.astype(np.float32).astype(np.float64)) for t in exact(classifier)]

    monkeypatch.setattr(conversion, "trees_of", rounded)
    engine = pipeline.train(half_steps(), Recipe("hist-gradient-boosting", 0, 0.25), quiet).card["engine"]
    assert engine["name"] == "scikit-learn"
    assert engine["parity"]["different_class_rows"] == 0  # of held-out rows
    assert "ONNX differs on probes" in engine["reason"]
    assert engine["reason"].endswith("first for a=1.9500000476837158")
    assert engine["parity"]["probes"]["row"] == {"a": float(np.float32(1.95))}


WRONG: dict[str, Callable[[trees.Tree], dict[str, Any]]] = {
    "missing values go the other way": lambda tree: {"missing_left": ~tree.missing_left},
    "a leaf is off by 1e-5": lambda tree: {"value": tree.value + np.float64(1e-5)},
    "the next 32-bit number": lambda tree: {
        "threshold": np.nextafter(tree.threshold.astype(np.float32), np.float32(np.inf)).astype(np.float64)
    },
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_graph_is_found(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    random = np.random.default_rng(0)
    x = random.integers(0, 30, size=(300, 2)).astype(np.float64)
    data = table(np.where(random.random(x.shape) < 0.05, np.nan, x), x[:, 0] > x[:, 1])
    exact = ensembles.trees_of
    monkeypatch.setattr(conversion, "trees_of", lambda c: [replace(t, **WRONG[wrong](t)) for t in exact(c)])
    engine = pipeline.train(data, Recipe("hist-gradient-boosting", 0, 0.25), quiet).card["engine"]
    assert (engine["name"], "differs" in engine["reason"]) == ("scikit-learn", True), engine


@pytest.fixture
def small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trees: of 256 rows of noise, some get five votes for either class."""
    monkeypatch.setitem(
        ESTIMATORS, "random-forest", lambda seed, _: RandomForestClassifier(10, n_jobs=-1, random_state=seed)
    )


def ties() -> Table:
    bits = np.array([[int(b) for b in f"{n:08b}"] for n in range(256)], np.float64)
    return table(bits, np.random.default_rng(0).integers(0, 2, 256))


@pytest.mark.usefixtures("small_forest")
def test_a_tie_is_decided_once_and_as_scikit_learn_decides_it() -> None:
    result, score = trained(ties(), "random-forest")
    rows = np.array([[int(b) for b in f"{n:08b}"] for n in range(256)], np.float32)
    whole = score(rows)
    np.testing.assert_array_equal(whole, result.pipeline.predict_proba(rows))
    np.testing.assert_array_equal(whole.argmax(axis=1), result.pipeline.predict(rows))
    assert (np.abs(whole[:, 0] - whole[:, 1]) < 1e-12).any()


def random_table(seed: int, classes: int) -> Table:
    random = np.random.default_rng(seed)
    x = random.normal(size=(400, 7)) * 10.0 ** random.integers(-6, 6, 7)
    labels = (x @ random.normal(size=7) > 0) + random.integers(0, classes - 1, 400)
    x[random.random(x.shape) < 0.1] = np.nan
    return table(x, labels)


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [*product([name for name in ESTIMATORS if name not in EXTRAS], [2, 3, 12]), *product(EXTRAS, [3])],
)
@pytest.mark.parametrize("engine", ["onnxruntime", "scikit-learn"])
@pytest.mark.filterwarnings(  # scikit-learn's threads, which a server does not use, take each other's filters away
    "ignore:`sklearn.utils.parallel.delayed` should be used:UserWarning"
)
def test_a_row_has_the_same_bytes_alone_at_any_place_and_with_any_number_of_threads(
    estimator: str, engine: str, classes: int
) -> None:
    import skops.io

    result, score = trained(random_table(classes, classes), estimator)
    if engine == "scikit-learn":
        score = scoring.sklearn_scorer(skops.io.dumps(result.pipeline))
    rows = random_table(99, classes).features[:, :7]
    whole = score(rows)
    for size in (1, 2, 3, 7, 15, 16, 17, 64):
        if engine == "scikit-learn" and size < 7 and estimator == "random-forest":
            continue  # many seconds, and padded to the same blocks
        for start in range(0, 70, size):
            assert score(rows[start : start + size]).tobytes() == whole[start : start + size].tobytes()
    shuffled = np.random.default_rng(0).permutation(len(rows))
    assert score(rows[shuffled]).tobytes() == whole[shuffled].tobytes()
    with warnings.catch_warnings():  # threads may leave others' filters behind
        for threads in (2, 4):
            sliced = scoring.sliced_scorer(score, threads)
            sliced(rows[:1])  # from here on it knows what a row takes
            assert sliced(rows).tobytes() == whole.tobytes()


def test_large_batches_are_scored_in_several_threads() -> None:
    import threading
    import time

    threads: set[str] = set()

    def slow(rows: Any) -> Any:
        threads.add(threading.current_thread().name)
        time.sleep(0.001 * len(rows))
        return np.asarray(rows, np.float64)

    sliced = scoring.sliced_scorer(slow, 4)
    sliced(np.ones((1, 2), np.float32))
    assert len(threads) == 1
    np.testing.assert_array_equal(sliced(np.arange(20, dtype=np.float32).reshape(10, 2))[:, 0], np.arange(0, 20, 2))
    assert len(threads) > 1


# --- values that are beyond 32 bits --------------------------------------------------------------------------------


def epochs(first: float = 1_700_000_000, step: float = 1) -> Table:
    at = first + step * np.arange(2_000)
    return table(at, (np.arange(2_000) // 120) % 2)


@pytest.mark.parametrize("estimator", ["hist-gradient-boosting", "random-forest"])
def test_epochs_do_not_collapse(estimator: str) -> None:
    data = epochs()
    assert data.schema.features[0].wide
    result, score = trained(data, estimator)
    assert result.card["metrics"]["accuracy"] > 0.95
    assert result.card["estimator"]["shifts"] == ({"a": 1700001000.0} if estimator in NARROW else {})
    rows = np.arange(1_699_999_990, 1_700_002_010, 0.25).reshape(-1, 1)
    np.testing.assert_allclose(score(rows), result.pipeline.predict_proba(rows), rtol=0, atol=most_apart(estimator))
    np.testing.assert_array_equal(score(rows).argmax(axis=1), result.pipeline.predict(rows))


WIDE = {
    "serial numbers": 123_456_789 + 7.0 * np.arange(500),
    "cents": 20_000_003.25 + np.arange(500) / 100,
    "coordinates": 4_500_000.001 + np.arange(500) / 1000,
    "an outlier": np.append(1_700_000_000 + np.arange(499.0), 0.5),
    "one integer": np.append(np.arange(499.0), 2**24 + 1),
}


@pytest.mark.parametrize("kind", WIDE)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_wide_columns_are_told_apart_or_refused(kind: str, estimator: str) -> None:
    values = WIDE[kind]
    data = table(values, (np.arange(500) // 50) % 2)
    assert data.schema.wide
    assert data.features.dtype == np.float64
    if kind == "an outlier" and estimator in NARROW:
        with pytest.raises(BadData, match=r"column 'a' has values that 32 bits can't tell apart.*expected --estimator"):
            pipeline.train(data, Recipe(estimator, 0, 0.25), quiet)
        return
    result, score = trained(data, estimator)
    rows = np.concatenate([values, values + 0.5]).reshape(-1, 1)
    np.testing.assert_allclose(score(rows), result.pipeline.predict_proba(rows), rtol=0, atol=most_apart(estimator))
    np.testing.assert_array_equal(score(rows).argmax(axis=1), result.pipeline.predict(rows))


def test_narrow_columns_of_a_wide_model_stay_narrow() -> None:
    random = np.random.default_rng(0)
    x = np.column_stack([1_700_000_000 + np.arange(400), random.integers(0, 40, 400) / 10])
    data = table(x, x[:, 1] > 1.95)
    assert [f.wide for f in data.schema.features] == [True, False]
    assert (data.features[:, 0] == x[:, 0]).all()
    assert (data.features[:, 1] == x[:, 1].astype(np.float32)).all()


@pytest.mark.parametrize(
    ("values", "wide"),
    [
        ([0.1, 0.2, 0.3], False),
        ([16_777_216, 1], False),
        ([16_777_217, 1], True),
        ([1.0, 1.0 + 1e-9], True),
        ([1e30, 2e30, 3.3333e30], False),
        ([0, 1, 2**53 + 2], True),
        ([10.0**17 + 16, 10.0**17 + 32], True),
        ([0.3, 0.1 + 0.2, 0.5], False),  # one value, computed in two ways
        ([1e30, 1.00000001e30], True),
        ([1e-60, 0.0], True),
        ([-16_777_217, 1], True),
    ],
)
def test_wide_is_what_32_bits_can_not_tell_apart(values: list[float], wide: bool) -> None:
    assert precision.is_wide(np.array(values)) is wide


@pytest.mark.parametrize("scale", [(0, 1), (1000, 50), (0, 1e-30)])
def test_computed_values_are_not_wide_because_there_are_many(scale: tuple[float, float]) -> None:
    random = np.random.default_rng(0)
    values = random.normal(*scale, 200_000)
    assert len(np.unique(values.astype(np.float32))) < len(values)
    assert not precision.is_wide(values)
    assert not precision.is_wide(random.random(200_000) * 1000)
    at = 1_700_000_000 + random.random(5_000) * 3_600
    assert precision.is_wide(at)
    assert precision.exact_shift(at) is not None


def test_a_large_forest_is_probed_in_parts_and_at_a_share_of_its_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_table(7, 2)
    result, _ = trained(data, "random-forest")
    complete = result.card["engine"]["parity"]["probes"]["rows"]
    monkeypatch.setattr(probes, "MOST_THRESHOLDS", 500)
    parity = trained(data, "random-forest")[0].card["engine"]["parity"]
    assert 1_500 < parity["probes"]["rows"] < complete / 2


# --- rows that have no scores --------------------------------------------------------------------------------------


def iris() -> Table:
    x, y = load_iris(return_X_y=True)
    return table(x, y)


@pytest.mark.parametrize("engine", ["onnxruntime", "scikit-learn"])
@pytest.mark.parametrize("value", [3.4028234663852886e38, -3.4028234663852886e38])
@pytest.mark.parametrize("column", range(4))
def test_a_row_without_finite_scores_has_none_and_harms_no_other(column: int, value: float, engine: str) -> None:
    import skops.io

    data = iris()
    result, score = trained(data, "logistic-regression")
    if engine == "scikit-learn":
        score = scoring.sklearn_scorer(skops.io.dumps(result.pipeline))
    rows = data.features[:20].copy()
    rows[7, column] = value
    answered, alone = score(rows), score(data.features[:20])
    assert np.isnan(answered[7]).all()
    assert np.delete(answered, 7, axis=0).tobytes() == np.delete(alone, 7, axis=0).tobytes()
    assert np.isnan(score(rows[7:8])).all()


def test_probes_of_many_small_trees_are_asked_together() -> None:
    parts = [np.full((size, 2), number) for number, size in enumerate([3, 1, export.CHUNK, 2, export.CHUNK - 2, 7])]
    blocks = list(export._blocks(iter(parts)))
    assert [len(block) for block in blocks] == [export.CHUNK + 4, export.CHUNK, 7]
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(parts))


def test_probes_are_rows_that_the_schema_allows() -> None:
    data = dataset.builtin(2_000, 1)
    result = pipeline.train(data, Recipe("hist-gradient-boosting", 1, 0.2), quiet)
    made = np.concatenate([*probes.probes(result.pipeline, data.schema, data.features.astype(np.float64))])
    data.schema.check(made)
    np.testing.assert_array_equal(made, data.schema.held(made))
    thresholds = {
        (feature, float(threshold))
        for tree in ensembles.trees_of(conversion.classifier_of(result.pipeline))
        for feature, threshold in zip(tree.feature[~tree.leaf], tree.threshold[~tree.leaf], strict=True)
        if np.isfinite(threshold)
    }
    for feature, threshold in thresholds:
        low, high, _ = data.schema.limits
        last = np.float32(threshold)
        last = np.nextafter(last, np.float32(-np.inf)) if float(last) > threshold else last
        for value in (last, np.nextafter(last, np.float32(-np.inf)), np.nextafter(last, np.float32(np.inf))):
            if low[feature] <= value <= high[feature]:
                assert (made[:, feature] == value).any()


def test_each_threshold_is_reached_by_its_probes() -> None:
    data = random_table(5, 3)
    result = pipeline.train(data, Recipe("random-forest", 1, 0.2), quiet)
    classifier = conversion.classifier_of(result.pipeline)
    tree = ensembles.trees_of(classifier)[0]
    nodes = np.flatnonzero(~tree.leaf)
    columns = conversion.prepared_columns(result.pipeline, steps.numbers(data.schema))
    base = np.zeros((len(nodes), 7))
    coming = sight.Sight(data.schema, columns, narrow=True).coming(tree, nodes.tolist(), base).astype(np.float32)
    paths = classifier.estimators_[0].decision_path(coming).toarray().astype(bool)
    assert paths[np.arange(len(nodes)), nodes].all()


# --- golden inputs -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_forest")
def test_probes_go_into_the_golden_inputs() -> None:
    import json

    result, score = trained(ties(), "random-forest")
    golden = json.loads(result.files["golden.json"])
    assert len(golden["rows"]) == export.GOLDEN_ROWS + export.GOLDEN_PROBES
    best = np.sort(np.array(golden["probabilities"])[export.GOLDEN_ROWS :], axis=1)
    assert (best[:, -1] - best[:, -2]).min() < 1e-12  # ties are among them
    assert golden["tolerance"] == 1e-6
    answered = score(np.array(golden["rows"], np.float32))
    np.testing.assert_array_equal(answered.argmax(axis=1), golden["classes"])


def test_a_golden_tie_decided_otherwise_is_found() -> None:
    from defects.artifact import Golden

    golden = Golden(np.zeros((2, 1), np.float32), np.array([[0.5, 0.5], [0.1, 0.9]]), 1e-6, np.array([0, 1]))
    assert scoring.golden_difference(golden, golden.probabilities.copy()) is None
    other = np.array([[0.5, 0.5 + 1e-12], [0.1, 0.9]])
    assert scoring.golden_difference(golden, other) == "golden answers have another class on 1 rows, first on row 0"


def test_an_answer_that_varies_is_found() -> None:
    rows = np.arange(20, dtype=np.float32).reshape(10, 2)
    assert scoring.varies(lambda part: part.astype(np.float64), rows) is None
    assert "same bytes" in str(scoring.varies(lambda part: part.astype(np.float64) + len(part) * 1e-9, rows))
