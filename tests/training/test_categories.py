"""Categories are learnt, exported exactly and proven: text that an encoder in the pipeline makes numbers of."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from conftest import quiet
from defects import artifact, scoring
from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN, CATEGORY, MISSING
from defects.schema import Schema
from defects.training import conversion, pipeline, probes, steps, trees
from defects.training.dataset import Table
from defects.training.estimators import ESTIMATORS
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
    np.testing.assert_allclose(score(held), expected, rtol=0, atol=1e-12)
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
    tree = trees.trees_of(conversion.classifier_of(fitted))[0]
    for node in np.flatnonzero(~tree.leaf):
        source = seen[tree.feature[node]].source
        if SCHEMA.features[source].discrete:
            values = made[~np.isnan(made[:, source]), source]
            assert (values <= tree.threshold[node]).any() or tree.threshold[node] < 0
            assert (values > tree.threshold[node]).any()
