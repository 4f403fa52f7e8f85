"""Rules about autoscalers: does what they look at change before a replica is overloaded?"""

from __future__ import annotations

from collections.abc import Iterator

from defects.lint.fields import Field
from defects.lint.resources import Component, Service
from defects.lint.rule import Problem, Rule

CLASS = "serving.kserve.io/autoscalerClass"
KNATIVE_PREFIX = "autoscaling.knative.dev/"
KNATIVE_CLASS = "autoscaling.knative.dev/class"
METRIC = "autoscaling.knative.dev/metric"
TARGET = "autoscaling.knative.dev/target"
UTILIZATION = "autoscaling.knative.dev/target-utilization-percentage"
BURST = "autoscaling.knative.dev/target-burst-capacity"
DEFAULT_TARGET, DEFAULT_UTILIZATION, DEFAULT_BURST = 100.0, 70.0, 211


def _scales(component: Component) -> bool:
    """Whether there may be more replicas than there are at least; Knative takes no maximum for no limit."""
    least, most = component.field.at("minReplicas").number, component.field.at("maxReplicas").number
    if not most:
        return component.service.mode == "Knative"
    return most > max(1.0, 1.0 if least is None else least)


def _class(service: Service) -> Field:
    return service.root.at("metadata", "annotations", CLASS)


def uses_kpa(service: Service) -> bool:
    """Return whether Knative's own autoscaler scales it."""
    kind = service.annotation(KNATIVE_CLASS).text
    return service.mode == "Knative" and (kind is None or kind.startswith("kpa."))


def _uses_hpa(service: Service) -> bool:
    return service.mode == "Standard" and (not _class(service).given or _class(service).text == "hpa")


def _number(field: Field, default: float) -> float:
    """Return the number in an annotation."""
    try:
        return float(field.text or default)
    except ValueError:
        return default


def _on_concurrency(service: Service) -> bool:
    """Whether Knative's autoscaler changes the number of replicas, by requests in flight."""
    metric = service.predictor.field.at("scaleMetric").text or service.annotation(METRIC).text or "concurrency"
    return metric == "concurrency" and uses_kpa(service) and _scales(service.predictor)


def _target(service: Service) -> tuple[Field, float]:
    """Return how many requests in each replica Knative's autoscaler aims at, and where that is said."""
    scale_target = service.predictor.field.at("scaleTarget")
    limit = service.predictor.field.at("containerConcurrency").number or 0.0
    target = scale_target.number
    if target is None:
        target = _number(service.annotation(TARGET), limit or DEFAULT_TARGET)
    target = min(target, limit) if limit > 0 else target
    return scale_target, target * _number(service.annotation(UTILIZATION), DEFAULT_UTILIZATION) / 100


def kpa_unseen(service: Service) -> Iterator[Problem]:
    """Find targets of requests in flight that a replica does not have before it is overloaded."""
    if not _on_concurrency(service):
        return
    field, target = _target(service)
    capacity, seconds = service.options.capacity, service.options.service_seconds
    if capacity is not None and seconds is not None:
        if target > capacity * seconds:
            yield Problem(
                field,
                f"replicas are added at {target:.3g} requests in flight in each; at its capacity of {capacity:g}/s, "
                f"with {seconds:g} s each, a replica has {capacity * seconds:.3g}; "
                f"scaleMetric: rps with scaleTarget: {max(1, int(capacity))} is seen",
            )
    elif service.ours is not None:
        yield Problem(
            field,
            f"replicas are added at {target:.3g} requests in flight in each, which this server only has when its "
            "queue is filling",
        )


def kpa_default(service: Service) -> Iterator[Problem]:
    """Find the default target, which is for servers that wait rather than compute."""
    options = service.options
    known = service.ours is not None or (options.capacity is not None and options.service_seconds is not None)
    limited = service.predictor.field.at("containerConcurrency").number
    said = service.predictor.field.at("scaleTarget").given or service.annotation(TARGET).given
    if _on_concurrency(service) and not (known or limited or said):
        yield Problem(
            service.predictor.field.at("scaleTarget"), "no scaleTarget: 70 requests in flight in each replica"
        )


def hpa_no_metric(service: Service) -> Iterator[Problem]:
    """Find metrics that KServe leaves out of the HorizontalPodAutoscaler that it makes."""
    for component in service.components:
        metric, target = component.field.at("scaleMetric"), component.field.at("scaleTarget")
        if not _uses_hpa(service) or component.field.at("autoScaling").members or metric.text is None:
            continue
        if metric.text == "memory" and not target.given:
            yield Problem(metric, "memory without a scaleTarget: the HorizontalPodAutoscaler gets no metric")
        elif metric.text not in ("cpu", "memory"):
            yield Problem(metric, f"{metric.text}: the HorizontalPodAutoscaler gets no metric")


