"""Two processes that write into one SQLite file are killed, twenty times: nothing that was committed is lost."""

from __future__ import annotations

from asyncio import Runner
from pathlib import Path

from test_sqlite import kill_and_compare


def test_twenty_kills_lose_nothing(tmp_path: Path, runner: Runner) -> None:
    kill_and_compare(tmp_path, runner, times=20)
