"""A run's course: what the charts draw, and, bucket by bucket, what the table of values lists."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from loadtests.results import AutoscalerSample, Bucket, Cluster, Number, Replicas, Sample, Summary

Values = list[float | None]
Moment = TypeVar("Moment", Sample, AutoscalerSample)


class Column(NamedTuple):
    """One measure over time; the value of each bucket, null where there is none."""

    key: str
    head: str
    values: Values


class Stretch(NamedTuple):
    """From `start` to `end`, it was `value`."""

    start: float
    end: float
    value: float


@dataclass(frozen=True)
class Course:
    """`edges` has one more than there are buckets. `columns` are by key, in the order of the table.

    `exact` has, of columns whose changes are known to the moment, all stretches with a value, neighbours of different
    ones.
    """

    edges: list[float]
    columns: dict[str, Column]
    exact: dict[str, list[Stretch]] = field(default_factory=dict)

    def middle(self, index: int) -> float:
        return (self.edges[index] + self.edges[index + 1]) / 2

    def __getitem__(self, key: str) -> Values:
        return self.columns[key].values

    def all(self, key: str) -> Values:
        """All that it was, be it for less than a bucket."""
        return [stretch.value for stretch in self.exact[key]] if key in self.exact else self[key]

    def has(self, *keys: str) -> bool:
        """Whether any of these columns has a value."""
        return any(value is not None for key in keys for value in self.all(key))


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
    "queue_rows_max": ("queue max of 15 s, rows", lambda sample: sample.queue_rows_max),
    "in_flight": ("in flight", lambda sample: sample.in_flight),
    "in_flight_max": ("in flight, max of 15 s", lambda sample: sample.in_flight_max),
    "cpu_cores": ("CPU, cores", lambda sample: sample.cpu_cores),
    "rss_mb": ("memory, MB", lambda sample: sample.rss_mb),
    "processes": ("processes", lambda sample: sample.processes),
}
REPLICAS: dict[str, tuple[str, Callable[[Replicas], int | None]]] = {
    "replicas_ready": ("replicas ready", lambda replicas: replicas.ready),
    "replicas_desired": ("replicas desired", lambda replicas: replicas.desired),
    "replicas_needed": ("replicas needed", lambda replicas: replicas.needed),
}
AUTOSCALER: dict[str, tuple[str, Callable[[AutoscalerSample], Number]]] = {
    "panic": ("panic concurrency", lambda sample: sample.panic),
    "stable": ("stable concurrency", lambda sample: sample.stable),
    "panicking": ("panic mode", lambda sample: None if sample.panicking is None else float(sample.panicking)),
}
MOST_AFTER = 1000  # buckets after the schedule, at most


def seconds(summary: Summary) -> float:
    """The end of the run's axis of time: of its schedule, or of the watch over the cluster, which goes on after it."""
    after = summary.cluster.watched_until if summary.cluster else 0.0
    return max(summary.duration_s, min(after, summary.duration_s + MOST_AFTER * summary.bucket_s))


def course(summary: Summary) -> Course:
    """All columns of a run. Of several samples in a bucket the highest counts; of what is ready, the lowest.

    Where a cluster was watched for longer, buckets without requests follow those of the schedule. A last bucket that is
    cut off in its first half is left out: its rate would be noise.
    """
    buckets = [b for b in summary.buckets if not b.start or summary.duration_s - b.start >= summary.bucket_s / 2]
    starts = [bucket.start for bucket in buckets]
    end = starts[-1] + summary.bucket_s if starts else summary.bucket_s
    edges = [*starts, min(end, max(summary.duration_s, 1e-3))]
    until = seconds(summary)
    after = _after(edges[-1], until, summary.bucket_s) if until > summary.duration_s else []
    nothing: Values = [None] * len(after)
    columns = [Column(key, head, [get(b) for b in buckets] + nothing) for key, (head, get) in LATENCIES.items()]
    for key, (head, count) in RATES.items():
        lengths = (end - start for start, end in pairwise(edges))
        rates: Values = [count(bucket) / length for bucket, length in zip(buckets, lengths, strict=False)]
        columns.append(Column(key, head, rates + nothing))
    edges += after
    seen = _by_bucket(summary.timeline, edges)
    columns += [Column(key, head, [_most(map(get, samples)) for samples in seen]) for key, (head, get) in LOOKS.items()]
    columns.append(Column("ready", "ready", [_least(s.ready for s in samples) for samples in seen]))
    columns += _platform(summary.cluster, edges)
    exact = _exact(summary.cluster, until) if summary.cluster else {}
    return Course(edges, {column.key: column for column in columns}, exact)


def _after(end: float, last: float, length: float) -> list[float]:
    """The ends of buckets from `end` to `last`."""
    whole = [end + length * number for number in range(1, int((last - end) / length) + 1)]
    reached = whole[-1] if whole else end
    return [*whole, last] if last - reached > 1e-6 else whole


def _platform(cluster: Cluster | None, edges: Sequence[float]) -> Iterator[Column]:
    """What the platform did; without a cluster, columns without values. With one, its replicas say what was ready."""
    replicas = _in_force(cluster.replicas if cluster else [], edges)
    if cluster:
        yield Column("ready", "ready", [_least(map(_any_ready, found)) for found in replicas])
    for key, (head, number) in REPLICAS.items():
        of_all = _least if key == "replicas_ready" else _most
        yield Column(key, head, [of_all(map(number, found)) for found in replicas])
    said = _by_bucket(cluster.autoscaler if cluster else [], edges)
    for key, (head, get) in AUTOSCALER.items():
        yield Column(key, head, [_most(map(get, found)) for found in said])


def _exact(cluster: Cluster, until: float) -> dict[str, list[Stretch]]:
    found = {key: _stretches(cluster, get, until) for key, (_, get) in REPLICAS.items()}
    return found | {"ready": _stretches(cluster, _any_ready, until)}


def _any_ready(replicas: Replicas) -> int | None:
    return None if replicas.ready is None else int(replicas.ready > 0)


def _stretches(cluster: Cluster, get: Callable[[Replicas], int | None], until: float) -> list[Stretch]:
    """One of the numbers of replicas from 0 until the watch ended."""
    found, end = list[Stretch](), min(until, cluster.watched_until)
    ends = [*(change.at for change in cluster.replicas), end][1:]
    for change, next_at in zip(cluster.replicas, ends, strict=True):
        value, start, stop = get(change), max(0.0, change.at), min(next_at, end)
        if value is None or start >= stop:
            continue
        if found and (found[-1].end, found[-1].value) == (start, value):
            start = found.pop().start
        found.append(Stretch(start, stop, value))
    return found


def _by_bucket(samples: Sequence[Moment], edges: Sequence[float]) -> list[list[Moment]]:
    """The samples of each bucket; those from after the last one are nobody's."""
    found: list[list[Moment]] = [[] for _ in edges[1:]]
    for sample in samples:
        if 0 <= (number := bisect_right(edges, sample.at) - 1) < len(found):
            found[number].append(sample)
    return found


def _in_force(changes: Sequence[Replicas], edges: Sequence[float]) -> list[list[Replicas]]:
    """The numbers of replicas that held at some time of each bucket."""
    times = [change.at for change in changes]
    spans = ((bisect_right(times, start), bisect_left(times, end)) for start, end in pairwise(edges))
    return [list(changes[max(0, first - 1) : max(first, last)]) for first, last in spans]


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[float | None]) -> float | None:
    return min((float(value) for value in values if value is not None), default=None)
