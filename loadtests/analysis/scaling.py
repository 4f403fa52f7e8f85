"""Measure how fast and how well a platform scales: join what the cluster watcher saw to a run's requests.

Moments are those at which a change was seen, which is when it took effect for whoever watches, as routers do. What
was there before the watch, or came during an interruption, has the time that the object itself says, put on the run's
axis by the API server's clock and never later than it was seen (`PodLife.stamped` names those).

The replicas that are needed at a time are the planned rate divided by what one replica holds at the SLO, rounded up,
where the scenario's rates are in replicas; before and after the schedule, none. A rise is the first request, where
there was no ready replica for it, and the begin of the burst, where it needs more replicas than were needed before.

detect      from a rise until more replicas are desired than at it
provision   from then until as many are ready as were desired then
scale       from a rise until as many are ready as are needed
recover     from the burst's begin until the SLO held again, as `loadtests.analysis.recovery` defines it
cold start  of the slowest pod that was created in the run: from created to ready
down        from the end of a burst that needed more until, to the end of the watch, no more are ready than are needed
            then, or than were ready before it
zero        from the last request's intended time until, to the end of the watch, none is ready and none is desired

Fell below need again: within a phase, fewer are ready than needed, after enough had been. It is counted how often
that began, and for how long it lasted in all. Where the need rises, the new one has to be reached first.

Over-provisioning is the time integral of the ready replicas beyond those needed, from 0 to the end of the watch.

Desired and ready replicas are those of revisions that get requests (`traffic.routing_of`). Ready ones of others take
none of the load, and are counted apart. A pod's own start and end are measured whichever revision it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from loadtests import results
from loadtests.analysis import probes
from loadtests.analysis.below_need import below_need
from loadtests.analysis.measures import Run, Watched
from loadtests.analysis.method import EVENTS_FROM, FRESH_SECONDS, MAX_EVENTS
from loadtests.analysis.moments import clock_of, moment, value_at
from loadtests.analysis.pods import FailedRequests, histories_of
from loadtests.analysis.replicas import (
    ReplicaCounts,
    beyond,
    desired_of,
    needed_of,
    pods_of,
    replicas,
    scaled_by,
    without_traffic,
)
from loadtests.analysis.scaling_times import times_of
from loadtests.analysis.sight import not_seen
from loadtests.analysis.traffic import routing_of, splits, traffic_of
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.results import PodLife


def events_of(found: Sequence[AnyObservation], clock: results.ClusterClock | None) -> list[results.PlatformEvent]:
    """Return events, and changes of conditions as events of their objects, from `EVENTS_FROM` on, in order."""
    events: list[results.PlatformEvent] = []
    before: dict[tuple[str, str], dict[str, str]] = {}
    for observed in found:
        if isinstance(observed, observations.KubernetesEvent):
            at, stamped = moment(observed, observed.stamp, clock)
            events.append(
                results.PlatformEvent(
                    at=at,
                    stamped=stamped,
                    kind=observed.kind,
                    name=observed.name,
                    reason=observed.reason,
                    message=observed.message,
                    warning=observed.warning,
                )
            )
        elif isinstance(observed, observations.Service | observations.Revision):
            about = (
                ("InferenceService", "") if isinstance(observed, observations.Service) else ("Revision", observed.name)
            )
            old = before.get(about, {})
            before[about] = observed.conditions
            for condition, value in observed.conditions.items():
                if old.get(condition) != value and observed.live:
                    events.append(
                        results.PlatformEvent(
                            at=observed.at, stamped=False, kind=about[0], name=about[1], reason=condition, message=value
                        )
                    )
    return sorted((event for event in events if event.at >= EVENTS_FROM), key=lambda event: event.at)


def autoscaler_of(found: Sequence[AnyObservation]) -> list[results.AutoscalerSample]:
    """Return what Knative's autoscaler said, in order."""
    return [
        results.AutoscalerSample.model_validate(observed.model_dump(exclude={"what", "live"}))
        for observed in found
        if isinstance(observed, observations.Autoscaler)
    ]


