"""Shared fixtures: a trained artifact, and real server processes."""

from __future__ import annotations

import os

# Read by scikit-learn and NumPy when they are imported. With more threads than free cores, OpenMP's spin, and small
# models take many times as long. Servers are started without these.
THREAD_LIMITS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
os.environ |= THREAD_LIMITS
for name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS"):  # the tests' own `make` is not `make test`'s
    os.environ.pop(name, None)

# isort: split
import fcntl
import inspect
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx
import hypothesis
import joblib
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from benchmarks import servers
from defects import artifact
from defects.settings import MAX_TIMEOUT_MS
from defects.training import dataset, pipeline
from defects.training.options import Recipe
from tools import processes

pytest_plugins = ("history_databases",)
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
STEEL_PLATES = ROOT.parent / "shared" / "data" / "steel_plates.csv"
# How long a test waits at most. It looks again and again, so this costs nothing where all is well, and a machine may
# stop for seconds at any moment. Whatever must not happen within it (a drain, a deadline) is set to take longer.
WAIT_SECONDS = 120.0
RUN_SECONDS = 300.0  # that a command may take
PAUSE_SECONDS, TRIES = 0.2, 5  # of the machine, that spoil a measurement; so often is it repeated
CI = "CI" in os.environ  # there, what a test needs and doesn't find is a failure
# Groups of files, by how their names start, whose tests never run beside one another with xdist: they measure time,
# share the images and networks of this machine, a PostgreSQL server, or browsers.
TOGETHER: dict[str, tuple[str, ...]] = {
    "load": ("loadtests/test_load.py", "loadtests/test_loadtests.py", "benchmarks/"),
    "cluster": (
        "loadtests/test_cluster.py",
        "serving/test_batching.py",
        "serving/test_lifecycle.py",
        "serving/test_peaks.py",
        "serving/test_telemetry.py",
    ),
    "limits": ("check/", "limits/"),
    "podman": ("image/test_image", "loadtests/test_load_image"),
    "history": ("history/",),
    "browser": (
        "http/test_page",
        "loadtests/test_cluster_report",
        "loadtests/test_report",
        "loadtests/test_web_page",
        "training/test_card_looks",
    ),
}
TIMED, NICE = ("load", "cluster", "limits"), 10  # what measures time goes first; all else gives way by so much
# Files whose tests share nothing and take long.
APART = ("training/test_right_answers.py", "training/test_export.py", "training/test_training.py")
# What begins next, so that no worker is left alone with it at the end: files and groups. Containers come when what
# measures time is about to be done, for they are checked under load.
LONG = (
    "test_docs.py",
    "training/test_right_answers.py",
    "loadtests/test_lies.py",
    "http/test_openapi_contract.py",
    "training/test_training.py",
    "http/test_server.py",
    "podman",
    "serving/test_make_serve.py",
    "serving/test_mounted_model.py",
    "history",
    "loadtests/test_compare.py",
    "browser",
)

