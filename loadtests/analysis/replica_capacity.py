"""Find what one replica holds, from what all that took part in a ramp held together.

A ready replica whose revision gets no requests took no part. Where several revisions have a share each, their replicas
had different rates; then it is what each replica of the busiest one had.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtests import results
from loadtests.analysis import measures, scale_target
from loadtests.analysis.measures import Run, Watched
from loadtests.analysis.moments import StepFunction, clock_of, step_times
from loadtests.analysis.replicas import Numbers, ReadyReplicas, pods_of
from loadtests.analysis.traffic import Routing, routing_of
from loadtests.results import ReplicaCapacity

CHANGED = "the number of ready replicas that get requests changed, or was not seen; expected always the same"


def with_replica(run: Run, capacity: results.Capacity, cluster: results.Cluster | None) -> results.Capacity:
    """Return a ramp's result with what one replica holds, and with the patch where it was the server's limit."""
    if not capacity.per_s:
        return capacity
    found = capacity.model_copy(update={"replica": replica_capacity(run, capacity.per_s)})
    return found.model_copy(update={"patch": scale_target.patch_for(found, cluster.mode if cluster else None)})


def replica_capacity(run: Run, per_s: float) -> ReplicaCapacity:
    """Return what one replica holds, where all held `per_s`. Without a cluster there is taken to be one."""
    if run.watched is None:
        return ReplicaCapacity(per_s=per_s, replicas=1, left_out=0, watched=False)
    routing, ready = _ready(run, run.watched)
    if (numbers := _constant(run, routing, ready)) is None:
        return ReplicaCapacity(per_s=None, replicas=None, left_out=None, watched=True, why=CHANGED)
    busiest = max(share / numbers[name] for name, share in _shares(run, numbers).items())
    left_out = _most(ready.without_traffic, run.seconds)
    return ReplicaCapacity(per_s=per_s * busiest, replicas=sum(numbers.values()), left_out=left_out, watched=True)


def _ready(run: Run, watched: Watched) -> tuple[Routing, ReadyReplicas]:
    """Return which revisions got requests, and the ready replicas."""
    routing = routing_of(watched.observations, run)
    return routing, pods_of(watched.observations, clock_of(watched.observations), routing)[1]


def _constant(run: Run, routing: Routing, ready: ReadyReplicas) -> Numbers | None:
    """Return the ready replicas with requests, by revision; `None` if not known, none, or not always the same."""
    steps = ready.by_revision
    if steps is None:
        return None
    times = [0.0, *(at for at in (*step_times(steps), *routing.times) if 0 < at <= run.seconds)]
    first, *others = (_with_requests(steps, routing, at) for at in times)
    return first if first and all(other == first for other in others) else None


def _with_requests(ready: StepFunction, routing: Routing, at: float) -> Numbers:
    numbers: Mapping[str, int] = ready.at(at, {})
    return {name: number for name, number in numbers.items() if number and routing.has_traffic(name or None, at)}


def _most(steps: StepFunction | None, until: float) -> int:
    """Return the highest number from 0 on."""
    return max((steps.at(at, 0) for at in (0.0, *steps.times) if 0 <= at <= until), default=0) if steps else 0


def _shares(run: Run, numbers: Numbers) -> dict[str, float]:
    """Return the share of the answers of each of these revisions; where the answers do not say it, all as one."""
    answers = {name: count for name, count in measures.revisions(run).items() if name in numbers}
    total = sum(answers.values())
    if not total:
        replicas = sum(numbers.values())
        return {name: number / replicas for name, number in numbers.items()}
    return {name: count / total for name, count in answers.items()}
