"""The commands of docs/history.md work one after the other: a model is trained on production, and is better there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from test_docs import DOCUMENTED_ADDRESS, blocks, mark

from conftest import BIN, MODULE, ROOT, RUN_SECONDS, Serve, Server, environment, until

PAGE = "docs/history.md"
HERE = "tests/history/test_history_page.py"
ACCURACY = re.compile(r"accuracy +([\d.]+) \(95 %: ([\d.]+) to ([\d.]+)\), ([\d,]+) parcels")


class Reader:
    """Somebody who does what the page says, in an empty checkout."""

    def __init__(self, folder: Path, serve: Serve, shortcuts: Mapping[str, str]):
        self.folder, self._serve, self._shortcuts = folder, serve, shortcuts
        for name in ("train.py", "defects", "requirements"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(BIN.parent)
        (folder / "build").mkdir()
        marked = [block for block in blocks(PAGE) if mark(block) == ("run by", HERE)]
        self.commands = [block.text for block in marked]
        self.ran: list[str] = []

    def next(self, start: str) -> str:
        """The next command of the page, which begins so."""
        command = self.commands[len(self.ran)]
        assert command.startswith(start), f"{PAGE}: the next command is {command}"
        self.ran.append(command)
        return command

    def run(self, start: str, server: Server | None = None) -> str:
        """Run the next command, and return its output."""
        command = self.next(start)
        if server is not None:
            assert DOCUMENTED_ADDRESS in command
            command = command.replace(DOCUMENTED_ADDRESS, server.url.removeprefix("http://"))
        for written, shorter in self._shortcuts.items():
            command = command.replace(written, shorter)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment(self.folder / "home"),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def serving(self) -> Iterator[Server]:
        """The server of the next command, `make serve`, until it is interrupted."""
        *settings, make, target = self.next("MODEL_DIR=").split()
        assert (make, target) == ("make", "serve")
        given: dict[str, Any] = dict(setting.split("=", 1) for setting in settings)
        with self._serve(command=MODULE, cwd=self.folder, **given) as server:
            yield server
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0


def accuracy(output: str) -> tuple[float, float, float]:
    """The accuracy that the tunnel prints, and its interval."""
    found = ACCURACY.search(output)
    assert found, output
    share, low, high = map(float, found.groups()[:3])
    return share, low, high


def the_page_works(reader: Reader) -> None:
    reader.run(".venv/bin/python train.py --rows")
    with reader.serving() as server:
        answer = json.loads(reader.run("curl -s http://127.0.0.1:3000/classify", server))
        url = f"{server.url}/predictions/{answer['prediction_id']}"
        until(lambda: httpx.get(url).status_code == 200)  # an answer does not wait for its record
        stored = json.loads(reader.run("curl -s http://127.0.0.1:3000/outcomes -H", server))
        assert stored == {"result": "stored", "prediction_id": answer["prediction_id"]}
        record = httpx.get(url).json()
        assert record["source"] == "coast"
        assert [outcome["class"] for outcome in record["outcomes"]] == ["punctured"]
        before, _, before_high = accuracy(reader.run(".venv/bin/python -m defects.tunnel", server))
        summary = json.loads(reader.run("curl -s 'http://127.0.0.1:3000/outcomes/summary", server))
        assert summary
    said = reader.run("DEFECTS_DATABASE_URL=sqlite:///build/history.db .venv/bin/python -m defects.history export")
    assert "champion" in said
    with reader.serving() as server:
        after, after_low, _ = accuracy(reader.run(".venv/bin/python -m defects.tunnel", server))
    assert after > before
    assert after_low > before_high, "the intervals before and after overlap"
    assert reader.commands == reader.ran


def test_a_model_that_is_trained_on_what_happened_is_better_there(
    tmp_path: Path, serve: Serve, model_dir: Path
) -> None:
    """With a model that is there, fewer parcels, and one that is fitted sooner; `make test-long` has the rest."""
    shortcuts = {
        ".venv/bin/python train.py --rows 8000 --output": f"cp -r {model_dir}",
        "--rows 3000": "--rows 1000",
        "train.py --data": "train.py --estimator logistic-regression --data",
    }
    the_page_works(Reader(tmp_path, serve, shortcuts))
