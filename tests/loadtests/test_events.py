"""What a report says of the platform's events, and of what was not seen, or not always."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import KubernetesApi, serving
from recorded import cluster_of, measured, observations_of, replayed
from test_cluster import OLD, LiveWatch
from test_report import Page

from loadtests import results
from loadtests.analysis import probes, sight
from loadtests.analysis.method import MAX_EVENTS
from loadtests.cluster import observations
from loadtests.cluster.observations import AUTOSCALER_METRICS, POD_METRICS, AnyObservation
from loadtests.report import charts, events, markdown
from loadtests.report import page as report
from loadtests.report.time_series import time_series
from loadtests.results import PlatformEvent, PodLife, Summary

UNREADY = "Readiness probe failed: HTTP probe failed with statuscode: 503"


def event(at: float, name: str = "p", message: str = UNREADY, **changes: Any) -> PlatformEvent:
    given = {"kind": "Pod", "reason": "Unhealthy", "warning": True, "stamped": False} | changes
    return PlatformEvent(at=at, name=name, message=message, **given)


def pod(name: str, **moments: float) -> PodLife:
    """A pod's life: created, ready, terminating and gone at these times."""
    at = dict.fromkeys(
        ("created", "scheduled", "initialised", "pulled", "started", "ready", "terminating", "gone"), None
    )
    return PodLife(
        name=name, revision="r", **(at | moments), stamped=[], phases=[], cold_start_seconds=None, slowest=None,
        startup={}, restarts=0, problem=None, lost_at_start=0, lost_at_end=0,
    )  # fmt: skip


# --- probes that fail as they do -------------------------------------------------------------------------------------

LIFE = {"created": 1.0, "ready": 5.0, "terminating": 20.0, "gone": 50.0}


@pytest.mark.parametrize(
    ("life", "at", "message", "expected"),
    [
        (LIFE, 3, UNREADY, True),
        (LIFE, 5.5, UNREADY, True),
        (LIFE, 12, UNREADY, False),
        (LIFE, 19.5, UNREADY, True),
        (LIFE, 40, UNREADY, True),
        (LIFE, 3, "Startup probe failed: connection refused", True),
        (LIFE, 12, "Startup probe failed: connection refused", False),
        (LIFE, 3, "Readiness probe errored: context deadline exceeded", True),
        (LIFE, 3, "Liveness probe failed: HTTP probe failed with statuscode: 500", False),
        (LIFE, 40, "Liveness probe failed: HTTP probe failed with statuscode: 500", False),
        ({"created": 1.0}, 30, UNREADY, False),
        ({"created": 1.0, "terminating": 60.0}, 30, UNREADY, False),
        ({"created": 1.0, "terminating": 60.0}, 61, UNREADY, True),
        ({"ready": -90.0}, 30, UNREADY, False),
        ({"ready": -90.0, "gone": 30.0}, 30, UNREADY, True),
    ],
)
def test_a_probe_that_fails_is_expected_only_as_a_pod_starts_or_ends(
    life: dict[str, float], at: float, message: str, expected: bool
) -> None:
    others, failures = probes.split([event(at, message=message)], [pod("p", **life)])
    assert (len(others), failures is not None) == (not expected, expected)


def test_only_probes_of_pods_that_were_seen_are_left_out() -> None:
    found = [event(3, "q"), event(3, reason="BackOff"), event(3, kind="ReplicaSet"), event(3), event(4), event(30)]
    others, failures = probes.split(found, [pod("p", **LIFE)])
    assert others == found[:3]
    assert failures == results.ProbeFailures(count=3, pods=1, first_at=3, last_at=30)
    assert probes.split([], []) == ([], None)


@pytest.mark.parametrize(
    ("name", "kept", "probed", "warnings"), [("kpa-scale-from-zero", 91, 128, 0), ("hpa-scale-up", 26, 2, 2)]
)
def test_the_recorded_runs_keep_the_warnings_that_say_something(
    name: str, kept: int, probed: int, warnings: int
) -> None:
    found = cluster_of(replayed(name))
    assert found.probe_failures is not None
    assert (len(found.events), found.probe_failures.count) == (kept, probed)
    assert sum(e.warning for e in found.events) == warnings
    assert not [e for e in found.events if e.reason == "Unhealthy"]


