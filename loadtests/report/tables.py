"""Make the tables of a run's report, which the page and the Markdown summary show."""

from __future__ import annotations

from collections.abc import Iterator

from defects.pages.axes import figure, percent
from defects.pages.tables import Cell, Table, number, outside
from defects.pages.time_series import TimeSeries
from loadtests.analysis.method import BUSY_SHARE, late_allowed
from loadtests.analysis.verdict import times
from loadtests.report import cluster_tables, scale_target
from loadtests.results import Recovery, Spread, Summary


def spread(values: Spread, *keys: str) -> list[Cell]:
    return [number(getattr(values, key)) for key in keys]


def everything(summary: Summary) -> list[Table]:
    """Return all tables that have rows, in the order in which they are read."""
    found = [
        phases(summary), parts(summary), steps(summary), *cluster_tables.everything(summary), budget(summary),
        errors(summary), answers(summary), generator(summary), environment(summary),
    ]  # fmt: skip
    return [table for table in found if table.rows]


def phases(summary: Summary) -> Table:
    heads = ("Phase", "Seconds", "Planned/s", "Achieved/s", "Goodput/s", "Planned", "Answered", "Refused", "Failed",
             "p50, ms", "p95, ms", "p99, ms", "Max, ms", "p95 allowed")  # fmt: skip
    rows = []
    for p in summary.phases:
        rates = [number(value) for value in (p.planned_per_s, p.achieved_per_s, p.goodput_per_s)]
        counts = [number(value) for value in (p.counts.planned, p.counts.answered, p.counts.refused, p.counts.failed)]
        limit = p.p95_limit_ms if p.name != "warm-up" else None
        latency = [number(p.latency.p50), number(p.latency.p95, limit), *spread(p.latency, "p99", "max")]
        span = Cell(f"{figure(p.start)}–{figure(p.end)}")
        rows.append([Cell(p.name), span, *rates, *counts, *latency, number(p.p95_limit_ms)])
    note = (
        "Achieved: requests that left during the phase. Goodput: answered within the p95 allowed. The warm-up counts "
        "for nothing."
    )
    return Table("phases", "Phases", heads, rows, left=2, note=note)


def parts(summary: Summary) -> Table:
    """Return where the time of answered requests went."""
    heads = ["Phase"]
    heads += [f"{what} {key}" for what in ("Queue", "Score", "Rest") for key in ("p50", "p95", "p99")]
    heads += ["Refusal p50", "p99"]
    rows = []
    for p in summary.judged:
        cells = [cell for values in (p.queue, p.score, p.rest) for cell in spread(values, "p50", "p95", "p99")]
        rows.append([Cell(p.name), *cells, *spread(p.refusal, "p50", "p99")])
    note = (
        "Queue and score as the server says; the rest is network, HTTP and the wait to be sent. Percentiles of parts "
        "do not add up to those of the whole."
    )
    return Table("parts", "Where the time goes, ms", heads, rows, note=note)


def steps(summary: Summary) -> Table:
    """Return the steps of a ramp."""
    heads = ("Step, s", "Planned/s", "Achieved/s", "p95, ms", "SLO")
    found = summary.capacity.steps if summary.capacity else []
    rows = [
        [
            Cell(f"{figure(s.start)}–{figure(s.end)}"), number(s.planned_per_s), number(s.achieved_per_s),
            number(s.p95, allowed(summary, s.start)), Cell(s.problem or "held", bad=s.problem is not None),
        ]
        for s in found
    ]  # fmt: skip
    return Table("steps", "Steps of the ramp", heads, rows, note=capacity(summary))


def allowed(summary: Summary, at: float) -> float | None:
    """Return what the p95 may be, in ms, in the phase of a moment."""
    return next((phase.p95_limit_ms for phase in summary.phases if phase.start <= at < phase.end), None)


def capacity(summary: Summary) -> str:
    """Return what a ramp found, in a sentence; nothing where there was none."""
    found = summary.capacity
    if found is None:
        return ""
    if found.per_s is None:
        return f"No capacity: {found.reason}."
    said = f"Capacity at the SLO: {least(summary)}{figure(found.per_s)} requests/s; {found.reason}."
    return f"{said} {scale_target.one_replica(summary)}".strip()


def least(summary: Summary) -> str:
    """Return the words in front of a capacity, which may be higher."""
    return "" if summary.capacity is None or summary.capacity.limited_by == "server" else "at least "


def budget(summary: Summary) -> Table:
    heads = ("Cause", "Requests", "Share", "Allowed", "Budget spent")
    rows = [
        [
            Cell(part.cause), number(part.count), number(part.share, part.allowed_share, percent),
            number(part.allowed_share, show=percent), Cell(spent(part.spent), part.spent, bad=over(part.spent)),
        ]
        for part in summary.budget
    ]  # fmt: skip
    ramp = "Steps of a ramp are counted too, but do not fail the run. " if summary.capacity else ""
    note = (
        f"The warm-up does not count. {ramp}Late: answered, but slower than the p95 allowed; 5 % may be late. "
        f"{recovery(summary)}"
    )
    return Table("budget", "Error budget", heads, rows, note=note)


def spent(share: float | None) -> str:
    return "nothing is allowed" if share is None else percent(share)


