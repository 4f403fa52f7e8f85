"""An artifact proves that it is whole, and a damaged one is refused by the name of the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from defects import artifact, scoring, simulator
from defects.artifact import BadArtifact, NoModel
from defects.training.pipeline import Trained


@pytest.fixture
def copy(model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def reseal(directory: Path) -> None:
    """Make the digests agree with what the files hold now, as whoever can write the directory could."""
    names = json.loads((directory / artifact.DIGESTS).read_text())
    artifact.write(directory, {name: (directory / name).read_bytes() for name in names})


def test_it_loads_and_answers_the_golden_inputs(copy: Path, trained: Trained) -> None:
    loaded = artifact.load(copy)
    assert loaded.schema.names == simulator.SCHEMA.names
    assert (loaded.version, loaded.engine) == (trained.card["version"], "onnxruntime")
    scorer = scoring.load(loaded)
    assert scoring.golden_difference(loaded.golden, scorer(loaded.golden.rows)) is None


def test_wrong_golden_answers_are_noticed(copy: Path) -> None:
    loaded = artifact.load(copy)
    answered = scoring.load(loaded)(loaded.golden.rows)
    assert "differ by 0.01" in str(scoring.golden_difference(loaded.golden, answered + 0.01))
    assert "differ by nan" in str(scoring.golden_difference(loaded.golden, answered * float("nan")))
    assert "shape" in str(scoring.golden_difference(loaded.golden, answered[:3]))


@pytest.mark.parametrize("name", ["model.onnx", "schema.json", "card.json", "golden.json", "reference.json"])
@pytest.mark.parametrize("damage", ["changed", "truncated", "removed"])
def test_a_damaged_file_is_refused_by_name(copy: Path, name: str, damage: str) -> None:
    content = (copy / name).read_bytes()
    if damage == "removed":
        (copy / name).unlink()
    else:
        (copy / name).write_bytes(content[:-1] if damage == "truncated" else content[:-2] + b"!" + content[-1:])
    with pytest.raises(BadArtifact, match=name):
        artifact.load(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"../x": "y"}', b"{}"])
def test_damaged_digests_are_refused(copy: Path, content: bytes) -> None:
    (copy / artifact.DIGESTS).write_bytes(content)
    with pytest.raises(BadArtifact, match=artifact.DIGESTS):
        artifact.load(copy)


@pytest.mark.parametrize(
    "content", [b"not json", b"[]", b"{}", b'{"features": [{"nme": 1}], "classes": [], "title": ""}']
)
def test_a_schema_of_another_format_is_refused(copy: Path, content: bytes) -> None:
    (copy / "schema.json").write_bytes(content)
    reseal(copy)
    with pytest.raises(BadArtifact, match=r"schema\.json"):
        artifact.load(copy)


def test_an_unknown_engine_and_an_unreadable_model_are_refused(copy: Path, trained: Trained) -> None:
    (copy / "model.onnx").write_bytes(b"not an ONNX model")
    reseal(copy)
    with pytest.raises(BadArtifact, match=r"model\.onnx: onnxruntime can't load it"):
        scoring.load(artifact.load(copy))
    model = onnx.load_from_string(trained.files["model.onnx"])
    del model.metadata_props[:]
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    reseal(copy)
    with pytest.raises(BadArtifact, match=r"its link is None; expected one of identity, sigmoid, softmax"):
        scoring.load(artifact.load(copy))
    card = json.loads((copy / "card.json").read_text())
    for engine, message in (("abacus", "'abacus' is unknown"), ("scikit-learn", r"model\.skops is missing")):
        card["engine"]["name"] = engine
        (copy / "card.json").write_bytes(artifact.dump(card))
        reseal(copy)
        with pytest.raises(BadArtifact, match=message):
            scoring.load(artifact.load(copy))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("golden.json", lambda golden: golden.pop("tolerance")),
        ("golden.json", lambda golden: golden["rows"].clear()),
        ("golden.json", lambda golden: golden["rows"][0].pop()),
        ("golden.json", lambda golden: golden["probabilities"][0].pop()),
        ("golden.json", lambda golden: golden.pop("classes")),
        ("golden.json", lambda golden: golden["classes"].pop()),
        ("schema.json", lambda schema: schema["features"][0].update(kind="category")),
        ("schema.json", lambda schema: schema.update(label_type="date")),
        ("schema.json", lambda schema: schema.update(label_type="integer")),
        ("schema.json", lambda schema: schema["features"].pop()),
        ("schema.json", lambda schema: schema["classes"].pop()),
        ("schema.json", lambda schema: schema["features"][0].update(low="50")),
        ("card.json", lambda card: card.update(version="1\r\nset-cookie: a=b")),
        ("card.json", lambda card: card.pop("engine")),
    ],
)
def test_files_that_do_not_fit_together_are_refused(copy: Path, name: str, change: Callable[[Any], Any]) -> None:
    content = json.loads((copy / name).read_text())
    change(content)
    (copy / name).write_bytes(artifact.dump(content))
    reseal(copy)
    with pytest.raises(BadArtifact, match="not one that this version reads"):
        artifact.load(copy)


def test_only_the_pinned_digest_is_loaded(copy: Path) -> None:
    digest = artifact.load(copy).digest
    assert artifact.load(copy, digest).digest == digest
    with pytest.raises(BadArtifact, match="DEFECTS_MODEL_DIGEST"):
        artifact.load(copy, "sha256:" + "0" * 64)


def test_no_model_is_not_a_bad_model(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoModel, match="no model"):
            artifact.load(directory)


def test_replacing_takes_an_artifact_but_nothing_else(copy: Path, trained: Trained, tmp_path: Path) -> None:
    artifact.replace(copy, trained.files)
    assert artifact.load(copy).version == trained.card["version"]
    other = tmp_path / "other"
    other.mkdir()
    artifact.replace(other, trained.files)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    with pytest.raises(FileExistsError, match="precious exists and is not a model artifact"):
        artifact.replace(tmp_path / "precious", trained.files)
    assert {p.name for p in tmp_path.iterdir()} == {"model", "other", "precious"}
