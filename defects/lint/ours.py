"""Rules about this project's own server: settings, the end of a replica, memory, and what it does not go with."""

from __future__ import annotations

import re
from collections.abc import Iterator

from defects.lint.memory import need
from defects.lint.resources import Container, Runtime, Service
from defects.lint.rule import Problem, Rule
from defects.settings import PREFIX, BadSetting, Settings

QUEUE_PROXY_SECONDS = 30  # without a request, before Knative lets the server have its SIGTERM
SPARE_SECONDS = 2  # what a process needs to end, after it has drained
DEFAULT_GRACE = 30  # Kubernetes' terminationGracePeriodSeconds
DEFAULT_TIMEOUT = 300  # Knative's revision-timeout-seconds
SKLEARN = "sklearn"
WITH_PASSWORD = re.compile(r"[^/]*://[^/@]*:[^/@]+@")  # a URL


def _given(container: Container) -> dict[str, str]:
    """Return the settings that the stream tells the values of, without those that are in files."""
    names = {str(field.alias) for field in Settings.model_fields.values()}
    values = {name: value for name, value in container.environment.items() if value is not None}
    return {n: v for n, v in values.items() if n in names or (n.startswith(PREFIX) and not n.endswith("_FILE"))}


def _settings(container: Container) -> Settings | None:
    """Return the settings that the server will have; none where it would not start."""
    try:
        return Settings.from_environment(_given(container))
    except BadSetting:
        return None


def bad_setting(subject: Service | Runtime) -> Iterator[Problem]:
    """Find settings that end the server's start."""
    if subject.ours is not None:
        try:
            Settings.from_environment(_given(subject.ours))
        except BadSetting as problem:
            yield Problem(subject.ours.at("env"), str(problem))


def password(subject: Service | Runtime) -> Iterator[Problem]:
    """Find URLs whose password stands in the manifests."""
    if subject.ours is not None:
        for name, value in _given(subject.ours).items():
            if WITH_PASSWORD.match(value):
                yield Problem(subject.ours.at("env"), f"{name} has a password that everybody can read")


def grace(service: Service) -> Iterator[Problem]:
    """Find grace periods that end before the server has drained."""
    settings = _settings(service.ours) if service.ours is not None else None
    if settings is None or service.mode is None:
        return
    needed = settings.drain_seconds + settings.finish_seconds + SPARE_SECONDS
    sum_ = (
        f"{settings.drain_seconds:g} s to drain, {settings.finish_seconds:g} s to finish and {SPARE_SECONDS} s to spare"
    )
    name, default = "terminationGracePeriodSeconds", DEFAULT_GRACE
    if service.mode == "Knative":
        needed += QUEUE_PROXY_SECONDS
        sum_ = f"queue-proxy's {QUEUE_PROXY_SECONDS} s, {sum_}"
        name, default = "timeout", DEFAULT_TIMEOUT
    field = service.predictor.field.at(name)
    given = default if field.number is None else field.number
    if given < needed:
        yield Problem(field, f"{name} is {given:g} s; it takes {sum_}: {needed:g} s")


def memory(subject: Service | Runtime) -> Iterator[Problem]:
    """Find memory limits below what requests can make the server need."""
    settings = _settings(subject.ours) if subject.ours is not None else None
    if subject.ours is None or settings is None:
        return
    limit = subject.ours.at("resources", "limits", "memory")
    needed = need(settings)
    if limit.quantity is not None and limit.quantity < needed.total:
        yield Problem(limit, f"the limit is {limit.quantity / 1e6:,.0f} MB; it can need {needed}")


def sklearn_format(service: Service) -> Iterator[Problem]:
    """Find this server asked to serve a model of KServe's format sklearn."""
    predictor = service.predictor
    name = predictor.framework.at("modelFormat", "name")
    if service.ours is not None and name.text == SKLEARN:
        yield Problem(name, "modelFormat sklearn with this server")
    elif service.ours is not None and predictor.field.at(SKLEARN).given:
        yield Problem(predictor.field.at(SKLEARN), "predictor.sklearn with this server")


