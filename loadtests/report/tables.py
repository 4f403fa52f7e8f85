"""The tables of a run's report, as data: what the page and the Markdown summary show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from defects.pages.axes import figure, percent
from loadtests.analysis.method import AHEAD_SECONDS, BUSY_SHARE, SETTLE_SECONDS, START_SECONDS, late_allowed
from loadtests.analysis.method import PHASES as POD_PHASES
from loadtests.analysis.verdict import times
from loadtests.report.time_series import Course
from loadtests.results import Cluster, PhaseResult, Recovery, Spread, Summary, parts_of

TIMES_SHOWN = {"scale": "time to scale", "cold start": "slowest cold start", "zero": "time to zero"}  # above all


class Cell(NamedTuple):
    """What is shown, and the number behind it. `bad`: over what was allowed; `outside`: a text from outside."""

    text: str
    value: float | None = None
    bad: bool = False
    outside: bool = False


class Table(NamedTuple):
    """The first `left` columns are text."""

    name: str
    caption: str
    heads: Sequence[str]
    rows: list[list[Cell]]
    left: int = 1
    note: str = ""


def outside(text: str) -> Cell:
    """A text that came from outside; where there is none, a word for that."""
    return Cell(text.strip() or "(nothing)", outside=True)


def number(value: float | None, limit: float | None = None, show: Callable[[float | None], str] = figure) -> Cell:
    """A number, which is bad above the limit."""
    return Cell(show(value), value, bad=value is not None and limit is not None and value > limit)


def spread(values: Spread, *keys: str) -> list[Cell]:
    return [number(getattr(values, key)) for key in keys]


def judged(summary: Summary) -> list[PhaseResult]:
    return [phase for phase in summary.phases if phase.name != "warm-up"]


def everything(summary: Summary) -> list[Table]:
    """All tables that have rows, in the order in which they are read."""
    found = [
        phases(summary), parts(summary), steps(summary), *platform(summary), budget(summary), errors(summary),
        answers(summary), generator(summary), environment(summary),
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
    """Where the time of answered requests went."""
    heads = ["Phase"]
    heads += [f"{what} {key}" for what in ("Queue", "Score", "Rest") for key in ("p50", "p95", "p99")]
    heads += ["Refusal p50", "p99"]
    rows = []
    for p in judged(summary):
        cells = [cell for values in (p.queue, p.score, p.rest) for cell in spread(values, "p50", "p95", "p99")]
        rows.append([Cell(p.name), *cells, *spread(p.refusal, "p50", "p99")])
    note = (
        "Queue and score as the server says; the rest is network, HTTP and the wait to be sent. Percentiles of parts "
        "do not add up to those of the whole."
    )
    return Table("parts", "Where the time goes, ms", heads, rows, note=note)


def steps(summary: Summary) -> Table:
    """Of a ramp."""
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
    """What the p95 may be, in ms, in the phase of a moment."""
    return next((phase.p95_limit_ms for phase in summary.phases if phase.start <= at < phase.end), None)


def capacity(summary: Summary) -> str:
    """What a ramp found, in a sentence; nothing where there was none."""
    found = summary.capacity
    if found is None:
        return ""
    if found.per_s is None:
        return f"No capacity: {found.reason}."
    return f"Capacity at the SLO: {least(summary)}{figure(found.per_s)} requests/s; {found.reason}."


def least(summary: Summary) -> str:
    """In front of a capacity that may be higher."""
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
    ramp = "Steps of a ramp are in it too, but break no promise. " if summary.capacity else ""
    note = (
        f"Outside of warm-up. {ramp}Late: answered, but slower than the p95 allowed, which 5 % may be. "
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


def platform(summary: Summary) -> list[Table]:
    """What the cluster did; none without one."""
    found = summary.cluster
    return [scaling(found), splits(found), starts(found), pods(found), events(found)] if found else []


def scaling(cluster: Cluster) -> Table:
    """The times that matter."""
    heads = ("Time", "Of", "Seconds", "Allowed", "From, s", "To, s", "")
    rows = [
        [
            Cell(time.name), outside(time.of), number(time.seconds)._replace(bad=time.met is False),
            number(time.limit_seconds), number(time.from_at), number(time.to_at),
            Cell(time.why or ("held" if time.met else "too long" if time.met is False else ""), bad=time.met is False),
        ]
        for time in cluster.times
    ]  # fmt: skip
    note = (
        "Detect: until more replicas are desired. Provision: from then until those are ready. Scale: until as many are "
        "ready as the planned rate needs. Recover: until the SLO holds again. Cold start: of the slowest pod, from "
        "created to ready. Down: until no more are ready than are needed or were before. Zero: until none is."
    )
    return Table("scaling", "How it scaled", heads, rows, left=2, note=f"{note} {provisioning(cluster)}".strip())


def provisioning(cluster: Cluster) -> str:
    """Replicas beyond need and short of it, in a sentence; nothing where the need is not known."""
    over, under = cluster.over_replica_seconds, cluster.under_replica_seconds
    if over is None or under is None:
        return ""
    needed = f" At {figure(cluster.replica_per_s)} requests/s for a replica" if cluster.replica_per_s else " In all"
    return f"{needed.strip()}: {figure(over)} replica-seconds beyond need, {figure(under)} short of it."


def splits(cluster: Cluster) -> Table:
    """Requests per revision against the wanted split."""
    heads = ("Revision", "From, s", "To, s", "Wanted", "Had", "99 % interval", "Answers", "Of", "")
    rows = [
        [
            outside(s.revision), number(s.start), number(s.end), number(s.wanted_share, show=percent),
            number(s.share, show=percent), Cell(f"{percent(s.low)} to {percent(s.high)}"), number(s.answers),
            number(s.total), Cell("as wanted" if s.within else "not as wanted", bad=not s.within),
        ]
        for s in cluster.splits
    ]  # fmt: skip
    note = (
        "Answers by the revision that gave them, for as long as the wanted shares stayed the same: "
        f"from {figure(SETTLE_SECONDS)} s after they changed until {figure(AHEAD_SECONDS)} s before they do again, "
        "as routers are ahead of the status. "
        "Wilson's interval takes each request as routed by itself."
    )
    return Table("splits", "Traffic by revision", heads, rows, note=note)


def starts(cluster: Cluster) -> Table:
    """How each pod started."""
    heads = ["Pod", "Created, s", *(phase.capitalize() for phase in POD_PHASES), "Cold start", "Slowest", "Process"]
    rows = [
        [
            outside(pod.name), number(pod.created), *_phases({phase.name: phase.seconds for phase in pod.phases}),
            number(pod.cold_start_seconds), outside(pod.slowest or "–"), outside(_process(pod.startup)),
        ]
        for pod in cluster.pods
    ]  # fmt: skip
    note = (
        "Seconds of each phase, and of the process's own. A cold start is from created to ready, of a pod that was "
        "created in the run."
    )
    return Table("starts", "Starts of pods, s", heads, rows, note=note)


def pods(cluster: Cluster) -> Table:
    """What became of each pod, and of the requests around it."""
    heads = ("Pod", "Revision", "Ready, s", "Ended, s", "Restarts", "Lost at its start", "At its end", "Problem")
    rows = [
        [
            outside(pod.name), outside(pod.revision or "–"), number(pod.ready),
            number(pod.gone if pod.terminating is None else pod.terminating), number(pod.restarts, 0),
            number(pod.lost_at_start, 0), number(pod.lost_at_end, 0),
            outside(pod.problem or "–")._replace(bad=pod.problem is not None),
        ]
        for pod in cluster.pods
    ]  # fmt: skip
    note = (
        f"Lost: failed requests in the {figure(START_SECONDS)} s after it became ready, and while it ended, "
        "whoever had them; "
        f"{figure(cluster.lost_elsewhere)} failed near no pod's start or end."
    )
    return Table("pods", "Pods", heads, rows, left=2, note=note)


def _phases(spans: dict[str, float]) -> Iterator[Cell]:
    """A cell for each phase; what could not be told apart stands with the last of them."""
    for phase in POD_PHASES:
        together = next((name for name in spans if name.endswith(f"and {phase}")), None)
        if together:
            yield number(spans[together], show=lambda value: f"{figure(value)} (with those before)")
        else:
            yield number(spans.get(phase))


def _process(startup: dict[str, float]) -> str:
    """A process's own start, by phase."""
    return ", ".join(f"{part} {figure(seconds)}" for part, seconds in parts_of(startup).items()) or "–"


