"""Measure the times that `scaling` defines: to detect, provision, scale, recover, start, go down and reach zero."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadtests import results
from loadtests.analysis.moments import StepFunction, step_times, value_at
from loadtests.analysis.replicas import ReplicaCounts
from loadtests.results import PodLife, ScalingTime
from loadtests.scenario import Span

NOT_SEEN = "pods were not seen"


class TimeGoal(NamedTuple):
    """The name of a time, what it counts from, and what the SLO allows."""

    name: results.TimeName
    of: str
    limit: float | None

    def reached(self, start: float, end: float | None, never: str) -> ScalingTime:
        """Return the time from `start` to `end`; where there is no end, with the reason `never`."""
        seconds = None if end is None else end - start
        met = None if self.limit is None else seconds is not None and seconds <= self.limit
        return self._record(seconds, start, end, met, never if end is None else None)

    def missing(self, why: str) -> ScalingTime:
        """Return that there is no such time, because there was nothing to do or nothing was seen."""
        return self._record(None, None, None, None, why)

    def _record(
        self, seconds: float | None, start: float | None, end: float | None, met: bool | None, why: str | None
    ) -> ScalingTime:
        return ScalingTime(
            name=self.name,
            of=self.of,
            seconds=seconds,
            from_at=start,
            to_at=end,
            limit_seconds=self.limit,
            met=met,
            why=why,
        )


def times_of(counts: ReplicaCounts, recovery: results.Recovery, pods: Sequence[PodLife]) -> list[ScalingTime]:
    """Return all times, in the order in which `scaling` defines them."""
    slo, burst, found, more = counts.slo, counts.run.burst, list[ScalingTime](), dict(rises(counts))
    for of, at in more.items():
        found += rise(counts, of, at)
    if burst:
        found.append(_recover(burst, recovery, slo.recover_seconds))
    found.append(cold_start(pods, slo.cold_start_seconds, counts.until))
    if burst and "burst" in more:  # after one that needs no more, there is nothing to go down from
        found.append(down(counts, burst))
    found.append(zero(counts))
    return found


def rises(counts: ReplicaCounts) -> Iterator[tuple[str, float]]:
    """Yield the name and the time of each rise: a first request without a replica, and a burst that needs more."""
    first = float(counts.run.planned[0]) if len(counts.run.planned) else 0.0
    if counts.ready is not None and counts.ready.at(first, 0) == 0:
        yield "first request", first
    burst, needed = counts.run.burst, counts.needed
    if burst and (needed is None or needed.at(burst.start, 0) > needed.at(burst.start - 1e-6, 0)):
        yield "burst", burst.start


def rise(counts: ReplicaCounts, of: str, at: float) -> Iterator[ScalingTime]:
    """Yield how long it took to detect a rise, to provision replicas for it, and to have enough of them."""
    detect = _detect(counts, of, at)
    yield detect
    yield _provision(counts, of, detect.to_at, detect.why)
    yield _scale(counts, of, at)


def _detect(counts: ReplicaCounts, of: str, at: float) -> ScalingTime:
    goal, need, had = (
        TimeGoal("detect", of, counts.slo.detect_seconds),
        counts.need(at),
        value_at(counts.desired, at, 0),
    )
    if counts.desired is None:
        return goal.missing("it was not seen how many were desired")
    if need is not None and had >= need:
        return goal.missing(f"{had} were desired already and {need} are needed")
    detected = counts.desired.first(at, lambda desired: desired > had, 0)
    return goal.reached(at, detected, f"no more than {had} were ever desired")


def _provision(counts: ReplicaCounts, of: str, detected: float | None, why: str | None) -> ScalingTime:
    goal = TimeGoal("provision", of, counts.slo.provision_seconds)
    if counts.ready is None:
        return goal.missing(NOT_SEEN)
    if detected is None:
        return goal.missing(why or "")
    wanted = value_at(counts.desired, detected, 0)
    ready = counts.ready.first(detected, lambda ready: ready >= wanted, 0)
    return goal.reached(detected, ready, f"{wanted} were never ready together")


def _scale(counts: ReplicaCounts, of: str, at: float) -> ScalingTime:
    goal, need = TimeGoal("scale", of, counts.slo.scale_seconds), counts.need(at)
    if counts.ready is None:
        return goal.missing(NOT_SEEN)
    if need is None:
        return goal.missing("it is not known what one replica holds: the scenario's rate is not in replicas")
    enough = counts.ready.first(at, lambda ready: ready >= need, 0)
    return goal.reached(at, enough, f"{need} were never ready together")


def _recover(burst: Span, recovery: results.Recovery, limit: float | None) -> ScalingTime:
    goal = TimeGoal("recover", "burst", limit)
    if recovery.breached_at is None:
        return goal.missing("the SLO always held")
    return goal.reached(burst.start, recovery.recovered_at, "the SLO did not hold again")


def cold_start(pods: Sequence[PodLife], limit: float | None, until: float) -> ScalingTime:
    """Return the longest cold start of the pods that were created in the run.

    A pod that had longer than the limit and was never ready comes first.
    """
    for pod in pods:
        if limit is None or pod.created is None or pod.created < 0 or pod.ready is not None:
            continue
        if min(at for at in (pod.terminating, pod.gone, until) if at is not None) - pod.created > limit:
            return TimeGoal("cold start", pod.name, limit).reached(pod.created, None, "it was never ready")
    started = [(pod.cold_start_seconds, pod) for pod in pods if pod.cold_start_seconds is not None]
    if not started:
        return TimeGoal("cold start", "pods", limit).missing("no pod was created in the run and became ready")
    seconds, slowest = max(started, key=lambda pair: pair[0])
    assert slowest.created is not None  # noqa: S101 - it has a cold start
    return TimeGoal("cold start", slowest.name, limit).reached(slowest.created, slowest.created + seconds, "")


def down(counts: ReplicaCounts, burst: Span) -> ScalingTime:
    """Return how long it took after the burst until no more replicas were ready than needed, or than before it."""
    goal = TimeGoal("down", "burst's end", counts.slo.down_seconds)
    if counts.ready is None:
        return goal.missing(NOT_SEEN)
    if burst.end >= counts.until:
        return goal.missing("the watch ended with the burst")
    need = counts.need(burst.end) or 0
    most = max(need, counts.ready.at(burst.start, 0))
    ready = counts.ready.at(burst.end, 0)
    if ready <= most and counts.ready.first(burst.end, lambda ready: ready > most, 0) is None:
        return goal.missing(f"{ready} were ready and {most} may stay")
    back = counts.ready.settled(burst.end, lambda ready: ready <= most, 0)
    return goal.reached(burst.end, back, f"never down to {most}; {counts.ready.at(counts.until, 0)} were ready last")


def zero(counts: ReplicaCounts) -> ScalingTime:
    """Return how long it took from the last request until no replica was ready or desired."""
    run = counts.run
    goal = TimeGoal("zero", "last request", counts.slo.zero_seconds)
    if counts.ready is None:
        return goal.missing(NOT_SEEN)
    last = float(run.intended[-1]) if len(run.intended) else 0.0
    times = step_times(counts.desired, counts.ready)
    either = StepFunction([(at, value_at(counts.desired, at, 0) or counts.ready.at(at, 0)) for at in times])
    none = either.settled(last, lambda number: number == 0, 0)
    platform = run.plan.scenario.cluster
    if none is None and not (platform and platform.to_zero_seconds):
        return goal.missing("the watch ended with the schedule")
    return goal.reached(last, none, f"{counts.ready.at(counts.until, 0)} were ready last")
