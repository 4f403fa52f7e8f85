"""Compare two groups of runs of one scenario, measure by measure.

What varies is the run: requests of one run share its machine, its minute and its luck, so resampling them would promise
far more than it knows. Each run therefore gives one value of a measure, and intervals are of the difference between the
groups' means across runs, of latencies in logarithms, which makes it a ratio of geometric means.

Intervals are percentile bootstrap intervals, resampled in each group, and expanded for few runs after T. Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015: the percentiles are taken as far
out as Student's t, with Welch's degrees of freedom, is beyond the normal distribution, and deviations from a group's
mean are multiplied by sqrt(n / (n - 1)). In simulations with 3 to 10 normal values a group they cover the truth in 93
to 96 % of cases, where plain percentiles do in 83 to 93 %. With fewer than 3 runs on a side there is no
interval, and nothing is called better or worse.

Whether B is better or worse is not read from them: of so many measures, some would often seem to differ by chance.
Welch's t interval decides, at a confidence of 1 - 0.05 / measures (Bonferroni), which is 95 % for all together; so far
out, resamples of a few runs promise too much. In simulations of 19 independent measures with 3 to 10 normal values a
group, fewer than 5 % of comparisons find a difference where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from defects.pages.axes import figure, percent
from defects.pages.html import plain
from defects.pages.tables import grid
from loadtests import results
from loadtests.compare.intervals import LEVEL, Difference, bonferroni
from loadtests.report.markdown import code, escaped
from loadtests.results import Cluster, PhaseResult, Summary

FEWEST = 3  # runs on a side
BETTER, WORSE, CANNOT, ERROR = 0, 1, 2, 3  # exit codes

TIMES = {
    "detect": "time to detect",
    "provision": "time to provision",
    "scale": "time to scale",
    "cold start": "slowest cold start",
    "down": "time down",
    "zero": "time to zero",
}

Finding = Literal["better", "worse", "no difference", "can't tell"]


class Value(NamedTuple):
    """One run's value of a measure; `more`: the true value is this or more."""

    value: float
    more: bool = False


class Measure(NamedTuple):
    """Something to compare; lower is better, unless `high`."""

    name: str
    of: Callable[[Summary], Value | None]
    ratio: bool = False
    high: bool = False
    show: Callable[[float | None], str] = figure


class Change(NamedTuple):
    """The difference or ratio from A to B, with the bounds of one measure alone; `joint` has those for all together."""

    middle: float
    low: float | None = None
    high: float | None = None
    joint: tuple[float, float] | None = None


class Row(NamedTuple):
    """A measure, compared."""

    measure: Measure
    a: list[Value]
    b: list[Value]
    change: Change | None
    finding: Finding


# --- what is compared -----------------------------------------------------------------------------------------------


def measures(run: Summary) -> Iterator[Measure]:
    """Yield every measure of a run of this scenario."""
    for phase in run.judged:
        name = phase.name
        for key in ("p50", "p95", "p99"):
            yield Measure(f"{name} {key}, ms", of_phase(name, attrgetter(f"latency.{key}")), ratio=True)
        yield Measure(f"{name} goodput/s", of_phase(name, lambda p: p.goodput_per_s), high=True)
        yield Measure(f"{name} refused", of_phase(name, lambda p: _share(p, p.counts.refused)), show=percent)
        yield Measure(f"{name} failed", of_phase(name, lambda p: _share(p, p.counts.failed)), show=percent)
    if any(phase.name == "burst" for phase in run.phases) and run.capacity is None:
        yield Measure("time to recover, s", recovery)
    yield from cluster_measures(run)
    if run.capacity:
        yield Measure("capacity at the SLO, requests/s", capacity, ratio=True, high=True)


def cluster_measures(run: Summary) -> Iterator[Measure]:
    """Yield what the platform did, where it was watched. The time to recover is above: it needs no cluster."""
    if run.cluster is None:
        return
    for time in run.cluster.times:
        if time.from_at is not None and time.name != "recover":
            of = "" if time.name == "cold start" else f" ({time.of})"  # that of a cold start is a pod's name
            yield Measure(f"{TIMES[time.name]}{of}, s", of_time(time.name, of and time.of))
    if run.cluster.over_replica_seconds is not None:
        yield Measure("over-provisioning, replica-seconds", of_cluster(lambda cluster: cluster.over_replica_seconds))
        yield Measure("under-provisioning, replica-seconds", of_cluster(lambda cluster: cluster.under_replica_seconds))
    if run.cluster.pods:
        yield Measure("failed near pods' starts and ends", lost_near)


