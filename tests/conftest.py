"""Shared fixtures: a trained artifact, and real server processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import hypothesis
import joblib
import pytest

from benchmarks import servers
from defects import artifact
from defects.training import dataset, pipeline
from tools import processes

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
STEEL_PLATES = ROOT.parent / "shared" / "data" / "steel_plates.csv"
START_SECONDS = 60.0
CI = "CI" in os.environ  # there, what a test needs and doesn't find is a failure


hypothesis.settings.register_profile("thousands", max_examples=2_000)  # of models, by hand


def quiet(_: str) -> AbstractContextManager[None]:
    return nullcontext()


@pytest.fixture(scope="session")
def trained() -> pipeline.Trained:
    return pipeline.train(dataset.builtin(8_000, seed=1), "hist-gradient-boosting", 1, 0.2, quiet)


@pytest.fixture(scope="session")
def model_dir(trained: pipeline.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifact") / "model"
    artifact.replace(directory, trained.files)
    return directory


@pytest.fixture(scope="session")
def fitted(trained: pipeline.Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline that `model_dir` was exported from, for the controls."""
    file = tmp_path_factory.mktemp("pipeline") / "pipeline.joblib"
    joblib.dump(trained.pipeline, file)
    return file


@dataclass
class Server:
    """A server process of its own process group."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"not ready in {START_SECONDS} s: {self.log.read_text()}")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


Command = list[str | Path]
MODULE: Command = [BIN / "python", "-m", "defects.serve"]
Serve = Callable[..., AbstractContextManager[Server]]


free_port = processes.free_port


def environment(home: Path, **settings: object) -> dict[str, str]:
    """This environment without settings of ours, with a BentoML home of its own."""
    return servers.environment(home, {name: str(value) for name, value in settings.items()})


def run(home: Path, *command: object, **settings: object) -> subprocess.CompletedProcess[str]:
    """A command of the virtual environment, run to its end."""
    return subprocess.run(
        [BIN / str(command[0]), *map(str, command[1:])],
        cwd=ROOT,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start `bentoml serve`, or `command`, with the given settings; a context manager that gives a ready `Server`."""

    @contextmanager
    def start(
        target: str = "service:DefectClassifier", cwd: Path = ROOT, command: Command | None = None, **settings: object
    ) -> Iterator[Server]:
        port, scratch = settings.get("PORT", free_port()), tmp_path_factory.mktemp("server")
        home = Path(str(settings.pop("BENTOML_HOME", scratch / "home")))
        settings = {"DEFECTS_DRAIN_SECONDS": 0, "HOST": "127.0.0.1", "PORT": port} | settings
        log = scratch / "log"
        command = command or [BIN / "bentoml", "serve", target, "--host", "127.0.0.1", "--port", str(port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environment(home, **settings),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        server = Server(process, f"http://127.0.0.1:{port}", log)
        try:
            server.wait_ready()
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="session")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    """One server for all tests that only ask."""
    with serve(MODEL_DIR=model_dir) as running:
        yield running
