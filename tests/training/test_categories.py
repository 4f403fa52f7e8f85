"""Categories are learnt, exported exactly and proven: text that an encoder in the pipeline makes numbers of."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from conftest import quiet
from defects import artifact, scoring
from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN, CATEGORY, MISSING
from defects.schema import Schema
from defects.training import conversion, ensembles, export, pipeline, probes, steps
from defects.training.dataset import Table
from defects.training.estimators import ESTIMATORS
from defects.training.fitted import Fitted
from defects.training.options import Recipe

COLOURS = ("amber", "blue", "cyan", "green", "indigo", "red", "white")
SCHEMA = Schema(
    (
        Feature("weight"),
        Feature("colour", kind=CATEGORY, categories=COLOURS, optional=True, unknown=MISSING),
        Feature("fragile", low=0, high=1, kind=BOOLEAN),
        Feature("size", kind=CATEGORY, categories=("l", "m", "s")),
        Feature("length", optional=True),
    ),
    (DefectClass("bad"), DefectClass("good"), DefectClass("odd")),
)


def parcels(rows: int = 500) -> Table:
    """A table whose label is the colour's, and another one where that is missing."""
    random = np.random.default_rng(1)
    colour = random.choice([0, 1, 2, 3, 4, 6, np.nan], rows)  # nobody saw red
    size, weight = random.integers(0, 3, rows), random.integers(0, 50, rows) / 10
    labels = np.where(np.isnan(colour), 2, np.isin(colour, [1, 4])).astype(np.int64)
    labels = np.where((size == 1) & (weight > 2.45), 1 - np.minimum(labels, 1), labels)
    length = np.where(random.random(rows) < 0.1, np.nan, random.normal(size=rows))
    features = np.column_stack([weight, colour, random.integers(0, 2, rows), size, length])
    return Table(SCHEMA.held(features), labels, SCHEMA, {"source": "test"})


@cache
def trained(estimator: str) -> pipeline.Trained:
    return pipeline.train(parcels(), Recipe(estimator, 0, 0.25), quiet)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_categories_are_learnt_and_served_exactly(estimator: str) -> None:
    result = trained(estimator)
    assert result.card["engine"]["name"] == "onnxruntime", result.card["engine"]
    assert result.card["metrics"]["accuracy"] > 0.75  # of labels by colour, which ordered codes would not tell
    assert result.card["metrics"]["classes"]["odd"]["recall"] > 0.8  # a missing colour is a colour
    score = scoring.onnx_scorer(result.files["model.onnx"])
    rows = np.stack(np.meshgrid([1.2, 2.5], [*range(7), np.nan], [0, 1], [0, 1, 2], [0.3, np.nan]), -1).reshape(-1, 5)
    held = SCHEMA.held(rows)
    expected = result.pipeline.predict_proba(held.astype(np.float64))
    np.testing.assert_allclose(score(held), expected, rtol=0, atol=2e-7 if estimator == "xgboost" else 1e-12)
    assert scoring.varies(score, held) is None


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_model_with_categories_has_golden_inputs_that_a_replica_accepts(estimator: str) -> None:
    files = trained(estimator).files
    made = artifact.parse(files, artifact.digest_of(artifact.listing(files)))
    score = scoring.verified(made, scoring.load(made))
    assert made.schema.features[1].categories == COLOURS
    assert score(made.golden.rows).shape == made.golden.probabilities.shape
    assert {0, 1, 2, 3, 4, 6} <= set(made.golden.rows[:, 1].tolist())


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_probes_have_every_category_and_only_what_the_schema_allows(estimator: str) -> None:
    rows = parcels().features.astype(np.float64)
    made = np.concatenate([*probes.probes(trained(estimator).pipeline, SCHEMA, rows)])
    SCHEMA.check(made)
    assert set(np.unique(made[:, 3]).tolist()) == {0, 1, 2}
    assert set(made[~np.isnan(made[:, 1]), 1].tolist()) == set(range(7))
    assert np.isnan(made[:, 1]).any()


@pytest.mark.parametrize("estimator", ["hist-gradient-boosting", "random-forest"])
def test_both_sides_of_each_split_of_a_category_are_probed(estimator: str) -> None:
    fitted = trained(estimator).pipeline
    made = np.concatenate([*probes.probes(fitted, SCHEMA, parcels().features.astype(np.float64))])
    seen = conversion.prepared_columns(fitted, steps.numbers(SCHEMA))
    tree = ensembles.trees_of(conversion.classifier_of(fitted))[0]
    for node in np.flatnonzero(~tree.leaf):
        source = seen[tree.feature[node]].source
        if SCHEMA.features[source].discrete:
            values = made[~np.isnan(made[:, source]), source]
            assert (values <= tree.threshold[node]).any() or tree.threshold[node] < 0
            assert (values > tree.threshold[node]).any()


# --- the trap ------------------------------------------------------------------------------------------------------


def natively_categorical(rows: int = 600) -> tuple[Schema, Any, Any]:
    """A schema, rows, and boosted trees that split by sets of categories, with gaps."""
    random = np.random.default_rng(0)
    weight, colour = random.random(rows), random.integers(0, 12, rows).astype(float)
    labels = (np.isin(colour, [1, 4, 7, 10]) ^ (weight > 0.7)).astype(int)
    colour[random.random(rows) < 0.1] = np.nan
    made = Schema(
        (Feature("weight"), Feature("colour", kind=CATEGORY, categories=tuple("abcdefghijkl"), optional=True)),
        (DefectClass("0"), DefectClass("1")),
    )
    held = made.held(np.column_stack([weight, colour])).astype(np.float64)
    fitted = HistGradientBoostingClassifier(categorical_features=[1], max_iter=20, random_state=0).fit(held, labels)
    return made, held, fitted


def proof(schema: Schema, rows: Any, fitted: Any, score: scoring.Scorer) -> export.Proof:
    asked = Fitted.on_rows(fitted, schema)
    return export.prove(asked, score, export.ask(asked, rows), probes.probes(fitted, schema, rows))


def test_skl2onnx_converts_native_categories_wrongly_in_silence_and_the_proof_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its converter writes a split by a set of categories as one by a threshold, which is zero."""
    import onnxruntime
    import skl2onnx
    from skl2onnx.common import _container

    make_node = _container.make_node

    def with_integers(*arguments: Any, **attributes: Any) -> Any:  # of booleans, which onnx refuses
        if (name := "nodes_missing_value_tracks_true") in attributes:
            attributes[name] = [*map(int, attributes[name])]
        return make_node(*arguments, **attributes)

    monkeypatch.setattr(_container, "make_node", with_integers)
    schema, rows, fitted = natively_categorical()
    converted = skl2onnx.to_onnx(fitted, rows[:1].astype(np.float32), options={"zipmap": False}).SerializeToString()
    session = onnxruntime.InferenceSession(converted)
    wrong = proof(
        schema, rows, fitted, lambda given: session.run(["probabilities"], {"X": given})[0].astype(np.float64)
    )
    assert wrong.parity["largest_difference"] > 0.5
    assert "differs on held-out rows by up to 0." in str(wrong.problem)


def test_our_own_graph_of_native_categories_is_exact() -> None:
    schema, rows, fitted = natively_categorical()
    assert any(tree.members for tree in ensembles.trees_of(fitted))
    score = scoring.onnx_scorer(conversion.to_onnx(fitted, steps.numbers(schema), wide=False))
    right = proof(schema, rows, fitted, score)
    assert right.problem is None
    assert right.parity["probes"]["largest_difference"] < 1e-12
