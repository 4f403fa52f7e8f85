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
    return found.capacity.per_s / _ready_in(found, directory)


def _ready_in(found: results.Summary, directory: Path) -> int:
    """Return how many replicas answered a run: one, where no cluster was watched; raises `BadScenario`."""
    if found.cluster is None:
        return 1
    seen = found.cluster.replicas
    first = max((r.at for r in seen if r.at <= 0), default=0.0)
    counts = {r.ready for r in seen if first <= r.at <= found.duration_s}
    if len(counts) == 1 and (ready := counts.pop()):
        return ready
    what = "the number of ready replicas changed, or was not seen; expected always the same"
    raise BadScenario(f"--rate: {directory}: {what}")


def check_alike(directory: Path, scenario: Scenario) -> None:
    """Raise `BadScenario` where a run had other requests or another SLO: its capacity is not this scenario's."""
    found, kinds = results.read_summary(directory), sorted(payload.name for payload in scenario.payloads)
    if sorted(found.kinds) != kinds or found.slo.p95_ms != scenario.slo.p95_ms:
        what = f"{', '.join(kinds)} with a p95 of {scenario.slo.p95_ms:g} ms"
        raise BadScenario(f"--rate: {directory} had other requests or another SLO; expected {what}")
