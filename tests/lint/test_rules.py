"""Each rule finds what it is for in a good manifest with one small change, and nothing in the good one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import yaml

from defects.lint.resources import MODE, Options
from defects.lint.rule import LEVELS
from defects.lint.table import IGNORE, RULES
from linted import CUSTOM, IRIS, LARGE, Document, failing, ids, lint, lint_documents
from manifests import container, only, overlay, predictor, render, settings

DIGEST = "sha256:" + "3" * 64
IMAGE = {"name": "defect-classifier", "newName": "registry.example.com/defects", "digest": DIGEST}
DUPLEX = "features.knative.dev/http-full-duplex"
BURST = "autoscaling.knative.dev/target-burst-capacity"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
SIDECAR = {"name": "proxy", "image": f"registry.example.com/proxy@{DIGEST}"}
ELSEWHERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Document]]:
    """Return a function that makes a good manifest: rendered ones of this project, by mode, and ones by others."""
    scratch = tmp_path_factory.mktemp("good")

    @cache
    def made(name: str) -> list[Document]:
        if name in ("knative", "standard"):
            documents = render(overlay(scratch, name, "network-policy", images=[IMAGE], namespace="defects"))
            notes = only(documents, "InferenceService")["metadata"]["annotations"]
            if name == "knative":
                notes |= {DUPLEX: "Enabled", BURST: "0"}
            return documents
        loaded = filter(None, yaml.safe_load_all({"iris": IRIS, "large": LARGE, "custom": CUSTOM}[name]))
        return [item for document in loaded for item in document.get("items", [document])]

    return lambda name: copy.deepcopy(made(name))


def set_(where: str, value: Any) -> Callable[[list[Document]], None]:
    """Return a change of the predictor's field `a.b`, its container's `box.a.b`, or an annotation `note KEY`."""

    def change(documents: list[Document]) -> None:
        service = next(d for d in documents if d["kind"] == "InferenceService")
        target: Any = service["spec"]["predictor"]
        kind, _, key = where.partition(" ")
        if kind == "note":
            target, path = service["metadata"].setdefault("annotations", {}), [key]
        elif kind == "spec":
            target, path = service["spec"], [key]
        else:
            path = where.split(".")
        if path[0] == "box":
            target, path = target["containers"][0], path[1:]
        for name in path[:-1]:
            target = target.setdefault(name, {})
        if value is None:
            target.pop(path[-1], None)
        else:
            target[path[-1]] = value

    return change


def both(*changes: Callable[[list[Document]], None]) -> Callable[[list[Document]], None]:
    def change(documents: list[Document]) -> None:
        for each in changes:
            each(documents)

    return change


def setting(name: str, value: str) -> Callable[[list[Document]], None]:
    """Return a change of the server's ConfigMap."""

    def change(documents: list[Document]) -> None:
        name_ = container(documents)["envFrom"][0]["configMapRef"]["name"]
        next(d for d in documents if d["metadata"]["name"] == name_ and d["kind"] == "ConfigMap")["data"][name] = value

    return change


def variable(name: str, value: str) -> Callable[[list[Document]], None]:
    def change(documents: list[Document]) -> None:
        predictor(documents)["containers"][0].setdefault("env", []).append({"name": name, "value": value})

    return change


def secret(name: str) -> Callable[[list[Document]], None]:
    """Return a change that takes a variable from a Secret."""
    key = {"secretKeyRef": {"name": "database", "key": "url"}}

    def change(documents: list[Document]) -> None:
        predictor(documents)["containers"][0]["env"].append({"name": name, "valueFrom": key})

    return change


def sidecar(documents: list[Document]) -> None:
    predictor(documents)["containers"].append(dict(SIDECAR))


def policy(direction: str, rules: Any) -> Callable[[list[Document]], None]:
    def change(documents: list[Document]) -> None:
        only(documents, "NetworkPolicy")["spec"][direction] = rules

    return change