def samples(found: Sequence[AnyObservation], counts: ReplicaCounts) -> list[results.Sample]:
    """Return the timeline, once a second, from what pods say: requests from outside would keep them from going."""
    inside = [observed for observed in found if isinstance(observed, observations.Inside)]
    return [_sample(float(second), inside, counts) for second in range(int(max(0.0, counts.until)) + 1)]


def _sample(at: float, inside: Sequence[observations.Inside], counts: ReplicaCounts) -> results.Sample:
    fresh = {observed.name: observed for observed in inside if at - FRESH_SECONDS <= observed.at <= at}.values()
    ready = value_at(counts.ready, at, 0)
    return results.Sample(
        at=at,
        ready=None if ready is None else ready > 0,
        replicas_desired=value_at(counts.desired, at),
        replicas_ready=ready,
        **{field: _sum(getattr(observed, field) for observed in fresh) for field in results.GAUGES.values()},
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum of the values that are known; `None` without any."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def problems(found: Sequence[AnyObservation], run: Run, pods: Sequence[PodLife]) -> Iterator[str]:
    """Yield a sentence for what the scenario asked for and did not happen."""
    platform, burst = run.plan.scenario.cluster, run.burst
    if platform is None or platform.disruption is None or burst is None:
        return
    done = [observed for observed in found if isinstance(observed, observations.Disrupted)]
    yield from (observed.problem for observed in done if observed.problem)
    if platform.disruption == "delete-pod" and not done:
        yield "delete-pod: it is not known whether a pod was deleted"
    before = {pod.revision for pod in pods if pod.created is not None and pod.created < burst.start}
    if platform.disruption == "new-revision" and not any(pod.ready and pod.revision not in before for pod in pods):
        yield "new-revision: no pod of another revision became ready after the burst's begin"


def measure(run: Run, watched: Watched, recovery: results.Recovery) -> tuple[results.Cluster, list[results.Sample]]:
    """Return what was observed of the cluster during a run, and the run's timeline."""
    found, until = watched.observations, watched.until
    clock, lost = clock_of(found), FailedRequests(run)
    routing = routing_of(found, run)
    existing, ready = pods_of(found, clock, routing)
    desired, kind = desired_of(found, routing, existing)
    needed = needed_of(run.plan, run.seconds)
    counts = ReplicaCounts(run, desired, existing, ready.serving, ready.without_traffic, needed, until)
    histories = histories_of(found, clock)
    pods = sorted((history.record(lost) for history in histories.values()), key=lambda pod: pod.created or 0.0)
    traffic = traffic_of(found)
    events, probe_failures = probes.split(events_of(found, clock), pods)
    cut = [f"events: the last {len(events) - MAX_EVENTS} are left out"] if len(events) > MAX_EVENTS else []
    cluster = results.Cluster(
        service=watched.service,
        mode=next((observed.mode for observed in reversed(found) if isinstance(observed, observations.Service)), None),
        clock=clock,
        desired_from=kind,
        scaled_by=scaled_by(found),
        limits_of=watched.limits_of,
        replica_per_s=run.plan.base if counts.needed else None,
        watched_until=until,
        replicas=replicas(counts),
        times=times_of(counts, recovery, pods),
        over_replica_seconds=beyond(counts, 1),
        under_replica_seconds=beyond(counts, -1),
        idle_replica_seconds=without_traffic(counts),
        below_need=below_need(counts),
        pods=pods,
        lost_elsewhere=lost.elsewhere(
            s for history in histories.values() for s in (*history.starts(), *history.ends())
        ),
        traffic=traffic,
        splits=list(splits(run, traffic)),
        events=events[:MAX_EVENTS],
        probe_failures=probe_failures,
        autoscaler=autoscaler_of(found),
        disruption=_disruption(found),
        not_seen=[*dict.fromkeys(not_seen(found)), *cut],
        problems=list(problems(found, run, pods)),
    )
    return cluster, samples(found, counts)


def _disruption(found: Sequence[AnyObservation]) -> results.Disruption | None:
    done = (observed for observed in found if isinstance(observed, observations.Disrupted) and not observed.problem)
    return next((results.Disruption(at=observed.at, what=observed.text) for observed in done), None)
