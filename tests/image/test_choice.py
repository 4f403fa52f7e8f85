"""Another checkout's model is not packed unless it is named, and what is packed is named with its data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import BIN, CI, ROOT, RUN_SECONDS, Server, environment, run, until
from defects import artifact
from defects.store import CHECKOUT
from defects.training import pipeline

STORE = """
import json, pathlib, sys
from defects import artifact, store

files = {p.name: p.read_bytes() for p in pathlib.Path(sys.argv[1]).iterdir() if p.name != artifact.DIGESTS}
card = json.loads(files["card.json"]) | {"version": sys.argv[2]}
card["data"] |= {"source": sys.argv[3]}
files["card.json"] = artifact.dump(card)
store.put(files, card)
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


CHOOSE = """
import json, sys
from defects.image import choice
from defects.settings import Fatal, Settings

for environment in json.loads(sys.argv[1]):
    try:
        model, tag = choice.choose(Settings.from_environment(environment))
        print(json.dumps([0, tag, choice.named(model, tag)]))
    except Fatal as problem:
        print(json.dumps([problem.exit_code, None, str(problem)]))
"""
Choice = tuple[int, str | None, str]  # an exit code, the tag of the model, and what is said


def choose(home: Path, *environments: dict[str, str]) -> list[Choice]:
    """What is chosen in each of these environments; one process for all, because BentoML takes a second to import."""
    done = run(home, "python", "-c", CHOOSE, json.dumps(environments))
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def digests(home: Path) -> dict[str, str]:
    return {tag: artifact.load(home / "models" / artifact.NAME / tag).digest for tag in ("ours", "theirs")}


@pytest.fixture(scope="module")
def chosen(home: Path, digests: dict[str, str]) -> list[Choice]:
    names = [{"DEFECTS_MODEL": f"defect_classifier:{tag}"} for tag in ("ours", "theirs")]
    return choose(home, {}, *names, {"DEFECTS_MODEL_DIGEST": digests["theirs"]})


def test_another_checkouts_newest_model_is_refused_and_named(chosen: list[Choice], rows: str) -> None:
    code, tag, said = chosen[0]
    assert (code, tag) == (78, None), said
    assert said.startswith("DEFECTS_MODEL: is not set, and the newest model of the store was not trained by this")
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


@pytest.mark.parametrize(("index", "name", "source"), [(1, "ours", "parcels.csv"), (2, "theirs", "steel.csv")])
def test_the_model_that_is_named_is_packed_and_its_data_is_said(
    chosen: list[Choice], digests: dict[str, str], rows: str, index: int, name: str, source: str
) -> None:
    code, tag, said = chosen[index]
    assert (code, tag) == (0, f"defect_classifier:{name}"), said
    assert said.startswith(f"defect_classifier:{name}, {source}, {rows}, trained 2"), said
    assert ", accuracy 0." in said
    assert said.endswith(f"digest {digests[name]}")


def test_a_pinned_digest_names_it_as_well(chosen: list[Choice]) -> None:
    assert chosen[3][:2] == (0, "defect_classifier:theirs")


@pytest.fixture
def ours(home: Path, tmp_path: Path) -> Path:
    """A copy of the store with this checkout's model only."""
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    shutil.rmtree(copy / "models" / artifact.NAME / "theirs")
    (copy / "models" / artifact.NAME / "latest").write_text("ours")
    return copy


def test_this_checkouts_own_newest_is_packed_without_more(ours: Path) -> None:
    done = run(ours, "python", "-m", "defects.image.choice")
    assert (done.returncode, done.stdout) == (0, "defect_classifier:ours\n"), done.stderr
    assert done.stderr.startswith("packing defect_classifier:ours, parcels.csv, ")


def test_one_of_nobody_is_refused(ours: Path) -> None:
    description = ours / "models" / artifact.NAME / "ours" / "model.yaml"
    fields = yaml.safe_load(description.read_text())
    del fields["labels"][CHECKOUT]  # as stored before there was this label
    description.write_text(yaml.safe_dump(fields))
    ((code, _, said),) = choose(ours, {})
    assert (code, said.endswith("or make train, which trains one here")) == (78, True), said


def test_a_store_of_another_place_is_no_hint_at_it(home: Path) -> None:
    assert str(ROOT) not in (home / "models" / artifact.NAME / "ours" / "model.yaml").read_text()


def test_a_server_says_in_its_log_what_its_model_was_trained_on(server: Server, rows: str) -> None:
    def line() -> str | None:
        return next((text for text in server.log.read_text().splitlines() if '"open http' in text), None)

    until(lambda: line() is not None)
    said = json.loads(line() or "")["data"]
    assert said.startswith(f"simulated scan tunnel (defects/simulator.py), {rows}, trained 2"), said
    assert ", accuracy 0." in said


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
