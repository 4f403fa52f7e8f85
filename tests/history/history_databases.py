"""Fixtures: a real PostgreSQL for each of pytest's workers, and a database of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from defects.history.database import Database
from defects.history.databases import database_of
from tools.local_postgres import LocalPostgres

numbers = count(1)
TEMPLATE = "migrated"


def ask(url: str, sql: str, *values: Any) -> list[asyncpg.Record]:
    """Run a statement over a connection of its own, past everything that is tested; return its rows."""

    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(sql, *values)
        finally:
            await connection.close()

    return asyncio.run(run())


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A server that tests share: whoever stops it has one of their own. It forgets nothing when it is killed."""
    server = LocalPostgres(tmp_path_factory.mktemp("postgres"), "-cfsync=off")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def empty_postgres_url(postgres: LocalPostgres) -> str:
    """The URL of a new database without tables."""
    return new_database(postgres, "template0")


@pytest.fixture(scope="session")
def postgres_template(postgres: LocalPostgres) -> str:
    """A migrated database, of which others are copies."""
    return _make_template(postgres)


@pytest.fixture
def postgres_url(postgres: LocalPostgres, postgres_template: str) -> str:
    """The URL of a new database that is migrated."""
    return new_database(postgres, postgres_template)


@pytest.fixture(scope="session")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """Another server, which may be ended in any way. It has a migrated database, and one to copy."""
    server = LocalPostgres(tmp_path_factory.mktemp("own"), "-cfsync=off")
    server.start()
    _migrate(server.url())
    _make_template(server)
    yield server
    server.start()  # to be ended from a known state
    server.stop()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """Runs coroutines one after the other on one event loop; uvloop's may hang where a test fails."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(params=["postgres", "sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/history.sqlite"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(database_url: str, runner: asyncio.Runner) -> Iterator[Database]:
    """A new database of each kind, open in `runner`."""
    database = database_of(database_url)
    runner.run(database.open())
    yield database
    runner.run(database.close())


def new_database(server: LocalPostgres, template: str = TEMPLATE) -> str:
    """Make a database, migrated where nothing else is said; return its URL."""
    name = f"test_{next(numbers)}"
    ask(server.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.url(name)


def _make_template(server: LocalPostgres) -> str:
    ask(server.url("postgres"), f"CREATE DATABASE {TEMPLATE}")
    _migrate(server.url(TEMPLATE))
    return TEMPLATE


def _migrate(url: str) -> None:
    database = database_of(url)

    async def migrate() -> None:
        await database.migrate()
        await database.close()

    asyncio.run(migrate())
