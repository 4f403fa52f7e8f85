"""The manifests render with the real kustomize and are valid for KServe's own types."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import BIN, ROOT
from defects import artifact

CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"

# Runs where the KServe SDK is installed: every key of the manifest must be one of its types' fields.
VALIDATE = r"""
import json, re, sys
import kserve, kserve.models as ours, kubernetes.client as theirs

def check(value, kind, where):
    kind = re.sub(r"^[Dd]ict[(\[](.*)[)\]]$", r"dict(\1)", kind.replace("List[", "list["))
    if kind.startswith("list["):
        assert isinstance(value, list), f"{where}: expected a list"
        return [problem for i, v in enumerate(value) for problem in check(v, kind[5:-1], f"{where}[{i}]")]
    if kind.startswith("dict("):
        inner = kind[5:-1].split(", ", 1)[1]
        return [problem for k, v in value.items() for problem in check(v, inner, f"{where}.{k}")]
    model = getattr(ours, kind, None) or getattr(theirs, kind, None)
    if model is None:
        plain = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object, "datetime": str}[kind]
        return [] if isinstance(value, plain) else [f"{where}: expected {kind}"]
    if not isinstance(value, dict):
        return [f"{where}: expected an object"]
    fields = {json_name: model.openapi_types[name] for name, json_name in model.attribute_map.items()}
    return [
        problem
        for key, v in value.items()
        for problem in (check(v, fields[key], f"{where}.{key}") if key in fields else [f"{where}.{key}: unknown field"])
    ]

document = json.load(sys.stdin)
print(json.dumps(check(document, "V1beta1InferenceService", "InferenceService")))
"""


def render(directory: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [BIN / "kubectl", "kustomize", ROOT / "kserve" / directory], capture_output=True, text=True, check=True
    )
    return list(yaml.safe_load_all(done.stdout))


def problems(document: dict[str, Any]) -> list[str]:
    if not CLIENTS_PYTHON.exists():
        pytest.skip("the KServe SDK is not installed; `make test` installs it")
    command: list[str | Path] = [CLIENTS_PYTHON, "-W", "ignore", "-c", VALIDATE]
    done = subprocess.run(command, input=json.dumps(document), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    (document,) = render("base")
    return document


def test_the_inference_service_is_valid(service: dict[str, Any]) -> None:
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert problems(service) == []


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("spec", "predictr"), {}, "InferenceService.spec.predictr: unknown field"),
        (("spec", "predictor", "containers", 0, "imagee"), "x", "containers[0].imagee: unknown field"),
        (("spec", "predictor", "containers", 0, "ports", 0, "containerPort"), "3000", "containerPort: expected int"),
    ],
)
def test_the_check_notices_mistakes(service: dict[str, Any], path: tuple[Any, ...], value: Any, problem: str) -> None:
    broken = json.loads(json.dumps(service))
    target = broken
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    (found,) = problems(broken)
    assert found.endswith(problem)


def test_the_manifest_agrees_with_the_service(service: dict[str, Any]) -> None:
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["image"] == artifact.NAME.replace("_", "-")
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    (port,) = container["ports"]
    assert port["name"] == "http1"
    probes = (container["readinessProbe"]["httpGet"], container["livenessProbe"]["httpGet"])
    assert [(p["path"], p["port"]) for p in probes] == [("/readyz", 3000), ("/livez", 3000)]
