"""What KServe 0.20 makes of an InferenceService with `model` and a runtime, and what its webhook refuses in runtimes.

From `pkg/webhook/admission/servingruntime/servingruntime_webhook.go`, `pkg/validation/env_policy.go`,
`MergeServingRuntimeAndInferenceServiceSpecs` and `ReplacePlaceholders` of the controller, and
`pkg/apis/serving/v1beta1/predictor_model.go` for the choice of a runtime.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from manifests import Document

# By what Kubernetes merges the items of these lists; it replaces other lists.
MERGE_KEYS = {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath", "volumes": "name"}
CONTAINER = "kserve-container"
OWN_FIELDS = ("modelFormat", "runtime", "runtimeVersion", "protocolVersion", "storageUri", "storage")  # of `model`
NOT_OF_A_POD = ("supportedModelFormats", "protocolVersions", "annotations", "labels", "containers")


def problems(runtimes: list[Document]) -> list[str]:
    """What the webhook refuses in runtimes that are all in one namespace, or all in the cluster."""
    found = []
    for one in runtimes:
        spec = one["spec"]
        boxes = [box["name"] for box in spec["containers"]]
        names = [variable["name"] for box in spec["containers"] for variable in box.get("env", [])]
        priorities = {f.get("priority") for f in spec["supportedModelFormats"] if f.get("autoSelect")}
        found += [f"{one['kind']}: {boxes} has no {CONTAINER}"] * (CONTAINER not in boxes)
        found += [f"{one['kind']}: PYTHONPATH is refused"] * ("PYTHONPATH" in names)
        found += [f"{one['kind']}: different priorities"] * (len(priorities) > 1)
    for one, other in combinations(runtimes, 2):
        both = _formats(one) & _formats(other)
        if both and set(one["spec"]["protocolVersions"]) & set(other["spec"]["protocolVersions"]):
            found.append(f"{sorted(both)}: the same priority in two runtimes")
    return found


def _formats(runtime: Document) -> set[tuple[str, str | None, int]]:
    """The formats, in lower case, that are selected by themselves, with version and priority."""
    formats = [f for f in runtime["spec"]["supportedModelFormats"] if f.get("autoSelect") and "priority" in f]
    return {(f["name"].lower(), f.get("version"), f["priority"]) for f in formats}


def selected(service: Document, runtimes: list[Document]) -> Document:
    """The runtime of an InferenceService: the one that it names, else the first one for its format."""
    model = service["spec"]["predictor"]["model"]
    for runtime in runtimes:
        named = model.get("runtime") == runtime["metadata"]["name"]
        for each in runtime["spec"]["supportedModelFormats"]:
            wanted = {"version": each.get("version")} | model["modelFormat"]
            fits = wanted == {"name": each["name"], "version": each.get("version")}
            speaks = model.get("protocolVersion", "v1") in runtime["spec"]["protocolVersions"]
            if fits and speaks and (named or ("runtime" not in model and each.get("autoSelect"))):
                return runtime
    raise LookupError("no runtime supports the model")


def merged(service: Document, runtime: Document) -> Document:
    """The InferenceService with its container written out, as the controller makes the pod of it."""
    predictor = {key: value for key, value in service["spec"]["predictor"].items() if key != "model"}
    model, spec = service["spec"]["predictor"]["model"], runtime["spec"]
    (box,) = [box for box in spec["containers"] if box["name"] == CONTAINER]
    given = {key: value for key, value in model.items() if key not in OWN_FIELDS}
    box = merge(box, given) | {"args": box.get("args", []) + given.get("args", [])}
    name = service["metadata"]["name"]
    box = json.loads(json.dumps(box).replace("{{.Name}}", name))
    box["env"].append({"name": "INFERENCE_SERVICE_NAME", "value": name})
    pod = merge({key: value for key, value in spec.items() if key not in NOT_OF_A_POD}, predictor)
    notes = spec.get("annotations", {}) | predictor.get("annotations", {})
    return service | {"spec": {"predictor": pod | {"annotations": notes, "containers": [box]}}}


def merge(below: Any, above: Any, name: str = "") -> Any:
    """Merge as Kubernetes' strategic merge patch does: maps by their keys, some lists by one key of their items."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: merge(below.get(key), value, key) for key, value in above.items()}
    if isinstance(below, list) and name in MERGE_KEYS:
        key = MERGE_KEYS[name]
        patches = {item[key]: item for item in above}
        kept = [merge(item, patches.pop(item[key], {})) for item in below]
        return kept + list(patches.values())
    return above
