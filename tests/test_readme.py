"""The README's commands work, and what it shows is what comes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from conftest import BIN, ROOT, Server, environment, free_port
from defects.training import dataset

README = (ROOT / "README.md").read_text("utf-8")
PORT_IN_README = "http://127.0.0.1:3000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell(command: str, home: Path, cwd: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=environment(home, **settings),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has, with this virtual environment, in which a command may write."""
    copy = tmp_path_factory.mktemp("checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in files.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)  # with its time: make compares them
    (copy / ".venv").symlink_to(BIN.parent)
    return copy


def shape(value: Any) -> Any:
    """A JSON value without its numbers and identifiers."""
    if isinstance(value, list):
        return [shape(v) for v in value]
    if isinstance(value, dict):
        return {k: shape(v) for k, v in value.items()}
    return value if value in ("punctured",) else type(value).__name__


def test_the_curl_commands_answer_as_shown(server: Server, tmp_path: Path) -> None:
    commands = (b.replace(PORT_IN_README, server.url) for b in blocks("sh") if b.startswith("curl"))
    classify, mistake, infer = commands
    shown_classify, _, shown_infer = blocks("json")
    for command, shown in ((classify, shown_classify), (infer, shown_infer)):
        answer = shell(command, tmp_path, ROOT)
        assert shape(json.loads(answer.stdout)) == shape(json.loads(shown)), answer.stdout
    refused = json.loads(shell(mistake, tmp_path, ROOT).stdout)
    assert refused["error"].startswith("invalid input: ")
    shown_field = json.loads(re.search(r"\{\"field\": \"length_mm\".*?\}", README)[0])  # type: ignore[index]
    assert shown_field in refused["fields"]


def test_the_other_commands_succeed(checkout: Path, server: Server, tmp_path: Path) -> None:
    table = dataset.builtin(3_000, seed=0)
    frame = pd.DataFrame(table.features, columns=list(table.schema.names))
    frame["defect"] = [table.schema.class_names[i] for i in table.labels]
    frame.to_csv(checkout / "parcels.csv", index=False)
    port = server.url.rsplit(":", 1)[1]
    commands = [line for block in blocks("sh") if not block.startswith("curl") for line in block.splitlines()]
    assert {shlex.split(c)[0].removeprefix(".venv/bin/") for c in commands} == {"make", "python", "bentoml", "kubectl"}
    for command in commands:
        done = shell(command.replace("make load", "make load SCENARIO=smoke"), tmp_path, checkout, PORT=port)
        reported = command == "make load" and "report: build/load/smoke-" in done.stderr  # any verdict but an error
        assert done.returncode == 0 or reported, f"{command}\n{done.stdout}\n{done.stderr}"


def test_make_serve_trains_serves_and_ends_on_an_interrupt(checkout: Path, tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        ["make", "serve", f"PORT={port}"],
        cwd=checkout,
        env=environment(tmp_path, DEFECTS_DRAIN_SECONDS=0.5),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            seen = []
            for line in process.stdout:
                seen.append(line)
                if '"try":' in line:
                    break
            text = "".join(seen)
            assert "macro-F1" in text, text
            hint = json.loads(seen[-1])
            assert hint["message"] == f"open http://127.0.0.1:{port}/"
            answer = shell(hint["try"], tmp_path, checkout)
            assert json.loads(answer.stdout)["defect"] == "punctured"
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_every_module_and_target_is_described() -> None:
    for module in (ROOT / "defects").glob("*.py"):
        assert module.name == "__init__.py" or f"  {module.name} " in README, module.name
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"setup", "serve", "train", "test", "check", "bento", "bench", "bench-start", "load"}
