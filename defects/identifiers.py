"""Make ids of requests and predictions: UUIDs of version 7 (RFC 9562), as 32 hexadecimal digits.

They sort by when they were made, so a database that keeps predictions by id appends them. Those of one process do so
even within a millisecond, and when the clock steps back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

PATTERN = "^[0-9a-f]{32}$"  # of an identifier
FIRST, LAST = 0x80000000, 0xBFFFFFFF  # of the counter, with the two bits of the variant before it
NANOSECONDS = 1_000_000  # of a millisecond
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
LAST_MILLISECOND = (1 << 48) - 1  # that an id can have
ENTROPY = 12 * 512  # bytes at a time: to ask the kernel costs more than all the rest


def identifiers(clock: Callable[[], int] = time.time_ns) -> Iterator[str]:
    """Yield identifiers; `clock` returns nanoseconds since 1970.

    48 bits are the millisecond; 12 are random and stay for the millisecond; 30 count from anywhere in the lower half of
    their range; 32 are random (RFC 9562, section 6.2, method 1). The last millisecond counts on while the clock is
    behind it. If the counter is used up the next one is begun.
    """
    until, counter, prefix = 0, LAST, ""  # nanoseconds at the end of the millisecond
    while True:
        digits = secrets.token_hex(ENTROPY)
        for start in range(0, len(digits), 24):
            now = clock()
            counter += 1
            if now >= until or counter > LAST:
                millisecond = max(now, until) // NANOSECONDS
                until = (millisecond + 1) * NANOSECONDS
                prefix = f"{millisecond:012x}7{digits[start + 8 : start + 11]}"
                counter = FIRST + (int(digits[start + 11 : start + 19], 16) >> 3)
            yield f"{prefix}{counter:08x}{digits[start : start + 8]}"


new_id = identifiers().__next__


def first_id(moment: datetime) -> UUID:
    """Return the least id of the millisecond of `moment`, which has an offset; of 1970 where it is before that."""
    since = (moment - EPOCH) // timedelta(milliseconds=1)
    return UUID(int=min(max(since, 0), LAST_MILLISECOND) << 80)


def made_at(id_: UUID) -> datetime:
    """Return when an id was made, to the millisecond."""
    return EPOCH + timedelta(milliseconds=id_.int >> 80)
