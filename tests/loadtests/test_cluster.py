"""The cluster watcher, against a Kubernetes API whose timelines are known, and what is made of what it saw."""

from __future__ import annotations

import math
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_api import NAMESPACE, SERVICE, KubernetesApi, ScriptedPod, ScriptedStep, kubeconfig, play, serving

from conftest import BIN, ROOT, RUN_SECONDS, WAIT_SECONDS, environment, free_port, run, until
from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis import method, sight
from loadtests.analysis import pods as pods_
from loadtests.analysis import summary as summaries
from loadtests.analysis import traffic as traffic_
from loadtests.analysis.measures import Run, Watched
from loadtests.analysis.method import EXIT_CODES
from loadtests.cluster import api as api_
from loadtests.cluster import clock as clock_
from loadtests.cluster import follower, observations, reporter, scraper
from loadtests.cluster import process as watch
from loadtests.cluster.process import WatcherProcess
from loadtests.load import capacity, stub_server
from loadtests.results import CLOSED, Cluster, ScalingTime, Summary
from loadtests.scenario import BadScenario, Plan, Scenario
from manifests import TAKE, overlay, render, take
from test_measures import ENVIRONMENT, answered

OLD, NEW = f"{SERVICE}-predictor-00001", f"{SERVICE}-predictor-00002"
AHEAD = 3600.25  # seconds that the scripted API server's clock is ahead


def plan(phases: list[dict[str, Any]], **changes: Any) -> Plan:
    given = {
        "about": "x", "rate": "replica", "spacing": "even", "payloads": [{"kind": "json"}], "phases": phases,
        "slo": {"p95_ms": 50}, "cluster": {},
    }  # fmt: skip
    return Plan(Scenario.model_validate(given | changes), base=50, seed=1)


BURST = [
    {"name": "baseline", "seconds": 2.5, "rate": 0.5},
    {"name": "burst", "seconds": 4, "rate": 3.9},
    {"name": "recovery", "seconds": 0.5, "rate": 0.5},
]


class LiveWatch:
    """A watch, from everything listed until it is stopped."""

    def __init__(self, api: KubernetesApi, path: Path, *options: str):
        target = watch.ClusterTarget(SERVICE, NAMESPACE, os.path.relpath(kubeconfig(api, path)))
        self.watch, self.begin = WatcherProcess(target, 60, path, options), 0.0

    def wait(self) -> None:
        """Until everything is listed; the run's zero is a moment later."""
        self.until(lambda _: self.watch.has_begun())
        self.begin = time.monotonic() + 0.2

    def until(self, holds: Callable[[list[observations.AnyObservation]], bool]) -> None:
        """Wait until it holds for what was observed."""
        until = time.monotonic() + WAIT_SECONDS
        while not holds(self.watch.observations()):
            assert time.monotonic() < until, self.watch.observations()[-5:]
            time.sleep(0.05)

    def hear(self, kind: type[observations.Observation], /, **values: object) -> None:
        """Wait until an observation of this kind was made that has these values."""

        def matches(observation: observations.Observation) -> bool:
            return isinstance(observation, kind) and all(
                getattr(observation, name) == value for name, value in values.items()
            )

        self.until(lambda found: any(map(matches, found)))

    def summary(self, plan: Plan, requests: results.Requests | None = None, revisions: Any = ("r1",)) -> Summary:
        until = time.monotonic() - self.begin
        watched = Watched(SERVICE, self.watch.stop(self.begin), until)
        return summarised(plan, watched, requests, revisions)


def summarised(
    plan: Plan, watched: Watched, requests: results.Requests | None = None, revisions: Any = ("r1",)
) -> Summary:
    requests = answered(plan.times) if requests is None else requests
    seen = Run(plan=plan, requests=requests, revisions=list(revisions), seconds=plan.seconds, watched=watched)
    return summaries.summarise(seen, "test", ENVIRONMENT)


def cluster_of(summary: Summary) -> Cluster:
    assert summary.cluster is not None
    return summary.cluster


def not_seen(found: Cluster) -> list[str]:
    """Without what was missed now and then, as on a slow machine."""
    return [text for text in found.not_seen if ", not always: " not in text]


def times(found: Cluster) -> dict[tuple[str, str], ScalingTime]:
    return {(time.name, "pod" if time.name == "cold start" else time.of): time for time in found.times}


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with serving(KubernetesApi(AHEAD)) as api:
        api.serve_traffic({OLD: 100})
        yield api


@pytest.fixture
def see(api: KubernetesApi, tmp_path: Path) -> Iterator[Callable[..., LiveWatch]]:
    """Begin to watch `api`, with these options."""
    made: list[LiveWatch] = []

    def begin(*options: str) -> LiveWatch:
        made.append(LiveWatch(api, tmp_path, *options))
        made[-1].wait()
        return made[-1]

    yield begin
    for seen in made:
        seen.watch.kill()


class Fleet:
    """Pods that are started when their time has come."""

    def __init__(self, api: KubernetesApi):
        self.api, self.pods = api, dict[str, ScriptedPod]()

    def life(self, name: str, at: float, *later: float, revision: str = OLD) -> list[ScriptedStep]:
        """Created at `at`; then, at the times of `later`: scheduled, initialised, pulled, started, ready and so on."""

        def create() -> None:
            self.pods[name] = ScriptedPod(self.api, name, revision)

        return [(at, create), *(self.step(name, when, what) for when, what in zip(later, LATER, strict=False))]

    def step(self, name: str, at: float, what: str) -> ScriptedStep:
        """One of a pod that may not be there yet."""

        def take() -> None:
            getattr(self.pods[name], what)()

        return at, take


LATER = ("scheduled", "initialised", "pulled", "started", "ready", "terminating", "gone")
DESIRED = {0.4: 1, 3.1: 4, 7.2: 0}
LIVES = {  # created, and LATER; a run that waits for zero ends as the last one's end begins
    f"{OLD}-a": (0.5, 0.55, 0.6, 0.9, 1.0, 2.0, 7.3, 7.7),
    f"{OLD}-b": (3.2, 3.25, 3.3, 4.0, 4.1, 4.6, 7.35, 7.8),
    f"{OLD}-c": (3.2, 3.25, 3.3, 4.3, 4.4, 4.9, 7.45, 7.9),
    f"{OLD}-d": (3.2, 3.25, 3.3, 4.7, 4.8, 5.3, 8.1, 8.6),
}


def zero_to_four_and_back(api: KubernetesApi) -> list[ScriptedStep]:
    """0 → 1 with the first request, → 4 with the burst at 2.5 s, → 0 after its end at 6.5 s."""
    fleet = Fleet(api)
    steps: list[ScriptedStep] = [(at, partial(api.desire, OLD, replicas)) for at, replicas in DESIRED.items()]
    return [*steps, *(step for name, times in LIVES.items() for step in fleet.life(name, *times))]


def truth(api: KubernetesApi, begin: float, name: str, note: str) -> float:
    return api.when[name, note] - begin


def check_zero_to_four(
    summary: Summary, at: Callable[[str, str], float], within: float, *, to_the_end: bool = True
) -> None:
    """Every measure is what was played, where `at` says when something became of a thing.

    `to_the_end`: until all pods are gone, and not only on their way to that.
    """
    found = cluster_of(summary)
    a, d = f"{OLD}-a", f"{OLD}-d"
    wanted = {
        ("detect", "first request"): at(OLD, "desired 1"),
        ("provision", "first request"): at(a, "ready") - at(OLD, "desired 1"),
        ("scale", "first request"): at(a, "ready"),
        ("detect", "burst"): at(OLD, "desired 4") - 2.5,
        ("provision", "burst"): at(d, "ready") - at(OLD, "desired 4"),
        ("scale", "burst"): at(d, "ready") - 2.5,
        ("cold start", "pod"): at(d, "ready") - at(d, "created"),
        ("down", "burst's end"): at(f"{OLD}-c", "terminating") - 6.5,
        ("zero", "last request"): at(d, "terminating") - float(plan(BURST).times[-1]),
    }
    measured = times(found)
    assert {key: measured[key].seconds for key in wanted} == pytest.approx(wanted, abs=within)
    assert measured["cold start", "pod"].of == d
    for pod in found.pods:
        moments = (*pods_.MOMENTS, "terminating", *(["gone"] if to_the_end or pod.name != d else []))
        seen = {name: getattr(pod, name) for name in moments}
        assert seen == pytest.approx({name: at(pod.name, name) for name in seen}, abs=within)
    assert {pod.name for pod in found.pods} == LIVES.keys()
    ready, ended = ([(at(name, note), by) for name in LIVES] for note, by in (("ready", 1), ("terminating", -1)))
    assert found.over_replica_seconds == pytest.approx(over(ready + ended), abs=0.02 + 3 * within)
    assert max(replicas.ready or 0 for replicas in found.replicas) == 4
    assert found.replicas[-1].model_dump(exclude={"at"}) == {"desired": 0, "existing": 0, "ready": 0, "needed": 0}


