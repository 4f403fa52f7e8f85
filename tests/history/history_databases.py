"""Fixtures: a real PostgreSQL for each of pytest's workers, and a database of its own for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import asyncpg
import pytest

from tools.local_postgres import LocalPostgres

numbers = count(1)


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
    return _new_database(postgres, "template0")


def _new_database(server: LocalPostgres, template: str) -> str:
    name = f"test_{next(numbers)}"
    ask(server.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.url(name)
