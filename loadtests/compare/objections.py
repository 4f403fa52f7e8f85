"""Say why runs may not be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from defects.pages.axes import figure
from loadtests.results import Summary


def objections(a: Sequence[Summary], b: Sequence[Summary]) -> list[str]:
    """Return why these runs should not be compared, a line each."""
    found = [f"{side}{number} is {run.verdict.outcome}: {'; '.join(run.verdict.reasons)}"
             for side, runs in (("A", a), ("B", b)) for number, run in enumerate(runs, 1)
             if run.verdict.outcome in ("Invalid", "Error")]  # fmt: skip
    for name, of in SAME.items():
        values = list(dict.fromkeys(of(run) for run in (*a, *b)))
        if len(values) > 1:
            found.append(f"{name}: {' and '.join(values)}; expected the same in all runs")
    if sorted({run.seed for run in a}) != sorted({run.seed for run in b}):
        found.append(f"seeds: {_seeds(a)} in A and {_seeds(b)} in B; expected the same on both sides")
    runs = [*a, *b]
    if len({(run.seed, run.load_digest) for run in runs}) > len({run.seed for run in runs}):
        found.append("load: the scenario's content or the rows differ, or are not known; expected the same in all runs")
    found += _older_rule(runs)
    if any(run == other for number, run in enumerate(runs) for other in runs[:number]):
        found.append("a run is given twice; expected each once")
    return found


def _older_rule(runs: Sequence[Summary]) -> list[str]:
    """Object to runs of which only some times to recover take later breaches into account."""
    older = [run for run in runs if run.recovery.breached_at is not None and run.recovery.broken_again_at is None]
    if not older or all(run.recovery.broken_again_at is None for run in runs):
        return []
    return ["time to recover: some runs are from before later breaks counted; expected the same rule in all runs"]


def _seeds(runs: Sequence[Summary]) -> str:
    return ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))


SAME: dict[str, Callable[[Summary], str]] = {
    "scenario": lambda run: run.scenario,
    "requests/s at a factor of 1 (--rate fixes it)": lambda run: figure(run.base_per_s),
    "phases": lambda run: ", ".join(f"{phase.name} from {figure(phase.start)} s" for phase in run.phases),
    "SLO": lambda run: ", ".join(f"{key} {value}" for key, value in run.slo.model_dump(exclude_none=True).items()),
    "payloads": lambda run: ", ".join(run.kinds),
    "cluster": lambda run: (run.cluster.mode or "of an unknown mode") if run.cluster else "none",
    "machine": lambda run: ", ".join(run.environment.machine.get(key, "?") for key in ("cpu", "cores", "kernel")),
    "generator's processes": lambda run: str(run.generator.workers),
}
