"""Read what one replica holds from the summary of an earlier ramp."""

from __future__ import annotations

from pathlib import Path

from loadtests import results
from loadtests.scenario import BadScenario, Scenario


def replica_capacity(directory: Path) -> float:
    """Return the requests per second that one replica holds, as a run found them; raises `BadScenario`."""
    try:
        found = results.read_summary(directory)
    except (OSError, ValueError):
        raise BadScenario(f"--rate: {directory}: no summary can be read; expected the directory of a run") from None
    if found.capacity is None or not found.capacity.per_s or found.capacity.limited_by != "server":
        raise BadScenario(f"--rate: {directory} found no capacity; expected a run of `ramp` that did")
    replica = found.capacity.replica
    if replica is None:
        raise BadScenario(f"--rate: {directory} is of an older version; expected a run of `ramp` of this one")
    if replica.per_s is None:
        raise BadScenario(f"--rate: {directory}: {replica.why}")
    return replica.per_s


def check_alike(directory: Path, scenario: Scenario) -> None:
    """Raise `BadScenario` where a run had other requests or another SLO: its capacity is not this scenario's."""
    found, kinds = results.read_summary(directory), sorted(payload.name for payload in scenario.payloads)
    if sorted(found.kinds) != kinds or found.slo.p95_ms != scenario.slo.p95_ms:
        what = f"{', '.join(kinds)} with a p95 of {scenario.slo.p95_ms:g} ms"
        raise BadScenario(f"--rate: {directory} had other requests or another SLO; expected {what}")
