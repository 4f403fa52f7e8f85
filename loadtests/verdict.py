"""Passed, Failed or Invalid, and why.

Invalid comes first: where the generator did not do what the schedule says, the numbers say nothing about the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from loadtests import results
from loadtests.measures import LATE_SECONDS, LATE_SHARE
from loadtests.results import Verdict

EXIT_CODES: dict[results.Outcome, int] = {"Passed": 0, "Failed": 1, "Invalid": 2, "Error": 3}
FEW = 500  # requests; of fewer, one hiccup of the machine already delays 1 %
BUSY_SHARE = 0.95  # of a core: then answers are read late, even if requests leave in time


def judge(
    slo: results.SLO,
    phases: Sequence[results.Phase],
    *,
    generator: results.Generator,
    budget: Sequence[results.Budget],
    recovery: results.Recovery,
    capacity: results.Capacity | None,
    stopped: str | None,
) -> Verdict:
    """The verdict on a run's measures. A run that looked for the capacity fails only where it found none."""
    judged = [phase for phase in phases if phase.name != "warm-up"]
    found = capacity is not None and capacity.limited_by is not None  # that is where such a run stops by itself
    lagging = _limited(capacity) if capacity else _lagging(judged, generator)
    if invalid := [*_invalid(judged, generator, None if found else stopped), *lagging]:
        return Verdict(outcome="Invalid", reasons=invalid)
    if capacity:
        failed = [] if capacity.per_s else [f"no step held the SLO: {capacity.reason}"]
    else:
        failed = [*_slow(judged), *_spent(budget), *_unrecovered(slo, recovery)]
    return Verdict(outcome="Failed" if failed else "Passed", reasons=failed)


def _limited(capacity: results.Capacity) -> Iterator[str]:
    if capacity.limited_by == "generator":
        yield f"{capacity.reason}; what held until then is no capacity of the server"


def _invalid(judged: Sequence[results.Phase], generator: results.Generator, stopped: str | None) -> Iterator[str]:
    """Where the run is not what was planned."""
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


def late_allowed(judged: Sequence[results.Phase]) -> float:
    """The share of requests that may leave late."""
    return max(LATE_SHARE, LATE_SHARE * FEW / max(1, sum(phase.counts.sent for phase in judged)))


def _lagging(judged: Sequence[results.Phase], generator: results.Generator) -> Iterator[str]:
    """Where the generator could not keep up."""
    allowed = late_allowed(judged)
    if generator.late_share > allowed:
        yield (
            f"{generator.late_share:.1%} of the requests left more than {1e3 * LATE_SECONDS:g} ms late; "
            f"expected at most {allowed:.1%}"
        )
    for phase in judged:
        name, delay = ("p95", phase.delay.p95) if phase.counts.sent < FEW else ("p99", phase.delay.p99)
        if delay is not None and delay > generator.delay_limit_ms:
            yield (
                f"requests of the {phase.name} left late: {name} of the delay was {delay:.1f} ms; "
                f"expected at most {generator.delay_limit_ms:g} ms"
            )
    if generator.cpu_share > BUSY_SHARE:
        yield f"the generator used {generator.cpu_share:.0%} of a core; expected at most {BUSY_SHARE:.0%}"


def _slow(judged: Sequence[results.Phase]) -> Iterator[str]:
    for phase in judged:
        p95 = phase.latency.p95
        if p95 is not None and p95 > phase.p95_limit_ms:
            yield f"p95 in the {phase.name} was {p95:.1f} ms; expected at most {phase.p95_limit_ms:g} ms"


def _spent(budget: Sequence[results.Budget]) -> Iterator[str]:
    for part in budget:
        if part.cause != "late" and part.share > part.allowed_share:
            yield (
                f"{part.count} requests ({part.share:.2%}) were {part.cause}; expected at most {part.allowed_share:.2%}"
                if part.cause == "refused"
                else f"{part.count} requests ({part.share:.2%}) failed; expected at most {part.allowed_share:.2%}"
            )


def _unrecovered(slo: results.SLO, recovery: results.Recovery) -> Iterator[str]:
    if slo.recover_seconds is None or (recovery.seconds is None and recovery.breached_at is None):
        return
    if recovery.seconds is None:
        yield "the SLO did not hold again before the end of the run"
    elif recovery.seconds > slo.recover_seconds:
        yield (
            f"it took {recovery.seconds:.1f} s from the burst's start until the SLO held again; "
            f"expected at most {slo.recover_seconds:g} s"
        )
