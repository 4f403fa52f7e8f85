"""A revision that can't start is seen soon, and the command that README.md gives for it says why."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

import manifests
from conftest import BIN, ROOT
from manifests import Document, container, only, overlay, render

README = (ROOT / "kserve" / "README.md").read_text("utf-8")
KNATIVES_OWN = 600  # seconds: progress-deadline in config-deployment
PULL_SECONDS = 120  # a node takes the pod, and pulls 205 MB and the base image
NAMESPACE, SERVICE = "defects-staging", "defect-classifier"
LINE = 'DEFECTS_LOG_LEVEL: is "loud"; expected debug, info, warning or error'


def deadline(documents: list[Document]) -> int | None:
    """The seconds that Knative gives a revision; `None` where only Knative's default holds."""
    value = only(documents, "InferenceService")["metadata"]["annotations"].get(manifests.DEADLINE)
    return None if value is None else int(value.removesuffix("s"))


@pytest.mark.parametrize("name", ["staging", "production"])
def test_a_revision_that_cannot_start_is_called_failed_soon_and_one_that_can_has_the_time(name: str) -> None:
    documents = render(f"overlays/{name}")
    seconds, probe = deadline(documents), container(documents)["startupProbe"]
    assert seconds is not None
    assert probe["periodSeconds"] * probe["failureThreshold"] + PULL_SECONDS <= seconds <= KNATIVES_OWN / 3


def test_only_knative_is_given_a_deadline(tmp_path: Path) -> None:
    assert deadline(render(overlay(tmp_path, "standard"))) is None
    assert deadline(render("overlays/local")) is None


@pytest.mark.parametrize("value", ["180", "3m", "1.5s", "-5s", "0s"])
def test_the_check_for_knative_notices_a_deadline_that_it_refuses_or_that_is_not_in_seconds(value: str) -> None:
    service = only(render("overlays/staging"), "InferenceService")
    assert manifests.knative_problems(service) == []
    service["metadata"]["annotations"][manifests.DEADLINE] = value
    assert [p.split(":")[0] for p in manifests.knative_problems(service)] == ["progress-deadline"]


# --- the command that looks at the pods ----------------------------------------------------------------------------


def pod(name: str, state: dict[str, Any], last: dict[str, Any], *, ready: bool = False) -> Document:
    """A pod as the kubelet describes it, with queue-proxy beside the server."""
    statuses = [
        {"name": "kserve-container", "ready": ready, "restartCount": 3, "state": state, "lastState": last},
        {"name": "queue-proxy", "ready": ready, "restartCount": 0, "state": {"running": {}}, "lastState": {}},
    ]
    for status in statuses:
        status |= {"image": "x", "imageID": "x"}
    status = {"phase": "Running", "containerStatuses": statuses}
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "status": status}


ENDED = {"terminated": {"exitCode": 78, "reason": "Error", "message": LINE}}
PODS = [
    pod("waits", {"waiting": {"reason": "CrashLoopBackOff"}}, ENDED),
    pod("just-ended", ENDED, {}),
    pod("no-image", {"waiting": {"reason": "ErrImageNeverPull"}}, {}),
    {"metadata": {"name": "no-node", "namespace": NAMESPACE}, "status": {"phase": "Pending"}},
    pod("works", {"running": {}}, {}, ready=True),
]


class Api(BaseHTTPRequestHandler):
    """As much of the Kubernetes API as `kubectl get pods` asks."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        pods = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
        answers: dict[str, Document] = {
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [pods]},
        }
        if url.path == f"/api/v1/namespaces/{NAMESPACE}/pods":
            ours = parse_qs(url.query)["labelSelector"] == [f"serving.kserve.io/inferenceservice={SERVICE}"]
            items = [{"apiVersion": "v1", "kind": "Pod", **found} for found in PODS if ours]
            answers[url.path] = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        body = json.dumps(answers.get(url.path, {})).encode()
        self.send_response(200 if url.path in answers else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Iterator[Path]:
    """How kubectl reaches an API that has these pods."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    file = tmp_path / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "clusters": [cluster],
        "contexts": [context],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    }
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    yield file
    server.shutdown()
    server.server_close()


def test_the_readmes_command_says_exit_code_reason_and_the_servers_own_line(kubeconfig: Path) -> None:
    section = README.partition("\n## When something goes wrong")[2].partition("\n## ")[0]
    command = re.search(r"^```sh\n(kubectl .*?get pods.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert command, "the section begins with a command that looks at the pods"
    home = {"KUBECONFIG": str(kubeconfig), "PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(kubeconfig.parent)}
    done = subprocess.run(
        ["bash", "-c", command[1]], env=home, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    said = dict(re.findall(r"^([\w-]+):(.*?)(?=^\S|\Z)", done.stdout, re.MULTILINE | re.DOTALL))
    assert list(said) == [found["metadata"]["name"] for found in PODS], done.stdout
    assert f"now: CrashLoopBackOff  \n  before: 78 {LINE}" in said["waits"]
    assert f"now:  78 {LINE}" in said["just-ended"]
    assert "now: ErrImageNeverPull" in said["no-image"]
    assert "78" not in said["works"]
    assert "Pending" in said["no-node"]
