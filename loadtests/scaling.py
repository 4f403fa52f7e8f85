"""How fast and how well a platform scales: what the cluster watcher saw, joined to a run's requests.

Moments are those at which a change was seen, which is when it took effect for whoever watches, as routers do. What
was there before the watch, or came during an interruption, has the time that the object itself says, put on the run's
axis by the API server's clock and never later than it was seen (`PodLife.stamped` names those).

The replicas that are needed at a time are the planned rate divided by what one replica holds at the SLO, rounded up,
where the scenario's rates are in replicas; before and after the schedule, none. A rise is the first request, where
there was no ready replica for it, and the begin of the burst, where it needs more replicas than were needed before.

detect      from a rise until more replicas are desired than at it
provision   from then until as many are ready as were desired then
scale       from a rise until as many are ready as are needed
recover     from the burst's begin until the SLO held again (`measures.recovery`)
cold start  of the slowest pod that was created in the run: from created to ready
down        from the end of a burst that needed more until, to the end of the watch, no more are ready than are needed
            then, or than were ready before it
zero        from the last request's intended time until, to the end of the watch, none is ready and none is desired

Over-provisioning is the time integral of the ready replicas beyond those needed, from 0 to the end of the watch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from loadtests import facts, results
from loadtests.facts import AnyFact, Stamp
from loadtests.measures import Run, Watched
from loadtests.results import FAILED, PodLife, ScalingTime
from loadtests.scenarios import BadScenario, Objective, Plan, Scenario, Span

# The first that is seen says what is desired. An HPA changes the Deployment first, then says so in its own status.
PREFERRED = ("PodAutoscaler", "Deployment", "HorizontalPodAutoscaler")
BY_READY = ("Deployment", "PodAutoscaler")  # and this how many are ready, where pods may not be seen
MOMENTS = ("created", "scheduled", "initialised", "pulled", "started", "ready")
ORDER = (*MOMENTS, "terminating", "gone")
PHASES = ("scheduling", "initialising", "pulling", "starting", "getting ready")  # each ends with the next moment
NOT_SEEN = "pods were not seen"
Interval = tuple[float, float]  # of time, from and to
Z_99 = 2.5758293035489  # of the normal distribution, two-sided 99 %
SETTLE_SECONDS = 1.0  # after the wanted shares changed, while routers follow
AHEAD_SECONDS = 5.0  # before they changed in the status, while routers may have been ahead of it
START_SECONDS = 5.0  # after a pod became ready, in which lost requests are counted as near its start
END_SECONDS = 1.0  # before it was told to end and after it was gone, likewise
ABOUT_SECONDS = 5.0  # that watches of different resources may take longer than others to notice the same outage
EVENTS_FROM, MOST_EVENTS = -1.0, 500  # seconds on the run's axis, and how many
RAMP_STEP = 0.1  # seconds: how finely a rate that changes is followed
FRESH_SECONDS = 3.0  # for so long, what a pod said of itself stands


class Series:
    """A number that changes in steps; `at` the same time, the last one counts."""

    def __init__(self, steps: Iterable[tuple[float, Any]]):
        found = sorted(steps, key=lambda step: step[0])
        self.times, self.values = [at for at, _ in found], [value for _, value in found]

    def at(self, time: float, before: Any = None) -> Any:
        index = bisect_right(self.times, time)
        return self.values[index - 1] if index else before

    def first(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """The first time from `since` on at which it holds; None: never."""
        if holds(self.at(since, before)):
            return since
        later = (at for at, value in zip(self.times, self.values, strict=True) if at > since and holds(value))
        return next(later, None)

    def settled(self, since: float, holds: Callable[[Any], bool], before: Any = None) -> float | None:
        """From when on it holds to the end, not before `since`; None: not at the end."""
        found = since if holds(self.at(since, before)) else None
        for at, value in zip(self.times, self.values, strict=True):
            if at > since:
                found = (at if found is None else found) if holds(value) else None
        return found


# --- clocks ----------------------------------------------------------------------------------------------------------


def clock_of(found: Sequence[AnyFact]) -> results.ClusterClock | None:
    """The best that is known of the API server's clock."""
    heard = [fact for fact in found if isinstance(fact, facts.Clock)]
    if not heard:
        return None
    best = min(heard, key=lambda fact: fact.error)
    return results.ClusterClock(
        zero=best.offset, error_seconds=best.error, skew_seconds=best.skew, answers=max(f.answers for f in heard)
    )


