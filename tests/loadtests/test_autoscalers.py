"""What scales the service decides which lengths and limits of a scenario apply, and whether it can be measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import NAMESPACE, OURS, SERVICE, KubernetesApi, ScriptedPod, kubeconfig, serving
from recorded import cluster_of, replayed, scenario_of
from test_cluster import OLD, options, scenario, summary_of

from conftest import run
from loadtests import scenario as scenarios
from loadtests.analysis import replicas
from loadtests.analysis.measures import Watched
from loadtests.analysis.method import HOLD_SECONDS
from loadtests.analysis.summary import summarise
from loadtests.cluster import autoscaler, observations
from loadtests.compare.objections import objections
from loadtests.load import autoscaling, stub_server
from loadtests.report import markdown
from loadtests.report import page as report
from loadtests.results import ScaledBy
from loadtests.scenario import BadScenario, Plan, Scenario
from test_measures import ENVIRONMENT, answered
from test_measures import run as run_of

KNATIVE = {observations.MODE: "Knative"}
STANDARD = {observations.MODE: "Standard"}
HPA = {**STANDARD, autoscaler.CLASS: "hpa"}
CPU = ScaledBy(kind="HPA", metric="cpu", target=60, fewest=1, most=4)
KPA = ScaledBy(kind="KPA", metric="concurrency", target=12, fewest=0, most=4)


def service(annotations: dict[str, str], predictor: dict[str, Any]) -> dict[str, Any]:
    """An InferenceService."""
    meta, status = {"name": SERVICE, "annotations": annotations}, {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": meta, "spec": {"predictor": predictor}, "status": status}


# --- what scales it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "predictor", "expected"),
    [
        (KNATIVE, {}, ScaledBy(kind="KPA", metric="concurrency", fewest=1)),
        (KNATIVE, {"minReplicas": 0, "maxReplicas": 0}, ScaledBy(kind="KPA", metric="concurrency", fewest=0)),
        (KNATIVE, {"minReplicas": 0, "maxReplicas": 4, "scaleMetric": "concurrency", "scaleTarget": 12}, KPA),
        (
            {**KNATIVE, "autoscaling.knative.dev/metric": "rps", "autoscaling.knative.dev/target": "45"},
            {"maxReplicas": 3, "annotations": {"autoscaling.knative.dev/target": "50"}},
            ScaledBy(kind="KPA", metric="rps", target=50, fewest=1, most=3),
        ),
        (
            {**KNATIVE, "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"},
            {"maxReplicas": 4, "scaleTarget": 60},
            CPU,
        ),
        (
            {**KNATIVE, "autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"},
            {"minReplicas": 0},
            ScaledBy(kind="HPA", metric="cpu", fewest=1),
        ),
        (
            {**KNATIVE, "autoscaling.knative.dev/min-scale": "2", "autoscaling.knative.dev/max-scale": "x"},
            {},
            ScaledBy(kind="KPA", metric="concurrency", fewest=2),
        ),
        (HPA, {"minReplicas": 1, "maxReplicas": 4, "scaleTarget": 60, "scaleMetric": "cpu"}, CPU),
        (STANDARD, {"minReplicas": 0, "maxReplicas": 4, "scaleTarget": 60}, CPU),
        (STANDARD, {"minReplicas": 2}, ScaledBy(kind="HPA", metric="cpu", fewest=2, most=2)),
        (
            {**STANDARD, autoscaler.CLASS: "none"},
            {"minReplicas": 3, "maxReplicas": 9},
            ScaledBy(kind="none", fewest=3, most=3),
        ),
        ({**STANDARD, autoscaler.CLASS: "external"}, {"maxReplicas": 9}, ScaledBy(kind="external")),
        (
            {**STANDARD, autoscaler.CLASS: "keda"},
            {"minReplicas": 0, "maxReplicas": 5, "autoScaling": {"metrics": [{"type": "PodMetric"}]}},
            ScaledBy(kind="KEDA", metric="podmetric", fewest=0, most=5),
        ),
        ({**STANDARD, autoscaler.CLASS: "later"}, {}, None),
        ({}, {"minReplicas": 1}, None),
    ],
)
def test_what_scales_a_service_is_read_as_kserve_does(
    annotations: dict[str, str], predictor: dict[str, Any], expected: ScaledBy | None
) -> None:
    assert observations.service(service(annotations, predictor), 0.0, False).scaled_by == expected


def scale(kind: Any, at: float = -1.0, *, live: bool = False) -> observations.ReplicaCount:
    return observations.ReplicaCount(at=at, live=live, kind=kind, name="x", desired=1)


def test_an_autoscaler_that_is_there_says_it_where_the_service_does_not() -> None:
    said = observations.service(service({**STANDARD, autoscaler.CLASS: "external"}, {}), -1.0, False)
    assert replicas.scaled_by([scale("HorizontalPodAutoscaler"), scale("Deployment")]) == ScaledBy(kind="HPA")
    assert replicas.scaled_by([scale("PodAutoscaler"), scale("Deployment")]) == ScaledBy(kind="KPA")
    assert replicas.scaled_by([said, scale("HorizontalPodAutoscaler")]) == ScaledBy(kind="HPA")
    assert replicas.scaled_by([said, scale("Deployment")]) == ScaledBy(kind="external")
    assert replicas.scaled_by([scale("HorizontalPodAutoscaler", live=True)]) is None, "it came later"
    assert replicas.scaled_by([]) is None


def test_the_recorded_runs_say_what_scaled_them() -> None:
    kinds = {name: cluster_of(replayed(name)).scaled_by for name in ("kpa-scale-up", "hpa-scale-up")}
    assert kinds == {"kpa-scale-up": ScaledBy(kind="KPA"), "hpa-scale-up": ScaledBy(kind="HPA")}


@pytest.mark.parametrize(
    ("scaled", "text"),
    [
        (CPU, "HPA on cpu, target 60, 1 to 4 replicas"),
        (KPA, "KPA on concurrency, target 12, 0 to 4 replicas"),
        (ScaledBy(kind="KPA", metric="rps", fewest=1), "KPA on rps, 1 or more replicas"),
        (ScaledBy(kind="none", fewest=1, most=1), "no autoscaler: always 1 replica"),
        (ScaledBy(kind="none", fewest=3, most=3), "no autoscaler: always 3 replicas"),
        (ScaledBy(kind="HPA"), "HPA"),
    ],
)
def test_it_is_said_in_a_few_words(scaled: ScaledBy, text: str) -> None:
    assert str(scaled) == text


# --- lengths and limits ----------------------------------------------------------------------------------------------


def lengths(found: Scenario) -> dict[str, float | None]:
    return {phase.name: phase.seconds for phase in found.phases}


def test_scale_up_gives_an_hpa_the_time_that_the_recorded_one_took() -> None:
    loaded, measured = scenarios.load("scale-up"), {str(t.name): t for t in cluster_of(replayed("hpa-scale-up")).times}
    fitted = loaded.fitted("hpa")
    limits = {
        "detect": fitted.slo.detect_seconds, "scale": fitted.slo.scale_seconds, "recover": fitted.slo.recover_seconds,
        "cold start": fitted.slo.cold_start_seconds,
    }  # fmt: skip
    for name, limit in limits.items():
        assert (measured[name].seconds or 0) * 1.3 < (limit or 0), name
    assert loaded.slo.detect_seconds == 30 < (measured["detect"].seconds or 0)
    recovery = lengths(fitted)["recovery"]
    assert recovery is not None
    assert recovery > 1.2 * 322, "seconds after the burst's end until replicas went"
    assert fitted.slo.below_need_seconds == loaded.slo.below_need_seconds


def test_scale_down_wants_no_zero_of_an_hpa_and_watches_until_it_went_down() -> None:
    loaded = scenarios.load("scale-down")
    fitted = loaded.fitted("hpa")
    assert (fitted.slo.zero_seconds, fitted.cluster and fitted.cluster.to_zero_seconds) == (None, None)
    assert fitted.slo.down_seconds is not None
    assert 1.2 * 322 < fitted.slo.down_seconds < (lengths(fitted)["recovery"] or 0)
    assert loaded.cluster is not None
    assert (loaded.cluster.to_zero_seconds, loaded.slo.zero_seconds) == (300, 240)


@pytest.mark.parametrize("name", scenarios.names())
@pytest.mark.parametrize("limits", ["kpa", "hpa"])
def test_every_variant_is_sound_and_long_enough_for_its_limits(name: str, limits: Any) -> None:
    loaded = scenarios.load(name)
    fitted = loaded.fitted(limits)
    assert (fitted.by_autoscaler, fitted.rate, fitted.seed) == ({}, loaded.rate, loaded.seed)
    plan, allowed = Plan(fitted, 100.0, 1), fitted.slo.recover_seconds
    assert allowed is None or (plan.burst and plan.burst.start + allowed + HOLD_SECONDS <= plan.seconds)
    waits = fitted.cluster.waits if fitted.cluster else 0.0
    assert plan.seconds + waits <= loaded.longest <= 1400
    if limits not in loaded.by_autoscaler:
        assert fitted == loaded.fitted(None)
        assert lengths(fitted) == lengths(loaded)


def test_a_load_is_the_one_of_its_lengths() -> None:
    """Runs of another length are another load; a section for another autoscaler changes nothing."""
    loaded = scenarios.load("scale-up")
    plain = Scenario.model_validate(loaded.model_dump(exclude={"by_autoscaler"}))
    assert loaded.digest(b"rows") == loaded.fitted(None).digest(b"rows") == plain.digest(b"rows")
    assert loaded.fitted("hpa").digest(b"rows") != loaded.digest(b"rows")
    again = Scenario.model_validate(loaded.fitted("hpa").model_dump())  # as workers get it
    assert Plan(again, 45, 1).times.tolist() == Plan(loaded.fitted("hpa"), 45, 1).times.tolist()


def base(**changes: Any) -> dict[str, Any]:
    return {
        "about": "x", "rate": "replica", "payloads": [{"kind": "json"}], "slo": {"p95_ms": 50, "zero_seconds": 9},
        "phases": [{"name": "baseline", "seconds": 2, "rate": 1}, {"name": "burst", "seconds": 4, "rate": 3}],
        "cluster": {"to_zero_seconds": 60},
    } | changes  # fmt: skip


def test_what_a_section_does_not_name_stays() -> None:
    changes = {"hpa": {"phases": {"burst": {"p95_ms": 70}}, "slo": {"zero_seconds": None, "failed_share": 0.5}}}
    found = Scenario.model_validate(base(by_autoscaler=changes)).fitted("hpa")
    assert [(phase.seconds, phase.rate, phase.p95_ms) for phase in found.phases] == [(2, 1, None), (4, 3, 70)]
    assert (found.slo.p95_ms, found.slo.zero_seconds, found.slo.failed_share) == (50, None, 0.5)
    assert found.cluster is not None
    assert found.cluster.to_zero_seconds == 60
    assert found.slo.refused_share == 0


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"vpa": {}}, "by_autoscaler.vpa: expected 'kpa' or 'hpa'"),
        ({"hpa": {"rate": 9}}, "by_autoscaler.hpa.rate: unknown field"),
        ({"hpa": {"phases": {"lunch": {}}}}, "by_autoscaler.hpa.phases.lunch: expected 'warm-up', "),
        ({"hpa": {"phases": {"recovery": {"seconds": 9}}}},
         "by_autoscaler.hpa.phases.recovery: there is no such phase; expected baseline, burst"),
        ({"hpa": {"phases": {"burst": {"seconds": 0}}}}, "by_autoscaler.hpa.phases.burst.seconds: expected greater"),
        ({"hpa": {"phases": {"burst": {"seconds": None}}}}, "by_autoscaler.hpa: phases.1: seconds: expected a number"),
        ({"hpa": {"phases": {"burst": {"rate": 2}}}}, "by_autoscaler.hpa.phases.burst.rate: unknown field"),
        ({"hpa": {"slo": {"detect": 9}}}, "by_autoscaler.hpa.slo.detect: expected 'failed_share', "),
        ({"hpa": {"slo": {"p95_ms": 9}}}, "by_autoscaler.hpa.slo.p95_ms: expected 'failed_share', "),
        ({"hpa": {"slo": {"detect_seconds": "x"}}}, "by_autoscaler.hpa.slo.detect_seconds: expected a valid number"),
        ({"hpa": {"slo": {"failed_share": 3}}}, "by_autoscaler.hpa: slo.failed_share: expected less than or equal"),
        ({"hpa": {"slo": {"failed_share": None}}}, "by_autoscaler.hpa: slo.failed_share: expected a valid number"),
        ({"hpa": {"cluster": {"disruption": "delete-pod"}}}, "by_autoscaler.hpa.cluster.disruption: expected 'from_"),
    ],
)  # fmt: skip
def test_a_bad_section_is_refused_with_its_field(tmp_path: Path, section: dict[str, Any], problem: str) -> None:
    file = scenario(tmp_path, **base(by_autoscaler=section))
    with pytest.raises(BadScenario, match=re.escape(f"{file}: {problem}")) as raised:
        scenarios.load(str(file))
    assert "\n" not in str(raised.value)


def test_a_section_needs_a_cluster(tmp_path: Path) -> None:
    file = scenario(tmp_path, **base(by_autoscaler={"hpa": {}}, cluster=None))
    with pytest.raises(BadScenario, match="by_autoscaler: no cluster is watched; expected cluster, too"):
        scenarios.load(str(file))


# --- what can't be measured ------------------------------------------------------------------------------------------

FIXED = ScaledBy(kind="none", fewest=1, most=1)
EQUAL = ScaledBy(kind="KPA", metric="rps", fewest=4, most=4)
SMALL = ScaledBy(kind="HPA", metric="cpu", fewest=1, most=2)
KEPT = ScaledBy(kind="KPA", metric="rps", fewest=1, most=4)
ALWAYS = "measures how the service scales, which has "


@pytest.mark.parametrize(
    ("name", "scaled", "problem"),
    [
        ("scale-up", FIXED, f"{ALWAYS}no autoscaler: always 1 replica; expected an autoscaler"),
        ("scale-up", EQUAL, f"{ALWAYS}always 4: minReplicas is maxReplicas; expected an autoscaler"),
        ("scale-from-zero", FIXED, ALWAYS),
        ("scale-down", FIXED, ALWAYS),
        ("scale-up", SMALL, "needs 3 replicas, and maxReplicas is 2; expected at least 3"),
        ("scale-from-zero", CPU, "begins without a replica, and an HPA keeps one; expected a service that scales to"),
        ("scale-from-zero", KEPT, "begins without a replica, and minReplicas is 1; expected a service that scales to"),
        ("scale-down", KEPT, "waits until there is no replica, and minReplicas is 1; expected a service that scales"),
        ("scale-down", CPU, None),
        ("scale-down", KPA, None),
        ("scale-up", CPU, None),
        ("scale-up", KPA, None),
        ("scale-up", ScaledBy(kind="external"), None),
        ("scale-up", ScaledBy(kind="HPA"), None),
        ("scale-from-zero", KPA, None),
        ("scale-from-zero", ScaledBy(kind="KEDA", fewest=0, most=4), None),
        ("chaos", FIXED, None),
        ("rolling", EQUAL, None),
    ],
)
def test_what_a_service_can_not_do_is_said(name: str, scaled: ScaledBy, problem: str | None) -> None:
    fitted = scenarios.load(name).fitted(scaled.limits)
    found = list(autoscaling.problems(fitted, scaled))
    assert bool(found) == (problem is not None), found
    if problem:
        assert found[0].startswith(problem)


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[KubernetesApi]:
    with serving(KubernetesApi()) as api:
        yield api


def standard(api: KubernetesApi, annotations: dict[str, str], **predictor: Any) -> None:
    """A service in Standard mode, with its Deployment and one pod."""
    api.put("inferenceservices", service(annotations, predictor))
    meta = {"name": f"{SERVICE}-predictor", "labels": OURS}
    api.put("deployments", {"metadata": meta, "spec": {"replicas": 1}, "status": {"readyReplicas": 1}})
    if annotations.get(autoscaler.CLASS) == "hpa":
        api.put("horizontalpodautoscalers", {"metadata": meta, "status": {"desiredReplicas": 1}})
    ScriptedPod(api, f"{OLD}-a", OLD).up()


def test_one_scenario_has_the_lengths_and_limits_of_the_autoscaler_that_is_there(
    api: KubernetesApi, tmp_path: Path
) -> None:
    """A person's own scenario; the console, the page and the summary say which apply."""
    standard(api, HPA, minReplicas=1, maxReplicas=4, scaleTarget=60)
    section = {"hpa": {"phases": {"burst": {"seconds": 2}}, "slo": {"detect_seconds": 9, "zero_seconds": None},
                       "cluster": {"to_zero_seconds": None}}}  # fmt: skip
    phases = [{"name": "baseline", "seconds": 1, "rate": 1}, {"name": "burst", "seconds": 300, "rate": 1}]
    slo = {"p95_ms": 500, "detect_seconds": 1, "zero_seconds": 1}
    file = scenario(tmp_path, phases=phases, slo=slo, cluster={"to_zero_seconds": 300}, by_autoscaler=section)
    with stub_server.running() as url:
        done = run(tmp_path, "locust", *options(url, api, file, tmp_path))
    summary = summary_of(tmp_path, done)
    assert [(phase.start, phase.end) for phase in summary.phases] == [(0, 1), (1, 3)]
    assert (summary.slo.detect_seconds, summary.slo.zero_seconds) == (9, None)
    found = cluster_of(summary)
    assert (found.scaled_by, found.limits_of) == (CPU, "hpa")
    said = "HPA on cpu, target 60, 1 to 4 replicas"
    assert f"{said}: lengths and limits are the scenario's for hpa" in done.stderr
    for text in (report.page(summary), markdown.report(summary)):
        assert f"Scaled by {said}." in text
        assert "for hpa." in text
    assert "waiting for no replica" not in done.stderr


