"""A server that is being started, and what it says and answers meanwhile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from conftest import MODULE, ROOT, WAIT_SECONDS, Command, environment, free_port, until

LONG = 3600  # seconds that no test lasts


@dataclass
class Starting:
    """A server that is being started."""

    process: subprocess.Popen[bytes]
    url: str
    output: Path

    def said(self) -> str:
        return self.output.read_text("utf-8")

    def waits(self) -> str:
        """Wait until it says that it waits; return what for."""

        def line() -> str:
            running, said = self.process.poll() is None, self.said()
            found: list[str] = re.findall(r"waiting up to [^\"\n]*", said)
            assert found or running, said
            return "".join(found)

        return until(line)

    def ready(self) -> dict[str, float]:
        """Wait until it is ready; return the phases of its start."""

        def answer() -> httpx.Response | None:
            assert self.process.poll() is None, self.said()
            found = httpx.get(f"{self.url}/readyz?verbose")
            return found if found.status_code == 200 else None

        phases: dict[str, float] = until(lambda: answer() or False).json()["startup_seconds"]
        return phases


@contextmanager
def starting(scratch: Path, mount: Path, command: Command = MODULE, **settings: object) -> Iterator[Starting]:
    port, output = free_port(), scratch / "output"
    address = {"HOST": "127.0.0.1", "PORT": port, "BENTOML_HOST": "127.0.0.1", "BENTOML_PORT": port}
    usual = {"MODEL_DIR": mount, "DEFECTS_MODEL_WAIT_SECONDS": LONG, "DEFECTS_DRAIN_SECONDS": 0}
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(scratch, **address, **(usual | settings)), stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield Starting(process, f"http://127.0.0.1:{port}", output)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(WAIT_SECONDS)
