"""Write a run's report as one HTML page that needs nothing else and works without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from defects.pages import layout
from defects.pages.axes import figure
from defects.pages.html import document, element, trusted
from defects.pages.layout import bullets
from defects.pages.tables import html
from defects.pages.time_series import TimeSeries
from loadtests.analysis.method import HOLD_SECONDS
from loadtests.report import charts, cluster_tables, events, markdown, pod_starts, scale_target
from loadtests.report import tables as run_tables
from loadtests.report.distribution import distribution
from loadtests.report.tiles import tiles
from loadtests.report.time_series import seconds, time_series
from loadtests.results import Cluster, Summary

PAGE, MARKDOWN = "report.html", "summary.md"
LARGE = ("phases", "parts", "steps", "scaling", "falls", "splits")  # tables that need the whole width
FOLDED = ("events",)
SMALL = ("budget", "generator", "errors", "answers")  # that go side by side
FOLDER = Path(__file__).parent
ADVICE = {
    "Passed": "",
    "Failed": "",
    "Invalid": "The run was not what its scenario asks for, so the numbers below say little about the server.",
    "Error": "The run could not be made.",
}
STARTS = (
    "Pods that were created in the run, in that order; where there are many, the {most} that took longest. Bars of "
    "pods that were never ready end with the axis. Under a bar: the phases of the process itself, as it reports them."
)
DISTRIBUTION = (
    "Answered requests; each row is as high as its highest bar. Lines: p50, p95 and p99 of the phase; dashed: what "
    "the SLO allows the p95."
)
MAXIMA = (
    "Max, 15 s: the highest value within the last 15 s, as the server reports it; a short peak is drawn 15 s wide. "
    "Sampled: the value at the moment of reading, once a second."
)
HOW = (
    "Requests leave at times that were fixed beforehand, whether or not earlier ones were answered. Latency counts "
    "from the intended time, so a server that stalls can't hide the requests that it kept waiting.",
    "A percentile over time is that of one bucket; in the tables it is that of a whole phase, and a value that was "
    "measured. Requests that were never answered count with the time until they were given up; refusals do not.",
    "Refused: 429, or 503 with Retry-After: the server's admission at work. Failed: everything else that is no valid "
    "answer. Late: answered, but slower than the p95 allowed.",
    f"Recovered: from that moment on the SLO held for {figure(HOLD_SECONDS)} whole seconds, and it was not broken "
    "again in the same phase. It holds while every rolling window of at least a second has its p95 within the SLO; "
    "refused and failed requests count as infinitely slow. The time to recover counts from the burst's begin.",
    "Invalid: the generator lagged, or its delay alone took a p95 over its limit, so repeat the run on a quieter "
    "machine, with more processes or at a lower rate.",
)


def write(directory: Path, summary: Summary) -> None:
    """Write the run's page, and its summary in Markdown."""
    (directory / PAGE).write_text(page(summary), "utf-8")
    (directory / MARKDOWN).write_text(markdown.report(summary), "utf-8")


def page(summary: Summary) -> str:
    """Return the whole page."""
    style, script = layout.style_sheet() + _own("report.css"), _own("report.js")
    title = f"{summary.verdict.outcome}: {summary.scenario}, {summary.environment.started}"
    return document(title, style, script, *_content(summary, time_series(summary)))


