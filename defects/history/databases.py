"""Make the database of a URL, and its upkeep; import only what that kind needs."""

from __future__ import annotations

from defects.history.database import Database
from defects.history.upkeep import Upkeep


def database_of(url: str) -> Database:
    """Return the database of a URL, which is not opened yet; raises `BadSetting` where the URL is wrong."""
    if url.startswith("sqlite:"):
        from defects.history.sqlite import SQLiteDatabase  # type: ignore[import-not-found, unused-ignore]

        return SQLiteDatabase(url)  # type: ignore[no-any-return, unused-ignore]
    from defects.history.postgres import PostgresDatabase

    return PostgresDatabase(url)


def upkeep_of(database: Database) -> Upkeep:
    """Return the upkeep of a database that `database_of` made."""
    from defects.history.sqlite import SQLiteDatabase

    if isinstance(database, SQLiteDatabase):
        from defects.history.sqlite_upkeep import SQLiteUpkeep

        return SQLiteUpkeep(database)
    from defects.history.postgres import PostgresDatabase
    from defects.history.postgres_upkeep import PostgresUpkeep

    assert isinstance(database, PostgresDatabase)  # noqa: S101 - there is no other kind
    return PostgresUpkeep(database)