def moment(fact: AnyFact, stamp: Stamp, clock: results.ClusterClock | None) -> tuple[float, bool]:
    """When what a fact says came to be, and whether that is by its stamp."""
    if fact.live or stamp is None or clock is None:
        return fact.at, False
    return min(stamp - clock.zero, fact.at), True


# --- pods ------------------------------------------------------------------------------------------------------------


class _Life:
    """A pod's moments, as its facts come."""

    def __init__(self, clock: results.ClusterClock | None):
        self._clock = clock
        self.last: facts.Pod | None = None
        self.moments: dict[str, float] = {}
        self.stamped: list[str] = []
        self.startup: dict[str, float] = {}
        self.problem: str | None = None
        self._turns: list[float] = []  # when it became ready, and was so no more, in turns

    def note(self, name: str, fact: AnyFact, stamp: Stamp) -> None:
        """The first time; by a stamp not before what comes before, as clocks of nodes differ."""
        if name not in self.moments:
            at, stamped = moment(fact, stamp, self._clock)
            earlier = [self.moments[other] for other in ORDER[: ORDER.index(name)] if other in self.moments]
            self.moments[name] = max([at, *earlier]) if stamped else at
            self.stamped += [name] * stamped

    def take(self, fact: facts.Pod) -> None:
        for name, stamp in (
            ("created", fact.created_stamp),
            ("scheduled", fact.scheduled_stamp),
            ("initialised", fact.initialised_stamp),
            ("started", fact.started_stamp),
            ("terminating", fact.deleted_stamp),
        ):
            if stamp is not None:
                self.note(name, fact, stamp)
        if fact.ready:
            self.note("ready", fact, fact.ready_stamp)
        if fact.gone:
            self.note("gone", fact, None)
        if fact.ready != (self.last is not None and self.last.ready):
            self._turns.append(moment(fact, fact.ready_stamp if fact.ready else fact.deleted_stamp, self._clock)[0])
        self.problem, self.last = fact.waiting or self.problem, fact

    def record(self, lost: _Lost) -> PodLife:
        assert self.last is not None  # noqa: S101 - made with its first fact
        at = self.moments
        phases = list(self.phases())
        fresh = "ready" in at and at.get("created", -math.inf) >= 0
        return PodLife(
            name=self.last.name,
            revision=self.last.revision,
            **{name: at.get(name) for name in ORDER},
            stamped=self.stamped,
            phases=phases,
            cold_start_seconds=at["ready"] - at["created"] if fresh else None,
            slowest=self._slowest(phases) if "ready" in at else None,
            startup=self.startup,
            restarts=self.last.restarts,
            problem=self.problem,
            lost_at_start=lost.near(self.starts()),
            lost_at_end=lost.near(self.ends()),
        )

    def phases(self) -> Iterator[results.StartPhase]:
        """What lies between its moments; what was not seen in between is one phase.

        Events may come late: a moment is no later here than those that it comes before.
        """
        known = [(i, self.moments[name]) for i, name in enumerate(MOMENTS) if name in self.moments]
        ends = list(accumulate((at for _, at in reversed(known)), min))[::-1]
        for (i, start), (j, end) in pairwise(zip((i for i, _ in known), ends, strict=True)):
            yield results.StartPhase(name=" and ".join(PHASES[i:j]), seconds=end - start)

    def _slowest(self, phases: list[results.StartPhase]) -> str | None:
        if not phases:
            return None
        name = max(phases, key=lambda phase: phase.seconds).name
        parts = results.parts_of(self.startup)
        return f"{name}: {max(parts, key=lambda part: parts[part])}" if name.endswith(PHASES[-1]) and parts else name

    def starts(self) -> list[Interval]:
        """After it became ready, each time."""
        return [(at, at + START_SECONDS) for at in self._turns[::2]]

    def ends(self) -> list[Interval]:
        """While it ended, where it was told to or just vanished; and from each time that it was ready no more.

        That lasts until it is ready again or gone, as after a container was killed, or for `START_SECONDS`.
        """
        gone = self.moments.get("gone", math.inf)
        told = self.moments.get("terminating", gone)
        found = [] if math.isinf(told) else [(told - END_SECONDS, gone + END_SECONDS)]
        for index, at in enumerate(self._turns[1::2]):
            again = self._turns[2 * index + 2] if 2 * index + 2 < len(self._turns) else min(gone, at + START_SECONDS)
            found.append((at - END_SECONDS, again + END_SECONDS))
        return found


