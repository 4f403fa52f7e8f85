"""`buffered`: what is answered is recorded, or counted where it is dropped, and nothing else happens to it."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from callers import Callers, calling, recorded
from test_kills import frozen

from conftest import Serve, Server, until
from history_databases import new_database
from tools.local_postgres import LocalPostgres

ROWS = 1_024  # of a request: the queue is full at once
STALLED_SECONDS = 1.0  # under load, once the queue is full
MAX_BYTES = 64 << 20  # that the server may hold besides while its database is stalled


@contextmanager
def stalled(url: str, postgres: LocalPostgres) -> Iterator[None]:
    """Have nothing written to a database meanwhile."""
    if url.startswith("postgresql:"):
        with frozen(postgres):
            yield
        return
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        yield
        database.execute("ROLLBACK")


def metric(server: Server, name: str) -> int:
    """Return the value of a metric."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def dropped(server: Server) -> int:
    return metric(server, 'defects_history_rows_total{result="dropped"}')


def overflow(server: Server, url: str, postgres: LocalPostgres, seconds: float) -> tuple[Callers, int]:
    """Stall the database under load for so long after its queue was full.

    Return the callers, and the bytes by which the server has grown meanwhile.
    """
    process = psutil.Process(server.process.pid)
    with calling(server.url, keys=False, callers=2, rows=ROWS) as calls:
        calls.more(20)
        before = most = process.memory_info().rss
        with stalled(url, postgres):
            until(lambda: dropped(server))
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                most = max(most, process.memory_info().rss)
                time.sleep(0.02)
    return calls, most - before


def check_drops(calls: Callers, server: Server, url: str) -> int:
    """Assert that all that was answered is in the table, or was counted as dropped; return how much was."""
    until(lambda: metric(server, "defects_history_queue_rows") == 0)
    ids = [id_ for id_, _ in recorded(url)]
    assert len({*ids}) == len(ids)
    assert {*ids} <= {*calls.ids}
    assert len(calls.ids) == len(ids) + dropped(server)
    assert not calls.unanswered
    return dropped(server)


@pytest.fixture(params=["postgres", "sqlite"])
def url(request: pytest.FixtureRequest, own_postgres: LocalPostgres, tmp_path: Path) -> str:
    """The URL of a database that can be stalled."""
    return new_database(own_postgres) if request.param == "postgres" else f"sqlite:///{tmp_path}/history.db"


def test_what_is_answered_is_recorded_or_counted(
    url: str, serve: Serve, model_dir: Path, own_postgres: LocalPostgres
) -> None:
    with serve(MODEL_DIR=model_dir, DEFECTS_DATABASE_URL=url) as server:
        calls, grown = overflow(server, url, own_postgres, STALLED_SECONDS)
        assert check_drops(calls, server, url) > 0
        assert grown < MAX_BYTES
        before = {*recorded(url)}
        with calling(server.url, keys=False) as calls:
            calls.more(100)
            server.process.terminate()
            assert server.wait() == 0
            calls.end()
    assert {id_ for id_, _ in {*recorded(url)} - before} == {*calls.ids}
