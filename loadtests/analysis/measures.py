"""Measure what a run's requests say: latency from the intended time, goodput, capacity, use of the error budget.

Percentiles are exact: every request is kept, so nothing is rounded into the buckets of a histogram. They are values by
nearest rank (the smallest that at least that share does not exceed), so each was measured.

Latency is of requests that were answered (2xx) or never answered (those count with the time until they were given up).
Refusals and error answers are fast and would flatter it; they are counted apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadtests import results
from loadtests.analysis.method import DELAY_MS, DELAY_PART, EDGES_PER_DECADE, LATE_SECONDS, MAX_BUCKETS
from loadtests.cluster.observations import AnyObservation
from loadtests.results import ANSWERED, ERRORS, FAILED, NOT_SENT, REFUSED, TIMEOUT, UNANSWERED, Requests, Spread
from loadtests.scenario import Plan, Scenario, Span

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Watched(NamedTuple):
    """What the cluster watcher reported of an InferenceService until `until`, with times on the run's axis."""

    service: str
    observations: list[AnyObservation]
    until: float
    limits_of: results.LimitsName | None = None  # the autoscaler that the scenario's lengths and limits are for


@dataclass
class Run:
    """Everything that is known of a run. `requests` are those whose intended time came, in the order of it."""

    plan: Plan
    requests: Requests
    revisions: Sequence[str]
    seconds: float  # until the schedule was over, or the run was stopped
    stopped: str | None = None
    by_rule: bool = False  # stopped because two steps in a row did not hold
    workers: int = 1
    peak_in_flight: int = 0
    cpu_share: float = 0.0
    missing: list[str] = field(default_factory=list)
    timeline: list[results.Sample] = field(default_factory=list)
    watched: Watched | None = None

    @property
    def burst(self) -> Span | None:
        """The burst, if the run got to it."""
        burst = self.plan.burst
        return burst if burst and burst.start < self.seconds else None

    def __post_init__(self) -> None:
        r, plan = self.requests, self.plan
        self.intended: Floats = np.ascontiguousarray(r["intended"])
        self.phase = plan.phase_of(self.intended)
        self.outcome = results.outcomes(r)
        self.latency: Floats = 1e3 * (r["end"] - r["intended"])
        self.delay: Floats = 1e3 * (r["sent"] - r["intended"])
        self.left: Floats = np.sort(r["sent"])
        self.waited: Mask = (self.outcome == ANSWERED) | np.isin(r["error"], (UNANSWERED, TIMEOUT))
        limits = np.array([plan.scenario.limit_ms(span.phase) for span in plan.spans])
        self.good: Mask = (self.outcome == ANSWERED) & (self.latency <= limits[self.phase])
        self.planned = plan.times[plan.times < self.seconds]
        warm_up = [i for i, span in enumerate(plan.spans) if span.phase.name == "warm-up"]
        self.judged: Mask = ~np.isin(self.phase, warm_up)

    @property
    def delay_limit_ms(self) -> float:
        """What the p99 of the delay may be, in ms."""
        return delay_limit_ms(self.plan.scenario)


def delay_limit_ms(scenario: Scenario) -> float:
    """Return what the p99 of the delay may be, in ms."""
    return max(DELAY_MS, DELAY_PART * scenario.slo.p95_ms)


def spread(values: Floats) -> Spread:
    """Return the percentiles of the values that are not NaN."""
    values = values[~np.isnan(values)]
    if not len(values):
        return Spread(p50=None, p95=None, p99=None, max=None)
    p50, p95, p99, highest = np.percentile(values, [50, 95, 99, 100], method="inverted_cdf").tolist()
    return Spread(p50=p50, p95=p95, p99=p99, max=highest)


def over(bad: NDArray[np.integer], count: NDArray[np.integer]) -> Mask:
    """Return whether the p95 of `count` values is over a limit that `bad` of them exceed, element by element."""
    is_over: Mask = bad > count - np.ceil(0.95 * count)
    return is_over


def left(run: Run, edges: Sequence[float] | Floats) -> NDArray[np.int64]:
    """Return how many requests left between each two edges, whenever they were meant to."""
    return np.diff(np.searchsorted(run.left, edges))


def counts(run: Run, where: Mask, planned: int) -> results.Counts:
    """Return the requests `where` the mask is true, by what became of them."""
    by = np.bincount(run.outcome[where], minlength=3)
    return results.Counts(
        planned=planned,
        sent=int((~np.isnan(run.requests["sent"][where])).sum()),
        answered=int(by[ANSWERED]),
        refused=int(by[REFUSED]),
        failed=int(by[FAILED]),
        good=int(run.good[where].sum()),
    )


