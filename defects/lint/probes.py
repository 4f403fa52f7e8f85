"""Rules about probes: is there one, on the right route, and long enough for the start."""

from __future__ import annotations

import re
from collections.abc import Iterator

from defects.lint.fields import Field
from defects.lint.resources import Component, Container, Service
from defects.lint.rule import Problem, Rule

START_SECONDS = 0.4  # of this project's server, from its process's start to ready, on a full core (kserve/README.md)
PERIOD, FAILURES = 10.0, 3.0  # Kubernetes' defaults
PORT_NAME = "user-port"  # what Knative calls the port of a container
READY = re.compile(r"ready", re.IGNORECASE)


def _custom(service: Service) -> Iterator[tuple[Component, Container]]:
    """Yield the containers that serve, of components whose probes nobody else gives."""
    for component in service.components:
        if component.custom is not None:
            yield component, component.custom


def no_readiness(service: Service) -> Iterator[Problem]:
    """Find predictors without a readiness probe."""
    for component, container in _custom(service):
        if component.name == "predictor" and not container.at("readinessProbe").given:
            yield Problem(container.at("readinessProbe"), "no readiness probe: it is ready once its port is open")


def no_liveness(service: Service) -> Iterator[Problem]:
    """Find predictors without a liveness probe."""
    for component, container in _custom(service):
        if component.name == "predictor" and not container.at("livenessProbe").given:
            yield Problem(container.at("livenessProbe"), "no liveness probe: a process that hangs is never restarted")


def liveness_on_readiness(service: Service) -> Iterator[Problem]:
    """Find liveness probes that ask for readiness."""
    for component in service.components:
        for container in component.containers:
            path = container.at("livenessProbe", "httpGet", "path")
            if READY.search(path.text or ""):
                yield Problem(path, f"the liveness probe asks {path.text}, which says whether it is ready")


def startup_on_readiness(service: Service) -> Iterator[Problem]:
    """Find startup probes of this project's server that ask for readiness."""
    if service.ours is not None:
        path = service.ours.at("startupProbe", "httpGet", "path")
        if READY.search(path.text or ""):
            yield Problem(path, f"the startup probe asks {path.text}; a replica with wrong answers would be restarted")


def _seconds(probe: Field) -> float:
    """Return how long a probe lets a container fail from its start on, in seconds."""

    def value(name: str, default: float, least: float) -> float:
        found = probe.at(name).number
        return default if found is None or found < least else found

    failures = value("failureThreshold", FAILURES, 1)
    return value("initialDelaySeconds", 0, 0) + value("periodSeconds", PERIOD, 1) * failures


def _start(service: Service, container: Container) -> float | None:
    """Return how long a container takes to start with its share of a core, in seconds, where that is known."""
    seconds = service.options.start_seconds
    if seconds is None and container.is_ours:
        seconds = START_SECONDS
    return None if seconds is None else seconds / container.cores + _wait(container)


def _wait(container: Container) -> float:
    """Return how long this project's server is told to wait for its model, in seconds."""
    try:
        return max(0.0, min(float(container.environment.get("DEFECTS_MODEL_WAIT_SECONDS") or 0), 1e6))
    except ValueError:
        return 0.0


def too_short(service: Service) -> Iterator[Problem]:
    """Find probes that restart a container before it can have started."""
    containers = service.predictor.containers[:1]
    for container in containers:
        name = "startupProbe" if container.at("startupProbe").given else "livenessProbe"
        probe, start = container.at(name), _start(service, container)
        if probe.members and start is not None and _seconds(probe) < start:
            yield Problem(
                probe,
                f"{name} restarts the container after {_seconds(probe):g} s; its start takes {start:.3g} s "
                f"with {container.cores:g} of a core",
            )


def delayed(service: Service) -> Iterator[Problem]:
    """Find readiness probes that first wait longer than the start takes."""
    for container in service.predictor.containers[:1]:
        delay, start = container.at("readinessProbe", "initialDelaySeconds"), _start(service, container)
        if start is not None and delay.number is not None and delay.number > max(1.0, start):
            yield Problem(delay, f"every new replica waits {delay.number:g} s; its start takes {start:.3g} s")


def probe_port_name(service: Service) -> Iterator[Problem]:
    """Find startup probes in Knative mode that name their port."""
    if service.mode != "Knative":
        return
    for component, container in _custom(service):
        for kind in ("httpGet", "tcpSocket"):
            port = container.at("startupProbe", kind, "port")
            if port.text is not None and not port.text.isdecimal() and port.text != PORT_NAME:
                yield Problem(port, f"startupProbe of the {component.name} asks the port {port.text!r} by its name")


RULES = (
    Rule(
        "readiness-missing",
        "warning",
        "a predictor of your own without a readiness probe",
        "KServe, or Knative, puts a TCP probe in its place: requests come as soon as the port is open, also while "
        "the model is still being loaded, and while the replica shuts down.",
        "KServe 0.16 to 0.20, both modes",
        "Add a readinessProbe with httpGet on the route that says whether the model is loaded (V2: /v2/health/ready).",
        no_readiness,
    ),
    Rule(
        "liveness-missing",
        "note",
        "a predictor of your own without a liveness probe",
        "Kubernetes restarts a process that ended, not one that hangs.",
        "all versions of Kubernetes",
        "Add a livenessProbe on a route that only says whether the process runs (V2: /v2/health/live).",
        no_liveness,
    ),
    Rule(
        "liveness-on-readiness",
        "warning",
        "a liveness probe that asks whether the replica is ready",
        "A replica that is not ready for a while (it drains, or waits for something else) is killed, which makes an "
        "outage of what it waits for worse.",
        "all versions of Kubernetes",
        "Ask a route that only says whether the process runs, such as /livez or /v2/health/live.",
        liveness_on_readiness,
    ),
    Rule(
        "startup-on-readiness",
        "note",
        "a startup probe of this server that asks whether it is ready",
        "A replica whose golden answers are wrong says why on /readyz, and is to stay; a failed startup probe "
        "restarts it again and again.",
        "this project's server",
        "Use /livez for the startup probe.",
        startup_on_readiness,
    ),
    Rule(
        "probe-too-short",
        "error",
        "a probe that restarts a container before it can have started",
        "The container is killed initialDelaySeconds + periodSeconds × failureThreshold after its start. That is "
        "less than the start takes, divided by the share of a core that its limit leaves. It never becomes ready.",
        f"all versions of Kubernetes; the start is --start-seconds, or {START_SECONDS} s for this project's server, "
        "measured on a full core",
        "Add a startupProbe with a larger failureThreshold; several times the measured start. Or give it more CPU.",
        too_short,
    ),
    Rule(
        "initial-delay",
        "note",
        "a readiness probe that waits longer than the start takes",
        "initialDelaySeconds is waited for at every start, so at every scaling step and every cold start.",
        "all versions of Kubernetes; all of Knative",
        "Remove initialDelaySeconds; use a startupProbe with periodSeconds: 1.",
        delayed,
    ),
    Rule(
        "probe-port-name",
        "warning",
        "a startup probe in Knative mode that names its port",
        "Knative renames the container's port to user-port, and writes its number into the other two probes only. "
        "The kubelet does not find the name, and the container never starts.",
        "Knative Serving 1.21 to 1.23",
        "Give the port of the probe as a number.",
        probe_port_name,
    ),
)