class _Lost:
    """Failed requests, by the times at which they were to leave."""

    def __init__(self, run: Run):
        self._times = run.intended[run.outcome == FAILED]

    def near(self, stretches: Iterable[Interval]) -> int:
        """How many are in any of them."""
        found = np.zeros(len(self._times), np.bool_)
        for start, end in stretches:
            found |= (self._times >= start) & (self._times <= end)
        return int(found.sum())

    def elsewhere(self, stretches: Iterable[Interval]) -> int:
        return len(self._times) - self.near(stretches)


def lives_of(found: Sequence[AnyFact], clock: results.ClusterClock | None) -> dict[str, _Life]:
    """Every pod that was seen, by its name."""
    lives: dict[str, _Life] = {}
    for fact in found:
        if isinstance(fact, facts.Pod):
            lives.setdefault(fact.name, _Life(clock)).take(fact)
        elif isinstance(fact, facts.Inside) and fact.name in lives:
            lives[fact.name].startup |= fact.startup
    for name, event in pulled_of(found).items():
        if name in lives:
            lives[name].note("pulled", event, event.stamp)
    return lives


def pulled_of(found: Sequence[AnyFact]) -> dict[str, facts.Event]:
    """By pod, the event that its last image had come. A container that starts again has one each time."""
    first: dict[tuple[str, str], facts.Event] = {}
    for fact in found:
        if isinstance(fact, facts.Event) and fact.reason == "Pulled" and fact.part.startswith("spec.containers"):
            first.setdefault((fact.name, fact.part), fact)
    return {name: event for (name, _), event in sorted(first.items(), key=lambda pair: pair[1].at)}


# --- replicas --------------------------------------------------------------------------------------------------------


def desired_of(found: Sequence[AnyFact], existing: Series | None) -> tuple[Series | None, str | None]:
    """How many replicas were desired, and by which kind of objects. Where none may be seen, pods say it."""
    desired, kind = _counted(found, "desired", PREFERRED)
    if desired is None and existing is not None:
        return existing, "Pod"
    return desired, kind


def _counted(
    found: Sequence[AnyFact], what: Literal["desired", "ready"], kinds: Sequence[str]
) -> tuple[Series | None, str | None]:
    """What the first of these kinds of objects that says it says, all of them together; and which it is."""
    scales = [fact for fact in found if isinstance(fact, facts.Scale)]
    kind = next((kind for kind in kinds if any(s.kind == kind and getattr(s, what) is not None for s in scales)), None)
    by_name: dict[str, int] = {}
    steps = []
    for scale in (scale for scale in scales if scale.kind == kind):
        if scale.gone:
            by_name.pop(scale.name, None)
        elif (number := getattr(scale, what)) is not None:
            by_name[scale.name] = number
        steps.append((scale.at, sum(by_name.values())))
    return (Series(steps), kind) if kind else (None, None)