def sklearn_runtime(runtime: Runtime) -> Iterator[Problem]:
    """Find a runtime of this server that offers itself for KServe's format sklearn."""
    if runtime.ours is None:
        return
    for format_ in runtime.root.at("spec", "supportedModelFormats").items:
        if format_.at("name").text == SKLEARN:
            yield Problem(format_.at("name"), "a runtime of this server claims the format sklearn")


def batcher(service: Service) -> Iterator[Problem]:
    """Find KServe's batcher in front of this server."""
    if service.ours is not None and service.predictor.field.at("batcher").given:
        yield Problem(service.predictor.field.at("batcher"), "KServe's batcher in front of a server that batches")


def batcher_elsewhere(service: Service) -> Iterator[Problem]:
    """Find KServe's batcher in front of other servers."""
    if service.ours is None and service.predictor.field.at("batcher").given:
        yield Problem(service.predictor.field.at("batcher"), "KServe's batcher hides errors, and knows only V1")


BATCHER_REASON = (
    "KServe's batcher speaks only V1, turns errors of the server into 200 with text/plain, and drops headers, such "
    "as Retry-After."
)
RULES = (
    Rule(
        "setting",
        "error",
        "a setting that the server does not start with",
        "An unknown DEFECTS_ name or a bad value ends the start with exit code 78. In Knative mode nothing says so "
        "for 10 minutes.",
        "this project's server, as in this checkout",
        "Correct the variable; docs/settings.md has them all.",
        bad_setting,
        bad_setting,
    ),
    Rule(
        "password-in-manifest",
        "warning",
        "a setting whose URL has a password",
        "Whoever may read the manifests, in Git or in the cluster, has the password. A Secret can be read by fewer, "
        "and is made outside of Git.",
        "this project's server",
        "Take the variable from a Secret, by secretKeyRef; see kserve/components/history.",
        password,
        password,
    ),
    Rule(
        "grace-too-short",
        "error",
        "a grace period that ends before the server has answered what it accepted",
        "The server answers for DEFECTS_DRAIN_SECONDS, then finishes within DEFECTS_FINISH_SECONDS. In Knative mode "
        "the grace period is the timeout, and queue-proxy first waits until it has seen no request for 30 s.",
        "this project's server; KServe 0.20.0, Knative Serving 1.21 to 1.23",
        "Raise terminationGracePeriodSeconds (Standard) or timeout (Knative), or lower the two settings.",
        grace,
    ),
    Rule(
        "memory-too-small",
        "warning",
        "a memory limit below what requests can make the server need",
        "The server bounds the bodies that it receives, the rows that wait and its connections. If all bounds "
        "together are above the limit, callers can have the kernel kill it: 900 uploads killed a pod with 1 GiB "
        "before there was a bound.",
        "this project's server with the built-in model; the figures are in defects/lint/memory.py",
        "Raise resources.limits.memory, or lower DEFECTS_MAX_BODIES_BYTES, DEFECTS_MAX_QUEUED_ROWS or "
        "DEFECTS_MAX_CONNECTIONS.",
        memory,
        memory,
    ),
    Rule(
        "sklearn-format",
        "error",
        "the model format sklearn with this server",
        "KServe's own runtimes select that format by themselves (priorities 1 and 2), for joblib files. This server "
        "takes its own artifact, so one of the two gets files that it cannot read.",
        "KServe 0.20.0",
        "Use a model format of your own, such as defects, with autoSelect: true in the runtime.",
        sklearn_format,
        sklearn_runtime,
    ),
    Rule(
        "batcher",
        "error",
        "KServe's batcher in front of this server",
        f"{BATCHER_REASON} This server batches by itself, by deadline.",
        "KServe 0.20.0 (recorded)",
        "Remove predictor.batcher.",
        batcher,
    ),
    Rule(
        "batcher-other",
        "note",
        "KServe's batcher",
        BATCHER_REASON,
        "KServe 0.20.0 (recorded)",
        "Batch in the server, where it can; have callers look at the content of a 200.",
        batcher_elsewhere,
    ),
)
