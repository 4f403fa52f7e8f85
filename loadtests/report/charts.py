"""Draw a run over time: its panels, phases, moments and strips, as a part of the page or as a picture of its own."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from defects.pages.axes import figure, percent
from defects.pages.charts import Band, Duration, Limit, Line, Moment, Panel, Strip, TimeChart, style_sheet
from defects.pages.html import element, plain, trusted
from defects.pages.strips import Event, Flag, Shares, event_strip, flag_strip, shares_strip
from defects.pages.svg import box, shortened, svg, text
from defects.pages.time_series import Piece, TimeSeries
from loadtests.report import events
from loadtests.report.time_series import seconds
from loadtests.results import Cluster, PlatformEvent, Summary

LATENCY = "Latency, ms"  # the panel that shows what the SLO allows
PANELS = (
    Panel(LATENCY, 200, (Line("p99", "p99"), Line("p95", "p95"), Line("p50", "p50")), log=True),
    Panel(
        "Requests per second",
        140,
        (Line("sent", "sent", steps=True), Line("planned", "planned", steps=True)),
        stack=(Line("answered", "answered"), Line("refused", "refused"), Line("failed", "failed")),
        hatched="failed",
    ),
    Panel(
        "Replicas",
        110,
        (
            Line("replicas_ready", "ready"),
            Line("replicas_desired", "desired"),
            Line("replicas_needed", "needed"),
        ),
        filled="replicas_ready",
        whole=True,
    ),
    Panel(
        "Autoscaler: what it scales on",
        64,
        (Line("panic", "panic", bridge=4), Line("stable", "stable", bridge=4)),
    ),
    Panel(
        "Queue, rows",
        56,
        (
            Line("queue_rows_max", "max, 15 s", bridge=2),
            Line("queue_rows", "sampled", bridge=2, beside="queue_rows_max"),
        ),
    ),
    Panel(
        "In flight, requests",
        48,
        (
            Line("in_flight_max", "max, 15 s", bridge=2),
            Line("in_flight", "sampled", bridge=2, beside="in_flight_max"),
        ),
    ),
    Panel("CPU, cores", 48, (Line("cpu_cores", "", bridge=2),)),
    Panel("Memory, MB", 40, (Line("rss_mb", "", bridge=2),)),
    Panel("Processes", 32, (Line("processes", "", steps=True, bridge=2),), whole=True),
)
FLAGS = (
    Flag("ready", "Ready", ("unready", "ready")),
    Flag("panicking", "Autoscaler in panic mode", ("calm", "panicking")),
)
MAX_BREACHES = 4  # of the SLO with a label, after the first
MAX_FALLS = 4  # of the replicas below need with a label
MAX_SHIFTS = 6  # changes of the wanted traffic with a label
PICTURE_HEAD = 52  # pixels above the chart of a picture


def timeline(summary: Summary, series: TimeSeries, width: int, name: str) -> Markup:
    """Return every panel that has something to show, with the phases and what happened."""
    limits = [Piece(phase.start, phase.end, phase.p95_limit_ms) for phase in summary.phases]
    chart = TimeChart(
        series,
        seconds(summary),
        PANELS,
        bands=[Band(phase.name, phase.start, phase.end) for phase in summary.phases],
        moments=list(moments(summary)),
        durations=list(durations(summary)),
        strips=list(strips(summary, series)),
        limits={LATENCY: Limit("SLO p95", "slo", limits)},
    )
    return chart.draw(name, width, f"Course of the run {plain(summary.scenario)}", described(summary))


def moments(summary: Summary) -> Iterator[Moment]:
    """Yield what is marked; of many of a kind, only the first ones and sometimes the last have a label."""
    recovery = summary.recovery
    if recovery.breached_at is not None:
        yield Moment(recovery.breached_at, "SLO broken", "breached")
    for number, at in enumerate(recovery.broken_again_at or []):
        yield Moment(at, "broken again" if number < MAX_BREACHES else "", "breached")
    if recovery.recovered_at is not None:
        yield Moment(recovery.recovered_at, "holds again", "recovered")
    found = summary.capacity
    if found and found.limited_by:
        label = f"{'capacity' if found.limited_by == 'server' else 'the generator did'}: {figure(found.per_s)}/s"
        ends = [step.end for step in found.steps if step.achieved_per_s == found.per_s]
        yield from (Moment(end, label, "breached") for end in ends)
    if summary.cluster:
        yield from cluster_moments(summary.cluster)


def durations(summary: Summary) -> Iterator[Duration]:
    """Yield the time to recover, which counts from the burst's start, if there is one."""
    found = summary.recovery
    if found.recovered_at is not None and found.seconds is not None:
        start = found.recovered_at - found.seconds
        yield Duration(start, found.recovered_at, f"recovers in {figure(found.seconds)} s", "recovered")