def rules_without(port: int) -> Callable[[list[Document]], None]:
    """Return a change that takes a port out of the policy's ingress rules."""

    def change(documents: list[Document]) -> None:
        spec = only(documents, "NetworkPolicy")["spec"]
        for rule in spec["ingress"]:
            rule["ports"] = [each for each in rule["ports"] if each["port"] != port]
        spec["ingress"] = [rule for rule in spec["ingress"] if rule["ports"]]

    return change


def model_of_ours(documents: list[Document]) -> None:
    """Ask for a model by its format, with our server as its image."""
    spec = predictor(documents)
    (box,) = spec.pop("containers")
    del box["name"]
    spec["model"] = box | {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://models/a"}


def runtime_of_ours(documents: list[Document]) -> None:
    box = container(documents)
    formats = [{"name": "defects", "autoSelect": True}, {"name": "sklearn"}]
    spec = {"supportedModelFormats": formats, "containers": [box]}
    documents.append(
        {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ServingRuntime", "metadata": {"name": "x"}, "spec": spec}
    )


class Case(NamedTuple):
    rule: str
    base: str
    change: Callable[[list[Document]], None]
    options: Options = Options()


SCALED = both(set_("maxReplicas", 4), set_("scaleMetric", "concurrency"), set_("scaleTarget", 12))
CANARY = [{"trafficPercent": 10, "predictor": {"name": "next"}}]
FOUND = [
    Case("mode-missing", "knative", set_(f"note {MODE}", None)),
    Case("mode-missing", "iris", lambda _: None),
    Case("mode-unknown", "standard", set_(f"note {MODE}", "standard")),
    Case("mode-unknown", "standard", set_(f"note {MODE}", ["Standard"])),
    Case("mode-old-name", "standard", set_(f"note {MODE}", "RawDeployment")),
    Case("canary-percent-standard", "standard", set_("canaryTrafficPercent", 10)),
    Case("canary-percent-standard", "large", set_("canaryTrafficPercent", 0)),
    Case("canary-splits-nothing", "large", set_("spec canary", CANARY)),
    Case("canary-refused", "standard", set_("spec canary", CANARY)),
    Case("canary-refused", "custom", set_("spec canary", CANARY)),
    Case("canary-rounding", "large", set_("spec canary", CANARY)),
    Case("rollout-beside-tags", "knative", set_("note serving.knative.dev/rollout-duration", "120s")),
    Case("knative-refuses", "knative", set_("containerConcurrency", 1001)),
    Case("knative-refuses", "knative", set_("timeout", 601)),
    Case("knative-refuses", "custom", variable("PORT", "8080")),
    Case("knative-refuses", "custom", set_("box.ports", [{"containerPort": 8080}, {"containerPort": 9000}])),
    Case("knative-refuses", "custom", set_("box.ports", [{"containerPort": 8080, "name": "http"}])),
    Case("knative-drops", "knative", set_("terminationGracePeriodSeconds", 90)),
    Case("knative-drops", "custom", set_("box.lifecycle", {"preStop": {"sleep": {"seconds": 5}}})),
    Case("concurrency-in-standard", "standard", set_("containerConcurrency", 8)),
    Case("http-full-duplex", "knative", set_(f"note {DUPLEX}", None)),
    Case("http-full-duplex", "knative", set_(f"note {DUPLEX}", "true")),
    Case("http-full-duplex-other", "custom", set_(f"note {DUPLEX}", None)),
    Case("kpa-concurrency", "knative", SCALED),
    Case("kpa-concurrency", "knative", both(SCALED, set_("scaleTarget", 1))),
    Case("kpa-concurrency", "knative", set_("maxReplicas", None)),
    Case("kpa-concurrency", "custom", set_("scaleTarget", 5), Options(capacity=0.1, service_seconds=5.0)),
    Case("kpa-default-target", "custom", set_("containerConcurrency", 0)),
    Case("hpa-no-metric", "large", set_("scaleMetric", "concurrency")),
    Case("hpa-no-metric", "large", both(set_("scaleMetric", "memory"), set_(f"note {AUTOSCALER}", "hpa"))),
    Case("hpa-no-request", "standard", both(sidecar, set_("maxReplicas", 3), set_(f"note {AUTOSCALER}", "hpa"))),
    Case("hpa-no-maximum", "large", both(set_("maxReplicas", None), set_("scaleTarget", 60))),
    Case("hpa-behavior", "large", set_("autoScaling", {"behavior": {"scaleDown": {}}})),
    Case("keda-interval", "large", set_(f"note {AUTOSCALER}", "keda")),
    Case("autoscaler-none", "standard", set_("scaleMetric", "cpu")),
    Case("autoscaler-none", "large", both(set_(f"note {AUTOSCALER}", "external"), set_("scaleTarget", 60))),
    Case("standard-zero", "standard", set_("minReplicas", 0)),
    Case("standard-zero", "large", set_("minReplicas", 0)),
    Case("autoscaler-class-knative", "custom", set_(f"note {AUTOSCALER}", "hpa")),
    Case("knative-annotation-standard", "large", set_(f"note {BURST}", "0")),
    Case("knative-annotation-standard", "standard", set_("annotations", {"autoscaling.knative.dev/target": "5"})),
    Case("burst-capacity", "knative", set_(f"note {BURST}", None)),
    Case("burst-capacity", "knative", set_(f"note {BURST}", "-1")),
    Case("readiness-missing", "custom", set_("box.readinessProbe", None)),
    Case("liveness-missing", "custom", set_("box.livenessProbe", None)),
    Case("liveness-on-readiness", "standard", set_("box.livenessProbe.httpGet.path", "/readyz")),
    Case("liveness-on-readiness", "custom", set_("box.livenessProbe.httpGet.path", "/v2/health/ready")),
    Case("startup-on-readiness", "knative", set_("box.startupProbe.httpGet.path", "/readyz")),
    Case("probe-too-short", "standard", set_("box.resources.limits.cpu", "10m")),
    Case("probe-too-short", "standard", variable("DEFECTS_MODEL_WAIT_SECONDS", "60")),
    Case("probe-too-short", "standard", lambda _: None, Options(start_seconds=31)),
    Case("probe-too-short", "custom", set_("box.livenessProbe.initialDelaySeconds", 5), Options(start_seconds=60)),
    Case("initial-delay", "knative", set_("box.readinessProbe.initialDelaySeconds", 10)),
    Case("probe-port-name", "knative", set_("box.startupProbe.httpGet.port", "http1")),
    Case("image-latest", "knative", set_("box.image", "registry.example.com/defects")),
    Case("image-latest", "standard", set_("box.image", "localhost:5000/defects:latest")),
    Case("image-tag", "standard", set_("box.image", "localhost:5000/defects:1.2")),
    Case("image-tag", "large", lambda _: None),
    Case("image-placeholder", "knative", set_("box.image", "registry.invalid/defects")),
    Case("setting", "standard", setting("DEFECTS_QUEUED_ROWS", "9")),
    Case("setting", "knative", setting("DEFECTS_DRAIN_SECONDS", "soon")),
    Case("grace-too-short", "standard", setting("DEFECTS_FINISH_SECONDS", "60")),
    Case("grace-too-short", "standard", set_("terminationGracePeriodSeconds", 20)),
    Case("grace-too-short", "knative", set_("timeout", 40)),
    Case("grace-too-short", "knative", setting("DEFECTS_DRAIN_SECONDS", "9")),
    Case("memory-too-small", "standard", set_("box.resources.limits.memory", "256Mi")),
    Case("memory-too-small", "knative", setting("DEFECTS_MAX_BODIES_BYTES", "4000000000")),
    Case("sklearn-format", "standard", model_of_ours),
    Case("sklearn-format", "knative", runtime_of_ours),
    Case("batcher", "knative", set_("batcher", {"maxBatchSize": 32})),
    Case("batcher-other", "custom", set_("batcher", {"maxBatchSize": 32})),
    Case("policy-blocks-requests", "knative", policy("ingress", [])),
    Case("policy-blocks-requests", "knative", policy("ingress", [{"ports": [{"port": 3000}]}])),
    Case("policy-blocks-requests", "knative", policy("ingress", [{"from": [ELSEWHERE]}])),
    Case("policy-blocks-requests", "standard", rules_without(3000)),
    Case("policy-blocks-requests", "standard", both(set_("logger", {"mode": "all"}), rules_without(9081))),
    Case("policy-blocks-autoscaler", "knative", rules_without(9090)),
    Case("policy-blocks-egress", "knative", variable("STORAGE_URI", "s3://models/a")),
    Case("policy-blocks-egress", "standard", set_("logger", {"url": "http://sink.example"})),
    Case(
        "policy-blocks-egress",
        "standard",
        both(variable("STORAGE_URI", "gs://a/b"), policy("egress", [{"ports": [{"port": 53, "protocol": "UDP"}]}])),
    ),
    Case("policy-blocks-egress", "knative", secret("DEFECTS_DATABASE_URL")),
    Case("policy-blocks-egress", "standard", setting("MODEL_URI", "s3://models/a")),
    Case("policy-blocks-egress", "standard", variable("DEFECTS_CACHE_URL", "redis://cache:6379")),
    Case("password-in-manifest", "knative", setting("DEFECTS_DATABASE_URL", "postgresql://me:secret@db/history")),
    Case("password-in-manifest", "standard", variable("DEFECTS_CACHE_URL", "redis://:secret@cache:6379/0")),
    Case("ignore-unknown", "standard", set_(f"note {IGNORE}", "image-tag, no-such-rule")),
]
NOT_FOUND = [
    Case("mode-missing", "iris", lambda _: None, Options(default_mode="Standard")),
    Case("kpa-concurrency", "knative", both(SCALED, set_("scaleMetric", "rps"))),
    Case("kpa-concurrency", "knative", both(SCALED, set_("maxReplicas", 1))),
    Case("kpa-concurrency", "knative", both(SCALED, set_("note autoscaling.knative.dev/class", "hpa.autoscaling.x"))),
    Case("kpa-concurrency", "knative", SCALED, Options(capacity=1000, service_seconds=0.5)),
    Case("kpa-concurrency", "custom", lambda _: None),
    Case("http-full-duplex", "knative", both(set_(f"note {DUPLEX}", None), set_("annotations", {DUPLEX: "enabled"}))),
    Case("burst-capacity", "custom", lambda _: None),
    Case("image-latest", "standard", set_("box.image", "dev.local/defects")),
    Case("image-latest", "standard", both(set_("box.image", "mine"), set_("box.imagePullPolicy", "Never"))),
    Case("image-tag", "standard", set_("box.image", f"localhost:5000/defects:1@{DIGEST}")),
    Case("liveness-on-readiness", "custom", set_("box.livenessProbe.httpGet.path", "/healthz")),
    Case("probe-too-short", "standard", set_("box.resources.limits", {"memory": "1Gi"})),
    Case("probe-too-short", "custom", set_("box.livenessProbe.initialDelaySeconds", 0)),
    Case("grace-too-short", "standard", set_("terminationGracePeriodSeconds", None)),
    Case("memory-too-small", "standard", set_("box.resources", None)),
    Case("hpa-no-request", "standard", both(sidecar, set_(f"note {AUTOSCALER}", "none"))),
    Case("hpa-no-request", "large", both(set_("maxReplicas", 3), set_("containers", [{"name": "kserve-container"}]))),
    Case("hpa-no-maximum", "standard", set_("maxReplicas", None)),
    Case("standard-zero", "knative", set_("minReplicas", 0)),
    Case("canary-percent-standard", "knative", set_("canaryTrafficPercent", 10)),
    Case("sklearn-format", "iris", lambda _: None),
    Case("policy-blocks-egress", "knative", variable("STORAGE_URI", "pvc://models/a")),
    Case("policy-blocks-egress", "knative", both(variable("STORAGE_URI", "s3://a/b"), policy("egress", [{}]))),
    Case("policy-blocks-egress", "knative", setting("DEFECTS_DATABASE_URL", "sqlite:////tmp/history.db")),
    Case("policy-blocks-egress", "knative", both(secret("DEFECTS_DATABASE_URL"), policy("egress", [{}]))),
    Case("password-in-manifest", "knative", secret("DEFECTS_DATABASE_URL")),
    Case("password-in-manifest", "knative", setting("DEFECTS_DATABASE_URL", "postgresql://me@db:5432/history")),
    Case("policy-blocks-requests", "knative", policy("ingress", [{}])),
    Case("policy-blocks-requests", "standard", policy("ingress", [{"ports": [{"port": 1024, "endPort": 65535}]}])),
    Case("policy-blocks-requests", "standard", policy("ingress", [{"ports": [{"port": "http1"}]}])),
    Case("policy-blocks-requests", "standard", policy("podSelector", {"matchLabels": {"app": "another"}})),
    Case("policy-blocks-autoscaler", "knative", policy("policyTypes", ["Egress"])),
]


def names(cases: list[Case]) -> list[str]:
    return [f"{number}-{case.rule}-{case.base}" for number, case in enumerate(cases)]


@pytest.mark.parametrize("case", FOUND, ids=names(FOUND))
def test_each_rule_finds_what_it_is_for(case: Case, good: Callable[[str], list[Document]]) -> None:
    documents = good(case.base)
    before = lint_documents(documents)
    case.change(documents)
    found = lint_documents(documents, case.options)
    assert case.rule in ids(found), [f.message for f in found]
    if documents != good(case.base) or case.options != Options():
        assert case.rule not in ids(before) or case.base == "iris"
    for finding in found:
        assert finding.field.line >= 1
        assert finding.field.path
        assert finding.message


@pytest.mark.parametrize("case", NOT_FOUND, ids=names(NOT_FOUND))
def test_no_rule_finds_what_is_right(case: Case, good: Callable[[str], list[Document]]) -> None:
    documents = good(case.base)
    case.change(documents)
    assert case.rule not in ids(lint_documents(documents, case.options))


def test_every_rule_has_a_case_and_all_that_people_need() -> None:
    assert {case.rule for case in FOUND} == {rule.id for rule in RULES}
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.level in LEVELS
        assert all(text.strip() == text and "  " not in text for text in (rule.summary, rule.reason, rule.fix))
        assert all((rule.summary, rule.reason, rule.versions, rule.fix))


@pytest.mark.parametrize("name", ["knative", "standard", "large", "custom"])
def test_good_manifests_have_no_findings(name: str, good: Callable[[str], list[Document]]) -> None:
    assert failing(lint_documents(good(name))) == []


def test_no_password_is_printed(good: Callable[[str], list[Document]]) -> None:
    documents = good("knative")
    setting("DEFECTS_DATABASE_URL", "postgresql://me:hunter2@db/history")(documents)
    found = lint_documents(documents)
    assert "password-in-manifest" in ids(found)
    assert "hunter2" not in "".join(finding.message for finding in found)


def test_an_annotation_or_an_option_silences_a_rule(good: Callable[[str], list[Document]]) -> None:
    documents = good("knative")
    both(SCALED, set_("timeout", 40))(documents)
    assert ids(lint_documents(documents)) >= {"kpa-concurrency", "grace-too-short"}
    set_(f"note {IGNORE}", "kpa-concurrency,grace-too-short")(documents)
    assert ids(lint_documents(documents)).isdisjoint({"kpa-concurrency", "grace-too-short"})
    assert ids(lint(IRIS)) == {"mode-missing"}
    assert ids(lint(IRIS, ignored=["mode-missing"])) == set()


def test_each_inference_service_is_looked_at_with_what_is_its_own(good: Callable[[str], list[Document]]) -> None:
    """The same names in two namespaces, with other settings in each."""
    here, there = good("standard"), good("standard")
    for document in there:
        document["metadata"]["namespace"] = "elsewhere"
    setting("DEFECTS_FINISH_SECONDS", "60")(there)
    found = [f for f in lint_documents(here + there) if f.rule.id == "grace-too-short"]
    assert [(f.resource.namespace, f.resource.name) for f in found] == [("elsewhere", "defect-classifier")]
    assert settings(here) != settings(there)


def test_places_are_those_of_the_source() -> None:
    (found,) = lint("# by hand\n---\n" + CUSTOM.replace("containerConcurrency: 1", "containerConcurrency: 5000"))
    lines = CUSTOM.splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "containerConcurrency" in text)
    assert (found.field.line, found.field.path) == (line + 2, "spec.predictor.containerConcurrency")
    (found,) = [f for f in lint(LARGE) if "why:1.4" in f.message]
    assert found.field.path == "items[0].spec.explainer.containers[0].image"
    assert found.origin == ("test.yaml", 1, "InferenceService", "vision", "digits")


def test_an_object_of_a_cluster_says_its_mode_in_its_status() -> None:
    assert "mode-missing" in ids(lint(IRIS))
    assert ids(lint(f"{IRIS}status: {{deploymentMode: Standard}}\n")) == set()


def test_a_policy_that_lets_nothing_in_is_found_whatever_the_mode_and_the_port_are() -> None:
    deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: models}\n"
    for mode in (None, "Knative", "Standard"):
        found = lint(f"{IRIS}---\n{deny}spec: {{podSelector: {{}}}}\n", Options(default_mode=mode))
        assert "policy-blocks-requests" in ids(found), mode


