"""`make serve` and `make bento`, run as a person at a terminal runs them: what goes wrong is one clear line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from conftest import BIN, ROOT, RUN_SECONDS, WAIT_SECONDS, Server, environment, free_port, run, until
from defects import artifact
from defects.serving.drain import CRASHED
from defects.training import pipeline

MAKE = ("make", "-o", ".venv/.installed", f"BIN={BIN}")  # with what runs this test, and installing nothing


def make(home: Path, *arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAKE, *map(str, arguments)],
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


@contextmanager
def at_a_terminal(tmp_path: Path, **settings: object) -> Iterator[Server]:
    """`make serve` in a process group of its own, as a shell starts it."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*MAKE, "serve", f"PORT={port}"],
            cwd=ROOT,
            env=environment(tmp_path, **({"DEFECTS_DATABASE_URL": ""} | settings)),  # set but empty: no history
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    started: list[psutil.Process] = []
    try:
        server.wait_ready()
        started = psutil.Process(process.pid).children(recursive=True)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for child in started:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


def ctrl_c(server: Server) -> None:
    """What a terminal does: every process of the group gets it, not those with a session of their own."""
    os.killpg(server.process.pid, signal.SIGINT)


def our_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("defects: ")]


def gone(processes: list[psutil.Process], seconds: float = WAIT_SECONDS) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_the_first_ctrl_c_drains_and_the_second_cuts_it_short(model_dir: Path, tmp_path: Path) -> None:
    with at_a_terminal(tmp_path, MODEL_DIR=model_dir, DEFECTS_DRAIN_SECONDS=600) as server:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        ctrl_c(server)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        assert not gone(processes, 1)
        ctrl_c(server)
        assert gone(processes)
        server.wait()
        assert "Traceback" not in server.log.read_text()
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]
        assert lines[-1]["message"] == "drained"
        assert not any("history" in line for line in lines)  # DEFECTS_DATABASE_URL is set, but empty


def test_a_killed_worker_is_one_line(model_dir: Path, tmp_path: Path) -> None:
    with at_a_terminal(tmp_path, MODEL_DIR=model_dir) as server:
        processes = psutil.Process(server.process.pid).children(recursive=True)
        (worker,) = (process for process in processes if "worker.service" in " ".join(process.cmdline()))
        worker.kill()
        assert server.wait() != 0
        assert gone(processes)
        text = server.log.read_text()
    assert "Traceback" not in text, text
    (line,) = our_lines(text)
    assert line.startswith("defects: the worker process has ended")
    assert f"Error {CRASHED}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["PORT=abc"], "defects: PORT: expected a valid integer, .*got 'abc'"),
        (["PORT=99999"], "defects: PORT: expected less than or equal to 65535, got '99999'"),
        (["HOST=nowhere.invalid"], "defects: HOST, PORT: can't listen on nowhere.invalid:3000"),
    ],
)
def test_a_wrong_address_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = make(tmp_path, "serve", *arguments)
    assert (done.returncode != 0, "Traceback" in done.stderr, "Error 78" in done.stderr) == (True, False, True)
    (line,) = our_lines(done.stderr)
    assert re.match(message, line)


@pytest.fixture(scope="module")
def whole(trained: pipeline.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with one model in its store."""
    home = tmp_path_factory.mktemp("home")
    files = home / "files"
    artifact.replace(files, trained.files)
    code = (
        "import json, pathlib, sys; from defects import store\n"
        "files = {p.name: p.read_bytes() for p in pathlib.Path(sys.argv[1]).iterdir()}\n"
        "store.put(files, json.loads(files['card.json']) | {'version': 'v1'})"
    )
    done = run(home, "python", "-c", code, files)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def home(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    shutil.copytree(whole, tmp_path / "home")
    return tmp_path / "home"


def model_yaml(home: Path) -> Path:
    return home / "models" / artifact.NAME / "v1" / "model.yaml"


def test_a_damaged_model_in_the_store_is_one_line(home: Path) -> None:
    model_yaml(home).unlink()
    for arguments in (["serve", f"PORT={free_port()}"], ["bento"]):
        done = make(home, *arguments)
        assert (done.returncode != 0, "Traceback" in done.stderr, "Error 65" in done.stderr) == (True, False, True)
        (line,) = our_lines(done.stderr)
        named = "defects: defect_classifier:v1 in the BentoML model store is half-written or damaged: "
        assert line.startswith(named)
        assert line.endswith(f"delete {model_yaml(home).parent}")


LOCATE = """
import sys
from pathlib import Path
from defects import artifact, store

description = Path(sys.argv[1])
whole = description.read_text()
for damage in ("", "a: [", "name: defect_classifier", "name: [1, 2]"):
    description.write_text(damage)
    for tag in (None, "defect_classifier:v1"):
        try:
            store.locate(None, tag, Path("nowhere"))
        except artifact.BadArtifact as problem:
            print(problem)
description.write_text(whole)
description.parent.with_name("v10").mkdir()
for tag in ("defect_classifier:v", "defect_classifier:v10"):
    try:
        store.locate(None, tag, Path("nowhere"))
    except artifact.BadArtifact as problem:
        print(problem)
print(store.locate(None, "defect_classifier:v1", Path("nowhere"))[1])
"""


def test_however_a_model_is_damaged_the_line_names_it(home: Path) -> None:
    done = run(home, "python", "-c", LOCATE, model_yaml(home))
    assert done.returncode == 0, done.stderr
    *damaged, half, empty, found = done.stdout.splitlines()
    assert len(damaged) == 8
    assert all(line.startswith("defect_classifier:v1 in the BentoML model store is half-written") for line in damaged)
    assert half.startswith("defect_classifier:v10 in the BentoML model store is half-written")
    assert empty == half
    assert found == "defect_classifier:v1"


def test_a_server_names_a_damaged_model_that_it_was_asked_for(home: Path) -> None:
    model_yaml(home).unlink()
    done = run(home, "python", "-m", "defects.serve", DEFECTS_MODEL="defect_classifier:v1")
    assert (done.returncode, "Traceback" in done.stderr, len(our_lines(done.stderr))) == (65, False, 1), done.stderr


def test_training_beside_a_damaged_model_says_which_one_it_is(home: Path) -> None:
    model_yaml(home).unlink()
    done = run(home, "python", "train.py", "--rows", 2000)
    assert (done.returncode, "Traceback" in done.stderr) == (65, False), done.stderr
    assert "defect_classifier:v1 in the BentoML model store is half-written" in done.stderr


def test_nothing_is_trained_where_there_is_a_model(whole: Path) -> None:
    done = run(whole, "python", "train.py", "--if-missing")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
