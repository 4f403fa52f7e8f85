"""What one replica holds, where others are ready that get no requests; and the patch that scales on it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from kubernetes_api import SERVICE
from test_cluster import NEW, OLD, cluster_of, plan, pod, summarised, times

from conftest import ROOT, run
from loadtests import results
from loadtests.analysis import scale_target
from loadtests.analysis import summary as summaries
from loadtests.analysis.measures import Run, Watched
from loadtests.analysis.method import AHEAD_SECONDS
from loadtests.cluster import observations, process
from loadtests.cluster.observations import AnyObservation
from loadtests.cluster.reporter import Reporter
from loadtests.cluster.scraper import Scraper
from loadtests.load import capacity
from loadtests.report import markdown, page
from loadtests.report import scale_target as words
from loadtests.results import Summary
from loadtests.scenario import BadScenario, Plan
from manifests import only, overlay, predictor, render
from test_measures import ENVIRONMENT, answered

RAMP = [{"name": "burst", "rate": 1, "steps": {"seconds": 2, "factor": 2, "to": 8}}]
HOLDS = 100.0  # what all replicas hold together: the last of the ramp's steps that does
IDLE = [f"{SERVICE}-predictor-0000{number}" for number in range(3, 8)]  # five old revisions
BOTH = (OLD, NEW)


def ramp(watched: Sequence[Any] | None, revisions: Sequence[str] = (OLD,), shares: Sequence[float] = (1.0,)) -> Summary:
    """Return the summary of a ramp that found `HOLDS`; answers are of these revisions, in these shares."""
    p = plan(RAMP, rate=50, stop_at_slo=True, slo={"p95_ms": 60}, cluster=None)
    requests = answered(p.times, np.where(p.times >= 4, 90.0, 10.0))
    numbers = np.arange(len(requests)) % 100
    requests["revision"] = np.searchsorted(np.cumsum(np.multiply(shares, 100)), numbers, side="right")
    found = None if watched is None else list(as_watched(watched))
    seen = None if found is None else Watched(SERVICE, found, p.seconds)
    return summarised(p, seen, requests, revisions) if seen else alone(p, requests, revisions)


def alone(p: Plan, requests: results.Requests, revisions: Sequence[str]) -> Summary:
    seen = Run(plan=p, requests=requests, revisions=revisions, seconds=p.seconds)
    return summaries.summarise(seen, "ramp", ENVIRONMENT)


def as_watched(found: Sequence[observations.Observation]) -> list[AnyObservation]:
    """Return observations as a run reads them: from the lines that the watcher printed."""
    return list(observations.read([observation.model_dump_json() for observation in found]))


def status(at: float, shares: dict[str, int], mode: str = "Knative", canaries: Sequence[Any] = ()) -> Any:
    """Return what the watcher reports of an InferenceService with these percentages."""
    traffic = [{"revisionName": name, "percent": percent, "tag": "x"} for name, percent in shares.items()]
    thing = {
        "metadata": {"name": SERVICE, "annotations": {observations.MODE: mode}},
        "status": {"components": {"predictor": {"traffic": traffic}}, "canaryStatuses": list(canaries)},
    }
    return observations.service(thing, at, live=at > 0)


def ready(name: str, revision: str, at: float = -9.0) -> observations.Pod:
    return pod(at, name, revision=revision, ready=True)


def replica(summary: Summary) -> results.ReplicaCapacity:
    assert summary.capacity is not None
    assert summary.capacity.per_s == HOLDS
    assert summary.capacity.replica is not None
    return summary.capacity.replica


def rate_of(summary: Summary, path: Path) -> float:
    """Return what `--rate DIRECTORY` takes from a run."""
    path.mkdir()
    results.write_summary(path / results.SUMMARY, summary)
    return capacity.replica_capacity(path)


# --- what the capacity is divided by ---------------------------------------------------------------------------------


def test_in_knative_mode_pods_of_old_revisions_are_left_out(tmp_path: Path) -> None:
    """As on the cluster: six ready pods, of which five were of revisions without traffic."""
    old = [ready(f"{name}-deployment-5b8-xyz12", name) for name in IDLE]
    summary = ramp([status(-1, {OLD: 100, NEW: 0}), *old, ready(f"{OLD}-deployment-5b8-xyz12", OLD)])
    assert replica(summary) == results.ReplicaCapacity(per_s=HOLDS, replicas=1, left_out=5, watched=True)
    assert rate_of(summary, tmp_path / "run") == HOLDS
    said = "One replica: 100 requests/s; divided by 1 ready replica that got requests. Left out: 5 ready of revisions"
    for text in (page.page(summary), markdown.report(summary), words.text(summary)):
        assert said in text
    assert cluster_of(summary).replicas[-1].ready == 1


def test_in_standard_mode_the_pods_that_are_ending_are_left_out(tmp_path: Path) -> None:
    """All ready pods of the one Deployment get requests; those of its old ReplicaSet are on their way out."""
    labels = {"pod-template-hash": "54cd4868b8"}
    ending = {
        "metadata": {
            "name": "parcels-predictor-54cd4868b8-aaaaa", "labels": labels,
            "creationTimestamp": "2026-11-26T10:00:00Z", "deletionTimestamp": "2026-11-26T11:00:00Z",
        },
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip
    new = [ready(f"parcels-predictor-7cb8c55888-{name}", "7cb8c55888") for name in ("bbbbb", "ccccc")]
    found = [status(-1, {}, "Standard"), observations.pod(ending, -1.0, live=False), *new]
    summary = ramp(found, ["7cb8c55888"])
    assert replica(summary) == results.ReplicaCapacity(per_s=HOLDS / 2, replicas=2, left_out=0, watched=True)
    assert rate_of(summary, tmp_path / "run") == HOLDS / 2


def test_in_standard_mode_the_pods_of_a_canary_count_only_if_they_answer() -> None:
    """KServe 0.20 takes `spec.canary`, makes its pods, and sends them nothing."""
    pods = [ready(f"parcels-predictor-54cd4868b8-{n}", "54cd4868b8") for n in ("aaaaa", "bbbbb")]
    pods.append(ready("parcels-new-predictor-7cb8c55888-ccccc", "7cb8c55888"))
    found = [status(-1, {}, "Standard", [{"name": "new", "trafficPercent": 20}]), *pods]
    nothing, some = ramp(found, ["54cd4868b8"]), ramp(found, ["54cd4868b8", "7cb8c55888"], [0.8, 0.2])
    assert (replica(nothing).replicas, replica(nothing).left_out, replica(nothing).per_s) == (2, 1, HOLDS / 2)
    assert (replica(some).replicas, replica(some).left_out) == (3, 0)
    assert replica(some).per_s == pytest.approx(0.4 * HOLDS)


def test_where_traffic_is_split_the_busiest_replica_says_what_one_holds() -> None:
    pods = [ready("a", OLD), ready("b", OLD), ready("c", NEW)]
    summary = ramp([status(-1, {OLD: 90, NEW: 10}), *pods], BOTH, [0.9, 0.1])
    assert replica(summary).replicas == 3
    assert replica(summary).per_s == pytest.approx(HOLDS * 0.9 / 2)


def test_requests_to_a_revisions_own_url_are_its_traffic() -> None:
    """Its share may be 0 %: the URL of its tag reaches it all the same."""
    summary = ramp([status(-1, {OLD: 100}), ready("a", OLD), ready("b", OLD), ready("c", NEW)], [NEW])
    assert (replica(summary).replicas, replica(summary).left_out, replica(summary).per_s) == (1, 2, HOLDS)


def test_where_pods_may_not_be_seen_their_autoscalers_say_it() -> None:
    def count(name: str, ready: int) -> observations.ReplicaCount:
        return observations.ReplicaCount(at=-1, kind="PodAutoscaler", name=name, desired=ready, ready=ready)

    unseen = observations.Unseen(at=-1, text="pods: not allowed", resource="pods")
    summary = ramp([unseen, status(-1, {OLD: 100}), count(OLD, 2), count(NEW, 1)])
    assert (replica(summary).replicas, replica(summary).left_out, replica(summary).per_s) == (2, 1, HOLDS / 2)
    assert cluster_of(summary).replicas[-1].desired == 2


@pytest.mark.parametrize(
    "later",
    [
        [ready("b", OLD, at=3.0)],
        [status(3.0, {NEW: 100}), ready("b", NEW)],
        [ready("a", OLD, at=3.0).model_copy(update={"ready": False, "deleted_stamp": 1003.5})],
    ],
    ids=["a replica more", "other revisions", "none any more"],
)
def test_a_number_that_changes_gives_no_capacity(later: list[Any], tmp_path: Path) -> None:
    summary = ramp([status(-1, {OLD: 100}), ready("a", OLD), *later])
    assert (replica(summary).per_s, replica(summary).replicas) == (None, None)
    with pytest.raises(BadScenario, match="ready replicas that get requests changed, or was not seen"):
        rate_of(summary, tmp_path / "run")
    assert "What one replica holds is not known" in markdown.report(summary)
    assert "scaleTarget" not in markdown.report(summary)


def test_replicas_without_requests_may_come_and_go() -> None:
    summary = ramp([status(-1, {OLD: 100}), ready("a", OLD), ready("b", NEW, at=3.0)])
    assert (replica(summary).per_s, replica(summary).left_out) == (HOLDS, 1)


def test_without_a_cluster_there_is_taken_to_be_one_replica(tmp_path: Path) -> None:
    summary = ramp(None)
    assert replica(summary) == results.ReplicaCapacity(per_s=HOLDS, replicas=1, left_out=0, watched=False)
    assert "if there was only one; no cluster was watched" in markdown.report(summary)
    assert rate_of(summary, tmp_path / "run") == HOLDS


def test_a_ramp_of_an_older_version_is_not_trusted(tmp_path: Path) -> None:
    summary = ramp([status(-1, {OLD: 100}), ready("a", OLD)])
    assert summary.capacity is not None
    older = summary.capacity.model_copy(update={"replica": None, "patch": None})
    with pytest.raises(BadScenario, match="is of an older version; expected a run of `ramp` of this one"):
        rate_of(summary.model_copy(update={"capacity": older}), tmp_path / "run")


# --- the other measures ----------------------------------------------------------------------------------------------

BURST = [
    {"name": "baseline", "seconds": 4, "rate": 0.5},
    {"name": "burst", "seconds": 10, "rate": 2.5},
    {"name": "recovery", "seconds": 2, "rate": 0.5},
]


def desired(at: float, name: str, number: int) -> observations.ReplicaCount:
    return observations.ReplicaCount(at=at, kind="PodAutoscaler", name=name, desired=number)


def ended(one: observations.Pod, at: float) -> observations.Pod:
    return one.model_copy(update={"at": at, "ready": False, "gone": True, "live": True})


def test_ready_pods_without_traffic_count_for_no_measure_of_scaling() -> None:
    """Five idle replicas beside one that gets everything; two more are needed from 4 s on, and there from 9 s on."""
    idle = [ready(f"i{number}", name) for number, name in enumerate(IDLE)]
    served = [ready("a", OLD), ready("b", OLD, at=9.0), ready("c", OLD, at=9.0)]
    found: list[Any] = [status(-1, {OLD: 100, IDLE[0]: 0}), *idle, *served]
    found += [desired(-1, name, 1) for name in (OLD, *IDLE)] + [desired(6.0, OLD, 3), desired(15.0, OLD, 1)]
    found += [ended(one, 15.5) for one in served[1:]] + [desired(17.0, OLD, 0), ended(served[0], 18.0)]
    found.sort(key=lambda observation: observation.at)
    cluster = cluster_of(summarised(plan(BURST), Watched(SERVICE, as_watched(found), 20.0)))
    measured = {key: time.seconds for key, time in times(cluster).items()}
    assert measured["detect", "burst"] == pytest.approx(2.0)
    assert measured["provision", "burst"] == pytest.approx(3.0), "not reached at once, and reached at all"
    assert measured["scale", "burst"] == pytest.approx(5.0)
    assert measured["down", "burst's end"] == pytest.approx(1.5)
    assert measured["zero", "last request"] == pytest.approx(18.0 - float(plan(BURST).times[-1])), "idle ones may stay"
    assert cluster.under_replica_seconds == pytest.approx(2 * 5.0)
    assert cluster.over_replica_seconds == pytest.approx(2 * 1.5 + 2.0)
    assert cluster.idle_replica_seconds == pytest.approx(5 * 20.0)
    assert [(r.desired, r.existing, r.ready) for r in cluster.replicas if r.at == 6.0] == [(3, 1, 1)]
    summary = summarised(plan(BURST), Watched(SERVICE, as_watched(found), 20.0))
    assert "not counted: 100 replica-seconds of other revisions" in page.page(summary)
    assert {sample.replicas_ready for sample in summary.timeline} == {0, 1, 3}
    assert summary.timeline[-1].ready is False, "nobody would answer a request"


def test_a_new_revision_counts_from_when_it_gets_requests() -> None:
    """Routers may be ahead of the status by seconds, so it counts a bit before the status says so."""
    found = [status(-1, {OLD: 100}), ready("a", OLD), ready("b", NEW, at=2.0), status(12.0, {NEW: 100})]
    cluster = cluster_of(summarised(plan(BURST), Watched(SERVICE, as_watched(found), 20.0), revisions=BOTH))
    assert cluster.idle_replica_seconds == pytest.approx((12 - AHEAD_SECONDS - 2) + 8), (
        "first the new, then the old one"
    )
    assert cluster.replicas[-1].ready == 1


def test_a_first_request_that_no_replica_can_take_is_a_rise_beside_idle_ones() -> None:
    found = [status(-1, {OLD: 100}), ready("i", NEW), desired(0.5, OLD, 1), ready("a", OLD, at=2.0)]
    cluster = cluster_of(summarised(plan(BURST), Watched(SERVICE, as_watched(found), 20.0)))
    first = times(cluster)["scale", "first request"]
    assert first.seconds == pytest.approx(2.0 - float(plan(BURST).times[0]))


def test_a_run_from_zero_waits_only_for_replicas_that_would_answer() -> None:
    serving, idle = ready("a", OLD), ready("i", NEW)
    assert process.replicas_of([status(-1, {OLD: 100, NEW: 0}), serving, idle]) == 1
    assert process.replicas_of([status(-1, {OLD: 100, NEW: 0}), serving, idle, ended(serving, 1.0)]) == 0
    assert process.replicas_of([status(-1, {}, "Standard"), serving, idle]) == 2
    assert process.replicas_of([status(-1, {OLD: 100}), serving, idle, status(1.0, {NEW: 100})]) == 1


# --- the patch -------------------------------------------------------------------------------------------------------


def patches_in(summary: Summary) -> list[str]:
    """Return the patch as everything that is made of a run shows it."""
    assert summary.capacity is not None
    (in_page,) = re.findall(r"<pre>(.*?)</pre>", page.page(summary), re.DOTALL)
    (in_markdown,) = re.findall(r"^```yaml\n(.*?)^```", markdown.report(summary), re.DOTALL | re.MULTILINE)
    kept = Summary.model_validate_json(summary.model_dump_json()).capacity
    assert kept is not None
    found = [html.unescape(in_page), in_markdown, words.text(summary)[words.text(summary).index("patches:") :]]
    assert yaml.safe_load(str(kept.patch)) == yaml.safe_load(found[0])
    return found


OUTCOME = """
import sys
from pathlib import Path
from loadtests import results
from loadtests.load.coordinator import Outcome
print(Outcome.of_summary(results.read_summary(Path(sys.argv[1])), Path(sys.argv[1])).text)
"""


@pytest.mark.parametrize("pods", [1, 3])
def test_the_patch_that_a_ramp_prints_renders_with_the_number_that_it_found(pods: int, tmp_path: Path) -> None:
    summary = ramp([status(-1, {OLD: 100}), *(ready(f"p{number}", OLD) for number in range(pods))])
    for index, text in enumerate(patches_in(summary)):
        (scratch := tmp_path / str(index)).mkdir()
        documents = render(overlay(scratch, "knative", "autoscale-rate", **yaml.safe_load(text)))
        spec = predictor(documents)
        assert (spec["scaleMetric"], spec["scaleTarget"]) == ("rps", math.floor(HOLDS / pods))
        assert spec["maxReplicas"] == 4


@pytest.mark.parametrize(("name", "mode"), [("staging", "Knative"), ("production", "Knative"), ("local", "Standard")])
def test_the_patch_renders_in_every_overlay(name: str, mode: Any, tmp_path: Path) -> None:
    text = scale_target.patch(mode, 45.9)
    assert text is not None
    folder = ROOT / "kserve" / "overlays" / name
    fields = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    more = {"patches": [*fields.get("patches", []), *yaml.safe_load(text)["patches"]]}
    components = [Path(path).name for path in fields["components"]]
    spec = predictor(render(overlay(tmp_path, *components, **more)))
    wanted = ("rps", 45) if mode == "Knative" else ("cpu", scale_target.CPU_PERCENT)
    assert (spec["scaleMetric"], spec["scaleTarget"]) == wanted


def test_in_standard_mode_the_patch_is_that_of_the_autoscaler_on_cpu(tmp_path: Path) -> None:
    pods = [ready("parcels-predictor-54cd4868b8-aaaaa", "54cd4868b8")]
    summary = ramp([status(-1, {}, "Standard"), *pods], ["54cd4868b8"])
    (text, *_) = patches_in(summary)
    patched = render(overlay(tmp_path, "standard", **yaml.safe_load(text)))
    component = render(overlay(tmp_path, "standard", "autoscale-cpu"))
    for documents in (patched, component):
        assert (
            only(documents, "InferenceService")["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "hpa"
        )
        spec = predictor(documents)
        assert (spec["scaleMetric"], spec["scaleTarget"]) == ("cpu", scale_target.CPU_PERCENT)
    assert "Standard mode has no target for a rate" in markdown.report(summary)


def test_the_end_of_a_run_prints_what_it_found(tmp_path: Path) -> None:
    """In a process of its own, as Locust changes whatever imports it."""
    summary = ramp([status(-1, {OLD: 100}), ready("a", OLD), ready("b", NEW)])
    results.write_summary(tmp_path / results.SUMMARY, summary)
    done = run(tmp_path, "python", "-c", OUTCOME, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(words.text(summary))
    assert "scaleTarget" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("Passed: test")


def test_a_target_is_rounded_down_and_at_least_one() -> None:
    def target(per_s: float) -> Any:
        text = scale_target.patch("Knative", per_s)
        return text and yaml.safe_load(yaml.safe_load(text)["patches"][0]["patch"])[1]["value"]

    assert [target(per_s) for per_s in (49.99, 50.0, 1.0, 0.99)] == [49, 50, 1, None]


def test_there_is_no_patch_where_the_server_was_not_the_limit() -> None:
    p = plan(RAMP, rate=50, slo={"p95_ms": 60}, cluster=None)
    every_step_held = alone(p, answered(p.times), [OLD])
    assert every_step_held.capacity is not None
    assert every_step_held.capacity.patch is None
    for text in (page.page(every_step_held), markdown.report(every_step_held)):
        assert "It may be higher, so there is no patch" in text
    assert "It may be higher" in words.text(every_step_held)


def test_the_readme_shows_the_patch_as_a_ramp_prints_it() -> None:
    readme = (ROOT / "kserve" / "README.md").read_text("utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)]
    (shown,) = (block for block in blocks if "scaleTarget" in str(block))
    text = scale_target.patch("Knative", 45)
    assert text is not None
    (ours,), (theirs,) = yaml.safe_load(text)["patches"], shown["patches"]
    assert ours["target"] == theirs["target"]
    assert yaml.safe_load(ours["patch"]) == yaml.safe_load(theirs["patch"])


# --- what the autoscaler says when it scales on the rate -------------------------------------------------------------


@pytest.mark.parametrize("unit", ["", "_per_second"], ids=["plain", "with its unit"])
def test_the_autoscalers_rates_are_read_as_such(unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    labels = f'{{k8s_namespace_name="defects",kn_revision_name="{OLD}"}}'
    exposition = "\n".join(
        [
            f"kn_revision_rps_stable{unit}{labels} 62.5",
            f"kn_revision_rps_panic{unit}{labels} 113",
            f"kn_revision_rps_target{unit}{labels} 31.5",
            f"kn_revision_panic_mode{labels} 1",
            f'autoscaler_stable_requests_per_second{{namespace_name="defects",revision_name="{NEW}"}} 7',
        ]
    )
    options: Any = SimpleNamespace(cluster=SimpleNamespace(service=SERVICE))
    Scraper(None, "defects", options, Reporter())._report_autoscaler(exposition)
    said = {
        o.revision: o
        for o in observations.read(capsys.readouterr().out.splitlines())
        if isinstance(o, observations.Autoscaler)
    }
    assert (said[OLD].metric, said[OLD].stable, said[OLD].panic, said[OLD].panicking) == ("rps", 62.5, 113, True)
    assert (said[NEW].metric, said[NEW].stable) == ("rps", 7)
    summary = summarised(plan(BURST), Watched(SERVICE, [said[OLD].model_copy(update={"at": 1.0})], 20.0))
    assert "averages of requests per second over its long" in page.page(summary)