def events(cluster: Cluster) -> Table:
    """What the platform said."""
    rows = [
        [Cell(figure(e.at), e.at), outside(e.kind), outside(e.name), outside(e.reason), outside(e.message)]
        for e in cluster.events
    ]
    return Table("events", "Events of the platform", ("At, s", "Kind", "Name", "Reason", "Message"), rows, left=0)


def watched(cluster: Cluster) -> str:
    """Who was watched, and how, in sentences."""
    mode = f" in {cluster.mode} mode" if cluster.mode else ""
    said = [f"{cluster.service or '(nothing)'}{mode}, watched until {figure(cluster.watched_until)} s."]
    if cluster.desired_from:
        said.append(f"Desired replicas are those of {cluster.desired_from} objects.")
    if any(change.existing is None and change.ready is not None for change in cluster.replicas):
        said.append("Ready replicas are what autoscalers and Deployments say, as pods were not seen.")
    if clock := cluster.clock:
        ahead = f"{figure(abs(clock.skew_seconds))} s {'ahead of' if clock.skew_seconds >= 0 else 'behind'}"
        error = figure(clock.error_seconds)
        said.append(f"The API server's clock was {ahead} this machine's, known to {error} s and corrected for.")
    else:
        said.append("The API server's clock is not known, so times that objects say themselves are not used.")
    return " ".join(said)