def test_probes_that_fail_push_no_other_event_out() -> None:
    found = observations_of("kpa-scale-from-zero")
    last = observations.KubernetesEvent(at=179, stamp=None, kind="Node", name="n", reason="NotReady", message="x")
    probe = next(o for o in found if isinstance(o, observations.KubernetesEvent) and o.reason == "Unhealthy")
    many = [probe.model_copy(update={"at": probe.at + n / 1e4}) for n in range(MAX_EVENTS)]
    kept = cluster_of(measured("kpa-scale-from-zero", [*found, *many, last]))
    assert kept.events[-1].reason == "NotReady"
    assert kept.probe_failures is not None
    assert kept.probe_failures.count == 128 + MAX_EVENTS
    assert not [text for text in kept.not_seen if text.startswith("events: ")]


# --- one row for what happened many times ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Created pod: d-7cb8c55888-ppl2d", "Created pod: d-7cb8c55888-zs9xk"),
        ("Scaled up replica set d-55d886c599 from 1 to 4", "Scaled up replica set d-55d886c599 from 0 to 1"),
        ("Get http://10.244.0.41:3000/livez: refused", "Get http://10.244.0.7:3000/livez: refused"),
        ("Created pod: d-7c", "(combined from similar events): Created pod: d-8d"),
        ("assigned defects/d-7c to node-1", "assigned defects/d-8d to node-2"),
    ],
)
def test_messages_that_differ_in_names_and_numbers_are_one_group(a: str, b: str) -> None:
    found = [event(1, "p", a), event(2, "q", b), event(4, "p", a)]
    (group,) = events.groups(found)
    assert (group.events, group.names) == (found, ["p", "q"])


def test_the_objects_own_name_makes_no_other_message() -> None:
    found = [event(number, name, f"pod {name} was evicted") for number, name in enumerate(("alpha", "po", ""))]
    assert [group.names for group in events.groups(found)] == [["alpha", "po"], [""]]


@pytest.mark.parametrize(
    "other",
    [{"reason": "BackOff"}, {"kind": "ReplicaSet"}, {"message": "Liveness probe failed"}, {"warning": False}],
)
def test_what_differs_otherwise_stays_apart(other: dict[str, Any]) -> None:
    found = [event(1), event(2), event(3, **other)]
    assert [len(group.events) for group in events.groups(found)] == [2, 1]


def test_a_page_has_a_row_for_each_group_with_its_count_and_times() -> None:
    found = replayed("kpa-scale-from-zero")
    rows = Page(report.page(found)).tables["events"]
    assert rows[0] == ["First, s", "Last, s", "Events", "Kind", "Name", "Reason", "Message"]
    assert len(rows) - 1 < 20
    assert sum(int(row[2]) for row in rows[1:]) == 91 + 128
    assert rows[-1][2:6] == ["128", "Pod", "9 pods", "Unhealthy"]
    assert rows[-1][6].startswith("Readiness and startup probes that failed while their pods started or ended")
    (scheduled,) = (row for row in rows if row[5] == "Scheduled")
    assert scheduled[2] == "8"
    assert scheduled[4].endswith(" and 7 more")


def test_the_strip_marks_no_probe_that_is_expected() -> None:
    found = replayed("kpa-scale-from-zero")
    drawing = str(charts.timeline(found, time_series(found), 1112, "x"))
    assert "tall: " not in drawing
    assert "91 in all" in drawing
    slow = replayed("hpa-scale-up")
    assert "Events; tall: 2 warnings" in str(charts.timeline(slow, time_series(slow), 1112, "x"))


def test_a_summary_of_an_older_run_is_shown_the_same_way() -> None:
    """It has the probes among its events."""
    now = replayed("kpa-scale-from-zero")
    cluster = cluster_of(now)
    name = next(life.name for life in cluster.pods if life.terminating and life.terminating > 0)
    ended = next(life.terminating for life in cluster.pods if life.name == name)
    assert ended is not None
    noisy = [*cluster.events, *(event(ended + n, name) for n in range(3))]
    older = now.model_copy(update={"cluster": cluster.model_copy(update={"events": noisy, "probe_failures": None})})
    rows = Page(report.page(Summary.model_validate_json(older.model_dump_json()))).tables["events"]
    assert rows[-1][2:6] == ["3", "Pod", "1 pod", "Unhealthy"]


# --- what was not seen, or not always --------------------------------------------------------------------------------


def autoscaler(at: float, revision: str = OLD) -> observations.Autoscaler:
    return observations.Autoscaler(at=at, revision=revision, stable=1.0)


def inside(at: float, name: str = "p") -> observations.Inside:
    return observations.Inside(at=at, name=name, startup={}, queue_rows=0, in_flight=0)


