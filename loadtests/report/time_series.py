"""Put a run's measures on one axis of time: what the charts draw, and the table of values lists bucket by bucket."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

from defects.pages.time_series import Column, Piece, TimeSeries, Values
from loadtests.results import AutoscalerSample, Bucket, Cluster, Number, Replicas, Sample, Summary

Moment = TypeVar("Moment", Sample, AutoscalerSample)

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
SERVER: dict[str, tuple[str, Callable[[Sample], float | None]]] = {
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
    "panic": ("autoscaler, panic", lambda sample: sample.panic),
    "stable": ("autoscaler, stable", lambda sample: sample.stable),
    "panicking": ("panic mode", lambda sample: None if sample.panicking is None else float(sample.panicking)),
}
MAX_AFTER = 1000  # buckets after the schedule, at most


def seconds(summary: Summary) -> float:
    """Return the end of the axis of time: of the schedule, or of the watch over the cluster, which goes on after it."""
    after = summary.cluster.watched_until if summary.cluster else 0.0
    return max(summary.duration_s, min(after, summary.duration_s + MAX_AFTER * summary.bucket_s))


def time_series(summary: Summary) -> TimeSeries:
    """Return all columns of a run. Of several samples in a bucket the highest counts; of what is ready, the lowest.

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
    read = _by_bucket(summary.timeline, edges)
    for key, (head, get) in SERVER.items():
        columns.append(Column(key, head, [_highest(map(get, samples)) for samples in read]))
    columns.append(Column("ready", "ready", [_lowest(s.ready for s in samples) for samples in read]))
    columns += _platform(summary.cluster, edges)
    pieces = _pieces(summary.cluster, until) if summary.cluster else {}
    return TimeSeries(edges, {column.key: column for column in columns}, pieces)


def _after(end: float, last: float, length: float) -> list[float]:
    """Return the ends of buckets from `end` to `last`."""
    whole = [end + length * number for number in range(1, int((last - end) / length) + 1)]
    reached = whole[-1] if whole else end
    return [*whole, last] if last - reached > 1e-6 else whole


def _platform(cluster: Cluster | None, edges: Sequence[float]) -> Iterator[Column]:
    """Yield what the platform did; without a cluster, columns without values. Its replicas say when it was ready."""
    replicas = _in_force(cluster.replicas if cluster else [], edges)
    if cluster:
        yield Column("ready", "ready", [_lowest(map(_any_ready, found)) for found in replicas])
    for key, (head, number) in REPLICAS.items():
        of_all = _lowest if key == "replicas_ready" else _highest
        yield Column(key, head, [of_all(map(number, found)) for found in replicas])
    said = _by_bucket(cluster.autoscaler if cluster else [], edges)
    for key, (head, get) in AUTOSCALER.items():
        yield Column(key, head, [_highest(map(get, found)) for found in said])


def _pieces(cluster: Cluster, until: float) -> dict[str, list[Piece]]:
    """Return the numbers of replicas, and whether any was ready, as step functions by their keys."""
    found = {key: _steps(cluster, get, until) for key, (_, get) in REPLICAS.items()}
    return found | {"ready": _steps(cluster, _any_ready, until)}


def _any_ready(replicas: Replicas) -> int | None:
    return None if replicas.ready is None else int(replicas.ready > 0)


def _steps(cluster: Cluster, get: Callable[[Replicas], int | None], until: float) -> list[Piece]:
    """Return one of the numbers of replicas from 0 until the watch ended."""
    found, end = list[Piece](), min(until, cluster.watched_until)
    ends = [*(change.at for change in cluster.replicas), end][1:]
    for change, next_at in zip(cluster.replicas, ends, strict=True):
        value, start, stop = get(change), max(0.0, change.at), min(next_at, end)
        if value is None or start >= stop:
            continue
        if found and (found[-1].end, found[-1].value) == (start, value):
            start = found.pop().start
        found.append(Piece(start, stop, value))
    return found


def _by_bucket(samples: Sequence[Moment], edges: Sequence[float]) -> list[list[Moment]]:
    """Return the samples of each bucket, without those from after the last one."""
    found: list[list[Moment]] = [[] for _ in edges[1:]]
    for sample in samples:
        if 0 <= (number := bisect_right(edges, sample.at) - 1) < len(found):
            found[number].append(sample)
    return found


def _in_force(changes: Sequence[Replicas], edges: Sequence[float]) -> list[list[Replicas]]:
    """Return, for each bucket, the numbers of replicas that held at some time of it."""
    times = [change.at for change in changes]
    spans = ((bisect_right(times, start), bisect_left(times, end)) for start, end in pairwise(edges))
    return [list(changes[max(0, first - 1) : max(first, last)]) for first, last in spans]


def _highest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _lowest(values: Iterable[float | None]) -> float | None:
    return min((float(value) for value in values if value is not None), default=None)