def test_every_measure_is_exact_for_facts_that_are_known() -> None:
    def scripted(name: str, note: str) -> float:
        if name == OLD:
            return next(at for at, replicas in DESIRED.items() if note == f"desired {replicas}")
        return LIVES[name][("created", *LATER).index(note)]

    found: list[Any] = [
        observations.ReplicaCount(at=t, kind="PodAutoscaler", name=OLD, desired=n) for t, n in DESIRED.items()
    ]
    stamps = {name: f"{name}_stamp" for name in ("created", "scheduled", "initialised", "started", "ready")}
    for name, moments in LIVES.items():
        so_far: dict[str, Any] = {}
        for note, at in zip(("created", *LATER), moments, strict=True):
            so_far |= {stamps[note]: 1000 + at} if note in stamps else {}
            if note in ("terminating", "gone"):
                so_far["deleted_stamp"], so_far["gone"] = 1000 + at, note == "gone"
            so_far["ready"] = note == "ready"
            if note == "pulled":
                about = {"kind": "Pod", "name": name, "part": "spec.containers{kserve-container}"}
                found.append(observations.KubernetesEvent(at=at, stamp=None, reason="Pulled", message="", **about))
            found.append(pod(at, name, **so_far))
    found.sort(key=lambda observation: observation.at)
    summary = summarised(plan(BURST), Watched(SERVICE, found, 9.0))
    check_zero_to_four(summary, scripted, 1e-6)
    last = next(life for life in cluster_of(summary).pods if life.name.endswith("d"))
    assert {phase.name: phase.seconds for phase in last.phases} == pytest.approx(
        {"scheduling": 0.05, "initialising": 0.05, "pulling": 1.4, "starting": 0.1, "getting ready": 0.5}
    )
    assert last.slowest == "pulling"


def over(changes: list[tuple[float, int]]) -> float:
    """Replica-seconds beyond need, by the millisecond."""
    grid = np.arange(0, 9, 0.001)
    ready = sum(np.where(grid >= at, change, 0) for at, change in changes)
    needed = np.select([grid < 2.5, grid < 6.5, grid < 7], [1, 4, 1], 0)
    return float(np.maximum(0, ready - needed).sum() * 0.001)


def test_zero_to_four_and_back_is_measured_as_it_was_played_though_watches_are_cut_off_and_expire(
    api: KubernetesApi, see: Callable[..., LiveWatch]
) -> None:
    api.gone_as_status, api.may = {"podautoscalers"}, {("get", "pods/proxy")}
    api.metrics = dict.fromkeys(LIVES, METRICS)
    seen = see()
    steps: list[ScriptedStep] = [(1.5, lambda: api.cut("pods")), (1.6, lambda: api.cut("podautoscalers"))]
    steps += [(3.6, lambda: api.expire("pods")), (5.5, lambda: api.expire("podautoscalers"))]
    play(seen.begin, *zero_to_four_and_back(api), *steps)
    seen.hear(observations.ReplicaCount, name=OLD, desired=0)
    for name in LIVES:
        seen.hear(observations.Pod, name=name, gone=True)
    summary = seen.summary(plan(BURST))
    check_zero_to_four(summary, partial(truth, api, seen.begin), api.sample)
    found = cluster_of(summary)
    assert (found.mode, found.desired_from, found.replica_per_s) == ("Knative", "PodAutoscaler", 50)
    assert not_seen(found)
    assert all("the watch was interrupted for" in text for text in not_seen(found))
    assert found.clock is not None
    assert found.clock.skew_seconds == pytest.approx(AHEAD, abs=found.clock.error_seconds + 0.05)
    assert found.clock.error_seconds < 0.5
    bookmarked = [request for request in api.requests if "allowWatchBookmarks=true" in request]
    assert bookmarked


