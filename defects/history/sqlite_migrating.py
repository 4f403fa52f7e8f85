"""Migrate a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from defects.history.sqlite_connection import transaction

DIRECTORY = Path(__file__).with_name("migrations") / "sqlite"
TABLE = """
CREATE TABLE IF NOT EXISTS history_migrations (
    no INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INSTANT NOT NULL, least_server INTEGER NOT NULL
)
"""


def migrate(connection: sqlite3.Connection) -> None:
    """Apply what is missing."""
    with transaction(connection):
        connection.execute(TABLE)
        done = {no for (no,) in connection.execute("SELECT no FROM history_migrations")}
        for path in sorted(DIRECTORY.glob("*.sql")):
            no = int(path.name.split("_")[0])
            if no not in done:
                for statement in statements(path.read_text("utf-8")):
                    connection.execute(statement)
                values = (no, path.stem, datetime.now(UTC), 1)
                connection.execute("INSERT INTO history_migrations VALUES (?, ?, ?, ?)", values)


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
