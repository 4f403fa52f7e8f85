"""Give each `Idempotency-Key` its first answer, whichever replica made it."""

from __future__ import annotations

from collections.abc import Sequence

from defects.history.postgres_transactions import PostgresTransaction
from defects.history.record import Keyed

# In one order, so that two replicas never wait for one another. An answer that is too old makes room.
CLAIM = """
INSERT INTO idempotency AS kept (key, body_digest, answer, expires_at)
SELECT key, body_digest, answer, now() + interval '24 hours'
FROM unnest($1::text[], $2::bytea[], $3::bytea[]) AS given (key, body_digest, answer)
ORDER BY key COLLATE "C"
ON CONFLICT (key) DO UPDATE
SET body_digest = excluded.body_digest, answer = excluded.answer, expires_at = excluded.expires_at
WHERE kept.expires_at <= now()
RETURNING key
"""
KEPT = "SELECT key, answer FROM idempotency WHERE key = ANY($1::text[])"


async def claim(transaction: PostgresTransaction, keys: Sequence[Keyed], again: bool) -> list[int]:
    """Write the answers to keys; return the places of those whose key has another answer.

    `again`: an answer that is there may be this very one, which an attempt before has written.
    """
    first: dict[str, int] = {}
    for place, keyed in enumerate(keys):
        first.setdefault(keyed.answer.key, place)
    answers = [keys[place].answer for place in first.values()]
    values = [answer.key for answer in answers], [a.body_digest for a in answers], [a.answer for a in answers]
    won = {row["key"] for row in await transaction.fetch(CLAIM, *values)}
    if again and len(won) < len(first):
        kept = await transaction.fetch(KEPT, [key for key in first if key not in won])
        won |= {row["key"] for row in kept if row["answer"] == keys[first[row["key"]]].answer.answer}
    return [
        place for place, keyed in enumerate(keys) if first[keyed.answer.key] != place or keyed.answer.key not in won
    ]
