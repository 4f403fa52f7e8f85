"""Answers that were committed with an `Idempotency-Key`: each is the answer to all requests with its key, for a day."""

from __future__ import annotations

from datetime import UTC, datetime

from defects.history.database import Database
from defects.serving.recording import KeyedAnswer


async def first_answer(database: Database, key: str) -> KeyedAnswer | None:
    """Return the answer that a key has got, unless that has expired; raises what a database raises.

    An expired one is deleted, so that the key can get a new one.
    """
    now = datetime.now(UTC)
    async with database.transaction() as transaction:
        rows = await transaction.fetch("SELECT body_digest, answer, expires_at FROM idempotency WHERE key = $1", key)
        if not rows:
            return None
        if rows[0]["expires_at"] <= now:
            await transaction.execute("DELETE FROM idempotency WHERE key = $1 AND expires_at <= $2", key, now)
            return None
        return KeyedAnswer(key, bytes(rows[0]["body_digest"]), bytes(rows[0]["answer"]))


async def delete_expired(database: Database) -> None:
    """Delete the answers that have expired; raises what a database raises."""
    async with database.transaction() as transaction:
        await transaction.execute("DELETE FROM idempotency WHERE expires_at <= $1", datetime.now(UTC))
