"""Draw how the latencies of each phase are distributed."""

from __future__ import annotations

from markupsafe import Markup

from defects.pages import histograms
from defects.pages.axes import figure
from defects.pages.histograms import Distribution
from loadtests.results import Summary

PERCENTILES = ("p50", "p95", "p99")


def distribution(summary: Summary, width: int, name: str) -> Markup:
    """Return how many answers took how long, a row for each phase that counts; nothing without answers."""
    phases = [phase for phase in summary.phases if phase.name != "warm-up"]
    found = [(h, phase) for h in summary.histograms for phase in phases if phase.name == h.phase and any(h.counts)]
    rows = [
        Distribution(
            phase.name,
            histogram.edges_ms,
            histogram.counts,
            {key: getattr(phase.latency, key) for key in PERCENTILES},
            phase.p95_limit_ms,
        )
        for histogram, phase in found
    ]
    said = "; ".join(f"{p.name}: p50 {figure(p.latency.p50)}, p99 {figure(p.latency.p99)} ms" for _, p in found)
    return histograms.draw(
        rows,
        name,
        width,
        title="Latency of answered requests, by phase",
        description=f"{said}.",
        unit="latency from the intended time, ms",
    )
