"""Read from an InferenceService what scales it, as KServe 0.20 understands its annotations and fields."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from loadtests.results import AutoscalerKind, ScaledBy

CLASS = "serving.kserve.io/autoscalerClass"  # in Standard mode
KNATIVE = "autoscaling.knative.dev/"
CLASSES: dict[str, AutoscalerKind] = {"hpa": "HPA", "keda": "KEDA", "external": "external", "none": "none"}
METRICS = {"KPA": "concurrency", "HPA": "cpu"}  # where none is given


def scaled_by(thing: Mapping[str, Any], mode: Literal["Knative", "Standard"] | None) -> ScaledBy | None:
    """Return what scales the predictor of an InferenceService; `None` where mode or predictor are not known."""
    predictor = (thing.get("spec") or {}).get("predictor")
    if predictor is None or mode is None:
        return None
    said = {**(thing["metadata"].get("annotations") or {}), **(predictor.get("annotations") or {})}
    kind = _knative(said) if mode == "Knative" else CLASSES.get(said.get(CLASS, "hpa"))
    if kind is None:  # of a later KServe
        return None
    fewest, most = _bounds(predictor, said, kind, mode)
    is_scaled = kind in METRICS or kind == "KEDA"
    return ScaledBy(
        kind=kind,
        metric=_metric(predictor, said, kind) if is_scaled else None,
        target=_number(predictor.get("scaleTarget"), said.get(f"{KNATIVE}target")) if is_scaled else None,
        fewest=fewest,
        most=most,
    )


def _knative(said: Mapping[str, str]) -> AutoscalerKind:
    name = said.get(f"{KNATIVE}class", "kpa").partition(".")[0]
    return {"kpa": "KPA", "hpa": "HPA"}.get(name, "external")  # type: ignore[return-value]


def _metric(predictor: Mapping[str, Any], said: Mapping[str, str], kind: AutoscalerKind) -> str | None:
    """Return the metric; the first where there are several, as `autoScaling` may have."""
    given = predictor.get("scaleMetric") or said.get(f"{KNATIVE}metric")
    for metric in (predictor.get("autoScaling") or {}).get("metrics") or []:
        given = given or (metric.get("resource") or {}).get("name") or metric.get("type")
    return str(given).lower() if given else METRICS.get(kind)


def _bounds(
    predictor: Mapping[str, Any], said: Mapping[str, str], kind: AutoscalerKind, mode: Literal["Knative", "Standard"]
) -> tuple[int | None, int | None]:
    """Return the fewest and the most replicas; `None`: no bound, or somebody else's."""
    fewest = _number(predictor.get("minReplicas"), said.get(f"{KNATIVE}min-scale"))
    least = 1 if fewest is None else int(fewest)  # KServe's own default
    most = int(_number(predictor.get("maxReplicas"), said.get(f"{KNATIVE}max-scale")) or 0)
    if kind == "external":
        return None, None
    if kind == "none":
        return max(1, least), max(1, least)
    if mode == "Knative":  # without a maximum there is no limit; its HPA does not go to zero
        return least if kind == "KPA" else max(1, least), most or None
    return least if kind == "KEDA" else max(1, least), max(1, least, most)


def _number(*given: Any) -> float | None:
    """Return the first that is a number."""
    for value in given:
        with suppress(TypeError, ValueError):
            return float(value)
    return None
