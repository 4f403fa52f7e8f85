"""The metrics of history."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client.metrics_core import CounterMetricFamily

from defects.serving.metrics import SECONDS, Metrics

# stored: committed; dropped: lost, though answered; refused: of requests that got 503 because their records were not
# known to be committed in time, so some may be stored; unsampled: not in the share that is recorded.
RESULTS = ("stored", "dropped", "refused", "unsampled")


class HistoryMetrics:
    """Counts rows by what became of them, and times commits; what waits is read at each scrape."""

    def __init__(self, metrics: Metrics):
        self._read = metrics.read
        metrics.add_refusal("history")
        rows = metrics.numbers(CounterMetricFamily, "defects_history_rows", "Rows of history, by result.", "result")
        self.stored, self.dropped, self.refused, self.unsampled = map(rows.of, RESULTS)
        text = "Time until the database has committed a batch."
        self.commit_seconds = metrics.distributions(SECONDS, "defects_history_commit_seconds", text).of()

    def read_queue(self, rows: Callable[[], float], lag: Callable[[], float]) -> None:
        """Add the gauges of the queue: its rows, and the seconds that the oldest of them has been waiting."""
        self._read("defects_history_queue_rows", "Rows that wait to be committed.", lambda: {"": rows()})
        text = "How long the oldest row that is not committed has been waiting."
        self._read("defects_history_lag_seconds", text, lambda: {"": lag()})
