"""Make the database of a URL, and import only what that kind needs."""

from __future__ import annotations

from defects.history.database import Database


def database_of(url: str) -> Database:
    """Return the database of a URL, which is not opened yet; raises `BadSetting` where the URL is wrong."""
    if url.startswith("sqlite:"):
        from defects.history.sqlite import SQLiteDatabase  # type: ignore[import-not-found, unused-ignore]

        return SQLiteDatabase(url)  # type: ignore[no-any-return, unused-ignore]
    from defects.history.postgres import PostgresDatabase

    return PostgresDatabase(url)