def phases(run: Run) -> list[results.PhaseResult]:
    """Return every phase that began."""
    return [phase(run, index, span) for index, span in enumerate(run.plan.spans) if span.start < run.seconds]


def phase(run: Run, index: int, span: Span) -> results.PhaseResult:
    """Return one phase, the `index`-th of the plan."""
    where, end = run.phase == index, min(span.end, run.seconds)
    r, answered = run.requests, where & (run.outcome == ANSWERED)
    queue, score = r["queue_ms"].astype(np.float64), r["score_ms"].astype(np.float64)
    refused = where & (run.outcome == REFUSED)
    planned = int(((run.planned >= span.start) & (run.planned < span.end)).sum())
    counted = counts(run, where, planned)
    return results.PhaseResult(
        name=span.phase.name,
        start=span.start,
        end=end,
        p95_limit_ms=run.plan.scenario.limit_ms(span.phase),
        counts=counted,
        planned_per_s=planned / (end - span.start),
        achieved_per_s=int(left(run, [span.start, end])[0]) / (end - span.start),
        goodput_per_s=counted.good / (end - span.start),
        latency=spread(run.latency[where & run.waited]),
        from_sent=spread((run.latency - run.delay)[where & run.waited]),
        queue=spread(queue[answered]),
        score=spread(score[answered]),
        rest=spread((run.latency - queue - score)[answered]),
        delay=spread(run.delay[where]),
        refusal=spread(1e3 * (r["end"] - r["sent"])[refused]),
        errors=errors(r[where & (run.outcome == FAILED)]),
    )


def errors(failed: Requests) -> dict[str, int]:
    """Return the failed requests by what went wrong, the most frequent first."""
    pairs = Counter(zip(failed["error"].tolist(), failed["status"].tolist(), strict=True))
    found: Counter[str] = Counter()
    for (error, status), count in pairs.items():
        found[ERRORS[error] or f"HTTP {status}"] += count
    return dict(found.most_common())


def buckets(run: Run) -> tuple[float, list[results.Bucket]]:
    """Return the length of the buckets in seconds, and the run cut into them."""
    length = float(max(1, math.ceil(run.seconds / MAX_BUCKETS)))
    edges = np.arange(0.0, run.seconds, length)
    starts = np.searchsorted(run.intended, [*edges, np.inf])
    planned = np.diff(np.searchsorted(run.planned, [*edges, np.inf]))
    sent = left(run, [*edges, run.seconds])
    found = []
    for number, start in enumerate(edges):
        where = np.zeros(len(run.intended), np.bool_)
        where[starts[number] : starts[number + 1]] = True
        latency, answered = spread(run.latency[where & run.waited]), where & (run.outcome == ANSWERED)
        found.append(
            results.Bucket(
                start=start,
                counts=counts(run, where, int(planned[number])).model_copy(update={"sent": int(sent[number])}),
                p50=latency.p50,
                p95=latency.p95,
                p99=latency.p99,
                queue_p95=spread(run.requests["queue_ms"][answered].astype(np.float64)).p95,
                score_p95=spread(run.requests["score_ms"][answered].astype(np.float64)).p95,
            )
        )
    return length, found


def budget(run: Run) -> list[results.Budget]:
    """Return what each cause used of what the SLO allows: failed and refused requests, and 5 % slower than the p95."""
    slo, total = run.plan.scenario.slo, max(1, int(run.judged.sum()))
    outcome = run.outcome[run.judged]
    late = (outcome == ANSWERED) & ~run.good[run.judged]
    found = []
    for cause, count, allowed in (
        ("failed", int((outcome == FAILED).sum()), slo.failed_share),
        ("refused", int((outcome == REFUSED).sum()), slo.refused_share),
        ("late", int(late.sum()), 0.05),
    ):
        share = count / total
        spent = share / allowed if allowed else None if count else 0.0
        found.append(
            results.Budget.model_validate(
                {"cause": cause, "count": count, "share": share, "allowed_share": allowed, "spent": spent}
            )
        )
    return found


def capacity(run: Run) -> results.Capacity | None:
    """Return the capacity that a staircase found; `None` where there is no staircase."""
    steps = [step(run, *edges) for edges in staircase(run.plan) if edges[1] <= run.seconds]
    if not steps:
        return None
    ends = (s for s, following in zip(steps, [*steps[1:], steps[-1]], strict=True) if s.problem and following.problem)
    broken = next(ends, None)  # one that breaks between two that hold was a hiccup
    held = steps[: steps.index(broken)] if broken else steps
    return results.Capacity(
        per_s=held[-1].achieved_per_s if held else None,
        limited_by=broken.limited_by if broken else None,
        reason=f"at {broken.planned_per_s:.0f}/s {broken.problem}" if broken else "every step held",
        steps=steps,
    )


