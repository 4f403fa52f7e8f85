"""Draw the distribution of latencies of each phase."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from markupsafe import Markup

from defects.pages import axes
from defects.pages.axes import Scale, figure
from defects.pages.html import element, join
from defects.pages.svg import AXIS, LINE, box, numbers, rule, svg, text
from loadtests.report.charts import GAP
from loadtests.results import Histogram, PhaseResult, Summary

# --- the distribution -----------------------------------------------------------------------------------------------

HEIGHT = 46  # of the bars of a phase


def distribution(summary: Summary, width: int, name: str) -> Markup:
    """How many answers took how long, a row for each phase that counts, on one axis."""
    rows = [(h, p) for h in summary.histograms for p in summary.phases if p.name == h.phase and p.name != "warm-up"]
    rows = [(histogram, phase) for histogram, phase in rows if any(histogram.counts)]
    if not rows:
        return Markup("")
    left, right = (16, width - 16)
    bounds = [edge for h, p in rows for edge in (*_extent(h), p.p95_limit_ms)]
    x, top, step = axes.logarithmic(bounds, left, right), 4.0, HEIGHT + GAP
    bottom = top + step * len(rows)
    parts = [rule(x(tick), top + LINE, x(tick), bottom, "grid") for tick in x.ticks(12 if width > 500 else 6)]
    for number, (histogram, phase) in enumerate(rows):
        parts += bars(histogram, phase, x, top + step * number)
    parts += numbers(x, x.ticks(12 if width > 500 else 6), bottom, width)
    parts.append(text((left + right) / 2, bottom + 32, "latency from the intended time, ms", "tick", "middle"))
    said = "; ".join(f"{p.name}: p50 {figure(p.latency.p50)}, p99 {figure(p.latency.p99)} ms" for _, p in rows)
    return svg(name, width, bottom + AXIS + 6, "Latency of answered requests, by phase", f"{said}.", *parts)


def _extent(histogram: Histogram) -> tuple[float, float]:
    """From the first to the last edge around an answer."""
    there = [index for index, count in enumerate(histogram.counts) if count]
    return histogram.edges_ms[there[0]], histogram.edges_ms[there[-1] + 1]


def bars(histogram: Histogram, phase: PhaseResult, x: Scale, top: float) -> Iterator[Markup]:
    """One phase: its percentiles in words and as marks, and its bars; none is too low to be seen."""
    bottom, most = top + GAP + HEIGHT - 10, max(histogram.counts)
    yield text(x.start, top + LINE, join(element("tspan", phase.name, class_="title"), *percentiles(phase)), "tag")
    for count, (low, high) in zip(histogram.counts, pairwise(histogram.edges_ms), strict=True):
        if count:
            height = max(1.5, HEIGHT * count / most)
            yield box(x(low), bottom - height, max(0.8, x(high) - x(low) - 0.6), height, "bar")
    yield rule(x.start, bottom, x.end, bottom, "base")
    for key in ("p50", "p95", "p99"):
        if (value := getattr(phase.latency, key)) is not None:
            yield rule(x(value), bottom - HEIGHT - 2, x(value), bottom + 4, f"line {key}")
    yield rule(x(phase.p95_limit_ms), bottom - HEIGHT - 2, x(phase.p95_limit_ms), bottom + 4, "line slo")


def percentiles(phase: PhaseResult) -> Iterator[Markup]:
    for key in ("p50", "p95", "p99"):
        yield element("tspan", f"{key} {figure(getattr(phase.latency, key))}", dx=12, class_=f"word {key}")
