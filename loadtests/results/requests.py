"""Every request of a run: what is kept of it, and the file that it is written to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

REQUESTS = "requests.parquet"

# One request as it is kept and sent between processes; times in seconds since the begin, NaN where there is none.
REQUEST = np.dtype(
    [
        ("intended", "<f8"),
        ("sent", "<f8"),
        ("end", "<f8"),
        ("queue_ms", "<f4"),  # from Server-Timing
        ("score_ms", "<f4"),
        ("bytes", "<i4"),  # of the answer's body
        ("status", "<i2"),  # 0 without an answer
        ("revision", "<i2"),  # index of its name, -1 without one
        ("error", "i1"),  # index in ERRORS
        ("kind", "i1"),  # index in the scenario's payloads
        ("worker", "<i2"),
        ("retry_after", "?"),
    ]
)
Requests = NDArray[np.void]  # of REQUEST, in the order of `intended`

# How a request can fail other than by its status. "late" ones are none of these: they were answered.
ERRORS = (
    "",
    "unanswered",  # nothing came until the end of the run, plus the time that requests in flight are given
    "not sent",  # too many were in flight already, or no connection was left for it: the generator's fault
    "connect",  # no connection could be made
    "closed",  # the connection ended before the answer did
    "timeout",
    "not HTTP",
    "wrong answer",  # 2xx without a right prediction for each row
    "too large",  # more headers, informational answers or bytes than a right answer can have
)
UNANSWERED, NOT_SENT, CONNECT, CLOSED, TIMEOUT, NOT_HTTP, WRONG, TOO_LARGE = range(1, len(ERRORS))

COLUMNS = {
    "intended_s": "when the schedule said that it leaves",
    "sent_s": "when it did; null: it never did",
    "end_s": "when its answer was complete, or it was given up",
    "latency_ms": "from the intended time to the end",
    "queue_ms": "of that, waiting in the server's queue, as its answer says",
    "score_ms": "of that, being scored, as its answer says",
    "status": "HTTP status; 0: no answer",
    "outcome": "answered (a right 2xx), refused (429 or 503 with Retry-After), failed (everything else)",
    "error": "why there is no valid answer; empty where the status says it all",
    "phase": "the scenario's phase of its intended time",
    "kind": "the payload",
    "revision": "x-revision of the answer",
    "bytes": "size of the answer's body",
    "worker": "which generator process sent it",
}
OUTCOMES = ("answered", "refused", "failed")
ANSWERED, REFUSED, FAILED = range(3)


def outcomes(requests: Requests) -> NDArray[np.int8]:
    """ANSWERED, REFUSED or FAILED for each request."""
    status = requests["status"]
    answered = (status >= 200) & (status < 300) & (requests["error"] == 0)
    refused = ((status == 429) | (status == 503)) & requests["retry_after"]
    return np.where(answered, ANSWERED, np.where(refused, REFUSED, FAILED)).astype(np.int8)


class Names(NamedTuple):
    """What indices in requests stand for."""

    phases: Sequence[str]
    kinds: Sequence[str]
    revisions: Sequence[str]


def write_requests(path: Path, requests: Requests, phases: NDArray[np.int8], names: Names) -> None:
    """The requests as Parquet. `phases` `[requests]` has the index of each one's phase."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sent, end = requests["sent"], requests["end"]
    columns = {
        "intended_s": pa.array(requests["intended"]),
        "sent_s": _present(sent),
        "end_s": _present(end),
        "latency_ms": _present(1e3 * (end - requests["intended"])),
        "queue_ms": _present(requests["queue_ms"]),
        "score_ms": _present(requests["score_ms"]),
        "status": pa.array(requests["status"]),
        "outcome": _named(outcomes(requests), OUTCOMES),
        "error": _named(requests["error"], ERRORS),
        "phase": _named(phases, names.phases),
        "kind": _named(requests["kind"], names.kinds),
        "revision": _named(requests["revision"], names.revisions),
        "bytes": pa.array(requests["bytes"]),
        "worker": pa.array(requests["worker"]),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _present(values: NDArray[np.floating]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))


def _named(indices: NDArray[np.integer], names: Sequence[str]) -> pa.Array:
    """Indices as the names that they stand for, null where negative."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int16), mask=indices < 0), pa.array(list(names)))