def _own(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _content(summary: Summary, series: TimeSeries) -> Iterator[Markup]:
    yield _banner(summary)
    yield layout.tiles(tiles(summary))
    if summary.buckets:
        yield _over_time(summary, series)
    latencies = layout.figure(
        "distribution",
        "How latency is distributed",
        lambda *at: distribution(summary, *at),
        caption=DISTRIBUTION,
    )
    found = run_tables.everything(summary)
    folded = [table for table in found if table.name in FOLDED]
    tables = {table.name: element("section", html(table), class_=table.name) for table in found if table not in folded}
    small = [tables.pop(name) for name in SMALL if name in tables]
    yield from (tables.pop(name) for name in LARGE if name in tables)
    yield from _patch(summary)
    yield from _cluster(summary, tables)
    yield latencies
    yield element("div", *small, class_="beside")
    yield from tables.values()
    yield element("section", element("h2", "How to read it"), bullets(HOW, "how"), class_="reading")
    if summary.buckets:
        folded.append(run_tables.values(series))
    yield from (element("details", element("summary", table.caption), html(table, exact=False)) for table in folded)


def _patch(summary: Summary) -> Iterator[Markup]:
    """Yield the patch that scales on a ramp's capacity, or why there is none."""
    if heading := scale_target.heading(summary):
        patch = scale_target.patch(summary)
        parts = [element("p", heading, class_="about"), *([element("pre", trusted(patch))] if patch else [])]
        yield element("section", element("h2", "To scale on it"), *parts, class_="patch")


def _cluster(summary: Summary, tables: dict[str, Markup]) -> Iterator[Markup]:
    """Yield how pods started, and what was seen of the cluster; nothing without one."""
    cluster = summary.cluster
    if cluster is None:
        return
    caption = STARTS.format(most=pod_starts.MAX_PODS)
    yield layout.figure(
        "waterfall", "How pods started", lambda *at: pod_starts.waterfall(summary, *at), caption=caption
    )
    yield from (tables.pop(name) for name in ("starts", "pods") if name in tables)
    unseen = bullets(cluster.not_seen, "unseen") if cluster.not_seen else element("p", "Everything was seen.")
    watched = element("p", cluster_tables.watched(cluster), class_="about")
    yield element(
        "section",
        element("h2", "What was watched, and what was not seen, or not always"),
        watched,
        unseen,
        class_="watch",
    )


def _banner(summary: Summary) -> Markup:
    outcome, said = summary.verdict.outcome, summary.environment
    title = element("h1", element("span", outcome, class_="outcome"), f": {summary.scenario}")
    where = (
        f"{summary.about} {figure(summary.duration_s)} s against {said.host}, started {run_tables.started(summary)}."
    )
    parts = [title, element("p", where, class_="about")]
    if summary.verdict.reasons:
        parts.append(bullets(summary.verdict.reasons, "reasons"))
    if advice := ADVICE[outcome]:
        parts.append(element("p", advice, class_="advice"))
    return element("header", *parts, class_=outcome)


def _over_time(summary: Summary, series: TimeSeries) -> Markup:
    """Return the panels over time, with a line for the values at one moment, which the script fills."""
    hint = "Point at the charts or touch them, or focus them and use the arrow keys, to read the values of a moment."
    readout = element(
        "output", hint, id="readout", class_="more" if summary.cluster else None, hidden="", aria_live="polite",
        data_seconds=f"{seconds(summary):.6g}",
    )  # fmt: skip
    caption = (
        "Everything is by the intended time of requests, but sent is by when they left. Latency is on a logarithmic "
        "axis; the dashed red line is what the SLO allows the p95."
    )
    if series.has("queue_rows_max", "in_flight_max"):
        several = " Over several pods it is the sum of their maxima, an upper bound."
        caption = f"{caption} {MAXIMA}{several if summary.cluster else ''}"
    if summary.cluster:
        caption = f"{caption} {_of_cluster(summary.cluster, series)}"
    return layout.figure(
        "course", "Over time", lambda *at: charts.timeline(summary, series, *at), readout, caption.strip()
    )


def _of_cluster(cluster: Cluster, series: TimeSeries) -> str:
    """Return what the lines and marks of a cluster are, as far as there are any, in a sentence."""
    several = ", of several revisions the highest" * (len({sample.revision for sample in cluster.autoscaler}) > 1)
    units = {"concurrency": "requests in flight", "rps": "requests per second"}
    scaled_on = " and ".join(units[metric] for metric in sorted({sample.metric for sample in cluster.autoscaler}))
    said = [
        ("needed: the replicas that the planned rate takes", series.has("replicas_needed")),
        (f"stable and panic: the autoscaler's averages of {scaled_on} over its long and its short window{several}",
         series.has("stable", "panic")),
        ("pointed at, the mark of an event says what it is", bool(events.listed(cluster)[0])),
    ]  # fmt: skip
    sentence = "; ".join(text for text, shown in said if shown)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""