def hpa_no_request(service: Service) -> Iterator[Problem]:
    """Find containers without a request for the resource that the HorizontalPodAutoscaler looks at."""
    for component in service.components:
        if not _uses_hpa(service) or not _scales(component):
            continue
        metric = component.field.at("scaleMetric").text or "cpu"
        if metric not in ("cpu", "memory") or component.field.at("autoScaling").members:
            continue
        # The first container gets requests from KServe's configuration, where it has none.
        for container in component.containers[1:]:
            resources = container.at("resources")
            if not resources.at("requests", metric).given and not resources.at("limits", metric).given:
                name = container.at("name").text
                yield Problem(container.at("resources"), f"the container {name!r} has no request for {metric}")


def hpa_no_maximum(service: Service) -> Iterator[Problem]:
    """Find HorizontalPodAutoscalers that are told what to scale on, and not how far."""
    for component in service.components:
        asked = [component.field.at(name) for name in ("scaleMetric", "scaleTarget", "autoScaling")]
        given = [field for field in asked if field.given]
        if _uses_hpa(service) and given and not component.field.at("maxReplicas").number:
            yield Problem(given[0], "no maxReplicas: it is taken to be minReplicas, and nothing is scaled")


def hpa_behavior(service: Service) -> Iterator[Problem]:
    """Find behaviour that KServe does not pass on."""
    for component in service.components:
        behavior = component.field.at("autoScaling", "behavior")
        if behavior.members and _uses_hpa(service):
            yield Problem(behavior, "behavior is not passed on to the HorizontalPodAutoscaler")


def keda_slow(service: Service) -> Iterator[Problem]:
    """Find KEDA, whose intervals can't be set through KServe."""
    if service.mode == "Standard" and _class(service).text == "keda":
        yield Problem(_class(service), "KEDA asks for its metrics every 30 s; KServe has no field for that")


def not_scaled(service: Service) -> Iterator[Problem]:
    """Find fields of an autoscaler where there is none."""
    if service.mode != "Standard" or _class(service).text not in ("none", "external"):
        return
    for component in service.components:
        for name in ("scaleMetric", "scaleTarget", "autoScaling"):
            field = component.field.at(name)
            if field.given:
                yield Problem(field, f"{name} does nothing: autoscalerClass is {_class(service).text}")


def standard_zero(service: Service) -> Iterator[Problem]:
    """Find minReplicas: 0 where a HorizontalPodAutoscaler makes it 1, or where nothing ever starts a replica."""
    for component in service.components:
        least = component.field.at("minReplicas")
        if service.mode != "Standard" or least.number != 0:
            continue
        if _uses_hpa(service):
            yield Problem(least, "minReplicas: 0 is taken for 1: a HorizontalPodAutoscaler does not scale to zero")
        elif _class(service).text == "none":
            yield Problem(least, "minReplicas: 0 without an autoscaler: there is never a replica")


def other_class(service: Service) -> Iterator[Problem]:
    """Find KServe's choice of an autoscaler where Knative has its own."""
    if service.mode == "Knative" and _class(service).text not in (None, "none"):
        yield Problem(_class(service), f"autoscalerClass {_class(service).text} does nothing in Knative mode")


def other_annotation(service: Service) -> Iterator[Problem]:
    """Find annotations for Knative's autoscaler where there is none."""
    if service.mode != "Standard":
        return
    for given in (service.root.at("metadata", "annotations"), service.predictor.field.at("annotations")):
        for key, field in given.members.items():
            if key.startswith(KNATIVE_PREFIX):
                yield Problem(field, f"{key} does nothing in Standard mode")


def burst_capacity(service: Service) -> Iterator[Problem]:
    """Find the activator in the way of every request for nothing."""
    limit = service.predictor.field.at("containerConcurrency").number
    burst = service.annotation(BURST)
    if service.mode == "Knative" and not limit and _number(burst, DEFAULT_BURST) != 0:
        yield Problem(burst, f"target-burst-capacity {burst.text or DEFAULT_BURST}, and no containerConcurrency")


