"""List what runs are compared by: measures of phases, of recovery, of the cluster, and of capacity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from defects.pages.axes import figure, percent
from loadtests.results import BelowNeed, Cluster, PhaseResult, Summary

TIMES = {
    "detect": "time to detect",
    "provision": "time to provision",
    "scale": "time to scale",
    "cold start": "slowest cold start",
    "down": "time down",
    "zero": "time to zero",
}


class Value(NamedTuple):
    """One run's value of a measure; `more`: the true value is this or more."""

    value: float
    more: bool = False


class Measure(NamedTuple):
    """Something to compare; lower is better, unless `high`."""

    name: str
    of: Callable[[Summary], Value | None]
    ratio: bool = False
    high: bool = False
    show: Callable[[float | None], str] = figure


def measures(run: Summary) -> Iterator[Measure]:
    """Yield every measure of a run of this scenario."""
    for phase in run.judged:
        name = phase.name
        for key in ("p50", "p95", "p99"):
            yield Measure(f"{name} {key}, ms", of_phase(name, attrgetter(f"latency.{key}")), ratio=True)
        yield Measure(f"{name} goodput/s", of_phase(name, lambda p: p.goodput_per_s), high=True)
        yield Measure(f"{name} refused", of_phase(name, lambda p: _share(p, p.counts.refused)), show=percent)
        yield Measure(f"{name} failed", of_phase(name, lambda p: _share(p, p.counts.failed)), show=percent)
    if any(phase.name == "burst" for phase in run.phases) and run.capacity is None:
        yield Measure("time to recover, s", recovery)
    yield from cluster_measures(run)
    if run.capacity:
        yield Measure("capacity at the SLO, requests/s", capacity, ratio=True, high=True)


def cluster_measures(run: Summary) -> Iterator[Measure]:
    """Yield what the platform did, where it was watched. The time to recover is above: it needs no cluster."""
    if run.cluster is None:
        return
    for time in run.cluster.times:
        if time.from_at is not None and time.name != "recover":
            of = "" if time.name == "cold start" else f" ({time.of})"  # that of a cold start is a pod's name
            yield Measure(f"{TIMES[time.name]}{of}, s", of_time(time.name, of and time.of))
    if run.cluster.over_replica_seconds is not None:
        yield Measure("over-provisioning, replica-seconds", of_cluster(lambda cluster: cluster.over_replica_seconds))
        yield Measure("under-provisioning, replica-seconds", of_cluster(lambda cluster: cluster.under_replica_seconds))
    if run.cluster.below_need is not None:
        yield Measure("fell below need again, times", of_below_need(lambda found: found.times))
        yield Measure("below need again, s", of_below_need(lambda found: found.seconds))
    if run.cluster.pods:
        yield Measure("failed near pods' starts and ends", lost_near)


def of_time(name: str, of: str) -> Callable[[Summary], Value | None]:
    """Return a getter of one of the times of a cluster; one without an end counts until the end of the watch."""

    def measured(run: Summary) -> Value | None:
        found = run.cluster.times if run.cluster else []
        time = next((time for time in found if time.name == name and time.of == (of or time.of)), None)
        if time is None or time.from_at is None or run.cluster is None:
            return None
        if time.seconds is None:
            return Value(run.cluster.watched_until - time.from_at, more=True)
        return Value(time.seconds)

    return measured


def of_cluster(get: Callable[[Cluster], float | None]) -> Callable[[Summary], Value | None]:
    """Return a getter of a measure of the whole cluster."""

    def measured(run: Summary) -> Value | None:
        value = get(run.cluster) if run.cluster else None
        return None if value is None else Value(value)

    return measured


def of_below_need(get: Callable[[BelowNeed], float]) -> Callable[[Summary], Value | None]:
    """Return a getter of how often, or how long, fewer replicas were ready than needed again."""
    return of_cluster(lambda cluster: None if cluster.below_need is None else get(cluster.below_need))


def lost_near(run: Summary) -> Value | None:
    """Return the failed requests near any pod's start or end, each once; those of the warm-up count too."""
    if run.cluster is None or not run.cluster.pods:
        return None
    return Value(sum(phase.counts.failed for phase in run.phases) - run.cluster.lost_elsewhere)


def of_phase(name: str, get: Callable[[PhaseResult], float | None]) -> Callable[[Summary], Value | None]:
    """Return a getter of a measure of the phase called `name`."""

    def of(run: Summary) -> Value | None:
        value = next((get(phase) for phase in run.phases if phase.name == name), None)
        return None if value is None else Value(value)

    return of


def _share(phase: PhaseResult, count: int) -> float:
    return count / max(1, phase.counts.answered + phase.counts.refused + phase.counts.failed)


def recovery(run: Summary) -> Value | None:
    """Return the seconds from the burst's start until the SLO held again, or to the end of a run if it did not."""
    if run.recovery.seconds is not None:
        return Value(run.recovery.seconds)
    burst = next((phase for phase in run.phases if phase.name == "burst"), None)
    return Value(run.duration_s - burst.start, more=True) if burst and run.recovery.breached_at is not None else None


def capacity(run: Summary) -> Value | None:
    found = run.capacity
    return Value(found.per_s, more=found.limited_by != "server") if found and found.per_s is not None else None


def every(runs: Sequence[Summary]) -> list[Measure]:
    """Return the measures that any of the runs has, each once; what only some have stands where it does there."""
    found: list[Measure] = []
    for run in runs:
        place = 0
        for measure in measures(run):
            names = [other.name for other in found]
            if measure.name in names:
                place = names.index(measure.name) + 1
            else:
                found.insert(place, measure)
                place += 1
    return found
