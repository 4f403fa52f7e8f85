"""Answers that were committed with an `Idempotency-Key`: each is the answer to all requests with its key, for a day."""

from __future__ import annotations

from datetime import UTC, datetime

from defects.history.database import Database
from defects.serving.recording import KeyedAnswer

SLICE = 1_000  # answers that are deleted in one transaction
FIRST = "SELECT body_digest, answer FROM idempotency WHERE key = $1 AND expires_at > $2"
EXPIRED = "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE expires_at <= $1 LIMIT {slice:d})"


async def first_answer(database: Database, key: str) -> KeyedAnswer | None:
    """Return the answer that a key has got, unless that has expired; raises what a database raises."""
    async with database.transaction(reading=True) as transaction:
        rows = await transaction.fetch(FIRST, key, datetime.now(UTC))
    return KeyedAnswer(key, bytes(rows[0]["body_digest"]), bytes(rows[0]["answer"])) if rows else None


async def delete_expired(database: Database) -> None:
    """Delete the answers that have expired, some at a time, so that records are written in between.

    Raises what a database raises.
    """
    now, deleted = datetime.now(UTC), SLICE
    while deleted == SLICE:
        async with database.transaction() as transaction:
            deleted = await transaction.execute(EXPIRED.format(slice=SLICE), now)
