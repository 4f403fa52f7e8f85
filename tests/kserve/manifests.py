"""Renders what is in `kserve/` with the real kustomize, and says what a cluster with KServe and Knative would refuse.

What their webhooks check is not in any schema, so it is written down here, from KServe 0.20's
`pkg/apis/serving/v1beta1/inference_service_validation.go` and Knative Serving 1.21's (the version that KServe installs)
`pkg/apis/serving/fieldmask.go`, `k8s_validation.go` and `pkg/apis/config/features.go`; 1.23 takes the same.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from conftest import BIN, CI, ROOT

KUBERNETES = "1.35"
CLIENTS_PYTHON = ROOT / ".venv-clients" / "bin" / "python"
MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER = "serving.kserve.io/autoscalerClass"
DEADLINE = "serving.knative.dev/progress-deadline"  # Knative takes whole seconds; 600 where it is missing

Document = dict[str, Any]
TAKE = re.compile(r"mkdir -p build/load && kubectl -n \S+ exec job/load-test -- .*\n.* build/load$", re.MULTILINE)

# Runs where the KServe SDK is installed: every key of the manifests must be one of its types' fields.
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
    kind = re.sub("^K8sIoApi[A-Za-z]*?(V[0-9])", r"\1", kind)
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

def kind_of(document):
    return document["apiVersion"].rpartition("/")[2].capitalize() + document["kind"]

print(json.dumps([check(document, kind_of(document), document["kind"]) for document in json.load(sys.stdin)]))
"""

ANYTHING: Mapping[str, Any] = {}


def take(execute: str, results: Path, into: Path) -> str:
    """How a load test's results are taken, as its component says; with `execute` for kubectl and other directories."""
    said = (ROOT / "kserve" / "components" / "load-test" / "kustomization.yaml").read_text("utf-8")
    commands: list[str] = TAKE.findall(re.sub("^# *", "", said, flags=re.MULTILINE))
    (command,) = commands
    command = command.replace("kubectl -n NAMESPACE exec job/load-test --", execute)
    return command.replace("/results", str(results)).replace("build/load", str(into))


def _names(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), ANYTHING)


_PROBE = {
    "httpGet": _names("host httpHeaders path port scheme"),
    **_names("exec grpc tcpSocket"),
    **_names("failureThreshold initialDelaySeconds periodSeconds successThreshold timeoutSeconds"),
}
_CONTAINER = {
    **_names(
        "args command envFrom image imagePullPolicy name terminationMessagePath terminationMessagePolicy workingDir"
    ),
    "env": {**_names("name value"), "valueFrom": _names("configMapKeyRef secretKeyRef")},
    "livenessProbe": _PROBE,
    "ports": _names("containerPort name protocol"),
    "readinessProbe": _PROBE,
    "resources": _names("limits requests"),
    "securityContext": {
        "capabilities": _names("drop"),
        **_names("allowPrivilegeEscalation privileged readOnlyRootFilesystem"),
        **_names("runAsGroup runAsNonRoot runAsUser seccompProfile"),
    },
    "startupProbe": _PROBE,
    "volumeMounts": _names("mountPath name readOnly subPath"),
}
# What Knative takes in a revision with its default feature flags; the rest is refused, or dropped by its CRD.
REVISION = {
    **_names("automountServiceAccountToken enableServiceLinks imagePullSecrets serviceAccountName"),
    "containers": _CONTAINER,
    "volumes": _names("configMap emptyDir name projected secret"),
}
# KServe's own fields, beside the pod's, in `spec.predictor`; Knative mode refuses the others that there are.
EXTENSIONS = {
    **_names("annotations canaryTrafficPercent containerConcurrency labels"),
    **_names("maxReplicas minReplicas scaleMetric scaleTarget timeout"),
}
RESERVED_NAMES = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
RESERVED_PORTS = {8008, 8012, 8013, 8022, 8112, 9090, 9091}
MAX_CONCURRENCY = 1000  # container-concurrency-max-limit
MAX_TIMEOUT = 600  # max-revision-timeout-seconds
FLAGGED = {"topologySpreadConstraints": "kubernetes.podspec-topologyspreadconstraints"}  # that a component may need

