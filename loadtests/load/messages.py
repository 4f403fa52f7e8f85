"""Name the messages between coordinator and workers."""

from __future__ import annotations

from typing import Any

ORDER, REPORT = "load-order", "load-report"  # names of messages, to workers and back
BEGIN_SECONDS = 0.5  # from the order to begin until the schedule begins, so that it has reached every worker by then
STOP_SECONDS = 2.0  # for which requests in flight are awaited when somebody ends the run
CHUNK = 50_000  # requests in a message
WorkerMessage = dict[str, Any]
