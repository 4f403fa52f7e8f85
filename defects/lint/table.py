"""List all rules, and find what they find."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from defects.lint import images, knative, networks, ours, probes, rollouts, scaling
from defects.lint.fields import Field
from defects.lint.resources import Resource, Runtime, Service, Stream
from defects.lint.rule import Finding, Problem, Rule

IGNORE = "defects.lint/ignore"  # an annotation: ids of rules, with commas between them

UNKNOWN = Rule(
    "ignore-unknown",
    "warning",
    f"an annotation {IGNORE} with a name that no rule has",
    "What it was to silence is not silenced.",
    "this linter",
    "Take the name from `python -m defects.lint --rules`.",
)
RULES: tuple[Rule, ...] = (
    *rollouts.RULES,
    *knative.RULES,
    *scaling.RULES,
    *probes.RULES,
    *images.RULES,
    *ours.RULES,
    *networks.RULES,
    UNKNOWN,
)
BY_ID = {rule.id: rule for rule in RULES}


def findings(stream: Stream, ignored: Collection[str] = ()) -> Iterator[Finding]:
    """Yield what all rules find that are not ignored, in the order of the stream."""
    services = {id(service.resource): service for service in stream.services}
    runtimes = {id(runtime.resource): runtime for runtime in stream.runtimes}
    seen: set[tuple[object, ...]] = set()  # what is wrong with a runtime is said once, whoever uses it
    for resource in stream.resources:
        silenced = {*ignored, *_ignored(resource)}
        problems = _problems(resource, services.get(id(resource)), runtimes.get(id(resource)))
        for rule, (field, message) in problems:
            found = (rule.id, field.origin, field.path, message)
            if rule.id not in silenced and found not in seen:
                seen.add(found)
                yield Finding(rule, resource, field, message)


def _problems(resource: Resource, service: Service | None, runtime: Runtime | None) -> Iterator[tuple[Rule, Problem]]:
    """Yield what is wrong with one object, by rule."""
    for rule in RULES:
        if service is not None:
            yield from ((rule, problem) for problem in rule.check(service))
        if runtime is not None:
            yield from ((rule, problem) for problem in rule.check_runtime(runtime))
    for name in _ignored(resource):
        if name not in BY_ID:
            yield UNKNOWN, Problem(_annotation(resource), f"no rule has the name {name!r}")


def _annotation(resource: Resource) -> Field:
    return resource.root.at("metadata", "annotations", IGNORE)


def _ignored(resource: Resource) -> list[str]:
    return [name for part in (_annotation(resource).text or "").split(",") if (name := part.strip())]