DURATION = re.compile("([0-9]{1,5}(h|m|s|ms)){1,4}")  # of Gateway API
QUANTITY = re.compile("[1-9]+[0-9]*([EPTGMK]i|[EPTGMk])?")
RETRY_TRIGGERS = {
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream"),
    *("retriable-status-codes", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
}
POLICY: Mapping[str, Any] = {
    "targetSelectors": _names("group kind matchLabels matchExpressions"),
    "retry": {
        **_names("numRetries numAttemptsPerPriority"),
        "retryOn": _names("triggers httpStatusCodes"),
        "perRetry": {**_names("timeout"), "backOff": _names("baseInterval maxInterval")},
    },
    "timeout": {"tcp": _names("connectTimeout"), **_names("http")},
    "requestBuffer": _names("limit"),
}


def kustomize(directory: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [BIN / "kubectl", "kustomize", directory]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def render(directory: str | Path) -> list[Document]:
    """The documents of a folder, which is given absolutely or below `kserve/`; each kustomization is rendered once."""
    folder = ROOT / "kserve" / directory
    of_ours = str(folder) if folder.is_relative_to(ROOT) else ""  # an overlay of a test is all in its file
    key = of_ours + (folder / "kustomization.yaml").read_text("utf-8")
    if key not in _RENDERED:
        done = kustomize(folder)
        assert done.returncode == 0, done.stderr
        _RENDERED[key] = done.stdout
    return list(yaml.load_all(_RENDERED[key], Loader=yaml.CSafeLoader))


_RENDERED: dict[str, str] = {}


def overlay(scratch: Path, *components: str, **fields: Any) -> Path:
    """A folder that combines the base with these components, and has these other fields of a kustomization."""
    if not (scratch / "kserve").exists():
        shutil.copytree(ROOT / "kserve", scratch / "kserve")
    folder = scratch / "overlay"
    folder.mkdir(exist_ok=True)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["../kserve/base"],
        "components": [f"../kserve/components/{name}" for name in components],
        **fields,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def only(documents: list[Document], kind: str) -> Document:
    (document,) = [d for d in documents if d["kind"] == kind]
    return document


def predictor(documents: list[Document]) -> Document:
    found: Document = only(documents, "InferenceService")["spec"]["predictor"]
    return found


def container(documents: list[Document]) -> Document:
    (found,) = predictor(documents)["containers"]
    return dict(found)


def settings(documents: list[Document]) -> dict[str, str]:
    """The environment that the server's ConfigMap gives."""
    name = container(documents)["envFrom"][0]["configMapRef"]["name"]
    (found,) = [d for d in documents if d["kind"] == "ConfigMap" and d["metadata"]["name"] == name]
    return dict(found["data"])


def sdk_problems(services: list[Document]) -> list[list[str]]:
    """For each document of one of KServe's kinds, what the KServe SDK's types don't have."""
    if not CLIENTS_PYTHON.exists():
        (pytest.fail if CI else pytest.skip)("the KServe SDK is not installed; `make test` installs it")
    command: list[str | Path] = [CLIENTS_PYTHON, "-W", "ignore", "-c", VALIDATE]
    done = subprocess.run(command, input=json.dumps(services), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def kubernetes_problems(document: Document) -> list[str]:
    """What Kubernetes' own schema refuses, or Envoy Gateway's; or that there is none for this kind."""
    if document["kind"] == "BackendTrafficPolicy":
        return [f"BackendTrafficPolicy: {where} is wrong" for where in policy_problems(document)]
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{document['kind']}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [str(error.message)]
    return []


def policy_problems(policy: Document) -> list[str]:
    """What the CRD of Envoy Gateway 1.8, which KServe 0.20 installs, refuses in a `BackendTrafficPolicy`.

    By hand, as far as our policy goes: no package here has that schema.
    """
    spec = policy["spec"]
    retry, selectors = spec.get("retry", {}), spec.get("targetSelectors", [])
    backoff = retry.get("perRetry", {}).get("backOff", {})
    connect = spec.get("timeout", {}).get("tcp", {}).get("connectTimeout", "1s")
    rules = {
        "apiVersion": policy["apiVersion"] == "gateway.envoyproxy.io/v1alpha1",
        "targetSelectors": bool(selectors)
        and all((s.get("group"), s.get("kind")) == ("gateway.networking.k8s.io", "HTTPRoute") for s in selectors),
        "retry.numRetries": type(retry.get("numRetries", 2)) is int and retry.get("numRetries", 2) >= 0,
        "retry.retryOn.triggers": RETRY_TRIGGERS.issuperset(retry.get("retryOn", {}).get("triggers", [])),
        "durations": all(DURATION.fullmatch(text) for text in (connect, *backoff.values())),
        "requestBuffer.limit": bool(QUANTITY.fullmatch(spec.get("requestBuffer", {}).get("limit", "1Mi"))),
    }
    return [name for name, kept in rules.items() if not kept] + list(unknown(spec, POLICY))


def kserve_problems(service: Document) -> list[str]:
    """What KServe's webhook refuses, and what it takes but doesn't do."""
    spec, notes = service["spec"]["predictor"], service["metadata"]["annotations"]
    knative = notes.get(MODE) == "Knative"
    names = [variable["name"] for variable in spec["containers"][0].get("env", [])]
    percent = spec.get("canaryTrafficPercent")
    most = math.inf if knative else 100  # a percentage, in Standard mode
    rules = {
        "metadata.name": re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"]),
        MODE: notes.get(MODE) in ("Knative", "Standard"),
        AUTOSCALER: knative == (AUTOSCALER not in notes) and notes.get(AUTOSCALER, "hpa") in ("hpa", "none"),
        "containers[0].name": spec["containers"][0]["name"] == "kserve-container",
        "containers[0].env": "PYTHONPATH" not in names and "INFERENCE_SERVICE_NAME" not in names,
        "replicas": 0 <= spec["minReplicas"] <= spec["maxReplicas"],
        "canaryTrafficPercent": percent is None or (knative and 0 <= percent <= 100),
        "scaleMetric": spec.get("scaleMetric", "none") in ("none", *(("concurrency", "rps") if knative else ("cpu",))),
        "scaleTarget": ("scaleTarget" in spec) == ("scaleMetric" in spec) and 1 <= spec.get("scaleTarget", 1) <= most,
        "minReplicas": knative or spec["minReplicas"] >= 1,
        "deploymentStrategy": knative == ("deploymentStrategy" not in spec),
    }
    return [f"{name}: KServe refuses or ignores that" for name, kept in rules.items() if not kept]


def knative_problems(service: Document) -> list[str]:
    """What Knative's webhook refuses with its default feature flags, in the revision that KServe makes of a service."""
    spec = service["spec"]["predictor"]
    (box,) = spec["containers"]
    (port,) = box["ports"]
    probes = [box[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    sources = {v["name"]: v for v in spec.get("volumes", [])}
    rules = {
        "timeout": 0 < spec["timeout"] <= MAX_TIMEOUT,
        "progress-deadline": re.fullmatch("[1-9][0-9]*s", service["metadata"]["annotations"].get(DEADLINE, "600s")),
        "containerConcurrency": 0 <= spec["containerConcurrency"] <= MAX_CONCURRENCY,
        "automountServiceAccountToken": spec.get("automountServiceAccountToken", False) is False,
        "ports": port.get("name") in (None, "http1", "h2c") and port["containerPort"] not in RESERVED_PORTS,
        "probes": set(probes) == {port["containerPort"]},  # a name would only be followed in the liveness probe
        "env": RESERVED_NAMES.isdisjoint(variable["name"] for variable in box.get("env", [])),
        "volumeMounts": all(
            mount["mountPath"] not in ("/", "/dev", "/dev/log")
            and ("emptyDir" in sources[mount["name"]] or mount.get("readOnly"))
            for mount in box.get("volumeMounts", [])
        ),
        "volumes": set(sources) == {mount["name"] for mount in box.get("volumeMounts", [])},
    }
    pod = {key: value for key, value in spec.items() if key not in EXTENSIONS}
    broken = [f"{name}: Knative refuses that" for name, kept in rules.items() if not kept]
    return broken + [f"{where}: Knative refuses or drops that" for where in unknown(pod, REVISION)]


def unknown(value: Any, table: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """The paths of fields that are not in a table of what is allowed, in which an empty table allows everything."""
    if isinstance(value, list):
        for item in value:
            yield from unknown(item, table, where)
    elif isinstance(value, dict) and table:
        for key, inner in value.items():
            if key in table:
                yield from unknown(inner, table[key], f"{where}.{key}".lstrip("."))
            else:
                yield f"{where}.{key}".lstrip(".")