def pods_of(found: Sequence[AnyFact], clock: results.ClusterClock | None) -> tuple[Series | None, Series | None]:
    """How many pods existed that were not being ended, and how many of those were ready.

    Where pods may not be seen, autoscalers and Deployments say how many are ready.
    """
    if any(isinstance(fact, facts.Unseen) and fact.resource == "pods" for fact in found):
        return None, _counted(found, "ready", BY_READY)[0]
    changes: list[tuple[float, str, bool, bool]] = []
    latest: dict[str, float] = {}  # a pod's changes keep their order, whatever their stamps say
    for fact in found:
        if isinstance(fact, facts.Pod):
            if fact.name not in latest:  # it was there before it was ready
                latest[fact.name] = moment(fact, fact.created_stamp, clock)[0]
                changes.append((latest[fact.name], fact.name, True, False))
            at, _ = moment(fact, fact.ready_stamp if fact.ready else fact.deleted_stamp, clock)
            latest[fact.name] = max(latest[fact.name], at)
            changes.append((latest[fact.name], fact.name, fact.stays, fact.ready))
    state: dict[str, tuple[bool, bool]] = {}
    existing, ready = [], []
    for at, name, stays, is_ready in sorted(changes, key=lambda change: change[0]):
        state[name] = (stays, is_ready)
        existing.append((at, sum(there for there, _ in state.values())))
        ready.append((at, sum(is_ready for _, is_ready in state.values())))
    return Series(existing), Series(ready)


def needed_of(plan: Plan, seconds: float) -> Series | None:
    """How many replicas the planned rate needs; None where it is not known what one holds."""
    if plan.scenario.rate != "replica":
        return None
    steps, start = list[tuple[float, int]](), 0.0
    for segment in plan.profile:
        pieces = 1 if segment.first == segment.last else max(1, math.ceil(segment.seconds / RAMP_STEP))
        for number in range(pieces):
            highest = max(segment.first + (segment.last - segment.first) * (number + end) / pieces for end in (0, 1))
            steps.append((start + segment.seconds * number / pieces, math.ceil(highest / plan.base - 1e-9)))
        start += segment.seconds
    return Series([step for step in steps if step[0] < seconds] + [(seconds, 0)])


class Seen(NamedTuple):
    """The numbers of replicas over time, and the run that they belong to."""

    run: Run
    desired: Series | None
    existing: Series | None
    ready: Series | None
    needed: Series | None
    until: float

    @property
    def slo(self) -> Objective:
        return self.run.plan.scenario.slo

    def need(self, at: float) -> int | None:
        return None if self.needed is None else self.needed.at(at, 0)


def replicas(seen: Seen) -> list[results.Replicas]:
    """Every change of one of the numbers."""
    found: list[results.Replicas] = []
    for at in (at for at in _times(seen.desired, seen.existing, seen.ready, seen.needed) if at <= seen.until):
        record = results.Replicas(
            at=at,
            desired=_at(seen.desired, at),
            existing=_at(seen.existing, at, 0),
            ready=_at(seen.ready, at, 0),
            needed=seen.need(at),
        )
        if not found or record.model_copy(update={"at": found[-1].at}) != found[-1]:
            found.append(record)
    return found


def beyond(seen: Seen, sign: int) -> float | None:
    """Replica-seconds of ready ones beyond need (1), or short of it (-1)."""
    if seen.needed is None or seen.ready is None:
        return None
    edges = [0.0, *(at for at in _times(seen.ready, seen.needed) if 0 < at < seen.until), max(0.0, seen.until)]
    pieces = ((start, end, seen.ready.at(start, 0) - seen.needed.at(start, 0)) for start, end in pairwise(edges))
    return math.fsum((end - start) * max(0, sign * beyond) for start, end, beyond in pieces)


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


def _times(*series: Series | None) -> list[float]:
    return sorted({at for s in series if s is not None for at in s.times})


