"""Runs that were recorded on a real cluster, read by the watcher's code, measured and judged again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from recorded import PHASES, cluster_of, measured, observations_of, replayed

from loadtests.analysis.method import EXIT_CODES
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.results import ScalingTime, Summary

GRACE = 60  # seconds, which a pod had to end


def times(summary: Summary) -> dict[tuple[str, str], ScalingTime]:
    return {(time.name, time.of): time for time in cluster_of(summary).times}


def seconds(summary: Summary, name: str, of: str) -> float | None:
    return times(summary)[name, of].seconds


# --- the facts -------------------------------------------------------------------------------------------------------


def test_from_zero_the_first_pod_took_3_s_and_four_for_the_burst_14_s() -> None:
    found = replayed("kpa-scale-from-zero")
    assert seconds(found, "scale", "first request") == pytest.approx(3.0, abs=0.1)
    assert seconds(found, "detect", "burst") == pytest.approx(11.5, abs=0.1)
    assert seconds(found, "scale", "burst") == pytest.approx(14.5, abs=0.1)
    assert cluster_of(found).desired_from == "PodAutoscaler"
    four = next(change.at for change in cluster_of(found).replicas if change.ready == 4)
    assert four - 60 == pytest.approx(14.5, abs=0.1)


def test_in_the_same_burst_it_fell_back_to_one_replica_and_had_four_again_9_s_later() -> None:
    found = replayed("kpa-scale-up")
    assert seconds(found, "detect", "burst") == pytest.approx(5.1, abs=0.1)
    replicas = cluster_of(found).replicas
    four = next(change.at for change in replicas if change.ready == 4)
    assert four - 40 == pytest.approx(8.0, abs=0.1)
    falls = next(change.at for change in replicas if change.at > four and (change.ready or 0) < 4)
    assert falls - four == pytest.approx(61, abs=0.2)
    one = next(change.at for change in replicas if change.at > falls and change.ready == 1)
    again = next(change.at for change in replicas if change.at > one and change.ready == 4)
    assert again - one == pytest.approx(9.2, abs=0.1)
    assert one < 115 < again, "the second overload, at 115 s of the schedule"


def test_the_autoscaler_on_cpu_was_seen_after_36_s_and_three_replicas_came_after_84() -> None:
    found = replayed("hpa-scale-up")
    assert seconds(found, "detect", "burst") == pytest.approx(35.9, abs=0.1)
    assert seconds(found, "scale", "burst") == pytest.approx(84.4, abs=0.1)
    two = next(change.at for change in cluster_of(found).replicas if change.ready == 2)
    assert two - 40 == pytest.approx(39, abs=0.1)
    assert cluster_of(found).desired_from == "Deployment"


# --- the second break ------------------------------------------------------------------------------------------------


def test_a_second_break_is_counted_and_the_run_has_not_passed() -> None:
    found = replayed("kpa-scale-up")
    below = cluster_of(found).below_need
    assert below is not None
    assert (below.times, below.met) == (1, False)
    assert below.seconds == pytest.approx(9.2, abs=0.1)
    (fall,) = below.falls
    assert (fall.phase, fall.ready, fall.needed) == ("burst", 1, 3)
    assert (fall.from_at, fall.to_at) == pytest.approx((109.2, 118.4), abs=0.1)
    assert found.recovery.seconds == pytest.approx(78.7, abs=0.2), "not the 8.7 s of the first break"
    assert found.verdict.outcome == "Failed"
    (reason,) = found.verdict.reasons
    assert reason.startswith("fewer replicas were ready than needed again, after enough had been, 1 time, at 109.2 s")
    assert EXIT_CODES[found.verdict.outcome] == 1


def test_what_never_had_enough_before_did_not_fall_below() -> None:
    """Two of three replicas for 45 s are the time to scale, not a fall; four of three that go to three are none."""
    slow = cluster_of(replayed("hpa-scale-up")).below_need
    assert slow is not None
    assert (slow.times, slow.seconds, slow.falls) == (0, 0.0, [])
    early = cluster_of(replayed("kpa-scale-from-zero")).below_need
    assert early is not None
    assert [fall.from_at for fall in early.falls] == pytest.approx([133.6], abs=0.1), "not at 67 s, when two had to do"
    assert early.seconds == pytest.approx(9.5, abs=0.1)


# --- through the watcher's code --------------------------------------------------------------------------------------


def stamp(at: float | None) -> str | None:
    """A time as an object has it: whole seconds, which the watcher takes for their middle."""
    return None if at is None else datetime.fromtimestamp(at - 0.5, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_object(pod: observations.Pod, label: str) -> dict[str, Any]:
    """The Kubernetes object that such a pod was."""
    meta: dict[str, Any] = {"name": pod.name, "labels": {label: pod.revision}}
    meta["creationTimestamp"] = stamp(pod.created_stamp)
    if pod.deleted_stamp is not None:
        meta |= {"deletionTimestamp": stamp(pod.deleted_stamp + GRACE), "deletionGracePeriodSeconds": GRACE}
    since = {"PodScheduled": pod.scheduled_stamp, "Initialized": pod.initialised_stamp, "Ready": pod.ready_stamp}
    conditions = [
        {"type": type_, "status": "True", "lastTransitionTime": stamp(at)} for type_, at in since.items() if at
    ]
    state = {"running": {"startedAt": stamp(pod.started_stamp)}} if pod.started_stamp else {}
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": stamp(pod.started_stamp)}}
    container = {"name": observations.CONTAINER, "state": state, "restartCount": pod.restarts}
    container["lastState"] = ended if pod.waiting else {}
    status: dict[str, Any] = {"conditions": conditions, "containerStatuses": [container]}
    status["phase"] = "Failed" if pod.ended else "Running"
    return {"metadata": meta, "status": status}


def scale_object(scale: observations.ReplicaCount) -> dict[str, Any]:
    numbers = {
        "PodAutoscaler": {"status": {"desiredScale": scale.desired, "actualScale": scale.ready}},
        "HorizontalPodAutoscaler": {"status": {"desiredReplicas": scale.desired}},
        "Deployment": {"spec": {"replicas": scale.desired}, "status": {"readyReplicas": scale.ready}},
    }
    return {"metadata": {"name": scale.name}, **numbers[scale.kind]}


def event_object(event: observations.KubernetesEvent) -> dict[str, Any]:
    about = {"kind": event.kind, "name": event.name, "fieldPath": event.part}
    return {
        "involvedObject": about, "reason": event.reason, "message": event.message, "lastTimestamp": stamp(event.stamp),
        "type": "Warning" if event.warning else "Normal",
    }  # fmt: skip


READERS = {
    "PodAutoscaler": observations.pod_autoscaler,
    "HorizontalPodAutoscaler": observations.horizontal_autoscaler,
    "Deployment": observations.deployment,
}


def watched_again(found: list[AnyObservation], label: str) -> list[AnyObservation]:
    """What the watcher makes of the objects as they were then."""
    again: list[AnyObservation] = []
    for seen in found:
        at, live = seen.at, seen.live
        if isinstance(seen, observations.Pod):
            again.append(observations.pod(pod_object(seen, label), at, live, seen.gone))
        elif isinstance(seen, observations.ReplicaCount):
            again.append(READERS[seen.kind](scale_object(seen), at, live, seen.gone))
        elif isinstance(seen, observations.KubernetesEvent):
            event = observations.event(event_object(seen), at, live)
            again += [event] if event else []
        else:
            again.append(seen)
    return again


@pytest.mark.parametrize("name", PHASES)
def test_the_objects_of_the_time_are_read_and_measured_the_same(name: str) -> None:
    label = observations.REVISION_LABELS[name.startswith("hpa")]
    again = watched_again(observations_of(name), label)
    assert {type(seen).__name__ for seen in again} >= {"Pod", "ReplicaCount", "KubernetesEvent"}
    then, now = cluster_of(replayed(name)), cluster_of(measured(name, again))
    assert now.replicas == then.replicas
    assert now.times == then.times
    assert now.below_need == then.below_need
    assert [event.warning for event in now.events] == [event.warning for event in then.events]
