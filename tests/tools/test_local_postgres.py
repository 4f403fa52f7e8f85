"""`make history`: a PostgreSQL in the background."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, free_port
from history_databases import ask
from tools import local_postgres
from tools.local_postgres import LocalPostgres

# The command of `make history`, with its directory somewhere else.
COMMAND = """
import sys
from pathlib import Path
from tools import local_postgres
local_postgres.ROOT = Path(sys.argv[1])
local_postgres.DIRECTORY = local_postgres.ROOT / "build" / "postgres"
local_postgres.main(sys.argv[2:])
"""
History = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where `make history` is; its server is stopped at the end."""
    yield tmp_path
    LocalPostgres(tmp_path / "build" / "postgres").stop()


@pytest.fixture
def history(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> History:
    """Run `make history` with arguments, in this process."""
    monkeypatch.setattr(local_postgres, "ROOT", folder)
    monkeypatch.setattr(local_postgres, "DIRECTORY", folder / "build" / "postgres")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        error, code = "", 0
        try:
            local_postgres.main([*map(str, arguments)])
        except SystemExit as end:
            error, code = str(end.code), 1
        return subprocess.CompletedProcess([], code, capsys.readouterr().out, error)

    return run


def url_in(result: subprocess.CompletedProcess[str]) -> str:
    found = re.search(r"DEFECTS_DATABASE_URL=(\S+) make serve", result.stdout)
    assert found, result
    return found[1]


def test_data_outlives_the_server_and_a_second_start_changes_nothing(history: History, folder: Path) -> None:
    command = [sys.executable, "-c", COMMAND, str(folder)]
    url = url_in(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False))
    ask(url, "CREATE TABLE kept AS SELECT 7 AS value")
    assert url_in(history()) == url
    assert ask(url, "SELECT value FROM kept")[0]["value"] == 7
    stopped = history("--stop")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    with pytest.raises(OSError, match=r"Connect|refused"):
        ask(url, "SELECT 1")
    assert history("--stop").returncode == 0
    assert url_in(history()) == url  # the same port and password, so a server that runs finds it again
    assert ask(url, "SELECT value FROM kept")[0]["value"] == 7


def test_only_who_knows_the_password_gets_in(postgres: LocalPostgres) -> None:
    wrong = postgres.url("postgres").replace(postgres.password, "wrong")
    with pytest.raises(Exception, match="password authentication failed"):
        ask(wrong, "SELECT 1")
    assert (postgres.log.parent / "password").stat().st_mode & 0o777 == 0o600


def test_a_port_can_be_chosen_and_one_that_is_taken_is_one_clear_error(
    history: History, postgres: LocalPostgres
) -> None:
    for port in (postgres.port, 0, 70_000):
        refused = history("--port", port)
        assert refused.returncode == 1
        assert refused.stderr.strip() == (
            f"make history: can't listen on port {port}; expected one that is free, from 1024 to 65535"
        )
    port = free_port()
    assert f":{port}/" in url_in(history("--port", port))
    again = history("--port", port + 1)
    assert (again.returncode, again.stderr.count("\n")) == (1, 0)
    assert f"runs already, on port {port}" in again.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user")
def test_it_runs_below_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    """As a checkout in root's home is, with its virtual environment and its data."""
    home = tmp_path / "home"
    home.mkdir(0o700)
    server = LocalPostgres(home / "build")
    server.start()
    try:
        assert ask(server.url(), "SELECT 7 AS value")[0]["value"] == 7
    finally:
        server.stop()


def test_without_the_packages_programs_one_line_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.local_postgres.find_spec", lambda _: None)
    with pytest.raises(Exception, match="`make setup` installs it"):
        LocalPostgres(tmp_path).start()


def test_what_is_wrong_with_the_data_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(Exception, match=r"did not start: .*; its log is .*log"):
        LocalPostgres(tmp_path).start()