def _at(series: Series | None, time: float, before: Any = None) -> Any:
    """What it was then; nothing if it was not seen."""
    return None if series is None else series.at(time, before)


# --- revisions -------------------------------------------------------------------------------------------------------


def wilson(count: int, total: int) -> tuple[float, float]:
    """Wilson's score interval of a binomial share, 99 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, z2 = count / total, Z_99**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_99 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return centre - half if count else 0.0, centre + half if count < total else 1.0


def traffic_of(found: Sequence[AnyFact]) -> list[results.Traffic]:
    """The wanted shares, each time that they changed."""
    changes: list[results.Traffic] = []
    for fact in found:
        if isinstance(fact, facts.Service) and fact.traffic and not (changes and changes[-1].shares == fact.traffic):
            changes.append(results.Traffic(at=fact.at, shares=fact.traffic))
    return changes


def splits(run: Run, traffic: Sequence[results.Traffic]) -> Iterator[results.Split]:
    """For each stretch with the same wanted shares, what each revision had of the answers that name one.

    By intended time, from `SETTLE_SECONDS` after a change until `AHEAD_SECONDS` before the next. The interval takes
    each request as routed by itself; where connections are (a Service without a gateway), it is too narrow.
    """
    ends = [*(change.at - AHEAD_SECONDS for change in traffic), run.seconds][1:]
    for change, end in zip(traffic, ends, strict=True):
        start = max(0.0, change.at + SETTLE_SECONDS if change.at > 0 else 0.0)
        where = (run.intended >= start) & (run.intended < end) & (run.requests["revision"] >= 0)
        counts = np.bincount(run.requests["revision"][where], minlength=len(run.revisions)).tolist()
        by_name, total = dict(zip(run.revisions, counts, strict=True)), int(where.sum())
        names = dict.fromkeys([*change.shares, *(name for name, count in by_name.items() if count)])
        for name in names if total else ():
            wanted, count = change.shares.get(name, 0.0), by_name.get(name, 0)
            low, high = wilson(count, total)
            yield results.Split(
                start=start, end=end, revision=name, wanted_share=wanted, answers=count, total=total,
                share=count / total, low=low, high=high, within=low <= wanted <= high,
            )  # fmt: skip


# --- what one replica holds -----------------------------------------------------------------------------------------


def replica_capacity(directory: Path) -> float:
    """What a run found that one replica holds, in requests/s; raises `BadScenario`."""
    try:
        found = results.read_summary(directory)
    except (OSError, ValueError):
        raise BadScenario(f"--rate: {directory}: no summary can be read; expected the directory of a run") from None
    if found.capacity is None or not found.capacity.per_s or found.capacity.limited_by != "server":
        raise BadScenario(f"--rate: {directory} found no capacity; expected a run of `ramp` that did")
    return found.capacity.per_s / _ready_in(found, directory)


def _ready_in(found: results.Summary, directory: Path) -> int:
    """How many replicas a run was answered by: one, where nobody watched; raises `BadScenario`."""
    if found.cluster is None:
        return 1
    seen = found.cluster.replicas
    first = max((r.at for r in seen if r.at <= 0), default=0.0)
    counts = {r.ready for r in seen if first <= r.at <= found.duration_s}
    if len(counts) == 1 and (ready := counts.pop()):
        return ready
    what = "the number of ready replicas changed, or was not seen; expected always the same"
    raise BadScenario(f"--rate: {directory}: {what}")


def check_alike(directory: Path, scenario: Scenario) -> None:
    """A capacity is one of the same requests with the same SLO; raises `BadScenario`."""
    found, kinds = results.read_summary(directory), sorted(payload.name for payload in scenario.payloads)
    if sorted(found.kinds) != kinds or found.slo.p95_ms != scenario.slo.p95_ms:
        what = f"{', '.join(kinds)} with a p95 of {scenario.slo.p95_ms:g} ms"
        raise BadScenario(f"--rate: {directory} had other requests or another SLO; expected {what}")


# --- everything ------------------------------------------------------------------------------------------------------


def events_of(found: Sequence[AnyFact], clock: results.ClusterClock | None) -> list[results.PlatformEvent]:
    """Events, and changes of conditions, as events of their objects; from shortly before the run's begin on."""
    events: list[results.PlatformEvent] = []
    before: dict[tuple[str, str], dict[str, str]] = {}
    for fact in found:
        if isinstance(fact, facts.Event):
            at, stamped = moment(fact, fact.stamp, clock)
            events.append(
                results.PlatformEvent(
                    at=at,
                    stamped=stamped,
                    kind=fact.kind,
                    name=fact.name,
                    reason=fact.reason,
                    message=fact.message,
                    warning=fact.warning,
                )
            )
        elif isinstance(fact, facts.Service | facts.Revision):
            about = ("InferenceService", "") if isinstance(fact, facts.Service) else ("Revision", fact.name)
            old = before.get(about, {})
            before[about] = fact.conditions
            for condition, value in fact.conditions.items():
                if old.get(condition) != value and fact.live:
                    events.append(
                        results.PlatformEvent(
                            at=fact.at, stamped=False, kind=about[0], name=about[1], reason=condition, message=value
                        )
                    )
    return sorted((event for event in events if event.at >= EVENTS_FROM), key=lambda event: event.at)


