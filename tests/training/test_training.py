"""Training is right, reproducible, and clear about data that it can't use."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from conftest import BIN, ROOT, STEEL_PLATES, environment, quiet, run
from defects import artifact, scoring
from defects.training import dataset, evaluation, export, pipeline
from defects.training.bootstrap import Bootstrap
from defects.training.dataset import BadData
from defects.training.estimators import ESTIMATORS
from defects.training.evaluation import HeldOut
from defects.training.options import Recipe

needs_steel_plates = pytest.mark.skipif(not STEEL_PLATES.exists(), reason=f"{STEEL_PLATES} is not here")


def loaded(files: dict[str, bytes], directory: Path) -> artifact.Artifact:
    artifact.write(directory, files)
    return artifact.load(directory)


def good_rows(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "defect": np.where(x.sum(axis=1) > 0, "yes", "no")})


def test_the_same_seed_trains_the_same_model() -> None:
    def files(seed: int) -> dict[str, bytes]:
        recipe = Recipe("hist-gradient-boosting", seed, 0.2, parameters={"max_iter": 10})
        return pipeline.train(dataset.builtin(8_000, seed=seed), recipe, quiet).files

    first, again, other = files(1), files(1), files(2)
    same = ("model.onnx", "schema.json", "reference.json", "golden.json")
    assert [again[n] == first[n] for n in same] == [True] * 4
    assert other["model.onnx"] != first["model.onnx"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_is_served_by_onnx_as_scikit_learn_answers(estimator: str, tmp_path: Path) -> None:
    result = pipeline.train(dataset.builtin(3_000, seed=1), Recipe(estimator, 1, 0.3), quiet)
    assert result.card["engine"]["name"] == "onnxruntime", result.card["engine"]
    assert result.card["engine"]["parity"]["rows"] == 900
    assert result.card["engine"]["parity"]["largest_difference"] <= export.PARITY_TOLERANCE
    art = loaded(result.files, tmp_path)
    assert scoring.golden_difference(art.golden, scoring.load(art)(art.golden.rows)) is None
    assert result.card["metrics"]["macro_f1"] > 0.8


@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != "lightgbm"])  # in test_brought.py
def test_what_onnx_can_not_do_scikit_learn_serves(
    estimator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("no converter") from TypeError("the root")

    monkeypatch.setattr(export, "to_onnx", fails)
    result = pipeline.train(dataset.builtin(2_000, seed=1), Recipe(estimator, 1, 0.3), quiet)
    assert result.card["engine"]["name"] == "scikit-learn"
    assert result.card["engine"]["reason"] == "the model can't be converted to ONNX: TypeError: the root"
    art = loaded(result.files, tmp_path)
    assert "model.onnx" not in art.files
    assert scoring.golden_difference(art.golden, scoring.load(art)(art.golden.rows)) is None


def test_a_model_that_differs_in_onnx_is_served_by_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = scoring.onnx_scorer

    def off(model: bytes) -> scoring.Scorer:
        return lambda rows: honest(model)(rows) + np.float32(0.001)

    monkeypatch.setattr(scoring, "onnx_scorer", off)
    engine = pipeline.train(dataset.builtin(2_000, seed=1), Recipe("logistic-regression", 1, 0.3), quiet).card["engine"]
    assert engine["name"] == "scikit-learn"
    assert "ONNX differs on held-out rows by up to 0.001" in engine["reason"]


def test_parity_forgives_only_ties() -> None:
    expected = np.array([[0.5, 0.5], [0.6, 0.4], [0.50005, 0.49995], [0.5 - 1e-13, 0.5 + 1e-13]])
    answers = export.SklearnResults(np.zeros((4, 1)), expected, expected.argmax(axis=1))
    flipped = expected[:, ::-1]
    assert export.compare(answers, flipped)["different_class_rows"] == 3
    assert export.compare(answers, flipped, export.LINEAR_TIE)["different_class_rows"] == 2
    assert export.compare(answers, flipped)["largest_difference"] == pytest.approx(0.2)


def test_evaluation_is_what_it_says() -> None:
    schema = dataset.builtin(1, 0).schema
    labels = np.array([0, 1, 1])
    probabilities = np.array([[0.7, 0.3, 0, 0, 0, 0], [0.2, 0.8, 0, 0, 0, 0], [0.6, 0.4, 0, 0, 0, 0]])
    shares = np.array([0.5, 0.3, 0.2, 0, 0, 0])
    metrics = evaluation.evaluate(
        HeldOut(labels, schema.class_names, shares, Bootstrap(labels, 6, seed=0)), probabilities
    )
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["log_loss"] == pytest.approx(-np.log([0.7, 0.8, 0.4]).mean())
    assert metrics["classes"]["crushed"]["log_loss"] == pytest.approx(-np.log([0.8, 0.4]).mean())
    assert metrics["classes"]["crushed"]["recall"] == 0.5
    nothing = {"precision": 0, "recall": 0, "f1": 0, "log_loss": None, "rows": 0, "predicted": 0}
    assert metrics["classes"]["wet"] == nothing


def test_the_reference_describes_what_was_fitted(trained: pipeline.Trained) -> None:
    reference = json.loads(trained.files["reference.json"])
    assert reference["rows"] == 6_400 == sum(reference["classes"].values())
    for feature in reference["features"].values():
        assert sum(feature["counts"]) + feature["missing"] == 6_400
        assert sorted(set(feature["edges"])) == feature["edges"]
    assert sum(reference["answers"]["confidence"]["counts"]) == 1_600


def test_a_csv_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "good.csv"
    file.write_text("weight,flag,class,count\n" + "1.5,True,None,3\n,False,None ,4\n2.5,True,NA,5\nNaN,False,NA,6\n")
    table = dataset.read(file, "class")
    assert table.schema.names == ("weight", "flag", "count")
    assert [f.optional for f in table.schema.features] == [True, False, False]
    assert table.schema.class_names == ("NA", "None")  # a class may be called what a missing number is called
    np.testing.assert_array_equal(table.features[:, 1], [1, 0, 1, 0])
    assert [f.kind for f in table.schema.features] == ["number", "boolean", "number"]
    assert table.features.dtype == np.float32
    assert table.source["rows"] == 4


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    frame = good_rows()
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    one, two = (dataset.read(tmp_path / name, "defect") for name in ("t.parquet", "t.csv"))
    np.testing.assert_allclose(one.features, two.features)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert one.schema == two.schema


BAD_FILES = {
    "": "is empty",
    "a,b,defect\n": "has no rows",
    "a,b\n1,2\n": "no column 'defect'; expected the label column among 'a', 'b'",
    "defect\nx\ny\n": "has only the label column",
    "a,a,defect\n1,2,x\n": "column 'a' appears more than once",
    "a,,defect\n1,2,x\n": "column 2 has no name",
    "a b defect\n1 2 x\n": "the header has one column, 'a b defect'; expected commas, semicolons, tabs or bars",
    "a;b;defect\n1;2;x\n2;x\n": "row 2: has 2 cells; expected 3",
    "a,Defect\n1,x\n": "among 'a', 'Defect'; did you mean 'Defect'?",
    "a,defect\n1,x\n2,\n": "column 'defect', row 2: has no label",
    "a,defect\n1,x\n2,x\n": "has only the class 'x'",
    "a,defect\n1,x\n2,x\n3,y\n": "column 'defect', row 3: class 'y' has one example",
    "a,defect\n1,x\ntwo,x\n3,y\n4,y\n": "column 'a', row 2: 'two' is not a number",
    "b,defect\n,x\n,x\n,y\nNA,y\n": "has no feature besides the label column 'defect'",
    "a,defect\n1,x\n2,x\ninf,y\n4,y\n": "column 'a', row 3: inf; expected a finite 32-bit number",
    "a,defect\n1,x\n1e39,x\n3,y\n4,y\n": "column 'a', row 2: 1e+39; expected a finite",
    "a,defect\n1,x\n2,x\n3,y\n4,y\n": "can't be split",
    "a,defect\n1,x\n\n1,2,3,x\n": "row 2: has 4 cells; expected 2",
    "a,b,defect\n1,2,x\n1,x\n": "row 2: has 2 cells; expected 3",
    "x" * 1001 + ",defect\n1,x\n2,x\n3,y\n4,y\n": "its name has 1,001 characters; expected at most 1,000",
    "a\x1b,defect\n1,x\n2,x\n3,y\n4,y\n": "column 'a\\x1b': its name is 'a\\x1b'; expected text",
    "a,defect\n1,x\n2,x\n3,y\x7f\n4,y\x7f\n": "column 'defect' has the class 'y\\x7f': its name is",
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.items())
def test_bad_data_is_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(content)
    with pytest.raises(BadData) as caught:
        pipeline.train(dataset.read(file, "defect"), Recipe("logistic-regression", 0, 0.2), quiet)
    assert message in str(caught.value)
    assert "bad.csv" in str(caught.value)


def test_dates_are_refused(tmp_path: Path) -> None:
    frame = good_rows()
    frame["when"] = pd.Timestamp("2026-01-01")
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadData, match="column 'when', row 1: is a date or a duration; expected a number"):
        dataset.read(tmp_path / "t.parquet", "defect")


def test_a_class_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    frame = good_rows(200)
    frame.loc[:1, "defect"] = "rare"
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(BadData, match="class 'rare' has no row left to fit on"):
        pipeline.train(dataset.read(tmp_path / "t.csv", "defect"), Recipe("logistic-regression", 0, 0.9), quiet)


def test_huge_values_are_described(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,defect\n" + "".join(f"3.2e38,{c}\n" for c in "xyxyxyxyxyxyxyxy"))
    table = dataset.read(tmp_path / "t.csv", "defect")
    assert table.schema.observe(table.features).features[0].example == pytest.approx(3.2e38)


@pytest.mark.parametrize("name", ["missing.csv", "directory", "broken.parquet", "binary.csv", "sheet.xlsx"])
def test_what_is_no_table_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no PAR1")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(BadData, match=name):
        dataset.read(tmp_path / name, "defect")


def test_the_command_line_trains_into_a_directory_and_the_store(tmp_path: Path) -> None:
    good_rows(400).to_csv(tmp_path / "parcels.csv", index=False)
    data = ("--data", tmp_path / "parcels.csv", "--label", "defect")
    into = run(tmp_path, "python", "train.py", *data, "--output", tmp_path / "out")
    assert into.returncode == 0, into.stderr
    assert "held-out rows" in into.stdout
    assert "fitting hist-gradient-boosting" in into.stderr
    art = artifact.load(tmp_path / "out")
    assert art.digest in into.stdout

    stored = run(tmp_path, "python", "train.py", "--rows", 2000, "--estimator", "logistic-regression")
    assert stored.returncode == 0, stored.stderr
    listed = run(tmp_path, "bentoml", "models", "list", "-o", "json")
    (model,) = json.loads(listed.stdout)
    assert model["tag"] in stored.stdout
    assert model["module"] == "onnxruntime"


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,defect\n1,x\ntwo,x\n")
    bad = tmp_path / "bad.csv"
    for arguments in (("--data", bad, "--label", "defect"), ("--data", bad), ("--test-share", "2"), ("--rows", "x")):
        result = run(tmp_path, "python", "train.py", *arguments)
        assert result.returncode != 0
        assert "Traceback" not in result.stderr, result.stderr
        assert "train.py: " in result.stderr.splitlines()[-1]


def test_a_place_that_can_not_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    few = ("--rows", 400, "--estimator", "logistic-regression")
    for output, problem in {tmp_path / "file" / "model": "File exists", "x" * 300: "File name too long"}.items():
        result = run(tmp_path, "python", "train.py", *few, "--output", output)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr, result.stderr
        last = result.stderr.splitlines()[-1]
        assert last.startswith("train.py: ")
        assert last.endswith(f": {problem}; expected a place to write to")


def test_training_goes_on_where_nobody_reads_its_progress(tmp_path: Path) -> None:
    options = "--rows 400 --estimator logistic-regression --output"
    train = f"exec {BIN / 'python'} train.py {options} {tmp_path / 'model'} 2>/dev/full"
    assert (
        subprocess.run(["sh", "-c", train], cwd=ROOT, env=environment(tmp_path), timeout=120, check=False).returncode
        == 0
    )
    assert artifact.load(tmp_path / "model").engine == "onnxruntime"


def test_what_no_replica_would_serve_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden answers are turned around, as an export that is wrong could."""
    to_json = export._Golden.to_json

    def reverse(golden: Any) -> dict[str, Any]:
        made = to_json(golden)
        return made | {"probabilities": made["probabilities"][::-1]}

    monkeypatch.setattr(export._Golden, "to_json", reverse)
    with pytest.raises(BadData, match="a model of this data can't be served: golden answers differ by"):
        pipeline.train(dataset.builtin(800, seed=2), Recipe("logistic-regression", 1, 0.2), quiet)


@needs_steel_plates
def test_real_data_reaches_what_boosted_trees_reach_there() -> None:
    result = pipeline.train(dataset.read(STEEL_PLATES, "fault"), Recipe("hist-gradient-boosting", 0, 0.2), quiet)
    assert 0.75 <= result.card["metrics"]["accuracy"] <= 0.85
    assert result.card["engine"]["name"] == "onnxruntime"