def test_what_came_in_a_gap_has_the_times_that_it_says_itself(
    api: KubernetesApi, see: Callable[..., LiveWatch]
) -> None:
    """After a gap the watch goes on, or starts from a list where it can't; either way nothing is missed."""
    a, b, c = (f"{OLD}-{name}" for name in "abc")
    pods = {a: ScriptedPod(api, a, OLD).up()}
    seen = see()
    fleet = Fleet(api)

    play(seen.begin, *fleet.life(b, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4))
    seen.hear(observations.Pod, name=b, ready=True)
    troubled = {"pods": 403, "podautoscalers": 404, "inferenceservices": 401}
    api.refuse(**troubled)
    steps = fleet.life(c, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
    play(time.monotonic(), *steps, (0.5, lambda: api.desire(OLD, 3)), (0.6, api.refuse))
    seen.until(
        lambda found: {f.resource for f in found if isinstance(f, observations.Gap) and f.seconds} == troubled.keys()
    )
    seen.hear(observations.Pod, name=c, ready=True)
    seen.hear(observations.ReplicaCount, name=OLD, desired=3)
    time.sleep(2 * follower.CATCH_UP_SECONDS)
    later = time.monotonic()
    fleet.pods[b].terminating()
    seen.hear(observations.Pod, name=b, stays=False)
    api.refuse(pods=503)
    api.expire("pods")
    pods[a].gone()
    api.refuse()
    seen.hear(observations.Pod, name=a, gone=True)
    assert seen.watch.replicas() == 1
    found = cluster_of(seen.summary(plan(BURST)))
    lives = {pod.name: pod for pod in found.pods}
    starts = {"created", "scheduled", "initialised", "started", "ready"}
    assert {name: set(life.stamped) for name, life in lives.items()} == {a: starts, b: set(), c: starts}
    for name, note in ((b, "ready"), (b, "terminating"), (c, "created"), (c, "ready")):
        assert getattr(lives[name], note) == pytest.approx(truth(api, seen.begin, name, note), abs=api.sample), (
            name,
            note,
        )
    assert found.replicas[-1].desired == 3
    before = [replicas.ready or 0 for replicas in found.replicas if replicas.at < later - seen.begin]
    assert before == sorted(before), "what was seen before the gap is not reported again"
    interrupted = (text.partition(":")[0] for text in found.not_seen if "the watch was interrupted for" in text)
    assert set(", ".join(interrupted).split(", ")) == troubled.keys()
    assert not [text for text in found.not_seen if "to the end" in text]


def test_a_gap_that_never_ends_is_said(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    seen = see()
    api.refuse(pods=401)
    seen.until(lambda found: any(isinstance(o, observations.Gap) and "401" in o.why for o in found))
    found = cluster_of(seen.summary(plan(BURST)))
    (text,) = (text for text in found.not_seen if "interrupted" in text)
    assert re.fullmatch(r"pods: the watch was interrupted from -?\d+\.\d s to the end \(\w+, HTTP 401\)", text)


def test_what_was_there_before_has_the_times_that_it_says_itself(
    api: KubernetesApi, see: Callable[..., LiveWatch]
) -> None:
    """Put on the run's axis although the API server's clock is an hour ahead."""
    pod = ScriptedPod(api, f"{OLD}-a", OLD)
    time.sleep(1.1)
    pod.up()
    api.desire(OLD, 1)
    seen = see()
    summary = cluster_of(seen.summary(plan(BURST)))
    (found,) = summary.pods
    assert summary.clock is not None
    error = 0.5 + summary.clock.error_seconds + 0.2  # stamps are whole seconds
    assert set(found.stamped) == {"created", "scheduled", "initialised", "started", "ready"}
    for name in ("created", "ready"):
        assert getattr(found, name) == pytest.approx(truth(api, seen.begin, pod.name, name), abs=error)
    assert found.cold_start_seconds is None


def test_what_may_not_be_seen_is_said_and_the_rest_goes_on(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    """Without autoscalers, the pods that there are say what was desired."""
    api.forbidden = {"podautoscalers", "events", "horizontalpodautoscalers", "deployments"}
    api.absent, api.autoscaler, api.refused = {"revisions"}, None, {"version": 403}
    seen = see()
    fleet = Fleet(api)
    unseen = api.forbidden | {"the pods' own metrics", "the autoscaler's metrics"}
    play(seen.begin, *fleet.life(f"{OLD}-a", 0.3, 0.4, 0.5, 0.6, 0.7, 1.3))
    seen.hear(observations.Pod, ready=True)
    seen.until(lambda found: unseen <= {f.text.partition(":")[0] for f in found if isinstance(f, observations.Unseen)})
    found = cluster_of(seen.summary(plan(BURST)))
    (pod,) = found.pods
    assert pod.pulled is None
    assert [phase.name for phase in pod.phases][2:] == ["pulling and starting", "getting ready"]
    assert found.desired_from == "Pod"
    assert times(found)["detect", "first request"].seconds == pytest.approx(
        truth(api, seen.begin, pod.name, "created"), abs=api.sample
    )
    assert {text.partition(":")[0] for text in not_seen(found)} == unseen


def test_without_the_pods_nobody_knows_how_many_there_are(
    api: KubernetesApi, see: Callable[..., LiveWatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which its process does not run in
    api.forbidden = {"pods"}
    seen = see()
    with pytest.raises(watch.BadCluster, match=r"pods: not allowed to .* \(HTTP 403\); expected a role"):
        seen.watch.replicas()
    (unseen,) = (o for o in seen.watch.observations() if isinstance(o, observations.Unseen) and o.resource)
    assert unseen.resource == "pods"


@pytest.mark.parametrize(
    ("refused", "problem"),
    [
        ({"pods": 403, "inferenceservices": 403}, "list and watch inferenceservices or pods in namespace 'defects'"),
        ({"version": 401}, "the API server answered HTTP 401"),
    ],
)
def test_who_may_see_nothing_is_told_so(
    api: KubernetesApi, see: Callable[..., LiveWatch], refused: dict[str, int], problem: str
) -> None:
    api.refused = refused
    with pytest.raises(watch.BadCluster, match=rf"{problem}.*; expected a login"):
        see()


def test_answers_that_refuse_have_a_time_too(api: KubernetesApi, tmp_path: Path) -> None:
    api.refused = {"version": 403}
    client, _ = api_.connect(watch.ClusterTarget(SERVICE, kubeconfig=str(kubeconfig(api, tmp_path))))
    reader = clock_.ClockReader(client, lambda _: None)
    reader.probe()
    found = reader.clock.observation()
    assert found.answers == clock_.PROBES
    assert found.skew == pytest.approx(AHEAD, abs=found.error + 0.05)


def test_an_object_that_is_not_as_expected_ends_nothing(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    seen = see()
    meta = {"name": "odd", "labels": {observations.OF_SERVICE: SERVICE}}
    api.put("podautoscalers", {"metadata": meta, "status": {"desiredScale": "several"}})
    api.desire(OLD, 2)
    api.put("pods", {"metadata": meta, "status": {"conditions": "none"}})
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    seen.hear(observations.Pod, ready=True)
    seen.hear(observations.ReplicaCount, desired=2)
    assert seen.watch.replicas() == 1
    found = cluster_of(seen.summary(plan(BURST)))
    assert [(pod.name, pod.ready is not None) for pod in found.pods] == [(f"{OLD}-a", True)]
    assert found.replicas[-1].desired == 2
    unread = [text.partition(" could not be read")[0] for text in found.not_seen]
    assert {"podautoscalers: odd", "pods: odd"} <= set(unread)


def test_a_watcher_that_ends_early_is_no_secret(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    seen = see()
    os.kill(seen.watch.pid, signal.SIGINT)  # of a Ctrl-C, which is for the run
    time.sleep(0.5)
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    seen.hear(observations.Pod, ready=True)
    os.kill(seen.watch.pid, signal.SIGKILL)
    os.waitid(os.P_PID, seen.watch.pid, os.WEXITED | os.WNOWAIT)
    seen.watch.order(0.0)
    found = cluster_of(seen.summary(plan(BURST)))
    assert len(found.pods) == 1
    assert found.not_seen[-1].endswith("s: the watcher ended (-9)")


def test_pods_that_can_not_start_are_named_with_the_reason(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    seen = see()
    fleet = Fleet(api)
    pulling, crashing = f"{OLD}-pulling", f"{OLD}-crashing"
    play(
        seen.begin,
        (0.1, lambda: api.desire(OLD, 2)),
        *fleet.life(pulling, 0.2, 0.3, 0.4),
        (0.6, lambda: fleet.pods[pulling].stuck("ImagePullBackOff", "no such image")),
        *fleet.life(crashing, 0.2, 0.3, 0.4, 0.5, 0.6),
        (0.9, lambda: fleet.pods[crashing].stuck("CrashLoopBackOff", "back-off restarting", restarts=1)),
        fleet.step(crashing, 1.2, "started"),
        (1.4, lambda: fleet.pods[crashing].stuck("CrashLoopBackOff", "back-off restarting", restarts=2)),
    )  # fmt: skip
    seen.hear(observations.Pod, name=crashing, restarts=2)
    summary = seen.summary(plan(BURST, slo={"p95_ms": 50, "scale_seconds": 3}))
    found = cluster_of(summary)
    pods = {pod.name: pod for pod in found.pods}
    assert pods[pulling].problem == "ImagePullBackOff: no such image"
    assert (pods[crashing].problem, pods[crashing].restarts) == ("CrashLoopBackOff: back-off restarting", 2)
    assert all(pod.ready is None and pod.cold_start_seconds is None for pod in found.pods)
    assert pods[pulling].started is None
    assert pods[crashing].started == pytest.approx(truth(api, seen.begin, crashing, "started") - 0.6, abs=api.sample)
    scale = times(found)["scale", "burst"]
    assert (scale.seconds, scale.met, scale.why) == (None, False, "4 were never ready together")
    assert "scale (burst): 4 were never ready together; expected at most 3 s" in summary.verdict.reasons


def test_a_standard_service_is_followed_by_its_autoscaler(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    """HPA 1 → 3; its Deployment comes a moment before, and Knative is not installed."""
    api.absent = {"revisions", "podautoscalers"}
    api.serve_traffic({}, mode="Standard", canaryStatuses=[{"name": "new", "trafficPercent": 20}])
    name = f"{SERVICE}-predictor"

    def scale(replicas: int) -> None:
        meta = {"name": name, "labels": {observations.OF_SERVICE: SERVICE}}
        api.put("deployments", {"metadata": meta, "spec": {"replicas": replicas}}, f"desired {replicas}")
        time.sleep(0.2)
        api.put("horizontalpodautoscalers", {"metadata": meta, "status": {"desiredReplicas": replicas}})

    scale(1)
    ScriptedPod(api, f"{name}-a", "hash").up()
    seen = see()
    fleet = Fleet(api)
    steps = [step for pod in "bc" for step in fleet.life(f"{name}-{pod}", 1.6, 1.7, 1.8, 1.9, 2.0, 2.2)]
    unseen = "the pods' own metrics: not allowed to get pods/proxy (HTTP 403)"
    play(seen.begin, (1.2, lambda: scale(3)), *steps)
    seen.hear(observations.Pod, name=f"{name}-c", ready=True)
    seen.hear(observations.ReplicaCount, kind="HorizontalPodAutoscaler", desired=3)
    seen.hear(observations.Unseen, text=unseen)
    phases = [{"name": "baseline", "seconds": 0.5, "rate": 1}, {"name": "burst", "seconds": 2, "rate": 3}]
    found = cluster_of(seen.summary(plan(phases)))
    assert (found.mode, found.desired_from) == ("Standard", "Deployment")
    canary = "the wanted shares of the traffic: which pods are the canary's (new 20 %) is not known"
    assert not_seen(found) == [canary, unseen]
    measured = times(found)
    assert measured["detect", "burst"].seconds == pytest.approx(
        truth(api, seen.begin, name, "desired 3") - 0.5, abs=api.sample
    )
    ready = truth(api, seen.begin, f"{name}-c", "ready")
    assert measured["scale", "burst"].seconds == pytest.approx(ready - 0.5, abs=api.sample)
    assert ("detect", "first request") not in measured


METRICS = """\
# TYPE defects_startup_seconds gauge
defects_startup_seconds{phase="interpreter"} 0.2
defects_startup_seconds{phase="model"} 0.7
defects_startup_seconds{phase="ready"} 1.1
defects_queue_rows 12
defects_queue_rows_max 700
defects_requests_in_flight 3
defects_requests_in_flight_max 40
"""
AUTOSCALER = """\
kn_revision_concurrency_stable{k8s_namespace_name="defects",kn_revision_name="parcels-predictor-00001"} 2.5
kn_revision_concurrency_panic{k8s_namespace_name="defects",kn_revision_name="parcels-predictor-00001"} 9
kn_revision_panic_mode{k8s_namespace_name="defects",kn_revision_name="parcels-predictor-00001"} 1
kn_revision_panic_mode{k8s_namespace_name="other",kn_revision_name="parcels-predictor-00001"} 0
autoscaler_stable_request_concurrency{namespace_name="defects",revision_name="parcels-predictor-00002"} 1
"""


@pytest.mark.parametrize("named", [True, False], ids=["by its URL", "through the API server"])
def test_pods_and_the_autoscaler_are_asked_themselves_where_that_is_allowed(
    api: KubernetesApi, see: Callable[..., LiveWatch], named: bool
) -> None:
    api.may = {("get", "pods/proxy")}
    pod = f"{OLD}-a"
    api.metrics, api.autoscaler, api.breaks_off = {pod: METRICS}, AUTOSCALER, named
    seen = see(*(("--autoscaler-metrics", f"{api.url}/autoscaler/metrics") if named else ()))
    if named:
        seen.hear(observations.Unseen, text="the autoscaler's metrics, not always: IncompleteRead")
        api.breaks_off = False
    play(time.monotonic(), *Fleet(api).life(pod, 0.1, 0.15, 0.2, 0.25, 0.3, 2.2))
    for revision in (OLD, NEW):
        seen.hear(observations.Autoscaler, revision=revision)
    settled = api.when[pod, "ready"] + api.sample  # a sample of each second has seen it by then
    seen.until(lambda found: any(isinstance(o, observations.Inside) and o.at > settled for o in found))
    summary = seen.summary(plan(BURST))
    found = cluster_of(summary)
    assert found.pods[0].startup == {"interpreter": 0.2, "model": 0.7, "ready": 1.1}
    assert found.pods[0].slowest == "getting ready: model"
    said = {(s.revision, s.stable, s.panic, s.panicking) for s in found.autoscaler}
    assert said == {(OLD, 2.5, 9.0, True), (NEW, 1.0, None, None)}
    last = summary.timeline[-1]
    assert (last.queue_rows, last.in_flight, last.replicas_ready, last.ready) == (12, 3, 1, True)
    assert (last.queue_rows_max, last.in_flight_max) == (700, 40)
    assert not_seen(found) == []


# --- whole runs ------------------------------------------------------------------------------------------------------

Done = subprocess.CompletedProcess[str]
STEADY = [{"name": "baseline", "seconds": 2, "rate": 1}, {"name": "burst", "seconds": 4, "rate": 1}]


def scenario(path: Path, **changes: Any) -> Path:
    content = {
        "about": "a test", "rate": "replica", "spacing": "even", "timeout_seconds": 60, "payloads": [{"kind": "json"}],
        "phases": STEADY, "slo": {"p95_ms": 500}, "cluster": {},
    }  # fmt: skip
    (path / "test.yaml").write_text(yaml.safe_dump(content | changes))
    return path / "test.yaml"


def options(url: str, api: KubernetesApi, file: Path | str, out: Path) -> list[object]:
    return [
        "-f", "loadtests/locustfile.py", "--only-summary", "--headless", "--host", url, "--scenario", file,
        "--out", out / "load", "--rate", 100, "--cluster", f"{NAMESPACE}/{SERVICE}",
        "--kubeconfig", kubeconfig(api, out),
    ]  # fmt: skip


def locust(url: str, api: KubernetesApi, file: Path | str, out: Path, *more: object) -> Done:
    return run(out, "locust", *options(url, api, file, out), *more)


@contextmanager
def begun(out: Path, *command: object, cwd: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    """A command whose standard error is read while it runs; it is ended if it takes too long, and in any case then."""
    words, env = [str(BIN / str(command[0])), *map(str, command[1:])], environment(out)
    with subprocess.Popen(
        words, cwd=cwd, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:

        def end() -> None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

        limit = threading.Timer(RUN_SECONDS, end)
        limit.daemon = True
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            end()


def hear(process: subprocess.Popen[str], text: str) -> None:
    """Wait until it says so."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr)


def ended(process: subprocess.Popen[str]) -> Done:
    _, said = process.communicate()
    return Done(process.args, process.returncode, stderr=said)


def summary_of(out: Path, done: Done) -> Summary:
    found = list((out / "load").glob("*/summary.json"))
    assert len(found) == 1, done.stderr
    return results.read_summary(found[0])


def zero_of(found: Cluster, api: KubernetesApi) -> float:
    """The run's zero on `time.monotonic`, as the report relates it to the API server's clock."""
    assert found.clock is not None
    return found.clock.zero - api.ahead - (time.time() - time.monotonic())


@contextmanager
def when_load_begins(url: str, *steps: ScriptedStep) -> Iterator[None]:
    """Play the steps, from the stub's first prediction on, in the background."""
    over = threading.Event()

    def follow() -> None:
        with httpx.Client() as client:
            while not over.wait(0.02):
                with suppress(httpx.TransportError):  # it may not be up yet
                    if re.search(r"stub_predictions_total [1-9]", client.get(f"{url}/metrics").text):
                        play(time.monotonic(), *steps)
                        return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(RUN_SECONDS)


def test_make_load_reports_zero_to_four_and_back_as_it_was_played(api: KubernetesApi, tmp_path: Path) -> None:
    """A whole run while a stub serves; it installs nothing, however old the environment that it is tested in."""
    api.may, api.metrics = {("get", "pods/proxy")}, dict.fromkeys(LIVES, METRICS)
    file = scenario(tmp_path, phases=BURST, cluster={"to_zero_seconds": 30})
    given = ["--kubeconfig", str(kubeconfig(api, tmp_path)), "--rate", "50", "--out", str(tmp_path / "load")]
    command = ["make", "--old-file=.venv/.installed", "load", f"BIN={BIN}", f"SCENARIO={file}"]
    with stub_server.running() as url, when_load_begins(url, *zero_to_four_and_back(api)):
        command += [f"HOST={url}", f"CLUSTER={NAMESPACE}/{SERVICE}", f"ARGS={shlex.join(given)}"]
        env = environment(tmp_path, MAKEFLAGS="")
        done = subprocess.run(
            command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
    summary = summary_of(tmp_path, done)
    found = cluster_of(summary)
    check_zero_to_four(summary, partial(truth, api, zero_of(found, api)), api.sample, to_the_end=False)
    assert (done.returncode == 0) == (summary.verdict.outcome == "Passed"), done.stderr
    assert sum(phase.counts.answered for phase in summary.phases) == len(plan(BURST).times)
    assert not_seen(found) == []
    assert [pod.stamped for pod in found.pods] == [[]] * len(LIVES), "all was seen as it happened"
    assert (found.mode, found.desired_from, found.replica_per_s) == ("Knative", "PodAutoscaler", 50)


def test_a_canary_gets_its_share_and_a_run_reports_the_platform(api: KubernetesApi, tmp_path: Path) -> None:
    """0 → 1 before, → 3 in the run; a fifth of the answers are the new revision's, which wants a fifth."""
    ScriptedPod(api, "stub-a", "stub").up()
    api.desire("stub", 1)
    api.serve_traffic({"stub": 80, "canary": 20})
    fleet = Fleet(api)
    steps = [
        step for pod in "bc" for step in fleet.life(f"canary-{pod}", 3.0, 3.1, 3.2, 3.3, 3.4, 4.4, revision="canary")
    ]
    phases = [STEADY[0], {"name": "burst", "seconds": 4, "rate": 2.9}]
    with (
        stub_server.running("--canary-share", 0.2) as url,
        when_load_begins(url, (2.5, lambda: api.desire("stub", 3)), *steps),
    ):
        done = locust(url, api, scenario(tmp_path, phases=phases), tmp_path)
    summary = summary_of(tmp_path, done)
    found = cluster_of(summary)
    begin = zero_of(found, api)
    assert times(found)["detect", "burst"].seconds == pytest.approx(
        truth(api, begin, "stub", "desired 3") - 2, abs=api.sample
    )
    assert times(found)["scale", "burst"].seconds == pytest.approx(
        truth(api, begin, "canary-c", "ready") - 2, abs=api.sample
    )
    assert {split.revision: split.wanted_share for split in found.splits} == {"stub": 0.8, "canary": 0.2}
    assert {split.revision: split.answers for split in found.splits} == summary.revisions
    assert all(split.within for split in found.splits)
    assert {sample.replicas_ready for sample in summary.timeline if sample.at < 2} == {1}
    assert summary.timeline[-1].replicas_ready == 3
    kept = {path.name for path in (tmp_path / "load").glob("*/*")}
    assert kept >= {"cluster.jsonl", "requests.parquet", "summary.json", "report.html", "summary.md"}
    (page,) = (path.read_text() for path in (tmp_path / "load").glob("*/report.html"))
    assert all(f">{title}<" in page for title in ("Replicas", "Wanted traffic, by revision", "How pods started"))


def test_from_zero_waits_until_there_is_no_replica(api: KubernetesApi, tmp_path: Path) -> None:
    """And for the first replica before that, as a service that is at zero has to start for `/model`."""
    pod, fleet, port = ScriptedPod(api, f"{OLD}-a", OLD).up(), Fleet(api), free_port()
    later = f"{OLD}-b"
    phases = [{"name": "baseline", "seconds": 2, "rate": 1}]
    file = scenario(tmp_path, phases=phases, cluster={"from_zero_seconds": 60, "to_zero_seconds": 30})
    url, steps = f"http://127.0.0.1:{port}", fleet.life(later, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 4.0, 4.5)
    with (
        late_stub(port),
        when_load_begins(url, *steps),
        begun(tmp_path, "locust", *options(url, api, file, tmp_path)) as process,
    ):
        hear(process, "waiting for no replica")
        play(time.monotonic(), (1.0, pod.terminating), (1.5, pod.gone))
        done = ended(process)
    found = cluster_of(summary_of(tmp_path, done))
    begin = zero_of(found, api)
    assert found.pods[0].terminating is not None
    assert found.pods[0].terminating < 0, "it began before the last replica was to go"
    last = truth(api, begin, later, "terminating") - 1.99
    assert times(found)["zero", "last request"].seconds == pytest.approx(last, abs=api.sample)


@contextmanager
def late_stub(port: int) -> Iterator[None]:
    """A stub at this port, once the model was asked for there without an answer."""
    command: list[str | Path] = [BIN / "python", "-m", "loadtests.load.stub_server", "--port", str(port)]
    listener, started = socket.create_server(("127.0.0.1", port)), list[subprocess.Popen[bytes]]()
    listener.settimeout(RUN_SECONDS)

    def start() -> None:
        asked = b""
        with listener:
            while not asked.startswith(b"GET /model "):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(RUN_SECONDS)
                    asked = connection.recv(65536)
        started.append(subprocess.Popen(command, cwd=ROOT))

    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(RUN_SECONDS)
        for process in started:
            process.kill()
            process.wait(WAIT_SECONDS)


def test_whoever_ends_the_wait_for_zero_cuts_nothing_off(api: KubernetesApi, tmp_path: Path) -> None:
    """Started in another directory, where a relative kubeconfig is meant."""
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    phases = [{"name": "baseline", "seconds": 1, "rate": 1}]
    file = scenario(tmp_path, phases=phases, cluster={"to_zero_seconds": 60})
    with stub_server.running() as url:
        module = ROOT / "loadtests/locustfile.py"
        given = (*options(url, api, file, tmp_path), "-f", module, "--kubeconfig", "kubeconfig")
        with begun(tmp_path, "locust", *given, cwd=tmp_path) as process:
            hear(process, "waiting for no replica")
            process.terminate()
            done = ended(process)
    summary = summary_of(tmp_path, done)
    assert (done.returncode, summary.stopped) == (EXIT_CODES[summary.verdict.outcome], None)


def test_a_run_that_never_gets_to_zero_does_not_take_place(api: KubernetesApi, tmp_path: Path) -> None:
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    with stub_server.running() as url:
        done = locust(url, api, scenario(tmp_path, cluster={"from_zero_seconds": 1}), tmp_path)
    assert done.returncode == 3
    assert "error: there were still replicas after 1 s; expected a service that scales to zero" in done.stderr


def test_chaos_deletes_one_ready_pod_and_counts_what_that_cost(api: KubernetesApi, tmp_path: Path) -> None:
    """The stub fails for a while then; another pod takes over. A revision without traffic is not what is tried."""
    api.may = {("delete", "pods")}
    ScriptedPod(api, "a-canary", NEW).up()
    pods = {name: ScriptedPod(api, name, OLD).up() for name in (f"{OLD}-a", f"{OLD}-b")}

    def end(name: str) -> None:
        play(time.monotonic(), (0.0, pods[name].terminating), (0.6, pods[name].gone))

    api.on_delete = end
    file = scenario(tmp_path, cluster={"disruption": "delete-pod"})
    with stub_server.running("--fail-share", 0.05) as url:
        done = locust(url, api, file, tmp_path, "--allow-disruption")
    summary = summary_of(tmp_path, done)
    found = cluster_of(summary)
    assert found.problems == []
    assert found.disruption is not None
    assert found.disruption.what == f"pod {OLD}-a was deleted"
    assert found.disruption.at == pytest.approx(2, abs=api.sample)
    a, b = (pod for pod in found.pods if pod.revision == OLD)
    assert (b.terminating, b.lost_at_end) == (None, 0)
    assert a.terminating is not None
    assert a.gone is not None
    failed = sum(phase.counts.failed for phase in summary.phases)
    (table,) = (tmp_path / "load").glob("*/requests.parquet")
    rows = pq.read_table(table).to_pydict()
    lost = [at for at, outcome in zip(rows["intended_s"], rows["outcome"], strict=True) if outcome == "failed"]
    assert len(lost) == failed
    assert a.lost_at_end == sum(a.terminating - 1 <= at <= a.gone + 1 for at in lost) > 0
    assert found.lost_elsewhere < failed


def test_a_disruption_that_was_taken_back_does_not_happen(api: KubernetesApi, see: Callable[..., LiveWatch]) -> None:
    api.may, deleted = {("delete", "pods")}, list[str]()
    api.on_delete = deleted.append
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    seen = see("--disruption", "delete-pod")
    ordered = time.monotonic() + 8  # even a slow machine takes it back in time
    seen.watch.order(ordered)
    seen.watch.cancel()
    time.sleep(max(0.0, ordered + 0.5 - time.monotonic()))
    assert deleted == []
    seen.watch.order(0.0)
    seen.hear(observations.Disrupted, problem=None)
    assert deleted == [f"{OLD}-a"]


def test_a_disruption_does_not_outlive_who_ordered_it(api: KubernetesApi, tmp_path: Path) -> None:
    api.may, deleted = {("delete", "pods")}, list[str]()
    api.on_delete = deleted.append
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    command: list[str | Path] = [
        BIN / "python",
        "-m",
        "loadtests.cluster",
        "--cluster",
        SERVICE,
        "--kubeconfig",
    ]
    command += [kubeconfig(api, tmp_path), "--disruption", "delete-pod"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert any(isinstance(o, observations.Begun) for o in observations.read(process.stdout))
        process.stdin.write(f'{{"at": {time.monotonic() + 10}}}\n')
        process.stdin.close()  # as the system does it for a process that was killed
        assert process.wait(WAIT_SECONDS) == 0
    assert deleted == []


@pytest.mark.parametrize("rolls", [True, False])
def test_rolling_changes_the_image_and_waits_for_the_new_revision(
    api: KubernetesApi, tmp_path: Path, rolls: bool
) -> None:
    api.may = {("patch", "inferenceservices")}
    patches: list[Any] = []
    ScriptedPod(api, f"{OLD}-a", OLD).up()

    def roll(change: Any) -> None:
        patches.append(change)
        if rolls:
            ScriptedPod(api, f"{NEW}-a", NEW).up()
            api.serve_traffic({NEW: 100})

    api.on_patch = roll
    file = scenario(tmp_path, cluster={"disruption": "new-revision"})
    with stub_server.running() as url:
        done = locust(url, api, file, tmp_path, "--allow-disruption", "--image", "registry.test/defects:2")
    found = cluster_of(summary := summary_of(tmp_path, done))
    assert patches == [
        [{"op": "replace", "path": "/spec/predictor/containers/0/image", "value": "registry.test/defects:2"}]
    ]
    if rolls:
        assert found.problems == []
        assert [change.shares for change in found.traffic] == [{OLD: 1.0}, {NEW: 1.0}]
    else:
        problem = "new-revision: no pod of another revision became ready after the burst's begin"
        assert summary.verdict.outcome == "Invalid"
        assert problem in summary.verdict.reasons


# --- what can't be run -----------------------------------------------------------------------------------------------


def refused(api: KubernetesApi, out: Path, file: Path | str, *options: object) -> str:
    """The one line that says why a run does not take place."""
    with stub_server.running() as url:
        done = locust(url, api, file, out, *options)
    assert done.returncode == 3, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    return line


@pytest.mark.parametrize(
    ("platform", "options", "problem"),
    [
        ({"disruption": "delete-pod"}, (), "--allow-disruption: "),
        ({"disruption": "delete-pod"}, ("--allow-disruption",), "not allowed to delete pods in namespace 'defects'"),
        ({"disruption": "new-revision"}, ("--image", "x"), "test.yaml changes the image; expected this option"),
        ({}, ("--cluster", "defects/parcel"), "namespace 'defects' has no InferenceService 'parcel'"),
        ({}, ("--context", "elsewhere"), "--context: "),
        ({}, ("--kubeconfig", "/nowhere"), "--kubeconfig: "),
        ({}, ("--cluster", ""), "test.yaml watches one; expected NAMESPACE/NAME of an InferenceService"),
        ({}, ("--cluster", "a/b/c"), "--cluster: 'a/b/c'; expected NAME or NAMESPACE/NAME"),
        ({}, ("--rate", ""), "are in replicas; expected what one replica holds"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_3(
    api: KubernetesApi, tmp_path: Path, platform: dict[str, Any], options: Any, problem: str
) -> None:
    assert problem in refused(api, tmp_path, scenario(tmp_path, cluster=platform), *options)


@pytest.mark.parametrize("content", [b"{", b"contexts: [\n\t- x", b"text", b"- 1", b"", b"\xff", b"contexts: 1"])
def test_a_kubeconfig_that_is_none_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config").write_bytes(content)
    with pytest.raises(watch.BadCluster) as raised:
        api_.connect(watch.ClusterTarget(SERVICE, kubeconfig=str(tmp_path / "config")))
    assert re.fullmatch(r"--kubeconfig: .+; expected one that kubectl can use", str(raised.value))


def test_an_api_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with serving(KubernetesApi()) as api:
        pass
    assert f"the API server at {api.url} can't be reached" in refused(api, tmp_path, scenario(tmp_path))


def ramp(path: Path, ready: int, **changes: Any) -> Path:
    """The directory of a run that found a capacity of 100/s, with so many replicas from its begin on."""
    phases = [{"name": "burst", "rate": 1, "steps": {"seconds": 2, "factor": 2, "to": 8}}]
    p = plan(phases, rate=50, stop_at_slo=True, slo={"p95_ms": 60}, cluster=None, **changes)
    pods: list[Any] = [pod(-9.0 + number, f"p{number}", ready=True) for number in range(ready)]
    slow = np.where(p.times >= 4, 90.0, 10.0)
    summary = summarised(p, Watched(SERVICE, pods, p.seconds), answered(p.times, slow))
    path.mkdir()
    results.write_summary(path / results.SUMMARY, summary)
    return path


def test_the_rate_of_a_replica_comes_from_a_run_with_the_same_requests(api: KubernetesApi, tmp_path: Path) -> None:
    assert capacity.replica_capacity(ramp(tmp_path / "1", 1)) == 100
    assert capacity.replica_capacity(ramp(tmp_path / "2", 2)) == 50
    line = refused(api, tmp_path, scenario(tmp_path), "--rate", tmp_path / "1")
    assert "had other requests or another SLO; expected json x1 with a p95 of 500 ms" in line
    with stub_server.running() as url:
        done = locust(url, api, scenario(tmp_path, slo={"p95_ms": 60}), tmp_path, "--rate", tmp_path / "2")
    assert cluster_of(summary_of(tmp_path, done)).replica_per_s == 50


def test_scenarios_with_a_disruption_need_a_burst(tmp_path: Path) -> None:
    file = scenario(tmp_path, phases=STEADY[:1], cluster={"disruption": "delete-pod"})
    with pytest.raises(BadScenario, match="disruption: there is no burst; expected one"):
        scenarios.load(str(file))


# --- measures of observations that are known exactly ----------------------------------------------------------------


def pod(at: float, name: str = "p", *, live: bool = True, **changes: Any) -> observations.Pod:
    given: dict[str, Any] = dict.fromkeys(
        ("created_stamp", "scheduled_stamp", "initialised_stamp", "started_stamp", "ready_stamp", "deleted_stamp")
    )
    given |= {"revision": OLD, "ready": False, "created_stamp": 1000.5 + at} | changes
    return observations.Pod(at=at, live=live, name=name, **given)


def test_lost_requests_belong_to_the_ends_and_starts_of_pods() -> None:
    p = plan([{"name": "baseline", "seconds": 20, "rate": 1}])
    requests = answered(p.times)
    lost = np.isin(np.round(p.times, 3), [3.5, 3.7, 10.1, 12.0, 18.0])
    assert lost.sum() == 5
    requests["status"][lost], requests["error"][lost] = 0, CLOSED
    found = [
        pod(2.0),
        pod(3.0, ready=True),
        pod(10.0, deleted_stamp=1010.0),
        pod(11.5, deleted_stamp=1010.0, gone=True),
    ]
    summary = summarised(p, Watched(SERVICE, list(found), 20.0), requests)
    (life,) = cluster_of(summary).pods
    assert (life.lost_at_start, life.lost_at_end, cluster_of(summary).lost_elsewhere) == (2, 2, 1)


def test_a_container_that_is_killed_and_starts_again_has_an_end_and_a_start() -> None:
    """Not ready from 10.5 to 12 s, and its pod stays; requests are lost from 10 s on."""
    p = plan([{"name": "baseline", "seconds": 20, "rate": 1}])
    requests = answered(p.times)
    lost = (p.times >= 10) & (p.times < 12.1)
    requests["status"][lost], requests["error"][lost] = 0, CLOSED
    found = [pod(2.0), pod(3.0, ready=True), pod(10.5, restarts=1), pod(12.0, ready=True, restarts=1)]
    seen = cluster_of(summarised(p, Watched(SERVICE, list(found), 20.0), requests))
    (life,) = seen.pods
    assert (life.lost_at_end, seen.lost_elsewhere) == (lost.sum(), 0)
    assert life.lost_at_start == (p.times[lost] >= 12).sum()
    evicted = [*found[:2], pod(10.5, ended=True)]
    seen = cluster_of(summarised(p, Watched(SERVICE, list(evicted), 20.0), requests))
    assert (seen.pods[0].lost_at_end, seen.lost_elsewhere) == (lost.sum(), 0)


def test_without_pods_what_depends_on_them_is_not_known() -> None:
    """And fails nothing: any permission may be missing."""
    blind = observations.Unseen(at=-1.0, text="pods: not allowed to list and watch them (HTTP 403)", resource="pods")
    asked = {f"{name}_seconds": 1 for name in ("detect", "provision", "scale", "cold_start", "down", "zero")}
    p = plan(BURST, slo={"p95_ms": 50} | asked, cluster={"to_zero_seconds": 5})
    for scales, detect in (([], None), ([(-1.0, 1), (3.0, 4)], 0.5)):
        found = [
            observations.ReplicaCount(at=at, kind="PodAutoscaler", name=OLD, desired=desired) for at, desired in scales
        ]
        summary = summarised(p, Watched(SERVICE, [blind, *found], 9.0))
        seen = cluster_of(summary)
        assert {t.name: t.seconds for t in seen.times if t.seconds is not None} == (
            {"detect": detect} if detect else {}
        )
        assert (seen.over_replica_seconds, seen.under_replica_seconds) == (None, None)
        assert {(r.ready, r.existing) for r in seen.replicas} == {(None, None)}
        assert {(s.ready, s.replicas_ready) for s in summary.timeline} == {(None, None)}
        assert (summary.verdict.outcome, summary.verdict.reasons) == ("Passed", [])
        assert blind.text in seen.not_seen


def test_without_pods_whoever_scales_them_says_how_many_are_ready() -> None:
    blind = observations.Unseen(at=-1.0, text="pods: not allowed to list and watch them (HTTP 403)", resource="pods")
    thing = {"metadata": {"name": OLD}, "spec": {"replicas": 4}, "status": {"readyReplicas": 1, "actualScale": -1}}
    assert (observations.deployment(thing, 0.0, True).ready, observations.pod_autoscaler(thing, 0.0, True).ready) == (
        1,
        None,
    )
    found = [
        observations.ReplicaCount(at=at, kind="Deployment", name=OLD, desired=desired, ready=ready)
        for at, desired, ready in ((-1.0, 1, 1), (3.0, 4, 1), (5.0, 4, 4))
    ]
    seen = cluster_of(summarised(plan(BURST), Watched(SERVICE, [blind, *found], 9.0)))
    assert times(seen)["scale", "burst"].seconds == pytest.approx(2.5)
    assert {(replicas.existing, replicas.ready) for replicas in seen.replicas} == {(None, 1), (None, 4)}


def test_down_is_when_it_stays_down() -> None:
    """The burst ends at 6.5 s with one ready; three more come late, one of them flaps, and they go at 20 s."""
    found: list[Any] = [pod(-1.0, "a", ready=True), *(pod(6.8, name, ready=True) for name in "bcd")]
    found += [pod(9.0, name) for name in "bcd"] + [pod(9.3, name, ready=True) for name in "bcd"]
    found += [pod(20.0, name, gone=True) for name in "bcd"]
    measured = times(cluster_of(summarised(plan(BURST), Watched(SERVICE, found, 25.0))))
    assert measured["down", "burst's end"].seconds == pytest.approx(13.5)
    assert measured["zero", "last request"].seconds is None


def test_a_pod_that_never_gets_ready_breaks_what_is_asked_of_a_start() -> None:
    asked = plan(BURST, slo={"p95_ms": 50, "cold_start_seconds": 2})
    found = [pod(-1.0, "a", ready=True), pod(3.0, "b"), pod(4.0, "b", ready=True), pod(3.0, "c", waiting="x")]
    (time,) = (t for t in cluster_of(summarised(asked, Watched(SERVICE, list(found), 9.0))).times if "cold" in t.name)
    assert (time.of, time.seconds, time.met, time.why) == ("c", None, False, "it was never ready")
    soon = summarised(asked, Watched(SERVICE, list(found), 4.5))
    (time,) = (t for t in cluster_of(soon).times if "cold" in t.name)
    assert (time.of, time.seconds, time.met) == ("b", 1.0, True)
    taken_away = summarised(asked, Watched(SERVICE, [*found, pod(8.0, "c", gone=True)], 9.0))
    assert not next(t for t in cluster_of(taken_away).times if "cold" in t.name).met


def test_moments_keep_their_order_where_clocks_differ() -> None:
    """It came during an interruption; the node's clock is 3 s behind the API server's."""
    clock = observations.ClockReading(at=-1.0, offset=1000.0, error=0.1, skew=0.0, answers=5)
    stamps = {"created_stamp": 1003.5, "started_stamp": 1001.5, "ready_stamp": 1002.5}
    late = observations.Pod.model_validate(pod(5.0, live=False, ready=True).model_dump() | stamps)
    (life,) = cluster_of(summarised(plan(BURST), Watched(SERVICE, [clock, late], 9.0))).pods
    assert (life.created, life.started, life.ready, life.cold_start_seconds) == (3.5, 3.5, 3.5, 0.0)


def test_a_split_ends_before_routers_may_be_ahead_of_the_status() -> None:
    p = plan([{"name": "baseline", "seconds": 20, "rate": 1}])
    requests = answered(p.times)
    requests["revision"] = p.times >= 9
    found = [
        observations.Service(at=at, mode="Knative", conditions={}, traffic=traffic)
        for at, traffic in ((-1.0, {OLD: 1.0}), (10.0, {NEW: 1.0}))
    ]
    splits = cluster_of(summarised(p, Watched(SERVICE, list(found), 20.0), requests, (OLD, NEW))).splits
    assert [(split.revision, split.end, split.within) for split in splits] == [(OLD, 5.0, True), (NEW, 20.0, True)]


def test_over_and_under_provisioning_are_replica_seconds() -> None:
    """One is needed for 5 s, three for 5 s, one for 5 s; two are ready from 1 s to 18 s."""
    phases = [
        {"name": "baseline", "seconds": 5, "rate": 1},
        {"name": "burst", "seconds": 5, "rate": 3},
        {"name": "recovery", "seconds": 5, "rate": 1},
    ]
    found: list[Any] = [pod(1.0, name, ready=True) for name in "ab"]
    found += [pod(18.0, name, gone=True) for name in "ab"]
    seen = cluster_of(summarised(plan(phases), Watched(SERVICE, found, 20.0)))
    assert seen.over_replica_seconds == pytest.approx(4 + 5 + 2 * 3)
    assert seen.under_replica_seconds == pytest.approx(1 + 5)
    needed = [(replicas.at, replicas.needed) for replicas in seen.replicas]
    assert [n for n in needed if n[0] in (0.0, 5.0, 10.0, 15.0)] == [(0.0, 1), (5.0, 3), (10.0, 1), (15.0, 0)]


def test_an_interruption_is_told_with_its_end_or_without_one() -> None:
    found = [
        observations.Gap(at=1.0, resource="pods", seconds=None, why="HTTP 500"),
        observations.Gap(at=2.0, resource="events", seconds=None, why="HTTP 500"),
        observations.Gap(at=3.0, resource="pods", seconds=2.0, why="HTTP 500"),
        observations.Gap(at=4.0, resource="events", seconds=None, why="HTTP 500, HTTP 401"),
    ]
    assert list(sight.not_seen(found)) == [
        "pods: the watch was interrupted for 2.0 s until 3.0 s (HTTP 500)",
        "events: the watch was interrupted from 4.0 s to the end (HTTP 500, HTTP 401)",
    ]


def test_interruptions_of_about_the_same_time_are_one() -> None:
    found = [
        observations.Gap(at=12.0, resource="pods", seconds=4.0, why="ProtocolError, HTTP 403"),
        observations.Gap(at=13.0, resource="revisions", seconds=4.0, why="ProtocolError"),
        observations.Gap(at=60.0, resource="events", seconds=50.0, why="HTTP 403"),
        observations.Gap(at=80.0, resource="pods", seconds=None, why="HTTP 401"),
        observations.Gap(at=81.0, resource="events", seconds=None, why="HTTP 401"),
        observations.Gap(at=70.0, resource="revisions", seconds=None, why="HTTP 401"),
    ]
    assert list(sight.not_seen(found)) == [
        "pods, revisions: the watch was interrupted for 5.0 s until 13.0 s (ProtocolError, HTTP 403)",
        "events: the watch was interrupted for 50.0 s until 60.0 s (HTTP 403)",
        "revisions: the watch was interrupted from 70.0 s to the end (HTTP 401)",
        "pods, events: the watch was interrupted from 80.0 s to the end (HTTP 401)",
    ]


def test_a_rate_that_is_not_in_replicas_says_nothing_of_need() -> None:
    p = plan(BURST, rate=50)
    seen = cluster_of(summarised(p, Watched(SERVICE, [pod(1.0, ready=True)], 9.0)))
    assert (seen.over_replica_seconds, seen.replica_per_s) == (None, None)
    assert "it is not known what one replica holds" in str(times(seen)["scale", "burst"].why)


@pytest.mark.parametrize(("share", "within"), [(0.2, True), (0.1, False), (0.35, False)])
def test_a_split_is_within_or_without_its_interval(share: float, within: bool) -> None:
    p = plan([{"name": "baseline", "seconds": 20, "rate": 1}])
    requests = answered(p.times)
    requests["revision"] = np.random.default_rng(1).random(len(requests)) < share
    traffic = {OLD: 0.8, NEW: 0.2}
    service = observations.Service(at=-1.0, mode="Knative", conditions={}, traffic=traffic)
    seen = cluster_of(summarised(p, Watched(SERVICE, [service], 20.0), requests, (OLD, NEW)))
    old, new = seen.splits
    assert (new.revision, new.within, old.within) == (NEW, within, within)
    assert new.answers + old.answers == new.total == 1000


@given(st.integers(1, 10_000), st.data())
def test_wilsons_interval_has_the_bounds_that_define_it(total: int, data: st.DataObject) -> None:
    """A bound is the share p from which the observed one is just z standard deviations of p away."""
    count = data.draw(st.integers(0, total))
    for bound in traffic_.wilson(count, total):
        if 0 < bound < 1:
            distance = abs(count / total - bound) / math.sqrt(bound * (1 - bound) / total)
            assert distance == pytest.approx(method.Z_99, rel=1e-6)


@given(
    st.floats(-1e6, 1e6),
    st.lists(st.tuples(st.floats(0, 60), st.floats(0.001, 0.2), st.floats(0, 1)), min_size=1, max_size=30),
)
def test_the_clocks_offset_lies_in_what_the_answers_leave(offset: float, answers: list[Any]) -> None:
    clock = clock_.Clock()
    for asked, took, when in answers:
        clock.hear(math.floor(asked + when * took + offset), asked, asked + took)
    found = clock.observation()
    assert abs(found.offset - offset) <= found.error + 1e-6
    assert found.error <= (1 + min(took for _, took, _ in answers)) / 2 + 1e-6


def test_a_clock_that_was_set_is_learnt_anew() -> None:
    clock = clock_.Clock()
    clock.hear(100, 0.0, 0.1)
    clock.hear(200, 1.0, 1.1)
    assert clock.observation().offset == pytest.approx(199.5, abs=0.1)


def test_answers_in_other_parts_of_the_second_narrow_the_offset() -> None:
    clock = clock_.Clock()
    for number in range(10):
        clock.hear(math.floor(number * 0.1037 + 50.25), number * 0.1037, number * 0.1037 + 0.002)
    assert clock.observation().error < 0.1


def test_what_ends_a_part_of_the_watch_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    reported = SimpleQueue[observations.Observation]()
    watch = reporter.Reporter()
    monkeypatch.setattr(watch, "report", reported.put)

    def fails() -> None:
        raise RuntimeError("not thought\nof")

    watch.start("pods", fails)
    found = reported.get(timeout=WAIT_SECONDS)
    assert isinstance(found, observations.Unseen)
    assert found.text == "pods: watched no longer (RuntimeError: not thought of)"


def test_an_address_of_ip_version_6_is_in_brackets() -> None:
    assert scraper.metrics_url(pod(0.0, ip="10.1.2.3", port=3000)) == "http://10.1.2.3:3000/metrics"
    assert scraper.metrics_url(pod(0.0, ip="fd00::7", port=3000)) == "http://[fd00::7]:3000/metrics"


def test_percentages_of_one_revision_add_up() -> None:
    """A tag makes a second target of the same revision."""
    traffic = [
        {"revisionName": NEW, "percent": 20, "latestRevision": True},
        {"revisionName": OLD, "percent": 80},
        {"revisionName": NEW, "tag": "latest"},
    ]
    thing = {"metadata": {"name": SERVICE}, "status": {"components": {"predictor": {"traffic": traffic}}}}
    assert observations.service(thing, 0.0, True).traffic == {NEW: 0.2, OLD: 0.8}


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}]},
         "Unschedulable: no node"),
        ({"containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": {"terminated": {
            "reason": "OOMKilled", "exitCode": 137}}}]}, "OOMKilled, exit code 137"),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_run_is_said(status: dict[str, Any], problem: str | None) -> None:
    assert observations.pod({"metadata": {"name": "p"}, "status": status}, 0.0, True).waiting == problem


def test_a_pod_that_ends_was_told_so_its_grace_period_before_what_it_says() -> None:
    meta = {"name": "p", "deletionTimestamp": "1970-01-01T00:01:30Z", "deletionGracePeriodSeconds": 30}
    found = observations.pod({"metadata": meta}, 0.0, True)
    assert (found.deleted_stamp, found.stays) == (60.5, False)
    assert not observations.pod({"metadata": {"name": "p"}, "status": {"phase": "Failed"}}, 0.0, True).stays


# --- in the cluster ---------------------------------------------------------------------------------------------------


def alone(path: Path, component: str) -> list[dict[str, Any]]:
    """The documents that a component makes by itself."""
    return render(overlay(path, component, resources=[]))


def rules(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rules of the roles that the component makes, by the role's name."""
    documents = alone(path, "load-test-reader")
    bound = {d["roleRef"]["name"] for d in documents if d["kind"] == "RoleBinding"}
    roles = {d["metadata"]["name"]: d["rules"] for d in documents if d["kind"] == "Role"}
    assert bound == {"load-test-reader"} < roles.keys()
    return roles


def allows(found: list[dict[str, Any]], group: str, resource: str) -> set[str]:
    return {
        verb for rule in found if group in rule["apiGroups"] and resource in rule["resources"] for verb in rule["verbs"]
    }


def test_the_role_lets_the_watcher_read_and_nothing_else(tmp_path: Path) -> None:
    roles = rules(tmp_path)
    reader = roles["load-test-reader"]
    for resource, group in {
        "pods": "", "events": "", "inferenceservices": "serving.kserve.io", "revisions": "serving.knative.dev",
        "podautoscalers": "autoscaling.internal.knative.dev", "deployments": "apps",
        "horizontalpodautoscalers": "autoscaling",
    }.items():  # fmt: skip
        assert allows(reader, group, resource) >= {"list", "watch"}, resource
    assert allows(reader, "", "pods/proxy") == {"get"}
    assert {verb for rule in reader for verb in rule["verbs"]} == {"get", "list", "watch"}
    disruption = roles["load-test-disruption"]
    assert allows(disruption, "", "pods") == {"delete"}
    assert allows(disruption, "serving.kserve.io", "inferenceservices") == {"patch"}


def test_everything_that_is_followed_is_in_the_test_api() -> None:
    from kubernetes import client
    from kubernetes_api import KINDS

    assert [r.name for r in api_.resources(client.ApiClient(), NAMESPACE, SERVICE)] == list(KINDS)


def job_options(path: Path, **values: object) -> list[str]:
    """What the Job's container is started with, for these values of its environment."""
    (job,) = (d for d in alone(path, "load-test") if d["kind"] == "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "loadtests.cluster.job"]
    options = container["args"]
    for name, value in values.items():
        options = [option.replace(f"$({name})", str(value)) for option in options]
    assert not [option for option in options if "$(" in option]
    return [str(option) for option in options]


@contextmanager
def job(api: KubernetesApi, out: Path, options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The Job's process, whose results are in `out`/results."""
    command: list[str | Path] = [
        BIN / "python",
        "-m",
        "loadtests.cluster.job",
        "--results",
        out / "results",
        "--keep-seconds",
        "60",
    ]
    env = environment(out, KUBECONFIG=kubeconfig(api, out))
    process = subprocess.Popen([*command, *options], cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(WAIT_SECONDS)
        finally:
            process.kill()


def test_a_job_runs_and_keeps_its_results_until_they_are_taken(api: KubernetesApi, tmp_path: Path) -> None:
    ScriptedPod(api, f"{OLD}-a", OLD).up()
    api.desire(OLD, 1)
    options = job_options(tmp_path, SERVICE=SERVICE, NAMESPACE=NAMESPACE, SCENARIO=scenario(tmp_path), RATE=50)
    host = options.index(f"--host=http://{SERVICE}-predictor.{NAMESPACE}.svc.cluster.local")
    with stub_server.running() as url:
        options[host] = f"--host={url}"
        with job(api, tmp_path, options) as process:
            until(lambda: list((tmp_path / "results").glob("*")))
            command = take("", tmp_path / "results", tmp_path / "load")
            subprocess.run(command, shell=True, timeout=RUN_SECONDS, check=True)  # noqa: S602 - our own
            code = process.wait(WAIT_SECONDS)
    (directory,) = (tmp_path / "load").iterdir()
    summary = results.read_summary(directory)
    assert code == EXIT_CODES[summary.verdict.outcome]
    assert [pod.name for pod in cluster_of(summary).pods] == [f"{OLD}-a"]


def test_a_job_without_results_does_not_wait_for_them_to_be_taken(api: KubernetesApi, tmp_path: Path) -> None:
    with job(api, tmp_path, ["--", "--host", "http://localhost:1", "--scenario", "nothing"]) as process:
        assert process.wait(WAIT_SECONDS) == 3


def test_how_results_are_taken_is_said_alike_everywhere() -> None:
    said = [(ROOT / path).read_text("utf-8") for path in ("loadtests/cluster/job.py", "kserve/README.md")]
    commands = [" ".join(command.replace("defects-staging", "NAMESPACE").split()) for text in said
                for command in TAKE.findall(text)]  # fmt: skip
    here = take("kubectl -n NAMESPACE exec job/load-test --", Path("/results"), Path("build/load"))
    assert commands == [" ".join(here.split())] * 2


def test_a_job_that_is_told_to_end_reports_and_ends(api: KubernetesApi, tmp_path: Path) -> None:
    with stub_server.running() as url, job(api, tmp_path, ["--", "--host", url, "--scenario", "steady"]) as process:
        until(lambda: list((tmp_path / "results").glob("*/timeline.jsonl")))
        (tmp_path / "results" / "taken").touch()
        time.sleep(2)
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 2
    assert not (tmp_path / "results" / "taken").exists(), "by who did not wait for the end of the run"
    assert len(list((tmp_path / "results").glob("*/summary.json"))) == 1


def test_workers_find_the_coordinator(tmp_path: Path) -> None:
    documents = {(d["kind"], d["metadata"]["name"]): d for d in alone(tmp_path, "load-test-distributed")}
    main, workers = (documents["Job", name]["spec"] for name in ("load-test", "load-test-workers"))
    (coordinator,), (worker,) = (job["template"]["spec"]["containers"] for job in (main, workers))
    expected = next(option for option in coordinator["args"] if option.startswith("--expect-workers="))
    assert expected == f"--expect-workers={workers['parallelism']}"
    assert workers["parallelism"] == workers["completions"]
    assert "--master" in coordinator["args"]
    service = documents["Service", "load-test"]
    assert "--master-host=$(COORDINATOR)" in worker["args"]
    assert worker["env"] == [{"name": "COORDINATOR", "value": service["metadata"]["name"]}]
    assert service["spec"]["selector"].items() <= main["template"]["metadata"]["labels"].items()
    assert not service["spec"]["selector"].items() <= workers["template"]["metadata"]["labels"].items()
    assert coordinator["image"] == worker["image"]
