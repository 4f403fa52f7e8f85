"""Rules about Knative mode: what KServe's webhook takes, and Knative then refuses, drops or does otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from defects.lint.fields import Field
from defects.lint.resources import Component, Service
from defects.lint.rule import Problem, Rule

FULL_DUPLEX = "features.knative.dev/http-full-duplex"
MAX_CONCURRENCY = 1000  # container-concurrency-max-limit
MAX_TIMEOUT = 600  # max-revision-timeout-seconds
RESERVED = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")
PORT_NAMES = ("", "http1", "h2c")


def refused(service: Service) -> Iterator[Problem]:
    """Find what makes Knative's webhook refuse the revision."""
    if service.mode != "Knative":
        return
    for component in service.components:
        limit, timeout = component.field.at("containerConcurrency"), component.field.at("timeout")
        if (limit.number or 0) > MAX_CONCURRENCY:
            yield Problem(limit, f"containerConcurrency {limit.number:g}; Knative takes at most {MAX_CONCURRENCY:,}")
        if (timeout.number or 0) > MAX_TIMEOUT:
            yield Problem(timeout, f"timeout {timeout.number:g} s; Knative takes at most {MAX_TIMEOUT}")
        yield from _containers(component)


def _containers(component: Component) -> Iterator[Problem]:
    ports: list[Field] = []
    for container in component.containers:
        for variable in container.at("env").items:
            name = variable.at("name")
            if name.text in RESERVED:
                yield Problem(name, f"the variable {name.text} is Knative's own")
        ports += container.at("ports").items
    if len(ports) > 1:
        yield Problem(ports[1], f"{len(ports)} ports; Knative takes exactly one in a pod")
    for port in ports:
        name = port.at("name")
        if name.text is not None and name.text not in PORT_NAMES:
            yield Problem(name, f"a port with the name {name.text!r}; Knative takes http1, h2c or no name")


def dropped(service: Service) -> Iterator[Problem]:
    """Find what never reaches the pods."""
    if service.mode != "Knative":
        return
    for component in service.components:
        grace = component.field.at("terminationGracePeriodSeconds")
        if grace.given:
            yield Problem(grace, "terminationGracePeriodSeconds is dropped: the grace period is the timeout")
        for container in component.containers:
            if container.at("lifecycle").given:
                yield Problem(container.at("lifecycle"), "lifecycle is dropped: no hook runs")


def standard_limit(service: Service) -> Iterator[Problem]:
    """Find a limit of requests in flight that nothing enforces."""
    limit = service.predictor.field.at("containerConcurrency")
    if service.mode == "Standard" and limit.number:
        yield Problem(limit, f"containerConcurrency {limit.number:g} limits nothing in Standard mode")


def _half_duplex(service: Service) -> Iterator[Problem]:
    duplex = service.annotation(FULL_DUPLEX)
    if service.mode == "Knative" and (duplex.text or "").lower() != "enabled":
        yield Problem(duplex, f"{FULL_DUPLEX} is not Enabled")


def cut_short(service: Service) -> Iterator[Problem]:
    """Find this project's server behind queue-proxy without full duplex."""
    return _half_duplex(service) if service.ours is not None else iter(())


def cut_short_elsewhere(service: Service) -> Iterator[Problem]:
    """Find other servers behind queue-proxy without full duplex."""
    return _half_duplex(service) if service.ours is None else iter(())


DUPLEX_REASON = (
    "queue-proxy is a Go server: with HTTP/1.1 it does not read a request's body and write its answer at the same "
    "time, unless it is told to. Requests with large bodies then sometimes get 200 with an answer that is cut short. "
    "On a real cluster it was 14 of 63,595 requests of 256 rows, and with this annotation 0 of 60,634."
)
DUPLEX_VERSIONS = "Knative Serving 1.23.0 with Kourier, KServe 0.20.0 (recorded)"
DUPLEX_FIX = f'Set the annotation {FULL_DUPLEX}: "Enabled" in metadata or in the predictor; both reach the revision.'

RULES = (
    Rule(
        "knative-refuses",
        "error",
        "what Knative's webhook refuses, after KServe's has taken it",
        "kubectl apply succeeds, and the InferenceService then never becomes ready: ReconcileFailed.",
        "Knative Serving 1.21 to 1.23, default configuration",
        f"One port, named http1 or h2c or not at all; containerConcurrency up to {MAX_CONCURRENCY:,}; timeout up to "
        f"{MAX_TIMEOUT}; none of the variables {', '.join(RESERVED)}.",
        refused,
    ),
    Rule(
        "knative-drops",
        "warning",
        "fields that Knative drops",
        "Knative makes the pod itself: terminationGracePeriodSeconds and lifecycle hooks do not reach it.",
        "KServe 0.20.0, Knative Serving 1.21 to 1.23",
        "Set timeout to what the end of a replica takes; let the server itself drain on SIGTERM.",
        dropped,
    ),
    Rule(
        "concurrency-in-standard",
        "note",
        "containerConcurrency in Standard mode",
        "Only queue-proxy limits requests in flight, and Standard mode has none.",
        "KServe 0.20.0",
        "Remove it, and let the server refuse what it cannot answer in time.",
        standard_limit,
    ),
    Rule(
        "http-full-duplex",
        "warning",
        "this server behind Knative without full duplex",
        DUPLEX_REASON,
        DUPLEX_VERSIONS,
        DUPLEX_FIX,
        cut_short,
    ),
    Rule(
        "http-full-duplex-other",
        "note",
        "another server behind Knative without full duplex",
        f"{DUPLEX_REASON} Other servers were not measured.",
        DUPLEX_VERSIONS,
        DUPLEX_FIX,
        cut_short_elsewhere,
    ),
)