def unseen(at: float, text: str, **changes: Any) -> observations.Unseen:
    return observations.Unseen(at=at, text=text, **changes)


def missed(at: float, source: str, why: str = "HTTP 503") -> observations.Missed:
    return observations.Missed(at=at, source=source, why=why)


NEVER = f"{AUTOSCALER_METRICS}: HTTP 403 through the API server; --autoscaler-metrics names another way"
READS: list[AnyObservation] = [autoscaler(at, r) for at in range(1, 9) for r in (OLD, "other")]
PODS: list[AnyObservation] = [inside(at, name) for at in range(1, 9) for name in "ab"]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        (READS + PODS, []),
        ([unseen(-5, NEVER), missed(-5, AUTOSCALER_METRICS), missed(-4, AUTOSCALER_METRICS)], [NEVER]),
        (
            [unseen(-5, NEVER), missed(-5, AUTOSCALER_METRICS), missed(0, AUTOSCALER_METRICS, "timeout"), *READS],
            [f"{AUTOSCALER_METRICS}, not always: 2 of 10 reads failed, from -5.0 s to 0.0 s (HTTP 503, timeout)"],
        ),
        (
            [unseen(-5, NEVER), *READS],
            [f"{AUTOSCALER_METRICS}, not always: missed from -5.0 s to 1.0 s "
             "(HTTP 403 through the API server; --autoscaler-metrics names another way)"],
        ),
        (
            [*READS, unseen(20, f"{AUTOSCALER_METRICS}, not always: IncompleteRead")],
            [f"{AUTOSCALER_METRICS}, not always: missed from 20.0 s to the end (IncompleteRead)"],
        ),
        (
            [unseen(2, f"{POD_METRICS}, not always: HTTP 503"), missed(2, POD_METRICS), *PODS],
            [f"{POD_METRICS}, not always: 1 of 17 reads failed, from 2.0 s to 2.0 s (HTTP 503)"],
        ),
        ([unseen(2, f"{POD_METRICS}: not allowed (HTTP 403)"), *READS], [f"{POD_METRICS}: not allowed (HTTP 403)"]),
        (
            [*PODS, unseen(7, f"{POD_METRICS}: watched no longer (TypeError: x)", lost=True)],
            [f"{POD_METRICS}: watched no longer (TypeError: x), from 7.0 s on"],
        ),
        ([unseen(-5, "events: not allowed to list and watch them (HTTP 403)"), *READS],
         ["events: not allowed to list and watch them (HTTP 403)"]),
    ],
)  # fmt: skip
def test_what_was_seen_most_of_the_time_is_not_called_not_seen(
    found: list[AnyObservation], expected: list[str]
) -> None:
    assert list(sight.not_seen(found)) == expected


def test_the_recorded_autoscaler_was_seen_but_for_the_beginning() -> None:
    found = replayed("kpa-scale-from-zero")
    (text,) = cluster_of(found).not_seen
    assert text.startswith(f"{AUTOSCALER_METRICS}, not always: missed from -57.9 s to -29.9 s (HTTP 503")
    assert time_series(found).has("stable", "panic")
    for said in (report.page(found), markdown.report(found)):
        assert "missed from -57.9 s to -29.9 s" in said
    (never,) = cluster_of(replayed("kpa-scale-up")).not_seen
    assert never == NEVER


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with serving(KubernetesApi()) as api:
        api.serve_traffic({OLD: 100})
        yield api


def test_the_watcher_counts_the_reads_that_failed(api: KubernetesApi, tmp_path: Path) -> None:
    api.autoscaler = None
    seen = LiveWatch(api, tmp_path)
    try:
        seen.wait()
        seen.hear(observations.Missed, source=AUTOSCALER_METRICS)
        labels = f'k8s_namespace_name="defects",kn_revision_name="{OLD}"'
        api.autoscaler = f"kn_revision_concurrency_stable{{{labels}}} 2\n"
        seen.hear(observations.Autoscaler, revision=OLD, stable=2.0)
        found = seen.watch.stop(seen.begin)
    finally:
        seen.watch.kill()
    (text,) = (text for text in sight.not_seen(found) if text.startswith(AUTOSCALER_METRICS))
    failed, of = map(int, re.findall(r"not always: (\d+) of (\d+) reads failed, from .*\(HTTP 403", text)[0])
    assert failed == sum(isinstance(o, observations.Missed) for o in found) >= 1
    assert of - failed == sum(isinstance(o, observations.Autoscaler) for o in found) >= 1
