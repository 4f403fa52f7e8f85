"""Count desired, existing, ready and needed replicas over a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from loadtests import results
from loadtests.analysis.measures import Run
from loadtests.analysis.method import RAMP_STEP
from loadtests.analysis.moments import StepFunction, moment, step_times, value_at
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.scenario import Objective, Plan

# The first that is seen says what is desired. An HPA changes the Deployment first, then says so in its own status.
PREFERRED = ("PodAutoscaler", "Deployment", "HorizontalPodAutoscaler")
BY_READY = ("Deployment", "PodAutoscaler")  # and this how many are ready, where pods may not be seen


def desired_of(
    found: Sequence[AnyObservation], existing: StepFunction | None
) -> tuple[StepFunction | None, str | None]:
    """Return how many replicas were desired, and the kind of objects that says so; where none may be seen, pods."""
    desired, kind = _counted(found, "desired", PREFERRED)
    if desired is None and existing is not None:
        return existing, "Pod"
    return desired, kind


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
    """Return the sum over all objects of the first of these kinds that has the number, and that kind."""
    scales = [observed for observed in found if isinstance(observed, observations.ReplicaCount)]
    kind = next((kind for kind in kinds if any(s.kind == kind and getattr(s, what) is not None for s in scales)), None)
    by_name: dict[str, int] = {}
    steps = []
    for scale in (scale for scale in scales if scale.kind == kind):
        if scale.gone:
            by_name.pop(scale.name, None)
        elif (number := getattr(scale, what)) is not None:
            by_name[scale.name] = number
        steps.append((scale.at, sum(by_name.values())))
    return (StepFunction(steps), kind) if kind else (None, None)


def pods_of(
    found: Sequence[AnyObservation], clock: results.ClusterClock | None
) -> tuple[StepFunction | None, StepFunction | None]:
    """Return how many pods existed that were not being ended, and how many of those were ready.

    Where pods may not be seen, autoscalers and Deployments say how many are ready.
    """
    if any(isinstance(observed, observations.Unseen) and observed.resource == "pods" for observed in found):
        return None, _counted(found, "ready", BY_READY)[0]
    changes: list[tuple[float, str, bool, bool]] = []
    latest: dict[str, float] = {}  # a pod's changes keep their order, whatever their stamps say
    for observed in found:
        if isinstance(observed, observations.Pod):
            if observed.name not in latest:  # it was there before it was ready
                latest[observed.name] = moment(observed, observed.created_stamp, clock)[0]
                changes.append((latest[observed.name], observed.name, True, False))
            at, _ = moment(observed, observed.ready_stamp if observed.ready else observed.deleted_stamp, clock)
            latest[observed.name] = max(latest[observed.name], at)
            changes.append((latest[observed.name], observed.name, observed.stays, observed.ready))
    state: dict[str, tuple[bool, bool]] = {}
    existing, ready = [], []
    for at, name, stays, is_ready in sorted(changes, key=lambda change: change[0]):
        state[name] = (stays, is_ready)
        existing.append((at, sum(there for there, _ in state.values())))
        ready.append((at, sum(is_ready for _, is_ready in state.values())))
    return StepFunction(existing), StepFunction(ready)


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
    """The numbers of replicas of a run over time, until the watch ended; `None` for those that were not observed."""

    run: Run
    desired: StepFunction | None
    existing: StepFunction | None
    ready: StepFunction | None
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
    if counts.needed is None or counts.ready is None:
        return None
    edges = [
        0.0,
        *(at for at in step_times(counts.ready, counts.needed) if 0 < at < counts.until),
        max(0.0, counts.until),
    ]
    pieces = ((start, end, counts.ready.at(start, 0) - counts.needed.at(start, 0)) for start, end in pairwise(edges))
    return math.fsum((end - start) * max(0, sign * beyond) for start, end, beyond in pieces)