def autoscaler_of(found: Sequence[AnyFact]) -> list[results.AutoscalerSample]:
    return [
        results.AutoscalerSample.model_validate(fact.model_dump(exclude={"what", "live"}))
        for fact in found
        if isinstance(fact, facts.Autoscaler)
    ]


def samples(found: Sequence[AnyFact], seen: Seen) -> list[results.Sample]:
    """The timeline, once a second, from what the cluster says: a look from outside would keep it from going to zero."""
    inside = [fact for fact in found if isinstance(fact, facts.Inside)]
    return [_sample(float(second), inside, seen) for second in range(int(max(0.0, seen.until)) + 1)]


def _sample(at: float, inside: Sequence[facts.Inside], seen: Seen) -> results.Sample:
    fresh = {fact.name: fact for fact in inside if at - FRESH_SECONDS <= fact.at <= at}.values()
    queues = [fact.queue_rows for fact in fresh if fact.queue_rows is not None]
    flying = [fact.in_flight for fact in fresh if fact.in_flight is not None]
    ready = _at(seen.ready, at, 0)
    return results.Sample(
        at=at,
        ready=None if ready is None else ready > 0,
        queue_rows=sum(queues) if queues else None,
        in_flight=sum(flying) if flying else None,
        replicas_desired=_at(seen.desired, at),
        replicas_ready=ready,
    )


def not_seen(found: Sequence[AnyFact]) -> Iterator[str]:
    """What could not be watched at all, and then what was interrupted."""
    yield from (fact.text for fact in found if isinstance(fact, facts.Unseen))
    over: list[_Outage] = []
    ongoing: dict[str, _Outage] = {}
    for fact in found:
        if isinstance(fact, facts.Gap) and fact.seconds is None:
            ongoing[fact.resource] = _Outage.of(fact, fact.at, math.inf)
        elif isinstance(fact, facts.Gap):
            ongoing.pop(fact.resource, None)
            over.append(_Outage.of(fact, fact.at - (fact.seconds or 0.0), fact.at))
    for outages in (over, list(ongoing.values())):
        yield from (str(outage) for outage in _merged(outages))


