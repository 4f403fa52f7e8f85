"""`train.py --champion`: what is worse is not stored, and what passes is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import quiet, run
from defects import artifact
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.training import pipeline
from defects.training.dataset import BadData, Table
from defects.training.gate import Gate, Refused, open_gate
from defects.training.options import Recipe

FAST = Recipe("logistic-regression")
CITIES = ("Berlin", "Bonn", "Kiel")


def table(features: tuple[Feature, ...] | None = None, classes: tuple[str, ...] = ("no", "yes"), **more: Any) -> Table:
    """Make 600 rows of a number and a city, of which both say something of the class."""
    random = np.random.default_rng(0)
    rows = np.column_stack([random.normal(size=600), random.integers(3, size=600)]).astype(np.float32)
    labels = (2 * rows[:, 0] + rows[:, 1] + random.normal(size=600) > 1).astype(np.int64)
    features = features or (Feature("x"), Feature("city", kind="category", categories=CITIES))
    source = {"source": "made.csv", "rows": 600, "sha256": "1" * 64}
    return Table(rows, labels, Schema(features, tuple(map(DefectClass, classes))), source, **more)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "champion"
    artifact.replace(place, pipeline.train(table(), FAST, quiet).files)
    return place


def gate(champion: Path, margin: float = 0.02) -> Gate:
    return open_gate(str(champion), margin)


def test_a_directory_that_is_not_there_is_named_as_one(tmp_path: Path) -> None:
    with pytest.raises(artifact.NoModel, match=r"--champion .*/parcels: no such directory; expected one with a model"):
        gate(tmp_path / "parcels")


def test_the_same_model_passes_and_its_card_keeps_the_comparison(champion: Path) -> None:
    card = pipeline.train(table(), FAST, quiet, gate(champion, 0.0)).card
    found = card["comparison"]
    assert found["passed"]
    assert found["champion"] == {
        "version": artifact.load(champion).version,
        "digest": artifact.load(champion).digest,
        "place": str(champion),
    }
    assert found["seen"] == "none"
    assert found["rows"] == card["split"]["held_out_rows"] == 120
    assert abs(found["log_loss"]["difference"]) < 1e-9
    assert found["log_loss"]["candidate"] == pytest.approx(card["metrics"]["log_loss"])


def test_a_worse_model_is_refused_with_the_reasons(champion: Path) -> None:
    spoiled = Recipe("logistic-regression", parameters={"C": 1e-6})
    with pytest.raises(Refused) as refused:
        pipeline.train(table(), spoiled, quiet, gate(champion))
    first, *reasons = str(refused.value).splitlines()
    assert first == f"refused, nothing is stored; against the champion, {champion}, the candidate is"
    assert reasons[0].startswith("  worse in log loss: 0.6")


def test_columns_classes_and_categories_may_stand_in_another_order(champion: Path) -> None:
    """The champion gets its own columns and codes: the result is the same to the last bit."""
    data = table()
    features = (Feature("city", kind="category", categories=("Kiel", "Berlin", "Bonn")), Feature("x"))
    codes = np.array([1, 2, 0])[data.features[:, 1].astype(int)]
    turned = Table(
        np.column_stack([codes, data.features[:, 0]]).astype(np.float32), 1 - data.labels,
        Schema(features, (DefectClass("yes"), DefectClass("no"))), data.source,
    )  # fmt: skip
    parts = np.arange(600)
    ours = gate(champion)._answers(data.features[parts].astype(np.float64), data.schema)
    theirs = gate(champion)._answers(turned.features[parts].astype(np.float64), turned.schema)
    assert ours.tobytes() == theirs[:, ::-1].tobytes()


X, CITY = table().schema.features


@pytest.mark.parametrize(
    ("features", "classes", "message"),
    [
        ((Feature("y"), CITY), ("no", "yes"), "it has feature 'x', which the data have not"),
        ((X, CITY), ("no", "maybe"), "it has class 'yes', which the data have not"),
        ((X, CITY, Feature("z")), ("no", "yes"), "it has no feature 'z'"),
        ((X, CITY), ("no", "yes", "perhaps"), "it has no class 'perhaps'"),
        ((X, Feature("city")), ("no", "yes"), "its feature 'city' is a category, that of the data a number"),
    ],
)
def test_a_champion_of_other_data_is_named(
    champion: Path, features: tuple[Feature, ...], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(BadData, match=message):
        gate(champion).check(Schema(features, tuple(map(DefectClass, classes))))


def test_rows_that_the_champion_refuses_are_named(champion: Path) -> None:
    made = gate(champion)
    more = table((X, Feature("city", kind="category", categories=("Berlin", "Bremen", "Kiel"))))
    with pytest.raises(BadData, match=r"column 'city': .* a value that it does not know, such as 'Bremen'"):
        made._answers(more.features.astype(np.float64), more.schema)
    missing = table((Feature("x", optional=True), CITY))
    missing.features[5, 0] = np.nan
    with pytest.raises(BadData, match="column 'x': 1 held-out rows have no value, so the champion refuses them"):
        made._answers(missing.features.astype(np.float64), missing.schema)


@pytest.mark.parametrize(
    ("source", "recipe", "seen"),
    [
        ({"sha256": "1" * 64}, Recipe("logistic-regression", seed=1), "some"),
        ({"sha256": "1" * 64}, Recipe("logistic-regression", test_share=0.3), "some"),
        ({"sha256": "2" * 64}, FAST, "unknown"),
    ],
)
def test_a_champion_that_may_know_the_rows_is_said_to(
    champion: Path, source: dict[str, str], recipe: Recipe, seen: str
) -> None:
    data = table()
    data.source.update(source)
    card = pipeline.train(data, recipe, quiet, gate(champion, 0.5)).card
    assert card["comparison"]["seen"] == seen
    kinds = [finding["kind"] for finding in card["warnings"]]
    assert ("champion_saw_rows" in kinds) == (seen == "some")


def test_a_champion_that_was_fitted_elsewhere_is_not_said_to_know_the_rows_on_which_it_was_assessed(
    champion: Path,
) -> None:
    brought = artifact.load(champion)
    brought.card["split"] = {"how": "given", "fitted_rows": 0, "held_out_rows": 600, "held_out_share": 1.0}
    card = pipeline.train(table(), FAST, quiet, Gate(brought, "champion", 0.5)).card
    assert card["comparison"]["seen"] == "unknown"
    assert "champion_saw_rows" not in [finding["kind"] for finding in card["warnings"]]


IN_ONE_PROCESS = """
import contextlib, io, json, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
import bentoml
import train
from defects import store
from defects.image import choice
from defects.settings import Settings

said = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        train.main(arguments)
    said.append(out.getvalue())
now = datetime.now(UTC)
print(json.dumps({
    "said": said,
    "labels": {str(model.tag): model.info.labels.get("champion") for model in bentoml.models.list("defect_classifier")},
    "served": store.locate(None, None, Path())[1],
    "packed": choice.choose(Settings.from_environment({}))[1],
    "ahead": [store.newest_is_ahead(now), store.newest_is_ahead(now - timedelta(days=1000))],
}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    data = table()
    frame = pd.DataFrame({"x": data.features[:, 0], "city": np.array(CITIES)[data.features[:, 1].astype(int)]})
    frame["bought"] = np.array(["no", "yes"])[data.labels]
    frame.to_csv(home / "t.csv", index=False)
    return home


def command(home: Path, *options: str) -> list[str]:
    return ["--data", str(home / "t.csv"), "--label", "bought", "--estimator", "logistic-regression", *options]


def trained(home: Path, *each: tuple[str, ...]) -> dict[str, Any]:
    """Train several times in one process, which takes seconds to start, and say what is served then."""
    done = run(home, "python", "-c", IN_ONE_PROCESS, json.dumps([command(home, *options) for options in each]))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_command_line_stores_what_passes_and_serves_it_before_newer_ones(home: Path) -> None:
    found = trained(home, (), ("--champion", "latest", "--set", "C=2"), ())
    _, passed, newer = found["said"]
    assert "it is the champion now, and served before newer models" in passed
    tag = next(line for line in passed.splitlines() if line.startswith("model ")).split()[1]
    assert f"the champion {tag} is served before it" in newer
    assert len(found["labels"]) == 3
    assert [name for name, label in found["labels"].items() if label] == [tag] == [found["served"]] == [found["packed"]]
    assert found["ahead"][0] is None
    assert "a time to come: a clock was wrong" in found["ahead"][1]

    refused = run(home, "python", "train.py", *command(home, "--champion", "champion", "--set", "C=0.000001"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"train.py: refused, nothing is stored; against the champion, {tag}, the candidate is" in refused.stderr

    again = trained(home, ("--champion", tag, "--set", "C=2"))
    assert len(again["labels"]) == 4  # what was refused is not there
    assert {name: label for name, label in again["labels"].items() if label} == {again["served"]: "2"}
    assert again["served"] != tag
