"""A server waits for a mounted model that is not complete yet, and for nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from starting import LONG, starting

from conftest import BENTOML, MODULE, WAIT_SECONDS, Command, run
from defects import artifact
from defects.settings import Settings

ENTRY_POINTS: dict[str, Command] = {"defects.serve": MODULE, "bentoml serve": BENTOML}
PAUSE_SECONDS = 0.15  # between the pieces of a copy: a look, and more
# What a start does first, without all that comes after it: prints the digest of the model that was found.
ONLY_LOAD = """
from defects.serving import mounted_model
from defects.settings import Fatal, Settings
mounted_model.STILL_SECONDS = {still}
try:
    settings = Settings.from_environment()
    print(mounted_model.load(settings.model_dir, settings).digest)
except Fatal as problem:
    problem.exit()
"""


def only_load(still: float = LONG) -> Command:
    return [sys.executable, "-c", ONLY_LOAD.format(still=still)]


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """Where the model is to be."""
    return tmp_path / "mnt" / "models"


def copy_one_by_one(names: list[str], model: Path, mount: Path) -> None:
    """Copy files as a slow volume gets them, each in two pieces."""
    mount.mkdir(parents=True, exist_ok=True)
    for name in names:
        content = (model / name).read_bytes()
        with (mount / name).open("wb") as file:
            for piece in (content[: len(content) // 2], content[len(content) // 2 :]):
                file.write(piece)
                file.flush()
                time.sleep(PAUSE_SECONDS)


def other_files(model: Path) -> list[str]:
    return sorted(file.name for file in model.iterdir() if file.name != artifact.DIGESTS)


def digests_come_last(model: Path, mount: Path) -> None:
    copy_one_by_one([*other_files(model), artifact.DIGESTS], model, mount)


def digests_come_first(model: Path, mount: Path) -> None:
    copy_one_by_one([artifact.DIGESTS, *other_files(model)], model, mount)


def its_link_comes(model: Path, mount: Path) -> None:
    mount.parent.mkdir()
    mount.symlink_to(model)


@pytest.mark.parametrize("come", [digests_come_first, its_link_comes])
def test_a_server_starts_once_its_model_is_complete(
    tmp_path: Path, mount: Path, model_dir: Path, come: Callable[[Path, Path], None]
) -> None:
    with starting(tmp_path, mount) as server:
        assert f"{mount} is not a directory" in server.waits()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")
        come(model_dir, mount)
        phases = server.ready()
        assert list(phases)[:4] == ["interpreter", "imports", "model_wait", "artifact"]
        assert phases["ready"] == pytest.approx(sum(v for k, v in phases.items() if k != "ready"), abs=0.02)
        assert 'defects_startup_seconds{phase="model_wait"}' in httpx.get(f"{server.url}/metrics").text
        assert httpx.get(f"{server.url}/model").json()["digest"] == artifact.load(model_dir).digest
        lines = [json.loads(line) for line in server.said().splitlines()]
    about = [line["message"] for line in lines if line["logger"] == "defects.serving.mounted_model"]
    assert re.fullmatch(r"waiting up to 3600 s for the model: .*\|the model is there, after [0-9.]+ s", "|".join(about))


def test_a_model_whose_digests_come_last_is_taken_when_it_is_complete(
    tmp_path: Path, mount: Path, model_dir: Path
) -> None:
    with starting(tmp_path, mount, only_load()) as server:
        server.waits()
        digests_come_last(model_dir, mount)
        assert server.process.wait(WAIT_SECONDS) == 0
    assert server.said().splitlines()[-1] == artifact.load(model_dir).digest


def test_a_link_that_leads_nowhere_yet_is_waited_for(tmp_path: Path, mount: Path, model_dir: Path) -> None:
    target = tmp_path / "proc" / "7" / "root" / "models"
    mount.parent.mkdir()
    mount.symlink_to(target)
    with starting(tmp_path, mount, only_load()) as server:
        server.waits()
        target.parent.mkdir(parents=True)
        shutil.copytree(model_dir, target)
        assert server.process.wait(WAIT_SECONDS) == 0


def test_a_model_that_is_replaced_while_it_is_read_is_read_again(tmp_path: Path, mount: Path, model_dir: Path) -> None:
    """The files of two models are mixed first."""
    shutil.copytree(model_dir, mount)
    (mount / "card.json").write_bytes(b"{}")
    with starting(tmp_path, mount, only_load()) as server:
        assert "card.json: changed or truncated" in server.waits()
        shutil.copy(model_dir / "card.json", mount / ".card.json-new")
        (mount / ".card.json-new").rename(mount / "card.json")
        assert server.process.wait(WAIT_SECONDS) == 0


def nothing(_: Path, mount: Path) -> None:
    assert not mount.exists()


def one_file_missing(model: Path, mount: Path) -> None:
    shutil.copytree(model, mount)
    (mount / "model.onnx").unlink()


def one_file_cut(model: Path, mount: Path) -> None:
    shutil.copytree(model, mount)
    os.truncate(mount / "model.onnx", 100)


def digests_cut(model: Path, mount: Path) -> None:
    shutil.copytree(model, mount)
    os.truncate(mount / artifact.DIGESTS, 100)


NEVER_COMPLETE = [
    (nothing, 66, "no model: {} is not a directory; expected a model artifact"),
    (one_file_missing, 65, "{}/model.onnx: can't be read: No such file or directory"),
    (digests_cut, 65, "{}/digests.json is not one that this version reads: it is not JSON"),
]


@pytest.mark.parametrize(("lie", "code", "said"), NEVER_COMPLETE, ids=[lie.__name__ for lie, *_ in NEVER_COMPLETE])
def test_what_never_comes_ends_the_start_as_without_waiting(
    tmp_path: Path, mount: Path, model_dir: Path, lie: Callable[[Path, Path], None], code: int, said: str
) -> None:
    lie(model_dir, mount)
    done = run(tmp_path, "python", *only_load()[1:], MODEL_DIR=mount, DEFECTS_MODEL_WAIT_SECONDS=0.3)
    (line,) = done.stderr.splitlines()
    assert done.returncode == code, line
    assert line.startswith(f"defects: {said.format(mount)}")
    assert re.search(r" \(waited \d+\.\d s for it; DEFECTS_MODEL_WAIT_SECONDS is 0\.3\)$", line)


def test_a_damaged_file_that_nobody_writes_to_ends_the_start_before_the_time(
    tmp_path: Path, mount: Path, model_dir: Path
) -> None:
    one_file_cut(model_dir, mount)
    with starting(tmp_path, mount, only_load(still=0.3)) as server:
        assert server.process.wait(WAIT_SECONDS) == 65
    assert "DEFECTS_MODEL_WAIT_SECONDS is 3600" in server.said()


def a_file(model: Path, mount: Path) -> None:
    mount.parent.mkdir()
    shutil.copy(model / "model.onnx", mount)


def whole_but_useless(_: Path, mount: Path) -> None:
    mount.mkdir(parents=True)
    artifact.write(mount, dict.fromkeys(artifact.REQUIRED, b"{}"))


@pytest.mark.parametrize(
    ("lie", "code", "settings"),
    [
        (a_file, 66, {}),
        (whole_but_useless, 65, {}),
        (shutil.copytree, 65, {"DEFECTS_MODEL_DIGEST": f"sha256:{'0' * 64}"}),
    ],
    ids=["file", "whole but useless", "another one"],
)
def test_what_waiting_cannot_change_ends_the_start_at_once(
    tmp_path: Path, mount: Path, model_dir: Path, lie: Callable[[Path, Path], None], code: int, settings: dict[str, str]
) -> None:
    lie(model_dir, mount)
    with starting(tmp_path, mount, only_load(), **settings) as server:
        assert server.process.wait(WAIT_SECONDS) == code
    (line,) = server.said().splitlines()
    assert not re.search(r"waiting up to|\(waited", line)


def test_the_model_store_is_not_waited_for(tmp_path: Path) -> None:
    from defects.serving import mounted_model

    with pytest.raises(artifact.NoModel):
        mounted_model.load(tmp_path, Settings.from_environment({"DEFECTS_MODEL_WAIT_SECONDS": str(LONG)}))


@pytest.mark.parametrize(
    ("command", "number"),
    [*((command, signal.SIGTERM) for command in ENTRY_POINTS.values()), (only_load(), signal.SIGINT)],
    ids=[*ENTRY_POINTS, "Ctrl-C"],
)
def test_a_signal_ends_the_waiting_at_once_with_0(
    tmp_path: Path, mount: Path, command: Command, number: signal.Signals
) -> None:
    with starting(tmp_path, mount, command) as server:
        server.waits()
        server.process.send_signal(number)
        assert server.process.wait(WAIT_SECONDS) == 0
    assert "Traceback" not in server.said()
    assert len(server.said().splitlines()) == 1


def test_bentoml_serve_waits_too(tmp_path: Path, mount: Path, model_dir: Path) -> None:
    with starting(tmp_path, mount, BENTOML) as server:
        server.waits()
        its_link_comes(model_dir, mount)
        assert "model_wait" not in server.ready(), "its arbiter has waited, before the worker was started"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(WAIT_SECONDS) == 0