def test_what_can_not_pass_is_said_before_there_is_any_load(api: KubernetesApi, tmp_path: Path) -> None:
    standard(api, {**STANDARD, autoscaler.CLASS: "none"}, minReplicas=1)
    given = ["-f", "loadtests/locustfile.py", "--headless", "--scenario", "scale-up", "--rate", 50]
    given += ["--out", tmp_path / "load", "--cluster", f"{NAMESPACE}/{SERVICE}"]
    given += ["--kubeconfig", kubeconfig(api, tmp_path), "--host", "http://127.0.0.1:9"]  # nobody is there to be asked
    done = run(tmp_path, "locust", *given)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith(
        f"error: --cluster: scale-up {ALWAYS}no autoscaler: always 1 replica; expected an autoscaler"
    )
    assert not list(tmp_path.glob("load/*"))


def test_an_unknown_autoscaler_leaves_a_scenario_as_it_is() -> None:
    loaded = scenarios.load("scale-up")
    assert "not known" in autoscaling.described(loaded, None)
    autoscaling.check("scale-up", loaded.fitted(None), None)
    assert autoscaling.described(loaded, KPA) == f"{KPA}: lengths and limits are those for any autoscaler"
    assert autoscaling.described(loaded, ScaledBy(kind="KEDA")).endswith("the scenario's for hpa")


def test_runs_under_other_autoscalers_are_not_the_same_run() -> None:
    """Another length, another limit: their comparison is refused with what differs."""
    loaded = scenario_of("kpa-scale-up").model_copy(update={"by_autoscaler": scenarios.load("scale-up").by_autoscaler})

    def measured(limits: Any) -> Any:
        plan = Plan(loaded.fitted(limits), 2, 1)
        watched = Watched(SERVICE, [scale("Deployment")], plan.seconds, limits)
        return summarise(run_of(plan, answered(plan.times), watched=watched), "scale-up", ENVIRONMENT)

    against = objections([measured(None)], [measured("hpa")])
    assert {text.partition(":")[0] for text in against} >= {"phases", "SLO"}
    alike = objections([measured("hpa")], [measured("hpa")])
    assert {text.partition(":")[0] for text in alike} <= {"a run is given twice; expected each once", "load"}
