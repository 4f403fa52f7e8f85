"""Every overlay and every combination of components renders, and is what KServe, Knative and the server take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

import manifests
from conftest import ROOT, Serve, Server
from defects import artifact
from defects.settings import PREFIX, Settings
from manifests import Document, container, only, overlay, predictor, render, settings

OVERLAYS = ("local", "staging", "production")
NEITHER = ("network-policy", "disruption-budget", "topology-spread")
MODES = {
    "knative": ("autoscale-rate", "scale-to-zero", "canary", *NEITHER),
    "standard": ("autoscale-cpu", *NEITHER),
}
RETRIES = ("retry-envoy-gateway", "retry-ingress-nginx")  # of the Standard mode, one of them, by its gateway
HISTORY = ("history", "network-policy-history", "history-prune")  # of both modes
LOAD_TESTS = ("load-test-reader", "load-test", "load-test-distributed")  # each has what those before it have
QUEUE_PROXY_SECONDS = 30  # without a request, before Knative lets the server have its SIGTERM
RECORDED_ROWS_PER_S = 45 * 256  # that one replica held on a real cluster: tests/kserve/recordings
README = (ROOT / "kserve" / "README.md").read_text("utf-8")


def subsets(extras: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [chosen for size in range(len(extras) + 1) for chosen in combinations(extras, size)]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    """The base, the overlays, and each mode with every subset of what goes with it, or with a load test."""
    scratch = tmp_path_factory.mktemp("kserve")
    found = {"base": render("base")} | {name: render(f"overlays/{name}") for name in OVERLAYS}
    for mode, extras in MODES.items():
        for chosen in subsets(extras):
            found[" ".join((mode, *chosen))] = render(overlay(scratch, mode, *chosen))
        for name in (*LOAD_TESTS, *(RETRIES if mode == "standard" else ())):
            found[f"{mode} {name}"] = render(overlay(scratch, mode, name))
        for chosen in subsets(HISTORY)[1:]:
            for others in ((), extras):
                found[" ".join((mode, *others, *chosen))] = render(overlay(scratch, mode, *others, *chosen))
    return found


@pytest.fixture(scope="module")
def service() -> Document:
    return only(render("base"), "InferenceService")


def test_there_is_no_other_overlay_or_component() -> None:
    def folders(name: str) -> set[str]:
        return {folder.name for folder in (ROOT / "kserve" / name).iterdir()}

    assert folders("overlays") == set(OVERLAYS)
    assert folders("components") == set(MODES).union(*MODES.values(), LOAD_TESTS, RETRIES, HISTORY)


def test_every_inference_service_has_only_fields_of_kserve(rendered: dict[str, list[Document]]) -> None:
    services = {name: only(documents, "InferenceService") for name, documents in rendered.items()}
    assert {(s["apiVersion"], s["kind"]) for s in services.values()} == {
        ("serving.kserve.io/v1beta1", "InferenceService")
    }
    problems = dict(zip(services, manifests.sdk_problems(list(services.values())), strict=True))
    assert {name: found for name, found in problems.items() if found} == {}


def test_everything_else_is_valid_for_kubernetes(rendered: dict[str, list[Document]]) -> None:
    documents = {json.dumps(document) for found in rendered.values() for document in found}
    others = [d for d in map(json.loads, documents) if d["kind"] != "InferenceService"]
    assert [problem for document in others for problem in manifests.kubernetes_problems(document)] == []


def test_kserves_and_knatives_webhooks_would_take_it(rendered: dict[str, list[Document]]) -> None:
    for name, documents in rendered.items():
        found = only(documents, "InferenceService")
        assert manifests.kserve_problems(found) == [], name
        if found["metadata"]["annotations"][manifests.MODE] == "Knative":
            flagged = [p for p in manifests.knative_problems(found) if p.split(":")[0] not in manifests.FLAGGED]
            assert flagged == [], name
        needs_flag = manifests.FLAGGED.keys() & found["spec"]["predictor"].keys()
        assert needs_flag == ({"topologySpreadConstraints"} if "topology-spread" in name else set()), name


def test_the_deployment_mode_is_always_said(rendered: dict[str, list[Document]]) -> None:
    for name, documents in rendered.items():
        mode = only(documents, "InferenceService")["metadata"]["annotations"][manifests.MODE]
        assert mode == ("Standard" if "standard" in name or name == "local" else "Knative"), name


def test_the_check_of_types_notices_mistakes(service: Document) -> None:
    box = ("spec", "predictor", "containers", 0)
    mistakes: list[tuple[tuple[Any, ...], Any, str]] = [
        (("spec", "predictr"), {}, "InferenceService.spec.predictr: unknown field"),
        ((*box, "imagee"), "x", "containers[0].imagee: unknown field"),
        ((*box, "ports", 0, "containerPort"), "3000", "containerPort: expected int"),
    ]
    found = manifests.sdk_problems([changed(service, path, value) for path, value, _ in mistakes])
    for (problem,), (*_, expected) in zip(found, mistakes, strict=True):
        assert problem.endswith(expected)


def changed(document: Document, path: tuple[Any, ...], value: Any) -> Document:
    copy: Document = json.loads(json.dumps(document))
    target: Any = copy
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    return copy


KNATIVE_REFUSES: list[tuple[tuple[Any, ...], Any, str]] = [
    (("securityContext",), {"runAsNonRoot": True}, "securityContext"),
    (("terminationGracePeriodSeconds",), 30, "terminationGracePeriodSeconds"),
    (("nodeSelector",), {"disk": "ssd"}, "nodeSelector"),
    (("topologySpreadConstraints",), [], "topologySpreadConstraints"),
    (("automountServiceAccountToken",), True, "automountServiceAccountToken"),
    (("timeout",), 601, "timeout"),
    (("containerConcurrency",), 8192, "containerConcurrency"),
    (("containers", 0, "lifecycle"), {}, "containers.lifecycle"),
    (("containers", 0, "securityContext", "procMount"), "Default", "containers.securityContext.procMount"),
    (("containers", 0, "startupProbe", "httpGet", "port"), "http1", "probes"),
    (("containers", 0, "ports", 0, "name"), "http", "ports"),
    (("containers", 0, "env", 0), {"name": "PORT", "value": "3000"}, "env"),
    (("containers", 0, "env", 0), {"name": "A", "valueFrom": {"fieldRef": {}}}, "containers.env.valueFrom.fieldRef"),
    (("containers", 0, "volumeMounts"), [], "volumes"),
    (("volumes", 0), {"name": "tmp", "hostPath": {"path": "/srv"}}, "volumes.hostPath"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value", "field"), KNATIVE_REFUSES, ids=[field for *_, field in KNATIVE_REFUSES])
def test_the_check_for_knative_notices_mistakes(
    service: Document, path: tuple[Any, ...], value: Any, field: str
) -> None:
    problems = manifests.knative_problems(changed(service, ("spec", "predictor", *path), value))
    assert field in [problem.split(":")[0] for problem in problems]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("metadata", "name"), "9-lives", "metadata.name"),
        (("metadata", "annotations", manifests.MODE), "Serverless", manifests.MODE),
        (("metadata", "annotations", manifests.AUTOSCALER), "kpa", manifests.AUTOSCALER),
        (("spec", "predictor", "minReplicas"), 2, "replicas"),
        (("spec", "predictor", "canaryTrafficPercent"), 101, "canaryTrafficPercent"),
        (("spec", "predictor", "scaleMetric"), "cpu", "scaleMetric"),
        (("spec", "predictor", "deploymentStrategy"), {"type": "Recreate"}, "deploymentStrategy"),
        (("spec", "predictor", "containers", 0, "env", 0, "name"), "PYTHONPATH", "containers[0].env"),
    ],
)
def test_the_check_for_kserve_notices_mistakes(
    service: Document, path: tuple[Any, ...], value: Any, field: str
) -> None:
    problems = manifests.kserve_problems(changed(service, path, value))
    assert field in [problem.split(":")[0] for problem in problems]


def test_the_check_for_kubernetes_notices_mistakes() -> None:
    account = only(render("base"), "ServiceAccount")
    assert manifests.kubernetes_problems(account) == []
    assert manifests.kubernetes_problems(account | {"automount": True})
    assert manifests.kubernetes_problems(account | {"kind": "ServiceAcount"})


@pytest.mark.parametrize(
    "components",
    [
        ("knative", "standard"),
        ("standard", "knative"),
        ("knative", "autoscale-cpu"),
        ("standard", "autoscale-rate"),
        ("standard", "scale-to-zero"),
        ("standard", "canary"),
        ("knative", "retry-envoy-gateway"),
        ("knative", "retry-ingress-nginx"),
    ],
    ids=" ".join,
)
def test_what_does_not_go_together_does_not_render(tmp_path: Path, components: tuple[str, ...]) -> None:
    done = manifests.kustomize(overlay(tmp_path, *components))
    assert done.returncode != 0
    assert f"components/{components[1]}'" in done.stderr
    assert "test failed" in done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_other_components_does_not_matter(tmp_path: Path, mode: str) -> None:
    one_way = render(overlay(tmp_path, mode, *MODES[mode]))
    assert render(overlay(tmp_path, mode, *reversed(MODES[mode]))) == one_way


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_historys_components_does_not_matter_either(tmp_path: Path, mode: str) -> None:
    def documents(*components: str) -> list[Document]:
        rendered = render(overlay(tmp_path, mode, *components))
        return sorted(rendered, key=lambda document: (document["kind"], document["metadata"]["name"]))

    others = (*MODES[mode], *HISTORY)
    assert documents(*reversed(others)) == documents(*others)


@pytest.mark.parametrize("mode", MODES)
def test_names_are_rewritten_wherever_they_stand(tmp_path: Path, mode: str) -> None:
    documents = render(
        overlay(
            tmp_path, mode, *MODES[mode],
            namePrefix="north-",
            namespace="sorting",
            secretGenerator=[{"name": "defect-classifier-secrets", "literals": ["DEFECTS_MODEL_DIGEST=x"]}],
        )
    )  # fmt: skip
    assert {d["metadata"]["namespace"] for d in documents} == {"sorting"}
    names = {d["kind"]: d["metadata"]["name"] for d in documents}
    assert names["InferenceService"] == "north-defect-classifier"
    assert re.fullmatch("north-defect-classifier-settings-[a-z0-9]{10}", names["ConfigMap"])
    assert container(documents)["envFrom"] == [
        {"configMapRef": {"name": names["ConfigMap"]}},
        {"secretRef": {"name": names["Secret"], "optional": True}},
    ]
    spec = predictor(documents)
    assert spec["serviceAccountName"] == names["ServiceAccount"] == "north-defect-classifier"
    ours = {"matchLabels": {"serving.kserve.io/inferenceservice": names["InferenceService"]}}
    assert only(documents, "PodDisruptionBudget")["spec"]["selector"] == ours
    predictors = {"matchLabels": ours["matchLabels"] | {"component": "predictor"}}
    assert only(documents, "NetworkPolicy")["spec"]["podSelector"] == predictors
    assert [constraint["labelSelector"] for constraint in spec["topologySpreadConstraints"]] == [ours, ours]


def test_images_are_rewritten_and_a_changed_setting_is_a_new_revision(tmp_path: Path) -> None:
    before = render("base")
    digest = "sha256:" + "a" * 64
    documents = render(
        overlay(
            tmp_path,
            "knative",
            images=[{"name": "defect-classifier", "newName": "registry/defects", "digest": digest}],
            configMapGenerator=[
                {"name": "defect-classifier-settings", "behavior": "merge", "literals": ["DEFECTS_LOG_LEVEL=error"]}
            ],
        )
    )
    assert container(documents)["image"] == f"registry/defects@{digest}"
    assert settings(documents)["DEFECTS_LOG_LEVEL"] == "error"
    assert container(documents)["envFrom"][0] != container(before)["envFrom"][0]


def from_elsewhere(variable: Document) -> str:
    """What a variable could have, whose value is a Secret's or a field's."""
    return "postgresql://database/defects" if variable["name"] == "DEFECTS_DATABASE_URL" else "from-a-field"


def test_every_revision_gets_settings_that_the_server_takes(rendered: dict[str, list[Document]]) -> None:
    for documents in rendered.values():
        box = container(documents)
        given = {v["name"]: v.get("value", from_elsewhere(v)) for v in box["env"]}
        taken = Settings.from_environment(settings(documents) | given)
        assert taken.served_name == box["image"].rpartition("/")[2].partition(":")[0]
        assert [port["containerPort"] for port in box["ports"]] == [taken.port]


def test_a_replica_has_the_time_that_its_end_takes(rendered: dict[str, list[Document]]) -> None:
    for name, documents in rendered.items():
        spec, configured = predictor(documents), Settings.from_environment(settings(documents))
        needed = configured.drain_seconds + configured.finish_seconds + 2
        if "deploymentStrategy" in spec:
            assert spec["terminationGracePeriodSeconds"] >= needed, name
        else:  # where Knative makes the timeout the grace period
            assert spec["timeout"] >= QUEUE_PROXY_SECONDS + needed, name
        assert spec["timeout"] * 1000 > configured.request_timeout_ms, name


def test_no_queue_is_in_front_of_the_servers_own(rendered: dict[str, list[Document]]) -> None:
    for documents in rendered.values():
        assert predictor(documents).get("containerConcurrency", 0) == 0


def test_knatives_autoscaler_takes_the_rate_and_no_number_of_rows_refuses_first(
    rendered: dict[str, list[Document]],
) -> None:
    """Requests in flight say nothing below a replica's capacity: test_autoscaling.py, with recordings of it."""
    for name, documents in rendered.items():
        configured = Settings.from_environment(settings(documents))
        assert configured.max_queued_rows >= RECORDED_ROWS_PER_S * configured.request_timeout_ms / 1000, name
        if "scaleTarget" in predictor(documents):
            standard = only(documents, "InferenceService")["metadata"]["annotations"][manifests.MODE] == "Standard"
            assert predictor(documents)["scaleMetric"] == ("cpu" if standard else "rps"), name


