"""The built Bento: what is in it, and that it serves its own model from anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from conftest import BIN, PATIENT_CHECK, ROOT, Serve, environment, run
from defects import simulator


def bentoml(home: Path, *arguments: str, **settings: str) -> str:
    result = run(home, "bentoml", *arguments, COLUMNS=500, **settings)  # else long paths are broken into lines
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def train(home: Path, seed: int) -> str:
    done = run(home, "python", "train.py", "--rows", 2000, "--estimator", "logistic-regression", "--seed", seed)
    match = re.search(r"defect_classifier:(\S+)", done.stdout)
    assert match
    return match[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def built(home: Path) -> tuple[Path, str]:
    """A Bento in `home`, and the version of the model that it was built with."""
    version = train(home, seed=1)
    tag = bentoml(home, "build", "--output", "tag").strip().splitlines()[-1].removeprefix("__tag__:")
    return Path(bentoml(home, "get", tag, "--output", "path").strip()), version


def test_it_packs_only_what_serving_needs(built: tuple[Path, str]) -> None:
    packed = {str(p.relative_to(built[0] / "src")) for p in (built[0] / "src").rglob("*") if p.is_file()}
    assert {"service.py", "defects/schema.py", "defects/scoring.py"} <= packed
    assert not {p for p in packed if re.search(r"train|tables|test|\.md$|\.git|kserve|\.lock", p)}
    migrations = {str(file.relative_to(ROOT)) for file in (ROOT / "defects" / "history").rglob("*.sql")}
    assert migrations
    assert migrations <= packed
    requirements = (built[0] / "env" / "python" / "requirements.txt").read_text()
    for needed in ("onnxruntime", "asyncpg", "obstore"):
        assert re.search(rf"^{needed}==", requirements, re.MULTILINE), needed
    assert not re.search(r"^(scikit-learn|scipy|pandas|pyarrow|locust|pytest)==", requirements, re.MULTILINE)


def test_the_commands_of_the_history_run_from_what_it_packs(built: tuple[Path, str], home: Path) -> None:
    done = subprocess.run(
        [BIN / "python", "-m", "defects.history", "migrate", "--url", f"sqlite:///{home / 'history.db'}"],
        cwd=built[0] / "src",
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "applied 0001_" in done.stdout) == (0, True), done.stdout + done.stderr


def test_it_serves_its_own_model_from_any_directory(
    built: tuple[Path, str], home: Path, serve: Serve, tmp_path: Path
) -> None:
    newer = train(home, seed=2)
    assert newer != built[1]
    with serve("defect_classifier:latest", cwd=tmp_path, BENTOML_HOME=home) as server:
        answer = httpx.post(f"{server.url}/classify", json=simulator.SCHEMA.example)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model-version"] == built[1]


def test_the_deploy_check_that_it_packs_passes(
    built: tuple[Path, str], home: Path, serve: Serve, tmp_path: Path
) -> None:
    model = home / "models" / "defect_classifier" / built[1]
    with serve("defect_classifier:latest", cwd=tmp_path, BENTOML_HOME=home, DEFECTS_MAX_QUEUED_ROWS=1024) as server:
        done = subprocess.run(
            [BIN / "python", "-c", PATIENT_CHECK, server.url, "--model-dir", model, "--overload"],
            cwd=built[0] / "src",
            env=environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "33 ok, 0 failed, 0 skipped" in done.stdout


def test_it_serves_a_mounted_model_instead(
    built: tuple[Path, str], home: Path, serve: Serve, model_dir: Path, tmp_path: Path
) -> None:
    with serve("defect_classifier:latest", cwd=tmp_path, BENTOML_HOME=home, MODEL_DIR=model_dir) as server:
        answer = httpx.get(f"{server.url}/model").json()
    assert answer["version"] != built[1]


def test_a_bento_can_be_built_without_a_model(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    refused = run(home, "bentoml", "build")
    assert refused.returncode == 66
    bentoml(home, "build", DEFECTS_BUILD="1")
    with serve("defect_classifier:latest", cwd=tmp_path, BENTOML_HOME=home, MODEL_DIR=model_dir) as server:
        assert httpx.post(f"{server.url}/classify", json=simulator.SCHEMA.example).status_code == 200
    shutil.rmtree(home)


def test_serving_dependencies_are_locked_as_they_are_tested() -> None:
    pins = [
        dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("serve.txt", "dev.txt")
    ]
    assert pins[0].items() <= pins[1].items()


@pytest.mark.parametrize("name", ["serve", "dev", "clients"])
def test_the_lock_names_no_index_and_every_hash(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"https?://|--(extra-)?index|--find-links", lock)
    assert len(re.findall(r"^\S+==", lock, re.MULTILINE)) == len(
        re.findall(r"^\S+==.*\\\n +--hash=", lock, re.MULTILINE)
    )
