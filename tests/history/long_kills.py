"""Servers and databases are killed, twenty times, or stand still, under the load of many callers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from test_kills import frozen, kill_servers, stop_database

from conftest import Serve
from tools.local_postgres import LocalPostgres

KILLS, STILLS, CALLERS, ANSWERS = 20, 2, 16, 200
AWAY_SECONDS = (0.0, 0.3, 3.0)  # of the database, in turn: a replica is not ready after 2 s
STILL_SECONDS = 10.0
TIMEOUT_MS = 2_000  # so that some wait for too long

pytestmark = pytest.mark.parametrize("keys", [True, False], ids=["keys", "no keys"])


def test_servers_are_killed(keys: bool, serve: Serve, model_dir: Path, database_url: str) -> None:
    print(kill_servers(serve, model_dir, database_url, keys=keys, times=KILLS, callers=CALLERS, answers=ANSWERS))


def test_a_database_is_killed(keys: bool, serve: Serve, model_dir: Path, own_postgres: LocalPostgres) -> None:
    def stop(number: int) -> None:
        own_postgres.kill()
        time.sleep(AWAY_SECONDS[number % len(AWAY_SECONDS)])
        own_postgres.start()

    options = {"times": KILLS, "callers": CALLERS, "answers": ANSWERS, "timeout_ms": TIMEOUT_MS}
    print(stop_database(serve, model_dir, own_postgres, stop, keys=keys, **options))


def test_a_database_stands_still(keys: bool, serve: Serve, model_dir: Path, own_postgres: LocalPostgres) -> None:
    def stop(_: int) -> None:
        with frozen(own_postgres):
            time.sleep(STILL_SECONDS)

    options = {"times": STILLS, "callers": CALLERS, "answers": ANSWERS, "timeout_ms": TIMEOUT_MS}
    print(stop_database(serve, model_dir, own_postgres, stop, keys=keys, **options))
