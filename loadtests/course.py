"""A run's course, bucket by bucket: what the charts draw, and what the table of values lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from loadtests.results import Bucket, Number, Sample, Summary

Values = list[float | None]


class Column(NamedTuple):
    """One measure over time; the value of each bucket, null where there is none."""

    key: str
    head: str
    values: Values


@dataclass(frozen=True)
class Course:
    """`edges` has one more than there are buckets. `columns` are by key, in the order of the table."""

    edges: list[float]
    columns: dict[str, Column]

    def middle(self, index: int) -> float:
        return (self.edges[index] + self.edges[index + 1]) / 2

    def __getitem__(self, key: str) -> Values:
        return self.columns[key].values

    def has(self, *keys: str) -> bool:
        """Whether any of these columns has a value."""
        return any(value is not None for key in keys for value in self[key])


LATENCIES: dict[str, tuple[str, Callable[[Bucket], Number]]] = {
    "p50": ("p50, ms", lambda bucket: bucket.p50),
    "p95": ("p95, ms", lambda bucket: bucket.p95),
    "p99": ("p99, ms", lambda bucket: bucket.p99),
    "queue_p95": ("queue p95, ms", lambda bucket: bucket.queue_p95),
    "score_p95": ("score p95, ms", lambda bucket: bucket.score_p95),
}
RATES: dict[str, tuple[str, Callable[[Bucket], int]]] = {
    "planned": ("planned/s", lambda bucket: bucket.counts.planned),
    "sent": ("sent/s", lambda bucket: bucket.counts.sent),
    "answered": ("answered/s", lambda bucket: bucket.counts.answered),
    "refused": ("refused/s", lambda bucket: bucket.counts.refused),
    "failed": ("failed/s", lambda bucket: bucket.counts.failed),
}
LOOKS: dict[str, tuple[str, Callable[[Sample], float | None]]] = {
    "queue_rows": ("queue, rows", lambda sample: sample.queue_rows),
    "in_flight": ("in flight", lambda sample: sample.in_flight),
    "cpu_cores": ("CPU, cores", lambda sample: sample.cpu_cores),
    "rss_mb": ("memory, MB", lambda sample: sample.rss_mb),
    "processes": ("processes", lambda sample: sample.processes),
}


def course(summary: Summary) -> Course:
    """All columns of a run. Of several samples in a bucket the highest counts; for readiness (1 or 0), the lowest.

    A last bucket that is cut off in its first half is left out: its rate would be noise.
    """
    buckets = [b for b in summary.buckets if not b.start or summary.duration_s - b.start >= summary.bucket_s / 2]
    starts = [bucket.start for bucket in buckets]
    end = starts[-1] + summary.bucket_s if starts else summary.bucket_s
    edges = [*starts, min(end, max(summary.duration_s, 1e-3))]
    columns = [Column(key, head, [get(b) for b in buckets]) for key, (head, get) in LATENCIES.items()]
    for key, (head, count) in RATES.items():
        lengths = (end - start for start, end in pairwise(edges))
        rates: Values = [count(bucket) / length for bucket, length in zip(buckets, lengths, strict=False)]
        columns.append(Column(key, head, rates))
    seen = _by_bucket(summary.timeline, starts, summary.bucket_s)
    columns += [Column(key, head, [_most(map(get, samples)) for samples in seen]) for key, (head, get) in LOOKS.items()]
    columns.append(Column("ready", "ready", [_least(s.ready for s in samples) for samples in seen]))
    return Course(edges, {column.key: column for column in columns})


def _by_bucket(samples: Sequence[Sample], starts: Sequence[float], length: float) -> list[list[Sample]]:
    """The samples of each bucket; those from after the last one are nobody's."""
    found: list[list[Sample]] = [[] for _ in starts]
    for sample in samples:
        if 0 <= (number := int(sample.at // length)) < len(found):
            found[number].append(sample)
    return found


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[bool | None]) -> float | None:
    return min((float(value) for value in values if value is not None), default=None)
