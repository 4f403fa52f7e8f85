"""Judge a run: Passed, Failed or Invalid, and why.

Invalid comes first: where the generator did not do what the schedule says, the numbers say nothing about the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests import results
from loadtests.analysis.method import BUSY_SHARE, FEW, HOLD_SECONDS, LATE_SECONDS, MAX_TIMES, late_allowed
from loadtests.results import Verdict


def judge(
    slo: results.SLO,
    phases: Sequence[results.PhaseResult],
    *,
    generator: results.Generator,
    recovery: results.Recovery,
    capacity: results.Capacity | None,
    stopped: str | None,
    by_rule: bool = False,
    cluster: results.Cluster | None = None,
) -> Verdict:
    """Return the verdict on a run's measures. A ramp fails only if no step held: breaking the SLO is what it is for.

    `by_rule`: it was stopped because its steps broke; any other end before the schedule's makes a run Invalid.
    """
    judged = [phase for phase in phases if phase.name != "warm-up"]
    steady = [phase for phase in judged if not is_ramp(phase, capacity)]
    found = by_rule and capacity is not None and capacity.limited_by is not None
    lagging = [*(_limited(capacity) if capacity else _busy(judged, generator)), *_lagging(steady, generator)]
    lagging += _slow_by_lag(steady)
    undone = cluster.problems if cluster else []
    if invalid := [*_invalid(judged, generator, None if found else stopped), *lagging, *undone]:
        return Verdict(outcome="Invalid", reasons=invalid)
    failed = [*_slow(steady), *_spent(slo, steady), *_unrecovered(slo, recovery), *_unscaled(cluster)]
    failed += _below_need(cluster)
    if capacity and not capacity.per_s:
        failed.append(f"no step held the SLO: {capacity.reason}")
    return Verdict(outcome="Failed" if failed else "Passed", reasons=failed)


def _below_need(cluster: results.Cluster | None) -> Iterator[str]:
    """Explain where fewer replicas were ready than needed for too long, after enough had been."""
    found = cluster.below_need if cluster else None
    if found and found.met is False:
        yield (
            f"fewer replicas were ready than needed again, after enough had been, "
            f"{times([fall.from_at for fall in found.falls])}, for {found.seconds:.1f} s in all; "
            f"expected at most {found.limit_seconds:g} s"
        )


def is_ramp(phase: results.PhaseResult, capacity: results.Capacity | None) -> bool:
    """Return whether a phase has the steps in which the capacity was looked for."""
    return capacity is not None and any(phase.start <= step.start < phase.end for step in capacity.steps)


def _limited(capacity: results.Capacity) -> Iterator[str]:
    """Explain where the generator was the limit of a ramp."""
    if capacity.limited_by == "generator":
        yield f"{capacity.reason}; what held until then is no capacity of the server"


def _invalid(judged: Sequence[results.PhaseResult], generator: results.Generator, stopped: str | None) -> Iterator[str]:
    """Explain where the run is not what was planned."""
    if stopped:
        yield f"the run was stopped early: {stopped}"
    if not sum(phase.counts.sent for phase in judged):
        yield "nothing was sent after the warm-up"
    for worker in generator.missing:
        yield f"worker {worker} never reported its part"
    if generator.not_sent:
        yield f"{generator.not_sent} requests could not be sent: too many were in flight, or no connection was left"
    for phase in judged:
        kept = phase.counts.answered + phase.counts.refused + phase.counts.failed
        if not stopped and not generator.missing and kept < 0.99 * phase.counts.planned:
            yield f"only {kept} of {phase.counts.planned} planned requests of the {phase.name} had their time"


def _busy(judged: Sequence[results.PhaseResult], generator: results.Generator) -> Iterator[str]:
    """Explain where the generator could not keep up, over the whole run."""
    allowed = late_allowed(judged)
    if generator.late_share > allowed:
        yield (
            f"{generator.late_share:.1%} of the requests left more than {1e3 * LATE_SECONDS:g} ms late; "
            f"expected at most {allowed:.1%}"
        )
    if generator.cpu_share > BUSY_SHARE:
        yield f"the generator used {generator.cpu_share:.0%} of a core; expected at most {BUSY_SHARE:.0%}"


def _lagging(phases: Sequence[results.PhaseResult], generator: results.Generator) -> Iterator[str]:
    """Explain in which phases the generator could not keep up."""
    for phase in phases:
        name, delay = ("p95", phase.delay.p95) if phase.counts.sent < FEW else ("p99", phase.delay.p99)
        if delay is not None and delay > generator.delay_limit_ms:
            yield (
                f"requests of the {phase.name} left late: {name} of the delay was {delay:.1f} ms; "
                f"expected at most {generator.delay_limit_ms:g} ms"
            )


def _slow_by_lag(phases: Sequence[results.PhaseResult]) -> Iterator[str]:
    """Explain where only the generator's delay takes a p95 over its limit, even if the delay is within its own."""
    for phase in phases:
        p95, limit = phase.latency.p95, phase.p95_limit_ms
        own = phase.from_sent.p95 if phase.from_sent else None
        if p95 is not None and own is not None and own <= limit < p95:
            yield (
                f"p95 in the {phase.name} was {p95:.1f} ms, but {own:.1f} ms from when requests left; "
                f"the limit is {limit:g} ms, so the generator's delay decides"
            )


