"""With a history: the URL is a Secret's; the migration is of the server's image, comes first, and gets through."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import run
from manifests import Document, container, only, overlay, predictor, render, settings
from test_kserve import HISTORY, MODES, blocks
from test_network_policy import HERE, Peer, allowed, matches

SECRET = "defect-classifier-database"  # noqa: S105 - a name
IMAGE = {"name": "defect-classifier", "newName": "registry/defects", "digest": "sha256:" + "a" * 64}
DATABASE = Peer("databases", {"app.kubernetes.io/name": "postgresql"})
DNS = Peer("kube-system", {"k8s-app": "kube-dns"})
SERVER_POD = {"serving.kserve.io/inferenceservice": "defect-classifier", "component": "predictor"}


def pod(document: Document) -> Document:
    """The pod template of a Job or a CronJob."""
    spec = document["spec"]["jobTemplate"]["spec"] if document["kind"] == "CronJob" else document["spec"]
    return dict(spec["template"])


@pytest.fixture(params=MODES)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> list[Document]:
    return render(overlay(tmp_path, request.param, "network-policy", *HISTORY, images=[IMAGE], namespace=HERE))


def jobs(documents: list[Document]) -> list[Document]:
    return [only(documents, "Job"), only(documents, "CronJob")]


def url_of(box: Document) -> Document:
    (found,) = [variable for variable in box["env"] if variable["name"] == "DEFECTS_DATABASE_URL"]
    assert found.keys() == {"name", "valueFrom"}
    return dict(found["valueFrom"]["secretKeyRef"])


def test_the_url_is_of_a_secret_that_must_be_there_and_is_in_no_manifest(documents: list[Document]) -> None:
    assert url_of(container(documents)) == {"name": SECRET, "key": "url", "optional": False}
    for job in jobs(documents):
        (box,) = pod(job)["spec"]["containers"]
        assert url_of(box) == {"name": SECRET, "key": "owner-url", "optional": False}
    assert not [d for d in documents if d["kind"] == "Secret"]
    assert "postgres://" not in yaml.safe_dump(documents)
    assert "postgresql://" not in yaml.safe_dump(documents)
    assert settings(documents)["DEFECTS_HISTORY"] == "buffered"


def test_the_jobs_are_of_the_servers_image_and_may_as_little(documents: list[Document]) -> None:
    server = container(documents)
    for job in jobs(documents):
        spec = pod(job)["spec"]
        (box,) = spec["containers"]
        assert box["image"] == server["image"] == f"registry/defects@{IMAGE['digest']}"
        assert box["command"][:3] == ["python", "-m", "defects.history"]
        assert spec["securityContext"] | box["securityContext"] == server["securityContext"]
        assert box["resources"].keys() == server["resources"].keys()
        assert {volume["name"] for volume in spec["volumes"]} == {mount["name"] for mount in box["volumeMounts"]}
        assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)


def test_the_jobs_commands_do_what_they_are_for(tmp_path: Path) -> None:
    documents = render(overlay(tmp_path, "standard", *HISTORY))
    said = []
    for job in jobs(documents):
        (box,) = pod(job)["spec"]["containers"]
        command = [*box["command"], *box.get("args", [])]
        done = run(tmp_path, *command, DEFECTS_DATABASE_URL=f"sqlite:///{tmp_path / 'history.db'}")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "applied 0001_" in said[0]
    assert "nothing to drop" in said[1]


def test_the_migration_needs_nothing_else_of_the_overlay(documents: list[Document]) -> None:
    """Argo CD applies everything else later."""
    job = only(documents, "Job")
    notes = job["metadata"]["annotations"]
    assert notes["argocd.argoproj.io/hook"] == "PreSync"
    assert notes["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert notes["kustomize.toolkit.fluxcd.io/force"] == "enabled"
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    assert not referred(pod(job)["spec"]) & there
    assert ("ConfigMap", settings_name(documents)) in referred(predictor(documents)), "what is looked for is found"


def settings_name(documents: list[Document]) -> str:
    return str(container(documents)["envFrom"][0]["configMapRef"]["name"])


def referred(spec: Document) -> set[tuple[str, str]]:
    """The accounts and ConfigMaps that a pod needs."""
    found = {("ServiceAccount", spec["serviceAccountName"])} if "serviceAccountName" in spec else set()
    names = re.findall(r"configMap(?:Ref|KeyRef)?: {[^}]*name: ([\w-]+)", yaml.safe_dump(spec, default_flow_style=True))
    return found | {("ConfigMap", name) for name in names}


def test_the_readmes_commands_apply_the_migration_alone_then_wait_for_it(documents: list[Document]) -> None:
    (block,) = [b for b in blocks("sh") if "history-migration" in b]
    delete, first, wait, last = (shlex.split(line) for line in block.splitlines())
    job = only(documents, "Job")
    assert job["metadata"]["name"] in delete
    label, _, value = first[-1].partition("=")
    chosen = [d for d in documents if d["metadata"].get("labels", {}).get(label) == value]
    assert chosen == [job]
    assert first[:-2] == last
    assert f"job/{job['metadata']['name']}" in wait


def test_the_patch_for_flux_leaves_the_migration_alone(tmp_path: Path) -> None:
    (fields,) = [yaml.safe_load(b) for b in blocks("yaml") if "$patch: delete" in b]
    for mode, others in MODES.items():
        (left,) = render(overlay(tmp_path, mode, *others, *HISTORY, images=[IMAGE], **fields))
        assert left["metadata"]["name"] == "defect-classifier-migration"
        assert pod(left)["spec"]["containers"][0]["image"] == f"registry/defects@{IMAGE['digest']}"


def policies(documents: list[Document], labels: dict[str, str]) -> list[Document]:
    """The network policies for a pod with these labels."""
    found = [d for d in documents if d["kind"] == "NetworkPolicy"]
    return [d for d in found if matches(d["spec"]["podSelector"], labels)]


def gets_out(documents: list[Document], labels: dict[str, str], *to: Any) -> bool:
    """Whether any policy for a pod lets something out; without a policy for egress everything would get out."""
    chosen = policies(documents, labels)
    assert any("Egress" in policy["spec"]["policyTypes"] for policy in chosen)
    return any(allowed(policy, "egress", *to) for policy in chosen)


def test_only_the_database_and_dns_are_let_out_to(documents: list[Document]) -> None:
    for labels in (SERVER_POD, *(pod(job)["metadata"]["labels"] for job in jobs(documents))):
        assert gets_out(documents, labels, DATABASE, 5432)
        assert all(gets_out(documents, labels, DNS, 53, protocol) for protocol in ("TCP", "UDP"))
        assert not gets_out(documents, labels, DATABASE, 22)
        assert not gets_out(documents, labels, Peer("databases", {"app": "another"}), 5432)
        assert not gets_out(documents, labels, Peer(HERE, DATABASE.labels), 5432)
        assert not gets_out(documents, labels, DNS, 443)


def test_the_readmes_patches_say_where_the_database_is(tmp_path: Path) -> None:
    patches = [yaml.safe_load(b) for b in blocks("yaml") if "kind: NetworkPolicy" in b and "-history" in b]
    outside, operator = (render(overlay(tmp_path, "knative", *HISTORY, namespace=HERE, **fields)) for fields in patches)
    job = pod(only(outside, "Job"))["metadata"]["labels"]
    for labels in (SERVER_POD, job):
        (policy,) = policies(outside, labels)
        database, dns = policy["spec"]["egress"]
        assert database == {"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"port": 5432}]}
        assert {port["port"] for port in dns["ports"]} == {53}
        assert gets_out(operator, labels, Peer("databases", {"cnpg.io/cluster": "defects"}), 5432)
        assert not gets_out(operator, labels, DATABASE, 5432)


def test_the_policy_follows_the_services_name(tmp_path: Path) -> None:
    documents = render(overlay(tmp_path, "standard", *HISTORY, namePrefix="north-", namespace=HERE))
    name = only(documents, "InferenceService")["metadata"]["name"]
    assert policies(documents, {"serving.kserve.io/inferenceservice": name, "component": "predictor"})
    assert not policies(documents, SERVER_POD)