def staircase(plan: Plan) -> list[tuple[float, float, float]]:
    """Return the start and end of each step of a plan, and what its p95 may be, in ms."""
    found: list[tuple[float, float, float]] = []
    for span in plan.spans:
        if span.phase.steps:
            edges = np.arange(span.start, span.end + 1e-6, span.phase.steps.seconds).tolist()
            found += [(start, end, plan.scenario.limit_ms(span.phase)) for start, end in pairwise(edges)]
    return found


def step(run: Run, start: float, end: float, limit_ms: float) -> results.Step:
    """Return one step of a staircase."""
    where = (run.intended >= start) & (run.intended < end)
    planned = int(((run.planned >= start) & (run.planned < end)).sum())
    problem = _broken(run, where, run.latency, limit_ms)
    lag = _lag(run, where) or _lag_that_decides(run, where, limit_ms, problem)
    return results.Step(
        start=start,
        end=end,
        planned_per_s=planned / (end - start),
        achieved_per_s=int(left(run, [start, end])[0]) / (end - start),
        p95=spread(run.latency[where & run.waited]).p95,
        problem=lag or problem,
        limited_by="generator" if lag else "server" if problem else None,
    )


def _lag(run: Run, where: Mask) -> str | None:
    """Explain how late the generator was, if that is too late to say anything about the server, or return `None`."""
    delay = spread(run.delay[where]).p99
    if delay is None or delay > run.delay_limit_ms:
        return f"the generator could not keep up: 1 % of the requests left {delay or 0:.1f} ms late or more"
    return None


def _lag_that_decides(run: Run, where: Mask, limit_ms: float, problem: str | None) -> str | None:
    """Explain a delay that is not too late in itself, but without which the step would have held, or return `None`."""
    if problem is None or _broken(run, where, run.latency - run.delay, limit_ms):
        return None
    return f"the generator lagged: {problem}, but not from when they left"


def _broken(run: Run, where: Mask, took: Floats, limit_ms: float) -> str | None:
    """Explain why the SLO does not hold for requests that took so many ms, or return `None`.

    Refused and failed ones never end.
    """
    slo, count = run.plan.scenario.slo, int(where.sum())
    failed = int((run.outcome[where] == FAILED).sum())
    if failed > slo.failed_share * count:
        return f"{failed} of {count} requests failed"
    bad = count - int(((run.outcome == ANSWERED) & (took <= limit_ms))[where].sum())
    return f"{bad} of {count} requests took more than {limit_ms:g} ms or were refused" if _over(bad, count) else None


def _over(bad: int, count: int) -> bool:
    return bool(over(np.array([bad]), np.array([count]))[0])


def generator(run: Run) -> results.Generator:
    """Return how well the generator kept to the schedule, outside of warm-up."""
    delay = run.delay[run.judged]
    sent = delay[~np.isnan(delay)]
    return results.Generator(
        workers=run.workers,
        delay=spread(delay),
        delay_limit_ms=run.delay_limit_ms,
        late_share=float((sent > 1e3 * LATE_SECONDS).mean()) if len(sent) else 0.0,
        not_sent=int((run.requests["error"] == NOT_SENT).sum()),
        peak_in_flight=run.peak_in_flight,
        cpu_share=run.cpu_share,
        missing=run.missing,
    )


def histograms(run: Run) -> list[results.Histogram]:
    """Return the histogram of each phase's answered requests, on edges that all share."""
    answered = run.outcome == ANSWERED
    latency = np.maximum(run.latency, 0.01)
    if not answered.any():
        return []
    low, high = np.log10([latency[answered].min(), latency[answered].max()]) * EDGES_PER_DECADE
    edges = 10 ** (np.arange(math.floor(low), math.floor(high) + 2) / EDGES_PER_DECADE)
    return [
        results.Histogram(
            phase=span.phase.name,
            edges_ms=[float(f"{edge:.4g}") for edge in edges],
            counts=np.histogram(latency[answered & (run.phase == index)], edges)[0].tolist(),
        )
        for index, span in enumerate(run.plan.spans)
    ]


def revisions(run: Run) -> dict[str, int]:
    """Return the answers of any status by the revision that they name."""
    found = run.requests["revision"]
    by = np.bincount(found[found >= 0], minlength=len(run.revisions))
    return {name: int(count) for name, count in zip(run.revisions, by, strict=True)}


def kinds(run: Run) -> dict[str, int]:
    """Return the requests by payload."""
    names = [payload.name for payload in run.plan.scenario.payloads]
    return dict(zip(names, np.bincount(run.requests["kind"], minlength=len(names)).tolist(), strict=True))