def _slow(phases: Sequence[results.PhaseResult]) -> Iterator[str]:
    """Explain in which phases the p95 was over its limit."""
    for phase in phases:
        p95 = phase.latency.p95
        if p95 is not None and p95 > phase.p95_limit_ms:
            yield f"p95 in the {phase.name} was {p95:.1f} ms; expected at most {phase.p95_limit_ms:g} ms"


def _spent(slo: results.SLO, phases: Sequence[results.PhaseResult]) -> Iterator[str]:
    """Explain where more requests failed or were refused than the SLO allows."""
    counts = [phase.counts for phase in phases]
    failed, refused = sum(c.failed for c in counts), sum(c.refused for c in counts)
    total = max(1, failed + refused + sum(c.answered for c in counts))
    for count, what, allowed in ((failed, "failed", slo.failed_share), (refused, "were refused", slo.refused_share)):
        if count / total > allowed:
            yield f"{count} requests ({count / total:.2%}) {what}; expected at most {allowed:.2%}"


def _unrecovered(slo: results.SLO, recovery: results.Recovery) -> Iterator[str]:
    """Explain why the SLO was not recovered, or not in time."""
    if slo.recover_seconds is None or (recovery.seconds is None and recovery.breached_at is None):
        return
    again = f"; it was broken again {times(recovery.broken_again_at)}" if recovery.broken_again_at else ""
    if recovery.held_at_end_seconds is not None:
        yield (
            f"the SLO held again only for the last {recovery.held_at_end_seconds:.1f} s of the run; "
            f"expected at least {HOLD_SECONDS:g} s{again}"
        )
    elif recovery.seconds is None:
        yield f"the SLO did not hold again before the end of the run{again}"
    elif recovery.seconds > slo.recover_seconds:
        yield (
            f"it took {recovery.seconds:.1f} s from the burst's start until the SLO held again; "
            f"expected at most {slo.recover_seconds:g} s{again}"
        )


def times(moments: Sequence[float]) -> str:
    """Return how often something happened, and when, in words."""
    shown = ", ".join(f"{moment:.1f}" for moment in moments[:MAX_TIMES])
    more = f" and {len(moments) - MAX_TIMES} more" if len(moments) > MAX_TIMES else ""
    return f"{len(moments)} time{'s' * (len(moments) > 1)}, at {shown} s{more}"


def _unscaled(cluster: results.Cluster | None) -> Iterator[str]:
    """Explain which of the cluster's times were over their limits."""
    for time in cluster.times if cluster else ():
        if time.met is False and time.name != "recover":  # that one is judged with or without a cluster
            took = f"it took {time.seconds:.1f} s" if time.seconds is not None else time.why
            yield f"{time.name} ({time.of}): {took}; expected at most {time.limit_seconds:g} s"