def test_tags_and_gradual_rollouts_do_not_meet(rendered: dict[str, list[Document]]) -> None:
    """KServe takes the percentages of a tag that is rolled out for those of the whole service."""
    for name, documents in rendered.items():
        notes = only(documents, "InferenceService")["metadata"]["annotations"]
        both = {"serving.kserve.io/enable-tag-routing", "serving.knative.dev/rollout-duration"}
        assert len(both & notes.keys()) < 2, name


def test_overlays_differ_in_what_environments_differ_in(rendered: dict[str, list[Document]]) -> None:
    local, staging, production = (predictor(rendered[name]) for name in OVERLAYS)
    assert (local["minReplicas"], local["containers"][0]["imagePullPolicy"]) == (1, "Never")
    assert staging["minReplicas"] == 0
    assert production["minReplicas"] >= 2
    assert production["maxReplicas"] > staging["maxReplicas"] > local["maxReplicas"]
    kinds = {name: {d["kind"] for d in rendered[name]} for name in OVERLAYS}
    assert kinds["production"] - kinds["staging"] == {"PodDisruptionBudget"}
    assert kinds["staging"] - kinds["local"] == {"NetworkPolicy"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_server_runs_as_the_container_says(
    rendered: dict[str, list[Document]], serve: Serve, model_dir: Path, name: str
) -> None:
    documents = rendered[name]
    box = container(documents)
    python, *arguments = box["command"]
    assert python == "python"
    assert box["image"].rpartition("/")[2].partition(":")[0] == artifact.NAME.replace("_", "-")
    environment = settings(documents) | {"INFERENCE_SERVICE_NAME": "as-kserve-says", "MODEL_DIR": str(model_dir)}
    with serve(command=[sys.executable, *arguments], **environment) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            get = box[probe]["httpGet"]
            assert get["port"] == box["ports"][0]["containerPort"] == Settings().port
            assert httpx.get(server.url + get["path"]).status_code == 200
        scrape = predictor(documents)["annotations"]
        assert {scrape["prometheus.io/port"], scrape["prometheus.kserve.io/port"]} == {str(get["port"])}
        for path in {scrape["prometheus.io/path"], scrape["prometheus.kserve.io/path"]}:
            assert "defects_requests_total" in httpx.get(server.url + path).text
        assert httpx.get(f"{server.url}/v2/models/as-kserve-says/ready").status_code == 200
        assert server.stop() == 0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_readme_names_what_there_is(server: Server) -> None:
    texts = [p.read_text("utf-8") for p in (ROOT / "kserve").rglob("*") if p.is_file()]
    named = {name for text in texts for name in re.findall(rf"\b{PREFIX}[A-Z_]+[A-Z]\b", text)}
    assert named <= {field.alias for field in Settings.model_fields.values()}
    metrics = httpx.get(f"{server.url}/metrics").text
    for name in re.findall(r"\bdefects_[a-z_]+[a-z]\b", README):
        assert re.search(rf"^{name}(_bucket)?[ {{]", metrics, re.MULTILINE), name
    for folder in re.findall(r"\bkserve/(?:base|components|overlays)/?[a-z-]*", README):
        assert (ROOT / folder).is_dir(), folder
    for component in {*MODES}.union(*MODES.values(), LOAD_TESTS, RETRIES, HISTORY):
        assert f"\n| `{component}` |" in README, component
    cited = set(re.findall(r"\[(\d+)\](?!\()", README))
    assert cited <= set(re.findall(r"^(\d+)\. ", README, re.MULTILINE))


def test_the_readmes_commands_are_commands() -> None:
    for block in blocks("sh"):
        done = subprocess.run(["bash", "-n", "-c", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_what_the_readme_adds_to_an_overlay_renders(tmp_path: Path) -> None:
    for block in blocks("yaml"):
        if "$patch: delete" in block:
            continue  # test_history.py renders it: nothing but a Job is left
        fields = yaml.safe_load(block)
        named = (Path(path).name for path in fields.pop("components", []))
        documents = render(overlay(tmp_path, *dict.fromkeys(("knative", "canary", *named)), **fields))
        assert manifests.kserve_problems(only(documents, "InferenceService")) == []


def test_the_readmes_request_is_answered(server: Server) -> None:
    (body,) = re.findall(r"-d '(\{\"inputs\".*?\})'", README, re.DOTALL)
    answer = httpx.post(f"{server.url}/v2/models/defect-classifier/infer", content=body)
    assert answer.status_code == 200, answer.text
    shown = next(json.loads(block) for block in blocks("json") if "model_name" in block)
    assert answer.json().keys() == shown.keys()
    assert [o["name"] for o in answer.json()["outputs"]] == [o["name"] for o in shown["outputs"]]


@pytest.mark.parametrize("name", LOAD_TESTS[1:])
def test_a_load_test_runs_as_little_as_the_server_may(name: str, tmp_path: Path) -> None:
    image = {"name": "defect-classifier-load", "newName": "registry/load", "digest": "sha256:" + "a" * 64}
    documents = render(overlay(tmp_path, "standard", name, images=[image], namespace="sorting"))
    jobs = [d["spec"]["template"]["spec"] for d in documents if d["kind"] == "Job"]
    assert len(jobs) == LOAD_TESTS.index(name)
    for spec in jobs:
        (box,) = spec["containers"]
        assert box["image"] == f"registry/load@{image['digest']}"
        assert box["securityContext"]["readOnlyRootFilesystem"]
        assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert spec["securityContext"]["runAsNonRoot"]
        assert {volume["name"] for volume in spec["volumes"]} == {mount["name"] for mount in box["volumeMounts"]}
    (bound,) = only(documents, "RoleBinding")["subjects"]
    assert (bound["name"], bound["namespace"]) == (jobs[0]["serviceAccountName"], "sorting")
    assert container(documents)["image"] == "defect-classifier", "the server's own is another"


def test_a_load_test_finds_a_service_whose_name_has_a_prefix(tmp_path: Path) -> None:
    folder = overlay(tmp_path, "standard", "network-policy", "load-test-distributed", namePrefix="north-")
    documents = render(folder)
    (name,) = (d["metadata"]["name"] for d in documents if d["kind"] == "InferenceService")
    (said,) = (d["data"]["SERVICE"] for d in documents if d["kind"] == "ConfigMap" and "SERVICE" in d["data"])
    assert said == name == "north-defect-classifier"
    (worker,) = (d for d in documents if d["kind"] == "Job" and "workers" in d["metadata"]["name"])
    (box,) = worker["spec"]["template"]["spec"]["containers"]
    assert box["env"] == [{"name": "COORDINATOR", "value": only(documents, "Service")["metadata"]["name"]}]
    assert "--master-host=$(COORDINATOR)" in box["args"]


@pytest.mark.parametrize("name", LOAD_TESTS[1:])
def test_a_network_policy_lets_a_load_test_in(name: str, tmp_path: Path) -> None:
    documents = render(overlay(tmp_path, "standard", "network-policy", name))
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] == "Job"]
    rules = [rule for rule in only(documents, "NetworkPolicy")["spec"]["ingress"] if {"port": 3000} in rule["ports"]]
    selectors = [f["podSelector"] for rule in rules for f in rule["from"] if "podSelector" in f]
    chosen = [selector["matchLabels"] for selector in selectors if selector.keys() == {"matchLabels"}]
    assert all(any(labels.items() <= pod.items() for labels in chosen) for pod in pods)