def over(share: float | None) -> bool:
    return share is None or share > 1


def recovery(summary: Summary) -> str:
    """Return when the SLO held again, in sentences; nothing where there was no burst."""
    found, allowed = summary.recovery, summary.slo.recover_seconds
    within = f" ({figure(allowed)} s are allowed)" if allowed is not None else ""
    if found.breached_at is None:
        return "" if found.seconds is None else "The SLO held throughout burst and recovery."
    start = f"The SLO was broken {figure(found.breached_at)} s into the run"
    if found.held_at_end_seconds is not None:
        said = f"{start} and held again only for the last {figure(found.held_at_end_seconds)} s of it{within}."
    elif found.seconds is None:
        said = f"{start} and did not hold again before its end{within}."
    else:
        after = f", {figure(found.after_burst_seconds)} s after its end" if found.after_burst_seconds else ""
        said = f"{start} and held again {figure(found.seconds)} s after the burst's begin{within}{after}."
    return " ".join([said, *_broken_again(found)])


def _broken_again(found: Recovery) -> Iterator[str]:
    """Explain how often the SLO was broken again, and when."""
    if found.broken_again_at is None:
        yield "Whether it was broken again later was not measured."
    elif found.broken_again_at:
        yield f"After it had held, it was broken again {times(found.broken_again_at)}."


def errors(summary: Summary) -> Table:
    """Return the failed requests by what went wrong, in each phase."""
    found = sorted({error for phase in summary.phases for error in phase.errors})
    rows = [[outside(error), *(number(phase.errors.get(error, 0)) for phase in summary.phases)] for error in found]
    return Table("errors", "Failed requests", ["Error", *(phase.name for phase in summary.phases)], rows)


def answers(summary: Summary) -> Table:
    """Return the answers by revision, and the requests by payload."""
    rows = [
        [Cell(what), outside(name), number(count), number(count / (sum(found.values()) or 1), show=percent)]
        for what, found in (("revision", summary.revisions), ("payload", summary.kinds))
        for name, count in found.items()
    ]
    note = "Answers by the revision that gave them; requests by payload."
    return Table("answers", "Revisions and payloads", ("What", "Name", "Requests", "Share"), rows, left=2, note=note)


def generator(summary: Summary) -> Table:
    """Return how well the generator kept to the schedule, beside what is allowed."""
    g = summary.generator
    worst = max((phase.delay.p99 or 0.0 for phase in summary.judged), default=None)
    late = late_allowed(summary.judged)
    rows = [
        [Cell("delay p50, ms"), number(g.delay.p50), Cell("")],
        [Cell("delay p99, ms"), number(g.delay.p99), Cell("")],
        [Cell("delay p99 of the worst phase, ms"), number(worst, g.delay_limit_ms), number(g.delay_limit_ms)],
        [Cell("delay max, ms"), number(g.delay.max), Cell("")],
        [Cell("left more than 50 ms late"), number(g.late_share, late, percent), number(late, show=percent)],
        [Cell("not sent: too many in flight"), number(g.not_sent, 0), number(0)],
        [Cell("most in flight, of the busiest worker"), number(g.peak_in_flight), Cell("")],
        [Cell("CPU of a core, busiest worker and second"), number(g.cpu_share, BUSY_SHARE, percent),
         number(BUSY_SHARE, show=percent)],
        [Cell("workers"), number(g.workers), Cell("")],
        *([Cell("never reported"), outside(name)._replace(bad=True), Cell("")] for name in g.missing),
    ]  # fmt: skip
    note = "How late requests left. The warm-up does not count."
    return Table("generator", "The generator itself", ("Measure", "Measured", "Allowed"), rows, note=note)


def environment(summary: Summary) -> Table:
    e = summary.environment
    model = f"{e.model.name} {e.model.version}, {e.model.digest}, {e.model.engine}"
    rows = [("server", e.host), ("model", model), ("started", started(summary)), ("command", e.command)]
    rows += [("scenario", f"{summary.scenario}: {summary.about}"), ("seed", str(summary.seed))]
    rows += [("rate at a factor of 1", f"{figure(summary.base_per_s)} requests/s")]
    rows += [(f"generator's {name}", value) for name, value in e.machine.items()]
    cells = [[outside(name), outside(value)] for name, value in rows]
    return Table("environment", "Environment", ("What", "Value"), cells, left=2)


def started(summary: Summary) -> str:
    """Return when the run started, as people read it."""
    return summary.environment.started.replace("T", " ").replace("+00:00", " UTC")


def values(series: TimeSeries) -> Table:
    """Return the values over time, a row for each bucket."""
    shown = [column for key, column in series.columns.items() if series.has(key)]
    rows = [
        [Cell(figure(start)), *(ready(c.values[n]) if c.key == "ready" else number(c.values[n]) for c in shown)]
        for n, start in enumerate(series.edges[:-1])
    ]
    note = (
        "By the intended time of requests, but sent by when they left. Of several samples in a row's time, the highest "
        "counts; of what is ready, the lowest."
    )
    return Table("values", "Values over time", ["from, s", *(column.head for column in shown)], rows, left=0, note=note)


def ready(value: float | None) -> Cell:
    return Cell("–" if value is None else "yes" if value else "no", value, bad=value == 0.0)