# How long an example takes says how busy the machine is, and nothing else.
hypothesis.settings.register_profile(
    "busy machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("busy machine")
hypothesis.settings.register_profile("thousands", max_examples=2_000)  # of models, by hand
# HTTPX gives up after 5 s unless it is told otherwise. This is the one object that all of its defaults are.
default_timeout: httpx.Timeout = inspect.signature(httpx.get).parameters["timeout"].default
for part in ("connect", "read", "write", "pool"):
    setattr(default_timeout, part, WAIT_SECONDS)


def quiet(_: str) -> AbstractContextManager[None]:
    return nullcontext()


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Keeps the tests of a file, which share fixtures, on one of xdist's workers, and those of `TOGETHER` as well."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile | None:
    """Take the place of xdist's `loadgroup`, whose marks pytest 9.2 does not let through."""
    if config.getvalue("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker is left alone with it at the end."""
    order = [*TIMED, *LONG]

    def place(item: pytest.Item) -> int:
        names = (group_of(item.nodeid), file_of(item.nodeid))
        return next((order.index(name) for name in names if name in order), len(order))

    items.sort(key=place)


def pytest_xdist_auto_num_workers() -> int:
    """Return one worker for each group of `TIMED`, which mostly wait, and one more, which has what they leave."""
    return len(TIMED) + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give way to what measures time, from a worker's first test on that doesn't."""
    if "PYTEST_XDIST_WORKER" in os.environ and group_of(item.nodeid) not in TIMED and os.nice(0) < NICE:
        os.nice(NICE)


def file_of(nodeid: str) -> str:
    """Return the path of a test's file below `tests/`."""
    return nodeid.partition("::")[0].removeprefix("tests/")


def group_of(nodeid: str) -> str:
    """Return what is run by one worker together with this test: a group of `TOGETHER`, its file, or itself alone."""
    file = file_of(nodeid)
    if file in APART:
        return nodeid
    return next((group for group, files in TOGETHER.items() if file.startswith(files)), file)


Made = TypeVar("Made")
Job = TypeVar("Job")


def once(scratch: pytest.TempPathFactory, name: str, make: Callable[[], Made]) -> Made:
    """Return what `make` makes, which the first of xdist's workers that asks for `name` makes for all of them."""
    folder = scratch.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = folder / f"{name}.joblib"
        if not file.exists():
            joblib.dump(make(), file)
        made: Made = joblib.load(file)
        return made


def until(holds: Callable[[], Made | Literal[False]], seconds: float = WAIT_SECONDS) -> Made:
    """Wait until something holds, and return it; fail after so many seconds.

    A server that can't be reached is asked again.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.TransportError):
            if found := holds():
                return found
        assert time.monotonic() < deadline, f"not so within {seconds} s"
        time.sleep(0.02)


def ask_together(
    url: str, ask: Callable[[httpx.Client, Job], Made], jobs: Iterable[Job], callers: int, **options: Any
) -> list[Made]:
    """Ask a server from many threads at once; return the answers in the order of the jobs.

    Every thread has a client of its own: httpx's pool, shared, closes connections that another thread has just been
    given (encode/httpcore#1110), which reads as a fault of the server.
    """
    own = threading.local()
    with ExitStack() as clients, ThreadPoolExecutor(callers) as pool:

        def answer(job: Job) -> Made:
            if not hasattr(own, "client"):
                own.client = clients.enter_context(httpx.Client(base_url=url, **options))
            return ask(own.client, job)

        return list(pool.map(answer, jobs))


# The deploy check, run with `python -c`, but for how fast it expects this machine to be while it is overloaded.
PATIENT_CHECK = """
import runpy
from defects.check import overload
overload.DEADLINE_MS = overload.LATE_MS = overload.QUICK_MS = 600_000
runpy.run_module("defects.check", run_name="__main__")
"""


class Pauses:
    """How long this machine stood still: what a thread was late that does nothing but sleep."""

    EVERY_SECONDS = 0.02

    def __init__(self) -> None:
        self.longest = 0.0
        self._over = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(self.EVERY_SECONDS)
            self.longest = max(self.longest, time.monotonic() - began - self.EVERY_SECONDS)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.join()


def undisturbed(measure: Callable[[Path], Made], scratch: Path) -> Made:
    """Measure in a new directory until the machine did not stand still meanwhile: return what was measured then.

    Whether what was measured is right, plays no part in it.
    """
    for number in range(TRIES):
        folder = scratch / f"try-{number}"
        folder.mkdir()
        with Pauses() as pauses:
            measured = measure(folder)
        if pauses.longest < PAUSE_SECONDS:
            break
    return measured


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pipeline.Trained:
    def train() -> pipeline.Trained:
        return pipeline.train(dataset.builtin(8_000, seed=1), Recipe("hist-gradient-boosting", 1, 0.2), quiet)

    return once(tmp_path_factory, "trained", train)


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
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        raise AssertionError(f"not ready in {WAIT_SECONDS} s: {self.log.read_text()}")

    def wait(self) -> int:
        """Wait until the process has ended; return its exit code."""
        return self.process.wait(WAIT_SECONDS)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


Command = list[str | Path]
MODULE: Command = [BIN / "python", "-m", "defects.serve"]
BENTOML: Command = [BIN / "bentoml", "serve", "service:DefectClassifier"]
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
        timeout=RUN_SECONDS,
        check=False,
    )


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Start `defects.serve`, `bentoml serve` with `target`, or `command`, with the given settings.

    Gives a context manager of a ready `Server`. Where the entry point does not matter, `defects.serve` is the faster.
    It drains at once. Requests that name no deadline have the longest there is, so that none is refused for the time
    that the machine took.
    """

    @contextmanager
    def start(
        target: str | None = None, cwd: Path = ROOT, command: Command | None = None, **settings: object
    ) -> Iterator[Server]:
        port, scratch = settings.get("PORT", free_port()), tmp_path_factory.mktemp("server")
        home = Path(str(settings.pop("BENTOML_HOME", scratch / "home")))
        address = {"HOST": "127.0.0.1", "PORT": port, "BENTOML_HOST": "127.0.0.1", "BENTOML_PORT": port}
        patient = {"DEFECTS_DRAIN_SECONDS": 0, "DEFECTS_REQUEST_TIMEOUT_MS": MAX_TIMEOUT_MS}
        settings = patient | address | settings
        log = scratch / "log"
        command = command or ([BIN / "bentoml", "serve", target] if target else MODULE)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={k: v for k, v in environment(home, **settings).items() if k not in THREAD_LIMITS},
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
