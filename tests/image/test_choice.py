"""Another checkout's model is not packed unless it is named, and what is packed is named with its data."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import BIN, CI, ROOT, RUN_SECONDS, environment, run
from defects import artifact
from defects.training import pipeline

STORE = """
import json, pathlib, sys
from defects import artifact

files = {p.name: p.read_bytes() for p in pathlib.Path(sys.argv[1]).iterdir() if p.name != artifact.DIGESTS}
card = json.loads(files["card.json"]) | {"version": sys.argv[2]}
card["data"] |= {"source": sys.argv[3]}
files["card.json"] = artifact.dump(card)
artifact.store(files, card)
"""


def store(checkout: Path, home: Path, version: str, source: str) -> None:
    """Put a model into the store of `home`, as the train.py of a checkout does."""
    done = subprocess.run(
        [sys.executable, "-c", STORE, home / "files", version, source],
        cwd=checkout, env=environment(home), capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def home(trained: pipeline.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model of this checkout, and a newer one of another checkout of the same code."""
    home, other = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("other")
    artifact.replace(home / "files", trained.files)
    shutil.copytree(ROOT / "defects", other / "defects", ignore=shutil.ignore_patterns("__pycache__"))
    store(ROOT, home, "ours", "parcels.csv")
    store(other, home, "theirs", "steel.csv")
    return home


@pytest.fixture(scope="module")
def rows(trained: pipeline.Trained) -> str:
    return f"{trained.card['data']['rows']:,} rows, seed {trained.card['data']['seed']}"


def choose(home: Path, **settings: object) -> tuple[int, str, str]:
    done = run(home, "python", "-m", "defects.image.choice", **settings)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_another_checkouts_newest_model_is_refused_and_named(home: Path, rows: str) -> None:
    code, chosen, said = choose(home)
    assert (code, chosen, len(said.splitlines())) == (78, "", 1), said
    assert said.startswith("defects: DEFECTS_MODEL: is not set, and the newest model of the store was not trained by")
    assert f"defect_classifier:theirs, steel.csv, {rows}, trained 2" in said
    assert "expected DEFECTS_MODEL=defect_classifier:theirs to pack it" in said
    assert said.endswith("or DEFECTS_MODEL=defect_classifier:ours for its own newest one")


def test_make_bento_refuses_it_too_and_says_so_beside_what_make_serve_would_serve(home: Path) -> None:
    make = ["make", "-o", ".venv/.installed", f"BIN={BIN}", "bento"]
    done = subprocess.run(
        make, cwd=ROOT, env=environment(home), capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    assert "Error 78" in done.stderr
    assert "the newest model was not trained by this checkout: defect_classifier:theirs, steel.csv" in done.stderr
    assert "DEFECTS_MODEL: is not set" in done.stderr
    assert not (home / "bentos").exists() or not list((home / "bentos").glob("*/*"))


def test_an_image_is_not_begun_with_it(home: Path, tmp_path: Path) -> None:
    if shutil.which("podman") is None:
        (pytest.fail if CI else pytest.skip)("podman is not installed; .ci/system-packages installs it")
    done = run(home, "python", "-m", "defects.image", "--output", tmp_path, "build", "--engine", "podman")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, "not trained by this checkout: defect_classifier:theirs" in line) == (78, True), line


@pytest.mark.parametrize(("tag", "source"), [("ours", "parcels.csv"), ("theirs", "steel.csv")])
def test_the_model_that_is_named_is_packed_and_its_data_is_said(home: Path, rows: str, tag: str, source: str) -> None:
    code, chosen, said = choose(home, DEFECTS_MODEL=f"defect_classifier:{tag}")
    assert (code, chosen) == (0, f"defect_classifier:{tag}"), said
    digest = artifact.load(home / "models" / artifact.NAME / tag).digest
    assert said.startswith(f"packing defect_classifier:{tag}, {source}, {rows}, trained 2"), said
    assert ", accuracy 0." in said
    assert said.endswith(f"digest {digest}")


def test_a_pinned_digest_names_it_as_well(home: Path) -> None:
    digest = artifact.load(home / "models" / artifact.NAME / "theirs").digest
    assert choose(home, DEFECTS_MODEL_DIGEST=digest)[:2] == (0, "defect_classifier:theirs")


def test_this_checkouts_own_newest_is_packed_without_more_and_one_of_nobody_is_not(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    shutil.rmtree(copy / "models" / artifact.NAME / "theirs")
    latest = copy / "models" / artifact.NAME / "latest"
    latest.write_text("ours")
    assert choose(copy)[:2] == (0, "defect_classifier:ours")
    description = copy / "models" / artifact.NAME / "ours" / "model.yaml"
    fields = yaml.safe_load(description.read_text())
    del fields["labels"][artifact.CHECKOUT]  # as stored before there was this label
    description.write_text(yaml.safe_dump(fields))
    code, _, said = choose(copy)
    assert (code, said.endswith("or make train, which trains one here")) == (78, True), said


def test_a_store_of_another_place_is_no_hint_at_it(home: Path) -> None:
    assert str(ROOT) not in (home / "models" / artifact.NAME / "ours" / "model.yaml").read_text()


DESCRIBED: list[tuple[dict[str, Any], str]] = [
    ({"data": {"source": "a.csv"}}, "a.csv"),
    ({"data": {"source": "a.csv", "rows": 1000, "sha256": "ab" * 32}}, f"a.csv, 1,000 rows, sha256:{'ab' * 6}"),
    ({"data": {"source": "tunnel", "rows": 7, "seed": 0}, "created": "2026"}, "tunnel, 7 rows, seed 0, trained 2026"),
    ({"data": {"source": "a", "rows": "7", "seed": None, "sha256": 1}, "created": 5, "metrics": []}, "a"),
    ({"data": {"source": "a"}, "metrics": {"accuracy": 0.98765}}, "a, accuracy 0.9877"),
    ({"data": {"source": "a\nb"}, "created": "x\ny"}, "a\\nb, trained x\\ny"),
]  # fmt: skip


@pytest.mark.parametrize(("card", "said"), DESCRIBED, ids=[said for _, said in DESCRIBED])
def test_a_card_is_described_as_far_as_it_says_something(card: dict[str, Any], said: str) -> None:
    assert artifact.described(card) == said
