"""Count desired, existing, ready and needed replicas over a run.

Only revisions that get requests count: a ready replica of another one takes none of the load, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from loadtests import results
from loadtests.analysis.measures import Run
from loadtests.analysis.method import RAMP_STEP
from loadtests.analysis.moments import StepFunction, moment, step_times, value_at
from loadtests.analysis.traffic import Routing
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.scenario import Objective, Plan

# The first that is seen says what is desired. An HPA changes the Deployment first, then says so in its own status.
PREFERRED = ("PodAutoscaler", "Deployment", "HorizontalPodAutoscaler")
BY_READY = ("Deployment", "PodAutoscaler")  # and this how many are ready, where pods may not be seen

Numbers = dict[str, int]  # of replicas, by revision or by the name of what decides on them


def desired_of(
    found: Sequence[AnyObservation], routing: Routing, existing: StepFunction | None
) -> tuple[StepFunction | None, str | None]:
    """Return how many replicas were desired, and the kind of objects that says so; where none may be seen, pods."""
    desired, kind = _counted(found, "desired", PREFERRED)
    if desired is None and existing is not None:
        return existing, "Pod"
    return _sum(desired, routing), kind


def scaled_by(found: Sequence[AnyObservation]) -> results.ScaledBy | None:
    """Return what scales the service, by its own account when it was first seen, else by the autoscalers there are.

    An HPA or a PodAutoscaler that is there says more than `none` or `external`. `None` where nothing says it.
    """
    said = next((o.scaled_by for o in found if isinstance(o, observations.Service) and o.scaled_by), None)
    kinds = {o.kind for o in found if isinstance(o, observations.ReplicaCount) and not o.live}
    seen: results.AutoscalerKind | None = None
    if "HorizontalPodAutoscaler" in kinds:
        seen = "HPA"
    elif "PodAutoscaler" in kinds:
        seen = "KPA"
    if seen and (said is None or said.kind in ("none", "external")):
        return results.ScaledBy(kind=seen)
    return said


def _counted(
    found: Sequence[AnyObservation], what: Literal["desired", "ready"], kinds: Sequence[str]
) -> tuple[StepFunction | None, str | None]:
    """Return the numbers of all objects of the first of these kinds that has them, by their names, and that kind."""
    scales = [observed for observed in found if isinstance(observed, observations.ReplicaCount)]
    kind = next((kind for kind in kinds if any(s.kind == kind and getattr(s, what) is not None for s in scales)), None)
    by_name, steps = Numbers(), list[tuple[float, Numbers]]()
    for scale in (scale for scale in scales if scale.kind == kind):
        if scale.gone:
            by_name.pop(scale.name, None)
        elif (number := getattr(scale, what)) is not None:
            by_name[scale.name] = number
        steps.append((scale.at, dict(by_name)))
    return (StepFunction(steps), kind) if kind else (None, None)


def _sum(numbers: StepFunction | None, routing: Routing, *, without_traffic: bool = False) -> StepFunction | None:
    """Return the sum over what gets requests, or over what gets none; `None` where the numbers are not known."""
    if numbers is None:
        return None
    start = numbers.times[0] if numbers.times else math.inf
    times = sorted({*numbers.times, *(at for at in routing.times if at > start)})
    return StepFunction((at, _total(numbers.at(at), routing, at, without_traffic)) for at in times)


def _total(numbers: Numbers, routing: Routing, at: float, without_traffic: bool) -> int:
    return sum(number for name, number in numbers.items() if routing.has_traffic(name or None, at) != without_traffic)


class ReadyReplicas(NamedTuple):
    """Ready replicas over time: how many get requests, how many get none, and all by revision."""

    serving: StepFunction | None
    without_traffic: StepFunction | None
    by_revision: StepFunction | None


def pods_of(
    found: Sequence[AnyObservation], clock: results.ClusterClock | None, routing: Routing
) -> tuple[StepFunction | None, ReadyReplicas]:
    """Return how many pods existed that were not being ended, and how many were ready.

    Where pods may not be seen, autoscalers and Deployments say how many are ready.
    """
    if any(isinstance(observed, observations.Unseen) and observed.resource == "pods" for observed in found):
        existing, ready = None, _counted(found, "ready", BY_READY)[0]
    else:
        existing, ready = _pods_by_revision(found, clock)
    counted, idle = _sum(ready, routing), _sum(ready, routing, without_traffic=True)
    return _sum(existing, routing), ReadyReplicas(counted, idle, ready)


def _pods_by_revision(
    found: Sequence[AnyObservation], clock: results.ClusterClock | None
) -> tuple[StepFunction, StepFunction]:
    """Return the numbers of pods that existed and were not being ended, and of those that were ready."""
    changes: list[tuple[float, observations.Pod, bool, bool]] = []
    latest: dict[str, float] = {}  # a pod's changes keep their order, whatever their stamps say
    for observed in found:
        if isinstance(observed, observations.Pod):
            if observed.name not in latest:  # it was there before it was ready
                latest[observed.name] = moment(observed, observed.created_stamp, clock)[0]
                changes.append((latest[observed.name], observed, True, False))
            at, _ = moment(observed, observed.ready_stamp if observed.ready else observed.deleted_stamp, clock)
            latest[observed.name] = max(latest[observed.name], at)
            changes.append((latest[observed.name], observed, observed.stays, observed.ready))
    state: dict[str, tuple[str, bool, bool]] = {}
    existing, ready = [], []
    for at, pod, stays, is_ready in sorted(changes, key=lambda change: change[0]):
        state[pod.name] = (pod.revision or "", stays, is_ready)
        existing.append((at, _by_revision((revision, stays) for revision, stays, _ in state.values())))
        ready.append((at, _by_revision((revision, is_ready) for revision, _, is_ready in state.values())))
    return StepFunction(existing), StepFunction(ready)


def _by_revision(pods: Iterable[tuple[str, bool]]) -> Numbers:
    """Return how many of the pods count, by revision; none where that is zero."""
    found = Numbers()
    for revision, counts in pods:
        if counts:
            found[revision] = found.get(revision, 0) + 1
    return found


def needed_of(plan: Plan, seconds: float) -> StepFunction | None:
    """Return how many replicas the planned rate needs; `None` where it is not known what one holds."""
    if plan.scenario.rate != "replica":
        return None
    steps, start = list[tuple[float, int]](), 0.0
    for segment in plan.profile:
        pieces = 1 if segment.first == segment.last else max(1, math.ceil(segment.seconds / RAMP_STEP))
        for number in range(pieces):
            highest = max(segment.first + (segment.last - segment.first) * (number + end) / pieces for end in (0, 1))
            steps.append((start + segment.seconds * number / pieces, math.ceil(highest / plan.base - 1e-9)))
        start += segment.seconds
    return StepFunction([step for step in steps if step[0] < seconds] + [(seconds, 0)])


class ReplicaCounts(NamedTuple):
    """The numbers of replicas of a run over time, until the watch ended; `None` for those that were not observed.

    All are of revisions that get requests, except `idle`: ready ones that get none.
    """

    run: Run
    desired: StepFunction | None
    existing: StepFunction | None
    ready: StepFunction | None
    idle: StepFunction | None
    needed: StepFunction | None
    until: float

    @property
    def slo(self) -> Objective:
        return self.run.plan.scenario.slo

    def ready_at(self, at: float) -> int:
        """Return how many were ready at a time; 0 before the first that was seen."""
        return int(value_at(self.ready, at, 0) or 0)

    def need(self, at: float) -> int | None:
        """Return how many are needed at a time; `None` if that is not known."""
        return None if self.needed is None else self.needed.at(at, 0)


def replicas(counts: ReplicaCounts) -> list[results.Replicas]:
    """Return every change of one of the numbers."""
    found: list[results.Replicas] = []
    for at in (
        at for at in step_times(counts.desired, counts.existing, counts.ready, counts.needed) if at <= counts.until
    ):
        record = results.Replicas(
            at=at,
            desired=value_at(counts.desired, at),
            existing=value_at(counts.existing, at, 0),
            ready=value_at(counts.ready, at, 0),
            needed=counts.need(at),
        )
        if not found or record.model_copy(update={"at": found[-1].at}) != found[-1]:
            found.append(record)
    return found


def beyond(counts: ReplicaCounts, sign: int) -> float | None:
    """Return the replica-seconds of ready ones beyond need (`sign` 1) or short of it (-1); `None` if not known."""
    ready, needed = counts.ready, counts.needed
    if needed is None or ready is None:
        return None
    return _integral(counts, (ready, needed), lambda at: max(0, sign * (ready.at(at, 0) - needed.at(at, 0))))


def without_traffic(counts: ReplicaCounts) -> float | None:
    """Return the replica-seconds of ready ones that got no requests; `None` if not known."""
    idle = counts.idle
    return None if idle is None else _integral(counts, (idle,), lambda at: idle.at(at, 0))


def _integral(counts: ReplicaCounts, steps: Sequence[StepFunction], value: Callable[[float], int]) -> float:
    """Return the time integral of a number, from 0 to the end of the watch; it changes only with the steps."""
    inside = (at for at in step_times(*steps) if 0 < at < counts.until)
    edges = [0.0, *inside, max(0.0, counts.until)]
    return math.fsum((end - start) * value(start) for start, end in pairwise(edges))