HPA = "KServe 0.20.0, Standard mode"
RULES = (
    Rule(
        "kpa-concurrency",
        "warning",
        "Knative's autoscaler on requests in flight, with a target that is not seen below saturation",
        "Below saturation a replica that needs 8 ms for a request has 0.2 of them in flight, so one replica seems "
        "enough for any rate. Overload fills the queue, panic adds replicas, and 60 s later all but one are taken "
        "away again, in the middle of the burst. This was recorded on a real cluster, also with scaleTarget: 1.",
        "Knative Serving 1.23.0, KServe 0.20.0 (recorded)",
        "Use scaleMetric: rps with scaleTarget: what one replica holds at your latency (a ramp measures it). With "
        "--capacity and --service-seconds the rule compares the target with what your replica has in flight.",
        kpa_unseen,
    ),
    Rule(
        "kpa-default-target",
        "note",
        "Knative's autoscaler with its default target",
        "Without scaleTarget and containerConcurrency, replicas are added when 100 × 70 % requests are in flight in "
        "each. A server that computes has so many only when it is overloaded.",
        "Knative Serving 1.21 to 1.23",
        "Set scaleMetric: rps with scaleTarget: what one replica holds; or a containerConcurrency.",
        kpa_default,
    ),
    Rule(
        "hpa-no-metric",
        "error",
        "a scaleMetric that a HorizontalPodAutoscaler does not get",
        "KServe's webhook checks scaleMetric only where the annotation autoscalerClass is given. Its controller "
        "knows cpu, and memory with a scaleTarget; for anything else it makes an autoscaler without metrics.",
        HPA,
        "Use scaleMetric: cpu, or memory with a scaleTarget, and set serving.kserve.io/autoscalerClass: hpa.",
        hpa_no_metric,
    ),
    Rule(
        "hpa-no-request",
        "error",
        "a container without a request for the resource that it is scaled on",
        "A HorizontalPodAutoscaler computes a share of what all containers of a pod request. Where one requests "
        "nothing, there is no share, and it does not scale. KServe's configuration fills in requests for the first "
        "container only.",
        HPA,
        "Give every container resources.requests for the metric's resource.",
        hpa_no_request,
    ),
    Rule(
        "hpa-no-maximum",
        "warning",
        "a scaleMetric or scaleTarget without maxReplicas in Standard mode",
        "KServe makes a HorizontalPodAutoscaler whose maximum is its minimum. (In Knative mode no maxReplicas is no "
        "limit.)",
        HPA,
        "Set maxReplicas.",
        hpa_no_maximum,
    ),
    Rule(
        "hpa-behavior",
        "warning",
        "autoScaling.behavior beside a HorizontalPodAutoscaler",
        "KServe makes the autoscaler with an empty behavior; the field is only read for KEDA.",
        HPA,
        "Remove it. For another behavior, set autoscalerClass: external and write a HorizontalPodAutoscaler yourself.",
        hpa_behavior,
    ),
    Rule(
        "keda-interval",
        "note",
        "KEDA made by KServe",
        "KServe passes on no pollingInterval and no cooldownPeriod. With KEDA's 30 s a short burst is over before it "
        "is seen.",
        HPA,
        "For bursts use a metric that is looked at more often: a HorizontalPodAutoscaler, or Knative.",
        keda_slow,
    ),
    Rule(
        "autoscaler-none",
        "warning",
        "fields of an autoscaler where KServe makes none",
        "With autoscalerClass none or external, KServe makes no autoscaler, and nothing reads these fields.",
        HPA,
        "Remove the fields, or set serving.kserve.io/autoscalerClass: hpa.",
        not_scaled,
    ),
    Rule(
        "standard-zero",
        "warning",
        "minReplicas: 0 in Standard mode",
        "KServe's HorizontalPodAutoscaler has at least 1 replica. With autoscalerClass none, 0 replicas are what "
        "there is, and no request starts one.",
        HPA,
        "Set minReplicas to 1 or more; only Knative mode (and KEDA) scale to zero.",
        standard_zero,
    ),
    Rule(
        "autoscaler-class-knative",
        "warning",
        "autoscalerClass in Knative mode",
        "Only Standard mode reads it. In Knative mode the replicas are Knative's autoscaler's, on requests in flight.",
        "KServe 0.20.0",
        "Remove it, and set scaleMetric and scaleTarget for Knative's autoscaler.",
        other_class,
    ),
    Rule(
        "knative-annotation-standard",
        "note",
        "annotations for Knative's autoscaler in Standard mode",
        "Nothing reads them there.",
        "KServe 0.20.0",
        "Remove them; in Standard mode use minReplicas, maxReplicas, scaleMetric and scaleTarget.",
        other_annotation,
    ),
    Rule(
        "burst-capacity",
        "note",
        "Knative's activator stays in the path of every request",
        "Until the replicas have room for target-burst-capacity (211) more, requests go through the activator. "
        "Without a containerConcurrency it cannot hold any of them back, so it is only one more hop.",
        "Knative Serving 1.21 to 1.23",
        'Set the annotation autoscaling.knative.dev/target-burst-capacity: "0", or a containerConcurrency.',
        burst_capacity,
    ),
)
