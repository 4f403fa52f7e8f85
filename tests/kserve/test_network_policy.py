"""The network policy lets in what KServe, Knative and the load tests need in each mode, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from conftest import ROOT
from manifests import Document, only, overlay, render

PAGE = (ROOT / "docs" / "kserve-features.md").read_text("utf-8")
OURS = "serving.kserve.io/inferenceservice"
HERE = "sorting"
SERVER, AGENT = 3000, 9081
GATEWAYS = ("knative-serving", "kourier-system", "istio-system", "envoy-gateway-system", "kserve", "ingress-nginx")


class Peer(NamedTuple):
    """A pod at the other end: its namespace and its labels."""

    namespace: str
    labels: dict[str, str]


def matches(selector: Document, labels: dict[str, str]) -> bool:
    """Whether a label selector chooses these labels, as Kubernetes defines it."""
    wanted: dict[str, str] = selector.get("matchLabels", {})
    operators: dict[str, Callable[[str | None, list[str]], bool]] = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    return wanted.items() <= labels.items() and all(
        operators[rule["operator"]](labels.get(rule["key"]), rule.get("values", []))
        for rule in selector.get("matchExpressions", [])
    )


def is_peer(rule: Document, peer: Peer) -> bool:
    """Whether an entry of `from` or `to` means this pod; one without a namespace means the policy's own."""
    namespaces = rule.get("namespaceSelector")
    there = {"kubernetes.io/metadata.name": peer.namespace}
    near = peer.namespace == HERE if namespaces is None else matches(namespaces, there)
    return near and matches(rule.get("podSelector", {}), peer.labels)


def allowed(policy: Document, direction: str, peer: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a policy lets this through, to or from a pod that it is for."""
    ways = {"ingress": "from", "egress": "to"}
    return any(
        any(is_peer(entry, peer) for entry in rule[ways[direction]])
        and any((p["port"], p.get("protocol", "TCP")) == (port, protocol) for p in rule["ports"])
        for rule in policy["spec"].get(direction, [])
    )


def policy_of(scratch: Path, *components: str, **fields: Any) -> Document:
    return only(render(overlay(scratch, *components, namespace=HERE, **fields)), "NetworkPolicy")


def service_port(mode: str, feature: str | None) -> tuple[int, ...]:
    """Where KServe 0.20 and Knative send a request: to queue-proxy, or in Standard mode to what the Service targets."""
    if mode == "knative":
        return (8012, 8013, 8112)
    return (AGENT if feature else SERVER,)


@pytest.mark.parametrize("feature", [None, "logger", "batcher"])
@pytest.mark.parametrize("mode", ["knative", "standard"])
def test_requests_reach_what_the_mode_and_the_feature_put_before_the_server(
    tmp_path: Path, mode: str, feature: str | None
) -> None:
    patch = [{"op": "add", "path": f"/spec/predictor/{feature}", "value": {}}] if feature else []
    target = {"group": "serving.kserve.io", "kind": "InferenceService"}
    patches = [{"target": target, "patch": yaml.safe_dump(patch)}] if patch else []
    policy = policy_of(tmp_path, mode, "network-policy", patches=patches)
    for port in service_port(mode, feature):
        for namespace in GATEWAYS:
            assert allowed(policy, "ingress", Peer(namespace, {}), port), (namespace, port)
        assert not allowed(policy, "ingress", Peer("elsewhere", {}), port)
        assert not allowed(policy, "ingress", Peer(HERE, {"app": "another"}), port)
    assert allowed(policy, "ingress", Peer("knative-serving", {}), 9090), "the autoscaler"
    assert all(allowed(policy, "ingress", Peer("monitoring", {}), port) for port in (SERVER, 9088, 9091))


@pytest.mark.parametrize("port", [SERVER, AGENT])
def test_transformers_explainers_and_graphs_call_the_service_in_standard_mode(tmp_path: Path, port: int) -> None:
    policy = policy_of(tmp_path, "standard", "network-policy", namePrefix="north-")
    for component in ("transformer", "explainer"):
        labels = {OURS: "north-defect-classifier", "component": component}
        assert allowed(policy, "ingress", Peer(HERE, labels), port), component
        assert not allowed(policy, "ingress", Peer(HERE, labels | {OURS: "south-defect-classifier"}), port)
        assert not allowed(policy, "ingress", Peer("elsewhere", labels), port)
    router = {"serving.kserve.io/inferencegraph": "two-steps"}
    assert allowed(policy, "ingress", Peer(HERE, router), port)
    assert not allowed(policy, "ingress", Peer("elsewhere", router), port)


def test_it_is_for_the_predictor_so_that_a_transformer_can_ask_it(tmp_path: Path) -> None:
    chosen = policy_of(tmp_path, "standard", "network-policy")["spec"]["podSelector"]
    pod = {OURS: "defect-classifier", "component": "predictor", "app": "isvc.defect-classifier-predictor"}
    assert matches(chosen, pod)
    assert not matches(chosen, pod | {"component": "transformer"})


@pytest.mark.parametrize("port", [SERVER, AGENT])
@pytest.mark.parametrize("load_test", ["load-test", "load-test-distributed"])
def test_load_tests_reach_the_service_with_and_without_the_agent(tmp_path: Path, load_test: str, port: int) -> None:
    documents = render(overlay(tmp_path, "standard", "network-policy", load_test, namespace=HERE))
    policy = only(documents, "NetworkPolicy")
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] == "Job"]
    assert pods
    assert all(allowed(policy, "ingress", Peer(HERE, labels), port) for labels in pods)


def test_nothing_goes_out_until_the_page_s_patch_lets_the_logger_reach_its_url(tmp_path: Path) -> None:
    sink, dns = Peer("knative-eventing", {}), Peer("kube-system", {"k8s-app": "kube-dns"})
    closed = policy_of(tmp_path, "knative", "network-policy")
    assert "Egress" in closed["spec"]["policyTypes"]
    assert not allowed(closed, "egress", sink, 8080)
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (fields,) = [yaml.safe_load(block) for block in blocks if "/spec/egress" in block]
    opened = policy_of(tmp_path, "knative", "network-policy", **fields)
    assert allowed(opened, "egress", sink, 8080)
    assert allowed(opened, "egress", dns, 53, "UDP")
    assert allowed(opened, "egress", dns, 53, "TCP")
    assert not allowed(opened, "egress", Peer("elsewhere", {}), 8080)
    assert opened["spec"]["ingress"] == closed["spec"]["ingress"]


def test_everything_that_the_page_adds_to_an_overlay_renders(tmp_path: Path) -> None:
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        only(render(overlay(tmp_path, "standard", "network-policy", **yaml.safe_load(block))), "InferenceService")
