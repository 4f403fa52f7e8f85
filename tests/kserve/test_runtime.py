"""The runtimes for mounted models: as the base is, what KServe takes, and run with a model that comes late."""

from __future__ import annotations

import copy
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import runtimes
import yaml
from starting import starting

import manifests
from conftest import ROOT, Command
from defects import artifact
from defects.settings import Settings
from manifests import Document, container, render, settings

KINDS = {"namespaced": "ServingRuntime", "cluster": "ClusterServingRuntime"}
MODES = {"knative": "Knative", "standard": "Standard"}
OWN_VARIABLES = {"DEFECTS_MODEL_NAME", "MODEL_DIR", "DEFECTS_MODEL_WAIT_SECONDS"}
START_SECONDS = 30  # that the base's startup probe allows
STANDARD_GRACE_SECONDS, KNATIVE_GRACE_SECONDS = 30, 60  # Kubernetes' default, and less than Knative's default of 300


@pytest.fixture(scope="module")
def base() -> list[Document]:
    return render("base")


@pytest.fixture(scope="module", params=KINDS)
def runtime(request: pytest.FixtureRequest) -> Document:
    (found,) = render(f"runtime/{request.param}")
    assert found["kind"] == KINDS[request.param]
    return found


@pytest.fixture(scope="module", params=MODES)
def service(request: pytest.FixtureRequest) -> Document:
    (found,) = render(f"runtime/examples/{request.param}")
    assert found["metadata"]["annotations"] == {manifests.MODE: MODES[request.param]}
    return found


def box_of(runtime: Document) -> Document:
    (found,) = runtime["spec"]["containers"]
    return dict(found)


def variables(box: Document) -> dict[str, str]:
    assert all(type(variable["value"]) is str for variable in box["env"]), "Kubernetes refuses numbers"
    return {variable["name"]: variable["value"] for variable in box["env"]}


def test_there_is_nothing_else_in_the_folder() -> None:
    folder = ROOT / "kserve" / "runtime"
    folders = {str(path.parent.relative_to(folder)) for path in folder.rglob("kustomization.yaml")}
    parts = {f"parts/{name}" for name in ("container", "settings", "alone")}
    assert folders == {*KINDS, *(f"examples/{mode}" for mode in MODES), *parts}


def test_both_are_the_same_but_for_their_kind() -> None:
    (one,), (other,) = (render(f"runtime/{name}") for name in KINDS)
    assert one | {"kind": ""} == other | {"kind": ""}
    assert "namespace" not in one["metadata"]


def test_a_runtime_is_the_base_in_every_field(base: list[Document], runtime: Document) -> None:
    ours, predictor = box_of(runtime), manifests.predictor(base)
    usual = container(base)
    assert usual.keys() - ours.keys() == {"envFrom"}
    assert ours.keys() - usual.keys() == set()
    for field in usual.keys() - {"env", "envFrom", "image", "startupProbe"}:
        assert ours[field] == usual[field], field
    probe = usual["startupProbe"] | {"failureThreshold": ours["startupProbe"]["failureThreshold"]}
    assert ours["startupProbe"] == probe
    assert runtime["spec"]["volumes"] == predictor["volumes"]
    own = {"features.knative.dev/http-full-duplex": "Enabled"}
    assert runtime["spec"]["annotations"] == predictor["annotations"] | own


def test_a_runtime_has_every_setting_of_the_base(base: list[Document], runtime: Document) -> None:
    given = variables(box_of(runtime))
    assert {name: given[name] for name in given.keys() - OWN_VARIABLES} == settings(base)
    assert given["MODEL_DIR"] == "/mnt/models"
    assert given["DEFECTS_MODEL_NAME"] == "{{.Name}}"


def test_the_startup_probe_allows_for_the_longest_wait(runtime: Document) -> None:
    box = box_of(runtime)
    configured = Settings.from_environment(variables(box) | {"DEFECTS_MODEL_NAME": "parcels"})
    probe = box["startupProbe"]
    allowed = probe["periodSeconds"] * probe["failureThreshold"]
    assert configured.model_wait_seconds > 0
    assert allowed >= configured.model_wait_seconds + START_SECONDS


def test_a_drain_has_its_time_in_both_modes(runtime: Document) -> None:
    """What one runtime says is true for InferenceServices in either mode."""
    configured = Settings.from_environment(variables(box_of(runtime)) | {"DEFECTS_MODEL_NAME": "parcels"})
    needed = configured.drain_seconds + configured.finish_seconds + 2
    assert needed <= STANDARD_GRACE_SECONDS
    assert configured.drain_seconds > 0, "in Standard mode requests still come after SIGTERM"
    assert needed + 30 <= KNATIVE_GRACE_SECONDS


def test_runtimes_and_services_have_only_fields_of_kserve(runtime: Document, service: Document) -> None:
    assert manifests.sdk_problems([runtime, service]) == [[], []]


def test_the_check_of_fields_notices_one_that_a_runtime_has_not(runtime: Document) -> None:
    wrong = copy.deepcopy(runtime)
    wrong["spec"]["serviceAccountName"] = "defect-classifier"
    assert manifests.sdk_problems([wrong]) == [[f"{runtime['kind']}.spec.serviceAccountName: unknown field"]]