class _Outage(NamedTuple):
    """Watches that were interrupted, from when until when, and why."""

    start: float
    end: float
    resources: tuple[str, ...]
    why: tuple[str, ...]

    @classmethod
    def of(cls, gap: facts.Gap, start: float, end: float) -> _Outage:
        return cls(start, end, (gap.resource,), tuple(gap.why.split(", ")))

    def like(self, other: _Outage) -> bool:
        """Whether both began and ended at about the same time."""
        ends = self.end == other.end or abs(self.end - other.end) <= ABOUT_SECONDS
        return ends and abs(self.start - other.start) <= ABOUT_SECONDS

    def __str__(self) -> str:
        when = f"from {self.start:.1f} s to the end"
        if self.end < math.inf:
            when = f"for {self.end - self.start:.1f} s until {self.end:.1f} s"
        return f"{', '.join(self.resources)}: the watch was interrupted {when} ({', '.join(self.why)})"


def _merged(outages: Iterable[_Outage]) -> list[_Outage]:
    """Those of about the same time become one: it mostly was one, of the API server or the way to it."""
    found: list[_Outage] = []
    for one in sorted(outages, key=lambda outage: outage.start):
        if found and one.like(found[-1]):
            last = found.pop()
            resources = tuple(dict.fromkeys((*last.resources, *one.resources)))
            why = tuple(dict.fromkeys((*last.why, *one.why)))
            found.append(_Outage(last.start, max(last.end, one.end), resources, why))
        else:
            found.append(one)
    return found


def problems(found: Sequence[AnyFact], run: Run, pods: Sequence[PodLife]) -> Iterator[str]:
    """What the scenario asked for, and did not happen."""
    platform, burst = run.plan.scenario.cluster, run.burst
    if platform is None or platform.disruption is None or burst is None:
        return
    done = [fact for fact in found if isinstance(fact, facts.Disrupted)]
    yield from (fact.problem for fact in done if fact.problem)
    if platform.disruption == "delete-pod" and not done:
        yield "delete-pod: it is not known whether a pod was deleted"
    before = {pod.revision for pod in pods if pod.created is not None and pod.created < burst.start}
    if platform.disruption == "new-revision" and not any(pod.ready and pod.revision not in before for pod in pods):
        yield "new-revision: no pod of another revision became ready after the burst's begin"


def measure(run: Run, watched: Watched, recovery: results.Recovery) -> tuple[results.Cluster, list[results.Sample]]:
    """Everything that facts say of a run; and its timeline."""
    found, until = watched.facts, watched.until
    clock, lost = clock_of(found), _Lost(run)
    existing, ready = pods_of(found, clock)
    desired, kind = desired_of(found, existing)
    seen = Seen(run, desired, existing, ready, needed_of(run.plan, run.seconds), until)
    lives = lives_of(found, clock)
    pods = sorted((life.record(lost) for life in lives.values()), key=lambda pod: pod.created or 0.0)
    traffic, events = traffic_of(found), events_of(found, clock)
    cut = [f"events: the last {len(events) - MOST_EVENTS} are left out"] if len(events) > MOST_EVENTS else []
    cluster = results.Cluster(
        service=watched.service,
        mode=next((fact.mode for fact in reversed(found) if isinstance(fact, facts.Service)), None),
        clock=clock,
        desired_from=kind,
        replica_per_s=run.plan.base if seen.needed else None,
        watched_until=until,
        replicas=replicas(seen),
        times=times_of(seen, recovery, pods),
        over_replica_seconds=beyond(seen, 1),
        under_replica_seconds=beyond(seen, -1),
        pods=pods,
        lost_elsewhere=lost.elsewhere(s for life in lives.values() for s in (*life.starts(), *life.ends())),
        traffic=traffic,
        splits=list(splits(run, traffic)),
        events=events[:MOST_EVENTS],
        autoscaler=autoscaler_of(found),
        disruption=_disruption(found),
        not_seen=[*dict.fromkeys(not_seen(found)), *cut],
        problems=list(problems(found, run, pods)),
    )
    return cluster, samples(found, seen)


def _disruption(found: Sequence[AnyFact]) -> results.Disruption | None:
    done = (fact for fact in found if isinstance(fact, facts.Disrupted) and not fact.problem)
    return next((results.Disruption(at=fact.at, what=fact.text) for fact in done), None)