def of_time(name: str, of: str) -> Callable[[Summary], Value | None]:
    """Return a getter of one of the times of a cluster; one without an end counts until the end of the watch."""

    def measured(run: Summary) -> Value | None:
        found = run.cluster.times if run.cluster else []
        time = next((time for time in found if time.name == name and time.of == (of or time.of)), None)
        if time is None or time.from_at is None or run.cluster is None:
            return None
        if time.seconds is None:
            return Value(run.cluster.watched_until - time.from_at, more=True)
        return Value(time.seconds)

    return measured


def of_cluster(get: Callable[[Cluster], float | None]) -> Callable[[Summary], Value | None]:
    """Return a getter of a measure of the whole cluster."""

    def measured(run: Summary) -> Value | None:
        value = get(run.cluster) if run.cluster else None
        return None if value is None else Value(value)

    return measured


def lost_near(run: Summary) -> Value | None:
    """Return the failed requests near any pod's start or end, each once; those of the warm-up count too."""
    if run.cluster is None or not run.cluster.pods:
        return None
    return Value(sum(phase.counts.failed for phase in run.phases) - run.cluster.lost_elsewhere)


def of_phase(name: str, get: Callable[[PhaseResult], float | None]) -> Callable[[Summary], Value | None]:
    """Return a getter of a measure of the phase called `name`."""

    def of(run: Summary) -> Value | None:
        value = next((get(phase) for phase in run.phases if phase.name == name), None)
        return None if value is None else Value(value)

    return of


def _share(phase: PhaseResult, count: int) -> float:
    return count / max(1, phase.counts.answered + phase.counts.refused + phase.counts.failed)


def recovery(run: Summary) -> Value | None:
    """Return the seconds from the burst's start until the SLO held again, or to the end of a run if it did not."""
    if run.recovery.seconds is not None:
        return Value(run.recovery.seconds)
    burst = next((phase for phase in run.phases if phase.name == "burst"), None)
    return Value(run.duration_s - burst.start, more=True) if burst and run.recovery.breached_at is not None else None


def capacity(run: Summary) -> Value | None:
    found = run.capacity
    return Value(found.per_s, more=found.limited_by != "server") if found and found.per_s is not None else None


def compare(a: Sequence[Summary], b: Sequence[Summary], seed: int = 1) -> list[Row]:
    """Return every measure of two groups of runs, compared."""
    chosen = every([*a, *b])
    level = bonferroni(len(chosen))
    return [row(m, [m.of(run) for run in a], [m.of(run) for run in b], seed, level) for m in chosen]


def every(runs: Sequence[Summary]) -> list[Measure]:
    """Return the measures that any of the runs has, each once; what only some have stands where it does there."""
    found: list[Measure] = []
    for run in runs:
        place = 0
        for measure in measures(run):
            names = [other.name for other in found]
            if measure.name in names:
                place = names.index(measure.name) + 1
            else:
                found.insert(place, measure)
                place += 1
    return found


def row(measure: Measure, a: Sequence[Value | None], b: Sequence[Value | None], seed: int, level: float) -> Row:
    """Compare one measure at a confidence of `level`; without a value in each run, the result is "can't tell"."""
    there_a, there_b = ([value for value in side if value is not None] for side in (a, b))
    if len(there_a) < len(a) or len(there_b) < len(b):
        return Row(measure, there_a, there_b, None, "can't tell")
    changed = change(measure, there_a, there_b, seed, level)
    return Row(measure, there_a, there_b, changed, finding(measure, there_a, there_b, changed))


def change(measure: Measure, a: Sequence[Value], b: Sequence[Value], seed: int, level: float) -> Change:
    """Return the change from the mean of A to that of B, with bounds where there are enough runs."""
    ratio = _is_ratio(measure, [*a, *b])
    sides = [np.array([math.log(v.value) if ratio else v.value for v in side]) for side in (a, b)]
    back: Callable[[float], float] = math.exp if ratio else float
    difference = Difference(*sides)
    middle = back(difference.middle)
    if min(len(a), len(b)) < FEWEST:
        return Change(middle)
    low, high = difference.bootstrap(np.random.default_rng(seed))
    least, most = difference.welch(level)
    return Change(middle, back(low), back(high), (back(least), back(most)))


def _is_ratio(measure: Measure, values: Sequence[Value]) -> bool:
    return measure.ratio and all(value.value > 0 for value in values)


