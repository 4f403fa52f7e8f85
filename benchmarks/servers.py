"""The servers that benchmarks compare: how each is started, when it is ready, what it costs, and how it ends.

With two cores or more, servers share one and what measures them has another.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tools.processes import ROOT, START_SECONDS, STOP_SECONDS, free_port, pinned
from tools.raw_http import ask, get

POLL_SECONDS = 0.003
OURS = ("DEFECTS_", "BENTOML_", "MODEL_DIR", "K_REVISION", "PORT", "HOST", "OTEL_", "INFERENCE_SERVICE_NAME")


class ModelFiles(NamedTuple):
    """One model, as an artifact and as the scikit-learn pipeline that the artifact was exported from."""

    artifact: Path
    pipeline: Path | None = None  # written by joblib


@dataclass(frozen=True)
class Subject:
    """A server to measure. In `command`, `{port}` stands for the port; its first word is a program of this Python."""

    label: str
    command: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    probe: str = "/readyz"  # answers 200 when the server is ready
    needs_pipeline: bool = False


def _ours(label: str, *without: str, **settings: str) -> Subject:
    switches = tuple(word for name in without for word in ("--without", name))
    module = "benchmarks.controls.ours" if without else "defects.serve"
    return Subject(label, ("python", "-m", module, *switches), settings)


def _uvicorn(label: str, app: str, probe: str, *options: str, needs_pipeline: bool = False) -> Subject:
    address = ("--host", "127.0.0.1", "--port", "{port}", "--no-access-log")
    command = ("python", "-m", "uvicorn", f"benchmarks.controls.{app}:app", *address, *options)
    return Subject(label, command, probe=probe, needs_pipeline=needs_pipeline)


def _bentoml(label: str, service: str, *, needs_pipeline: bool = False, **settings: str) -> Subject:
    command = ("bentoml", "serve", service, "--host", "127.0.0.1", "--port", "{port}")
    return Subject(label, command, settings, needs_pipeline=needs_pipeline)


_STOCK = "benchmarks.controls.stock_bentoml:Classifier"
_HELLO = ("--loop", "uvloop", "--http", "httptools", "--lifespan", "off")
SUBJECTS = {
    "ours": _ours("ours"),
    "bentoml-serve": _bentoml("ours, `bentoml serve`", "service:DefectClassifier"),
    "validation-only": _ours("ours, validation only", "metrics", DEFECTS_ACCESS_LOG_SHARE="0"),
    "metrics": _ours("ours, + metrics", DEFECTS_ACCESS_LOG_SHARE="0"),
    "every-line": _ours("ours, + a line for each answer", DEFECTS_ACCESS_LOG_SHARE="1"),
    "no-gc-freeze": _ours("ours, without the GC freeze", "gc"),
    "fastapi": _uvicorn("FastAPI, scikit-learn", "fastapi_sklearn", "/openapi.json", needs_pipeline=True),
    "stock-onnx": _bentoml("stock BentoML, ONNX", _STOCK, ENGINE="onnx"),
    "stock-sklearn": _bentoml("stock BentoML, scikit-learn", _STOCK, needs_pipeline=True, ENGINE="sklearn"),
    "hello": _uvicorn("hello", "hello", "/", *_HELLO),
}


def environment(home: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return this environment without settings of ours, with a BentoML home of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "ORT_DISABLE_TELEMETRY": "1"}  # also where a control doesn't see to it
    return clean | quiet | {"BENTOML_HOME": str(home)} | dict(settings)


@dataclass
class ServerProcess:
    """A running server, the leader of its own process group."""

    label: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started: float  # on the monotonic clock

    def tree(self) -> list[psutil.Process]:
        """Return the server's processes."""
        with suppress(psutil.NoSuchProcess):
            leader = psutil.Process(self.process.pid)
            return [leader, *leader.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of all its processes so far."""
        return sum((t.user + t.system for t in self._all(psutil.Process.cpu_times)), 0.0)

    def resident_bytes(self) -> int:
        """Return the resident memory of all its processes; what they share counts for each."""
        return sum(m.rss for m in self._all(psutil.Process.memory_info))

    def _all(self, read: Callable[[psutil.Process], Any]) -> list[Any]:
        values = []
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                values.append(read(process))
        return values

    def wait_ready(self, request: bytes) -> float:
        """Return the seconds from the start to the first 200 for `request`; ends the process where none comes."""
        while (now := time.monotonic()) < self.started + START_SECONDS:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.label} ended with exit code {self.process.returncode}: {self.last_lines()}")
            with suppress(OSError, http.client.HTTPException):
                if ask(self.port, request, timeout=self.started + START_SECONDS - now).status == 200:
                    return time.monotonic() - self.started
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"{self.label} was not ready within {START_SECONDS:g} s: {self.last_lines()}")

    def last_lines(self) -> str:
        return "\n".join(self.log.read_text("utf-8", errors="replace").splitlines()[-20:])

    def stop(self) -> None:
        """Ask the server to end; then kill what is left of its process group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


def start(subject: Subject, model: ModelFiles, scratch: Path, on: frozenset[int]) -> ServerProcess:
    """Start a server; `wait_ready` says when it is. Its log and BentoML's home go to `scratch`, which is its own."""
    scratch.mkdir(parents=True)
    port, log = free_port(), scratch / "log"
    program, *arguments = (word.format(port=port) for word in subject.command)
    settings = {"MODEL_DIR": str(model.artifact), "PIPELINE": str(model.pipeline or "")} | dict(subject.settings)
    settings |= {"HOST": "127.0.0.1", "PORT": str(port), "DEFECTS_DRAIN_SECONDS": "0"}
    with log.open("wb") as output, pinned(on):
        started = time.monotonic()
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [str(Path(sys.executable).parent / program), *arguments],
            cwd=ROOT,
            env=environment(scratch / "home", settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    return ServerProcess(subject.label, process, port, log, started)


@contextmanager
def running(subjects: Mapping[str, Subject], model: ModelFiles, scratch: Path, on: frozenset[int]) -> Iterator[
    dict[str, ServerProcess]
]:  # fmt: skip
    """Run these servers; yield them, started together, once all are ready."""
    servers: dict[str, ServerProcess] = {}
    try:
        for name, subject in subjects.items():
            servers[name] = start(subject, model, scratch / name, on)
        for name, subject in subjects.items():
            servers[name].wait_ready(get(subject.probe))
        yield servers
    finally:
        for server in servers.values():
            server.stop()
