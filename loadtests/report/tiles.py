"""Choose the few numbers that stand at the top of a run's report."""

from __future__ import annotations

from collections.abc import Iterator

from defects.pages.axes import figure, percent
from defects.pages.tables import Cell, number
from loadtests.report.tables import least, over
from loadtests.results import Cluster, Summary

TIMES_SHOWN = {"scale": "time to scale", "cold start": "slowest cold start", "zero": "time to zero"}


def tiles(summary: Summary) -> Iterator[tuple[str, Cell, str]]:
    """Yield what matters most: its name, its number, and its unit with what is allowed."""
    counted = summary.judged
    busiest = next((p for p in counted if p.name == "burst"), counted[-1] if counted else None)
    if summary.capacity:
        yield "capacity at the SLO", number(summary.capacity.per_s), f"requests/s {least(summary).strip()}".strip()
    elif busiest:
        where = f"in the {busiest.name}"
        yield f"p95 {where}", number(busiest.latency.p95, busiest.p95_limit_ms), (
            f"ms; {figure(busiest.p95_limit_ms)} allowed"
        )  # fmt: skip
        yield f"p99 {where}", number(busiest.latency.p99), "ms"
        yield f"goodput {where}", number(busiest.goodput_per_s), f"of {figure(busiest.planned_per_s)} requests/s"
    if summary.recovery.breached_at is None and summary.recovery.seconds is not None:
        yield "time to recover", Cell("–"), "the SLO always held"
    elif summary.recovery.breached_at is not None:
        allowed, seconds = summary.slo.recover_seconds, summary.recovery.seconds
        breaks = len(summary.recovery.broken_again_at or [])
        again = f"; broken again {breaks} time{'s' * (breaks > 1)}" if breaks else ""
        yield "time to recover", Cell("never", bad=True) if seconds is None else number(seconds, allowed), (
            "s" if allowed is None else f"s; {figure(allowed)} allowed"
        ) + again  # fmt: skip
    if summary.cluster:
        yield from scaling_tiles(summary.cluster)
    for part in summary.budget:
        if part.cause != "late":
            yield part.cause, number(part.count, show=figure)._replace(bad=over(part.spent)), (
                f"requests; {percent(part.allowed_share)} allowed"
            )  # fmt: skip


def scaling_tiles(cluster: Cluster) -> Iterator[tuple[str, Cell, str]]:
    """Yield the times that matter most, and for how long fewer replicas were ready than needed again."""
    for time in cluster.times:
        if time.name in TIMES_SHOWN and time.from_at is not None:
            taken = Cell("never", bad=True) if time.seconds is None else number(time.seconds, time.limit_seconds)
            allowed = "" if time.limit_seconds is None else f"; {figure(time.limit_seconds)} allowed"
            of = "" if time.name == "cold start" else f" from the {time.of}"
            yield TIMES_SHOWN[time.name], taken, f"s{of}{allowed}"
    if (found := cluster.below_need) and (found.times or found.limit_seconds is not None):
        often = f", {found.times} time{'s' * (found.times > 1)}" if found.times else ""
        allowed = "" if found.limit_seconds is None else f"; {figure(found.limit_seconds)} allowed"
        yield "below need again", number(found.seconds, found.limit_seconds), f"s{often}{allowed}"