def finding(measure: Measure, a: Sequence[Value], b: Sequence[Value], changed: Change) -> Finding:
    """Judge a change by its bounds. Values that may be more can only be found to be more than others."""
    nothing = 1.0 if _is_ratio(measure, [*a, *b]) else 0.0
    if changed.joint is None:
        return "can't tell"
    more, less = changed.joint[0] > nothing, changed.joint[1] < nothing
    if (not less and any(v.more for v in a)) or (not more and any(v.more for v in b)):
        return "can't tell"
    if not more and not less:
        return "no difference"
    return "better" if more == measure.high else "worse"


# --- may they be compared? ------------------------------------------------------------------------------------------


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


# --- what is printed ------------------------------------------------------------------------------------------------


def report(a: Sequence[Summary], b: Sequence[Summary], rows: Sequence[Row], against: Sequence[str]) -> str:
    """Return the comparison as Markdown."""
    heads = [
        "Measure",
        f"A, {len(a)} run{'s' * (len(a) > 1)}",
        f"B, {len(b)} run{'s' * (len(b) > 1)}",
        "From A to B",
        "B is",
    ]
    parts = [f"# {escaped(a[0].scenario)}: {headline(rows)}"]
    if against:
        parts.append("\n".join(["**Compared although:**", "", *(f"- {escaped(line)}" for line in against)]))
    parts += [
        f"- A: {_who(a)}\n- B: {_who(b)}",
        grid("Measures", heads, [_cells(r) for r in rows]),
        footnote(a, b, rows),
    ]
    return "\n\n".join(parts) + "\n"


def headline(rows: Sequence[Row]) -> str:
    """Return how many measures are better, worse or unknown."""
    findings = [r.finding for r in rows]
    counted = [f"{findings.count(f)} {f}" for f in ("better", "worse") if f in findings]
    if unknown := findings.count("can't tell"):
        counted.append(f"{unknown} can't be told")
    return ", ".join(counted) or "no difference"


def _who(runs: Sequence[Summary]) -> str:
    """Return which models were measured where, each once."""
    seen = dict.fromkeys(
        (run.environment.model.name, run.environment.model.version, run.environment.host) for run in runs
    )
    return "; ".join(f"{code(f'{name} {version}')} at {code(host)}" for name, version, host in seen)


def _cells(found: Row) -> list[str]:
    measure = found.measure
    shown = f"**{found.finding}**" if found.finding in ("better", "worse") else found.finding
    return [measure.name, _group(found, found.a), _group(found, found.b), _change(found), shown]


def _group(found: Row, values: Sequence[Value]) -> str:
    """Return the mean, geometric for ratios, and the range."""
    if not values:
        return "–"
    plain_values = [v.value for v in values]
    ratio = _is_ratio(found.measure, [*found.a, *found.b])
    mean = math.exp(float(np.mean(np.log(plain_values)))) if ratio else float(np.mean(plain_values))
    low, high = found.measure.show(min(plain_values)), found.measure.show(max(plain_values))
    least = "≥ " if any(v.more for v in values) else ""
    return f"{least}{found.measure.show(mean)}" + (f" [{low}–{high}]" if len(values) > 1 else "")


def _change(found: Row) -> str:
    changed = found.change
    if changed is None:
        return "not measured in every run"
    ratio = _is_ratio(found.measure, [*found.a, *found.b])

    def show(value: float) -> str:
        return f"{value:.2f}×" if ratio else ("+" if value > 0 else "") + found.measure.show(value)

    if changed.low is None or changed.high is None:
        return show(changed.middle)
    return f"{show(changed.middle)} [{show(changed.low)} to {show(changed.high)}]"


def footnote(a: Sequence[Summary], b: Sequence[Summary], rows: Sequence[Row]) -> str:
    """Explain the brackets, and when B is called better or worse."""
    groups = "Means of runs, geometric for latencies and capacities [lowest–highest]."
    if min(len(a), len(b)) < FEWEST:
        return (
            f"{groups} No intervals, so no verdicts: that takes at least {FEWEST} runs on each side. What one run "
            "says about the next can't be known from its own requests."
        )
    each = bonferroni(len(rows))
    return (
        f"{groups} From A to B: {LEVEL:.0%} bootstrap intervals across runs, expanded for few runs, each of its own "
        f"measure alone. B is called better or worse only beyond Welch's t interval at {each:.2%}, which is "
        f"{LEVEL:.0%} for all {len(rows)} measures together."
    )


class Unusable(ValueError):
    """What was given can't be read; the message is one line."""


def read(path: str) -> Summary:
    """Return one run; raises `Unusable`."""
    try:
        return results.read_summary(Path(path))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {plain(error)}; expected the directory of a run, or its summary.json") from None
