"""Measure how long detecting, provisioning, scaling and recovering took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loadtests import results
from loadtests.analysis.moments import Series
from loadtests.analysis.replicas import Seen, _at, _times
from loadtests.results import PodLife, ScalingTime
from loadtests.scenario import Span

NOT_SEEN = "pods were not seen"


# --- the times that matter -------------------------------------------------------------------------------------------


class _Asked(NamedTuple):
    """What a time is of, and what the SLO allows."""

    name: results.TimeName
    of: str
    limit: float | None

    def took(self, start: float, end: float | None, never: str) -> ScalingTime:
        """From `start` to `end`, or never so."""
        seconds = None if end is None else end - start
        met = None if self.limit is None else seconds is not None and seconds <= self.limit
        return self._record(seconds, start, end, met, never if end is None else None)

    def nothing(self, why: str) -> ScalingTime:
        """There was nothing to do, or nothing to see."""
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


def times_of(seen: Seen, recovery: results.Recovery, pods: Sequence[PodLife]) -> list[ScalingTime]:
    """All of them, in the order of the module's description."""
    slo, burst, found, more = seen.slo, seen.run.burst, list[ScalingTime](), dict(rises(seen))
    for of, at in more.items():
        found += rise(seen, of, at)
    if burst:
        found.append(_recover(burst, recovery, slo.recover_seconds))
    found.append(cold_start(pods, slo.cold_start_seconds, seen.until))
    if burst and "burst" in more:  # after one that needs no more, there is nothing to go down from
        found.append(down(seen, burst))
    found.append(zero(seen))
    return found


def rises(seen: Seen) -> Iterator[tuple[str, float]]:
    """What they are, and when."""
    first = float(seen.run.planned[0]) if len(seen.run.planned) else 0.0
    if seen.ready is not None and seen.ready.at(first, 0) == 0:
        yield "first request", first
    burst, needed = seen.run.burst, seen.needed
    if burst and (needed is None or needed.at(burst.start, 0) > needed.at(burst.start - 1e-6, 0)):
        yield "burst", burst.start


def rise(seen: Seen, of: str, at: float) -> Iterator[ScalingTime]:
    """How long it took to detect it, to provision replicas, and to have enough."""
    detect = _detect(seen, of, at)
    yield detect
    yield _provision(seen, of, detect.to_at, detect.why)
    yield _scale(seen, of, at)


def _detect(seen: Seen, of: str, at: float) -> ScalingTime:
    asked, need, had = _Asked("detect", of, seen.slo.detect_seconds), seen.need(at), _at(seen.desired, at, 0)
    if seen.desired is None:
        return asked.nothing("it was not seen how many were desired")
    if need is not None and had >= need:
        return asked.nothing(f"{had} were desired already and {need} are needed")
    detected = seen.desired.first(at, lambda desired: desired > had, 0)
    return asked.took(at, detected, f"no more than {had} were ever desired")


def _provision(seen: Seen, of: str, detected: float | None, why: str | None) -> ScalingTime:
    asked = _Asked("provision", of, seen.slo.provision_seconds)
    if seen.ready is None:
        return asked.nothing(NOT_SEEN)
    if detected is None:
        return asked.nothing(why or "")
    wanted = _at(seen.desired, detected, 0)
    ready = seen.ready.first(detected, lambda ready: ready >= wanted, 0)
    return asked.took(detected, ready, f"{wanted} were never ready together")


def _scale(seen: Seen, of: str, at: float) -> ScalingTime:
    asked, need = _Asked("scale", of, seen.slo.scale_seconds), seen.need(at)
    if seen.ready is None:
        return asked.nothing(NOT_SEEN)
    if need is None:
        return asked.nothing("it is not known what one replica holds: the scenario's rate is not in replicas")
    enough = seen.ready.first(at, lambda ready: ready >= need, 0)
    return asked.took(at, enough, f"{need} were never ready together")


def _recover(burst: Span, recovery: results.Recovery, limit: float | None) -> ScalingTime:
    asked = _Asked("recover", "burst", limit)
    if recovery.breached_at is None:
        return asked.nothing("the SLO always held")
    return asked.took(burst.start, recovery.recovered_at, "the SLO did not hold again")


def cold_start(pods: Sequence[PodLife], limit: float | None, until: float) -> ScalingTime:
    """Of the slowest pod that was created in the run; of one that should have been ready by the end, and was not."""
    for pod in pods:
        if limit is None or pod.created is None or pod.created < 0 or pod.ready is not None:
            continue
        if min(at for at in (pod.terminating, pod.gone, until) if at is not None) - pod.created > limit:
            return _Asked("cold start", pod.name, limit).took(pod.created, None, "it was never ready")
    started = [(pod.cold_start_seconds, pod) for pod in pods if pod.cold_start_seconds is not None]
    if not started:
        return _Asked("cold start", "pods", limit).nothing("no pod was created in the run and became ready")
    seconds, slowest = max(started, key=lambda pair: pair[0])
    assert slowest.created is not None  # noqa: S101 - it has a cold start
    return _Asked("cold start", slowest.name, limit).took(slowest.created, slowest.created + seconds, "")


def down(seen: Seen, burst: Span) -> ScalingTime:
    asked = _Asked("down", "burst's end", seen.slo.down_seconds)
    if seen.ready is None:
        return asked.nothing(NOT_SEEN)
    if burst.end >= seen.until:
        return asked.nothing("the watch ended with the burst")
    need = seen.need(burst.end) or 0
    most = max(need, seen.ready.at(burst.start, 0))
    ready = seen.ready.at(burst.end, 0)
    if ready <= most and seen.ready.first(burst.end, lambda ready: ready > most, 0) is None:
        return asked.nothing(f"{ready} were ready and {most} may stay")
    back = seen.ready.settled(burst.end, lambda ready: ready <= most, 0)
    return asked.took(burst.end, back, f"never down to {most}; {seen.ready.at(seen.until, 0)} were ready last")


def zero(seen: Seen) -> ScalingTime:
    run = seen.run
    asked = _Asked("zero", "last request", seen.slo.zero_seconds)
    if seen.ready is None:
        return asked.nothing(NOT_SEEN)
    last = float(run.intended[-1]) if len(run.intended) else 0.0
    times = _times(seen.desired, seen.ready)
    either = Series([(at, _at(seen.desired, at, 0) or seen.ready.at(at, 0)) for at in times])
    none = either.settled(last, lambda number: number == 0, 0)
    platform = run.plan.scenario.cluster
    if none is None and not (platform and platform.to_zero_seconds):
        return asked.nothing("the watch ended with the schedule")
    return asked.took(last, none, f"{seen.ready.at(seen.until, 0)} were ready last")
