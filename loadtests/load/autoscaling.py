"""Fit a scenario to what scales the service, and say before the load where the service can't do what is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator

from loadtests.cluster.process import BadCluster
from loadtests.results import ScaledBy
from loadtests.scenario import Scenario

SCALES_UP = ("detect_seconds", "provision_seconds", "scale_seconds")


def described(scenario: Scenario, scaled: ScaledBy | None) -> str:
    """Return what scales the service, and whose lengths and limits apply, in a line."""
    if scaled is None:
        return "what scales the service is not known: lengths and limits are those for any autoscaler"
    if scaled.limits in scenario.by_autoscaler:
        return f"{scaled}: lengths and limits are the scenario's for {scaled.limits}"
    return f"{scaled}: lengths and limits are those for any autoscaler"


def check(name: str, scenario: Scenario, scaled: ScaledBy | None) -> None:
    """Raise `BadCluster` where a service that is scaled so can't do what the scenario measures."""
    for problem in problems(scenario, scaled) if scaled else ():
        raise BadCluster(f"--cluster: {name} {problem}")


def problems(scenario: Scenario, scaled: ScaledBy) -> Iterator[str]:
    """Yield why the service can't do what the scenario, already fitted to it, measures."""
    slo, platform = scenario.slo, scenario.cluster
    scales_up = any(getattr(slo, limit) is not None for limit in SCALES_UP)
    if scaled.is_fixed and (scales_up or slo.down_seconds is not None):
        expected = "expected an autoscaler, and maxReplicas above minReplicas"
        yield f"measures how the service scales, which has {_fixed(scaled)}; {expected}"
    need = highest(scenario) if scenario.rate == "replica" and scales_up else 0
    if scaled.most is not None and need > scaled.most:
        yield f"needs {need} replicas, and maxReplicas is {scaled.most}; expected at least {need}"
    if platform and (platform.from_zero_seconds or platform.to_zero_seconds) and (least := scaled.fewest):
        begins = "begins without a replica" if platform.from_zero_seconds else "waits until there is no replica"
        why = "an HPA keeps one" if scaled.kind == "HPA" else f"minReplicas is {least}"
        yield f"{begins}, and {why}; expected a service that scales to zero: Knative's KPA with minReplicas 0"


def _fixed(scaled: ScaledBy) -> str:
    return str(scaled) if scaled.kind == "none" else f"always {scaled.fewest}: minReplicas is maxReplicas"


def highest(scenario: Scenario) -> int:
    """Return how many replicas the highest rate needs, where rates are in replicas."""
    segments = (segment for phase in scenario.phases for segment in phase.profile(1.0))
    return math.ceil(max(max(segment.first, segment.last) for segment in segments) - 1e-9)