def test_what_is_wrong_with_another_object_is_found_there(good: Callable[[str], list[Document]]) -> None:
    documents = good("knative")
    policy("ingress", [])(documents)
    found = next(f for f in lint_documents(documents) if f.rule.id == "policy-blocks-requests")
    number = next(n for n, d in enumerate(documents, 1) if d["kind"] == "NetworkPolicy")
    assert found.origin == ("test.yaml", number, "NetworkPolicy", "defects", "defect-classifier")
    assert found.resource.kind == "InferenceService"


def runs_ours(documents: list[Document], name: str) -> None:
    """Add an InferenceService that the runtime of `runtime_of_ours` runs."""
    spec = {"predictor": {"model": {"modelFormat": {"name": "defects"}, "storageUri": "pvc://models/a"}}}
    metadata = {"name": name, "annotations": {MODE: "Knative"}}
    head = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService"}
    documents.append(head | {"metadata": metadata, "spec": spec})


def test_a_runtime_of_ours_makes_its_models_ours_and_is_reported_once(good: Callable[[str], list[Document]]) -> None:
    documents = good("knative")
    box = container(documents)
    box["env"] = [*box["env"], {"name": "DEFECTS_QUEUED", "value": "1"}]
    runtime_of_ours(documents)
    documents[-1]["spec"]["containers"] = [box]
    for name in ("one", "two"):
        runs_ours(documents, name)
    documents = [d for d in documents if d["metadata"]["name"] != "defect-classifier"]
    found = lint_documents(documents)
    assert [f.origin.kind for f in found if f.rule.id == "setting"] == ["ServingRuntime"]
    assert [f.resource.name for f in found if f.rule.id == "http-full-duplex"] == ["one", "two"]
    documents[-3]["spec"]["annotations"] = {DUPLEX: "Enabled"}  # the runtime's reach the pods too
    assert "http-full-duplex" not in ids(lint_documents(documents))