def of_kserve(name: str, model_format: str, priority: int) -> Document:
    """A runtime as KServe brings them along."""
    formats = [{"name": model_format, "version": "1", "autoSelect": True, "priority": priority}]
    boxes = [{"name": "kserve-container"}]
    spec = {"supportedModelFormats": formats, "protocolVersions": ["v1", "v2"], "containers": boxes}
    return {"kind": "ClusterServingRuntime", "metadata": {"name": name}, "spec": spec}


def test_a_runtime_goes_beside_those_of_kserve(runtime: Document) -> None:
    others = [of_kserve("kserve-sklearnserver", "sklearn", 1), of_kserve("kserve-mlserver", "sklearn", 2)]
    assert runtimes.problems([*others, runtime]) == []
    assert runtimes.problems([of_kserve("another", "Defects", 1), runtime]) != [], "the format in other letters"
    blocked = copy.deepcopy(runtime)
    blocked["spec"]["containers"][0]["env"].append({"name": "PYTHONPATH", "value": "/"})
    assert runtimes.problems([blocked]) == [f"{runtime['kind']}: PYTHONPATH is refused"]


@pytest.mark.parametrize("model", [{}, {"runtime": "defect-classifier"}, {"protocolVersion": "v2"}], ids=str)
def test_a_service_is_given_the_runtime(runtime: Document, service: Document, model: dict[str, str]) -> None:
    others = [of_kserve("kserve-sklearnserver", "sklearn", 1)]
    asks = copy.deepcopy(service)
    asks["spec"]["predictor"]["model"] |= model
    assert runtimes.selected(asks, [*others, runtime]) is runtime
    asks["spec"]["predictor"]["model"]["modelFormat"]["name"] = "sklearn"
    assert "runtime" in model or runtimes.selected(asks, [*others, runtime]) is others[0]


def test_what_kserve_makes_of_a_service_is_taken(runtime: Document, service: Document) -> None:
    made = runtimes.merged(service, runtime)
    spec = made["spec"]["predictor"]
    written = made | {"spec": {"predictor": {"minReplicas": 1, "maxReplicas": 1} | spec}}
    written["spec"]["predictor"]["containers"][0]["env"].pop()  # INFERENCE_SERVICE_NAME, which only KServe may give
    if service["metadata"]["annotations"][manifests.MODE] == "Knative":
        defaults = {"timeout": 300, "containerConcurrency": 0}
        knative = written | {"spec": {"predictor": defaults | written["spec"]["predictor"]}}
        assert manifests.knative_problems(knative) == []
    security = spec["containers"][0]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "securityContext" not in spec, "Knative refuses a pod's own"


def test_a_service_can_override_a_setting_and_resources(runtime: Document, service: Document) -> None:
    asks = copy.deepcopy(service)
    asks["spec"]["predictor"]["model"] |= {
        "env": [{"name": "DEFECTS_DRAIN_SECONDS", "value": "0"}],
        "resources": {"limits": {"memory": "2Gi"}},
    }
    (box,) = runtimes.merged(asks, runtime)["spec"]["predictor"]["containers"]
    configured = Settings.from_environment(variables(box))
    assert (configured.drain_seconds, configured.served_name) == (0, service["metadata"]["name"])
    assert box["resources"]["limits"] == box_of(runtime)["resources"]["limits"] | {"memory": "2Gi"}


def test_the_page_shows_the_example_and_what_goes_over_it() -> None:
    page = (ROOT / "docs" / "mounted-models.md").read_text("utf-8")
    shown, over = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert [shown] == render("runtime/examples/knative")
    (runtime,) = render("runtime/cluster")
    (box,) = runtimes.merged(shown | {"spec": {"predictor": over}}, runtime)["spec"]["predictor"]["containers"]
    configured = Settings.from_environment(variables(box))
    assert (configured.drain_seconds, configured.served_name) == (0, "parcels")
    assert configured.model_digest


@pytest.mark.parametrize("late", [False, True], ids=["mounted", "linked late"])
def test_the_server_runs_as_a_runtime_says(tmp_path: Path, model_dir: Path, *, late: bool) -> None:
    """With the container's own command and environment, but for the directory of the model."""
    (service,), (runtime,) = render("runtime/examples/knative"), render("runtime/cluster")
    (box,) = runtimes.merged(service, runtime)["spec"]["predictor"]["containers"]
    python, *arguments = box["command"]
    assert python == "python"
    command: Command = [sys.executable, *arguments]
    mount = tmp_path / "mnt" / "models"
    given: dict[str, Any] = variables(box) | {"MODEL_DIR": mount, "DEFECTS_DRAIN_SECONDS": 0}
    if not late:
        shutil.copytree(model_dir, mount)
    with starting(tmp_path, mount, command, **given) as server:
        if late:
            assert "waiting up to 60 s" in server.waits()
            mount.parent.mkdir()
            mount.symlink_to(model_dir)
        phases = server.ready()
        assert ("model_wait" in phases) is late
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert httpx.get(server.url + box[probe]["httpGet"]["path"]).status_code == 200
        digest = httpx.get(f"{server.url}/model").json()["digest"]
        assert digest == artifact.load(model_dir).digest
        for path in ("/v2/models/parcels/ready", "/v1/models/parcels"):
            assert httpx.get(server.url + path).status_code == 200