def cluster_moments(cluster: Cluster) -> Iterator[Moment]:
    """Yield the disruption, when enough replicas were ready or no longer, new revisions, changes of the traffic."""
    if cluster.disruption:
        yield Moment(max(0.0, cluster.disruption.at), shortened(cluster.disruption.what, 30), "disrupted")
    for time in cluster.times:
        if time.name == "scale" and time.seconds and time.to_at is not None:
            label = f"enough replicas {figure(time.seconds)} s after {shortened(time.of, 16)}"
            yield Moment(time.to_at, label, "recovered")
    falls = cluster.below_need.falls if cluster.below_need else []
    for number, fall in enumerate(falls):
        yield Moment(fall.from_at, "below need again" if number < MAX_FALLS else "", "breached")
    for at, name in first_ready(cluster):
        yield Moment(at, f"revision {shortened(name, 12)} ready", "shifted")
    changes = [change for change in cluster.traffic if change.at > 0]
    for number, change in enumerate(changes, 1):
        labelled = number < MAX_SHIFTS or number == len(changes)
        yield Moment(change.at, f"traffic: {_shares(change.shares)}" if labelled else "", "shifted")


def first_ready(cluster: Cluster) -> list[tuple[float, str]]:
    """Return when each revision that was not there before the run had its first ready pod, in order."""
    before = {pod.revision for pod in cluster.pods if pod.created is not None and pod.created < 0}
    before |= {name for change in cluster.traffic if change.at <= 0 for name in change.shares}
    ready: dict[str, float] = {}
    for pod in cluster.pods:
        if pod.revision and pod.ready is not None:
            ready[pod.revision] = min(pod.ready, ready.get(pod.revision, pod.ready))
    new = sorted((at, name) for name, at in ready.items() if name not in before)
    return new if before else new[1:]  # what nobody saw before may have been there, without replicas


def _shares(shares: dict[str, float]) -> str:
    """Return wanted shares in a few words."""
    found = [f"{percent(share)} {shortened(name, 12)}" for name, share in shares.items() if share]
    return ", ".join(found[:3]) + ", …" * (len(found) > 3) or "nobody"


def strips(summary: Summary, series: TimeSeries) -> Iterator[Strip]:
    """Yield what is under the panels: wanted traffic, events and flags."""
    cluster = summary.cluster
    if cluster and len({name for change in cluster.traffic for name in change.shares}) > 1:
        changes = [Shares(change.at, change.shares) for change in cluster.traffic]
        yield shares_strip(changes, "Wanted traffic, by revision")
    if cluster and (listed := events.listed(cluster)[0]):
        yield event_strip([Event(event.at, _event(event), event.warning) for event in listed])
    yield from (flag_strip(series, flag) for flag in FLAGS if series.has(flag.key))


def _event(event: PlatformEvent) -> str:
    return f"{figure(event.at)} s: {event.name} {event.reason}: {event.message}"


def described(summary: Summary) -> str:
    """Return what the chart shows in words."""
    said = [
        f"{phase.name} from {figure(phase.start)} to {figure(phase.end)} s: {figure(phase.achieved_per_s)} requests "
        f"per second, p50 {figure(phase.latency.p50)}, p95 {figure(phase.latency.p95)}, p99 "
        f"{figure(phase.latency.p99)} ms"
        for phase in summary.phases
    ]
    said += [f"{moment.label} at {figure(moment.at)} s" for moment in moments(summary) if moment.label]
    said += [f"{found.label}, counted from {figure(found.start)} s" for found in durations(summary)]
    return f"{'; '.join(said)}."


def picture(summary: Summary, series: TimeSeries, width: int = 860) -> Markup:
    """Return the chart as a file of its own, with its style and what it shows."""
    chart = str(timeline(summary, series, width, "course"))
    inner = trusted(chart.replace("<svg ", f'<svg y="{PICTURE_HEAD}" ', 1))
    height = float(chart.split('height="', 1)[1].split('"', 1)[0]) + PICTURE_HEAD
    machine = summary.environment.machine
    said = [
        summary.about.rstrip("."),
        f"{figure(summary.base_per_s)} requests/s at a factor of 1",
        f"seed {summary.seed}",
    ]
    said += [f"{machine[key]}{unit}" for key, unit in (("cpu", ""), ("cores", " cores")) if key in machine]
    headline = f"{summary.scenario}: {summary.verdict.outcome}"
    return svg(
        "picture", width, height, headline, plain(summary.about),
        element("style", trusted(style_sheet())),
        box(0, 0, width, height, "paper"),
        text(16, 24, headline, "headline"),
        text(16, 42, " · ".join(said), "tick"),
        inner,
    )  # fmt: skip
