"""Name the messages between coordinator and workers."""

from __future__ import annotations

from typing import Any

ORDER, REPORT = "load-order", "load-report"  # names of messages, to workers and back
BEGIN_SECONDS = 0.5  # after it is told, so that all have been told by then
CHUNK = 50_000  # requests in a message
Message = dict[str, Any]
