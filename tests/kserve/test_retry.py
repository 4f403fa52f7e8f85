"""The components that have a gateway send a request again, to another replica, when a replica dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import manifests
from defects.serving.model import body_bytes
from defects.simulator import SCHEMA
from manifests import Document, only, overlay, render
from test_kserve import MODES, changed

MIB = 2**20


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    return render(overlay(tmp_path_factory.mktemp("kserve"), "standard", *MODES["standard"], "retry-envoy-gateway"))


@pytest.fixture(scope="module")
def policy(documents: list[Document]) -> Document:
    return only(documents, "BackendTrafficPolicy")


def test_the_policy_selects_the_routes_that_kserve_makes(documents: list[Document], policy: Document) -> None:
    """They have all labels of the InferenceService, in its namespace."""
    labels = only(documents, "InferenceService")["metadata"]["labels"]
    (selector,) = policy["spec"]["targetSelectors"]
    assert selector["matchLabels"].items() <= labels.items()
    assert "namespaces" not in selector


def test_only_what_nobody_has_answered_is_sent_again(policy: Document) -> None:
    """Not what the server refuses in an overload."""
    retry = policy["spec"]["retry"]
    assert retry["numRetries"] > 2
    assert retry["retryOn"] == {"triggers": ["connect-failure", "reset"]}


def test_a_body_that_the_server_takes_can_be_sent_again(policy: Document) -> None:
    limit = policy["spec"]["requestBuffer"]["limit"]
    assert limit.endswith("Mi")
    assert int(limit.removesuffix("Mi")) * MIB >= body_bytes(SCHEMA)


def test_a_prefix_reaches_no_label(tmp_path: Path) -> None:
    documents = render(overlay(tmp_path, "standard", "retry-envoy-gateway", namePrefix="north-", namespace="sorting"))
    policy, service = only(documents, "BackendTrafficPolicy"), only(documents, "InferenceService")
    assert policy["metadata"]["namespace"] == service["metadata"]["namespace"] == "sorting"
    assert policy["metadata"]["name"].startswith("north-")
    (selector,) = policy["spec"]["targetSelectors"]
    assert selector["matchLabels"].items() <= service["metadata"]["labels"].items()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("apiVersion",), "gateway.envoyproxy.io/v1"),
        (("spec", "targetSelectors"), []),
        (("spec", "targetSelectors", 0, "kind"), "Ingress"),
        (("spec", "retry", "numRetries"), -1),
        (("spec", "retry", "retryOn", "triggers", 0), "connect-error"),
        (("spec", "retry", "perRetry", "backOff", "baseInterval"), "0.1s"),
        (("spec", "retry", "attempts"), 2),
        (("spec", "timeout", "tcp", "connectTimeout"), "1"),
        (("spec", "requestBuffer", "limit"), "2 MB"),
    ],
)
def test_the_check_for_envoy_gateway_notices_mistakes(policy: Document, path: tuple[Any, ...], value: Any) -> None:
    assert manifests.kubernetes_problems(policy) == []
    assert manifests.kubernetes_problems(changed(policy, path, value))


def test_ingress_nginx_is_told_by_annotations_of_the_service(tmp_path: Path) -> None:
    """KServe copies them to its Ingress."""
    service = only(render(overlay(tmp_path, "standard", "retry-ingress-nginx")), "InferenceService")
    notes = service["metadata"]["annotations"]
    on = notes["nginx.ingress.kubernetes.io/proxy-next-upstream"].split()
    assert set(on) == {"error", "non_idempotent"}
    assert int(notes["nginx.ingress.kubernetes.io/proxy-next-upstream-tries"]) > 1