def errors(summary: Summary) -> Table:
    """Failed requests by what went wrong, in each phase."""
    found = sorted({error for phase in summary.phases for error in phase.errors})
    rows = [[outside(error), *(number(phase.errors.get(error, 0)) for phase in summary.phases)] for error in found]
    return Table("errors", "Failed requests", ["Error", *(phase.name for phase in summary.phases)], rows)


def answers(summary: Summary) -> Table:
    """Who answered, and what was asked."""
    rows = [
        [Cell(what), outside(name), number(count), number(count / (sum(found.values()) or 1), show=percent)]
        for what, found in (("revision", summary.revisions), ("payload", summary.kinds))
        for name, count in found.items()
    ]
    note = "Answers by the revision that gave them; requests by payload."
    return Table("answers", "Revisions and payloads", ("What", "Name", "Requests", "Share"), rows, left=2, note=note)


def generator(summary: Summary) -> Table:
    """Whether the numbers can be trusted."""
    g = summary.generator
    worst = max((phase.delay.p99 or 0.0 for phase in judged(summary)), default=None)
    late = late_allowed(judged(summary))
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
    note = "How late requests left, outside of warm-up."
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
    """As people read it."""
    return summary.environment.started.replace("T", " ").replace("+00:00", " UTC")


def values(course: Course) -> Table:
    """The course in numbers, a row for each bucket."""
    shown = [column for key, column in course.columns.items() if course.has(key)]
    rows = [
        [Cell(figure(start)), *(ready(c.values[n]) if c.key == "ready" else number(c.values[n]) for c in shown)]
        for n, start in enumerate(course.edges[:-1])
    ]
    note = (
        "By the intended time of requests, sent by when they left; of several looks at the server the highest, but of "
        "what is ready the lowest."
    )
    return Table("values", "Values over time", ["from, s", *(column.head for column in shown)], rows, left=0, note=note)


def ready(value: float | None) -> Cell:
    return Cell("–" if value is None else "yes" if value else "no", value, bad=value == 0.0)


def tiles(summary: Summary) -> Iterator[tuple[str, Cell, str]]:
    """What matters most: what it is, the number, and what it is measured by."""
    counted = judged(summary)
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
    for time in cluster.times:
        if time.name in TIMES_SHOWN and time.from_at is not None:
            taken = Cell("never", bad=True) if time.seconds is None else number(time.seconds, time.limit_seconds)
            allowed = "" if time.limit_seconds is None else f"; {figure(time.limit_seconds)} allowed"
            of = "" if time.name == "cold start" else f" from the {time.of}"
            yield TIMES_SHOWN[time.name], taken, f"s{of}{allowed}"
