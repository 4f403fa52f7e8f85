"""Charts of a run, as SVG: its course on one axis of time, and how its latencies are distributed.

Every chart is drawn for a width, with text of one size: a page shows the one that suits it, and shrinks no letters.
Colours and line styles are classes, so that a page can choose them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from defects.pages import axes as scales
from defects.pages.axes import Scale, figure, percent
from defects.pages.html import element, join, plain, trusted
from defects.pages.svg import AXIS, BOLD, CHARACTER, LINE, box, hatch, rule, shortened, svg, text
from loadtests.report.time_series import Course, Stretch, Values, seconds
from loadtests.results import Cluster, PhaseResult, PlatformEvent, Summary

GAP = 34  # between panels; has the next one's title
LEFT_OF_AXIS = 7  # its numbers end there


@dataclass(frozen=True)
class Line:
    """A column of the course, drawn; `bridge` buckets without a value do not interrupt it.

    With `beside`, it has its label only where that other column is drawn too.
    """

    key: str
    label: str
    steps: bool = False
    bridge: int = 0
    beside: str = ""


@dataclass(frozen=True)
class Panel:
    """Lines above each other's axis; those in `stack` are areas on top of each other, and `filled` has one under it."""

    title: str
    height: int
    lines: tuple[Line, ...]
    stack: tuple[Line, ...] = ()
    filled: str = ""
    log: bool = False
    whole: bool = False  # only whole numbers

    @property
    def keys(self) -> list[str]:
        return [line.key for line in (*self.stack, *self.lines)]


class Flag(NamedTuple):
    """A column of the course that is 1 or 0, drawn as a strip: its styles where it is 0 and where it is 1."""

    key: str
    title: str
    styles: tuple[str, str]


PANELS = (
    Panel("Latency, ms", 200, (Line("p99", "p99"), Line("p95", "p95"), Line("p50", "p50")), log=True),
    Panel(
        "Requests per second",
        140,
        (Line("sent", "sent", steps=True), Line("planned", "planned", steps=True)),
        stack=(Line("answered", "answered"), Line("refused", "refused"), Line("failed", "failed")),
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
        "Autoscaler: concurrency per replica",
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
        (Line("in_flight_max", "max, 15 s", bridge=2), Line("in_flight", "sampled", bridge=2, beside="in_flight_max")),
    ),
    Panel("CPU, cores", 48, (Line("cpu_cores", "", bridge=2),)),
    Panel("Memory, MB", 40, (Line("rss_mb", "", bridge=2),)),
    Panel("Processes", 32, (Line("processes", "", steps=True, bridge=2),), whole=True),
)
FLAGS = (
    Flag("ready", "Ready", ("unready", "ready")),
    Flag("panicking", "Autoscaler in panic mode", ("calm", "panicking")),
)
TIMES = (6, 10)  # marks on a narrow and on a wide axis of time, at most
STRIP = 12  # height of the strips of readiness and events
SHARES = 26  # height of the strip of traffic
MOST_BREACHES = 4  # of the SLO with a label, after the first
MOST_SHIFTS = 6  # changes of the wanted traffic with a label
MOST_REVISIONS = 4  # with a colour of their own
MOST_EVENTS, MOST_SAID = 3, 140  # that a mark says, and characters of each


class Frame(NamedTuple):
    """Where charts of one width have their axis of time. Names are of one drawing in the page."""

    name: str
    width: int
    left: int
    right: int
    x: Scale

    @classmethod
    def of(cls, name: str, width: int, seconds: float, characters: int = 0) -> Frame:
        """`characters`: of the longest number beside the axis."""
        left, right = (52, width - 88) if width > 500 else (46, width - 78)
        left = max(left, math.ceil(CHARACTER * characters) + 2 + LEFT_OF_AXIS)
        return cls(name, width, left, right, Scale(0.0, max(seconds, 1e-3), left, right))


class Tag(NamedTuple):
    """A label beside the end of a line."""

    style: str
    text: str
    y: float


def runs(values: Values, bridge: int) -> Iterator[list[int]]:
    """The indices of values that belong together: those with at most `bridge` missing ones between them."""
    part: list[int] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        if part and index - part[-1] > bridge + 1:
            yield part
            part = []
        part.append(index)
    if part:
        yield part


def curve(course: Course, line: Line, frame: Frame, y: Scale) -> Markup:
    """The path of a line; a value alone becomes a dot."""
    if line.key in course.exact:
        parts = corners(course.exact[line.key], frame, y)
        return element("path", d="".join(f"M{_joined(part)}" for part in parts), class_=f"line {line.key}")
    values, path = course[line.key], []
    for part in runs(values, line.bridge):
        points: list[tuple[float, float]] = []
        for index in part:
            level = y(values[index] or 0.0)
            at = (course.edges[index], course.edges[index + 1]) if line.steps else (course.middle(index),)
            points += [(frame.x(moment), level) for moment in at]
        path.append(f"M{_joined(_thinned(points))}")
        path += ["h0"] if len(points) == 1 else []
    return element("path", d="".join(path), class_=f"line {line.key}")


def _joined(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {level:.1f}" for x, level in points)


def corners(stretches: Sequence[Stretch], frame: Frame, y: Scale) -> Iterator[list[tuple[float, float]]]:
    """The corners of what changes in steps; one list for each part without gaps."""
    part: list[tuple[float, float]] = []
    for before, stretch in zip([None, *stretches], stretches, strict=False):
        if before and before.end < stretch.start:
            yield part
            part = []
        part += [(frame.x(stretch.start), y(stretch.value)), (frame.x(stretch.end), y(stretch.value))]
    if part:
        yield part


def under(stretches: Sequence[Stretch], frame: Frame, y: Scale, style: str) -> Iterator[Markup]:
    """The area under what changes in steps."""
    for part in corners(stretches, frame, y):
        outline = [(part[0][0], y.start), *part, (part[-1][0], y.start)]
        yield element("path", d=f"M{_joined(outline)}Z", class_=f"area {style}")


def _thinned(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Without those in the middle of a level stretch."""
    for index, point in enumerate(points):
        around = points[max(0, index - 1) : index + 2]
        if len(around) < 3 or len({level for _, level in around}) > 1:
            yield point


def areas(course: Course, stack: Sequence[Line], frame: Frame, y: Scale) -> Iterator[Markup]:
    """One stepped area on top of the other, of those that are not 0 throughout."""
    below = [0.0] * (len(course.edges) - 1)
    for line in stack:
        above = [low + (value or 0.0) for low, value in zip(below, course[line.key], strict=True)]
        if any(course[line.key]):
            there, back = _stairs(course, above, frame, y), _stairs(course, below, frame, y)
            outline = [*_thinned(there), *reversed(list(_thinned(back)))]
            path = _joined(outline)
            yield element("path", d=f"M{path}Z", class_=f"area {line.key}")
            if line.key == "failed":  # told apart by more than its colour
                yield element("path", d=f"M{path}Z", fill=f"url(#{frame.name}-hatch)")
        below = above


def _stairs(course: Course, levels: Sequence[float], frame: Frame, y: Scale) -> list[tuple[float, float]]:
    return [
        (frame.x(edge), y(level))
        for index, level in enumerate(levels)
        for edge in (course.edges[index], course.edges[index + 1])
    ]


def tags(found: Sequence[Tag], x: float, top: float, bottom: float) -> Iterator[Markup]:
    """Labels with a sample of their line, moved apart."""
    places = scales.apart([tag.y for tag in found], LINE - 1, top + 4, bottom)
    for tag, y in zip(found, places, strict=True):
        yield element(
            "g",
            rule(x + 5, y, x + 15, y, f"sample {tag.style}"),
            text(x + 19, y + 4, tag.text, "tag"),
        )


# --- the course -----------------------------------------------------------------------------------------------------


def timeline(summary: Summary, course: Course, width: int, name: str) -> Markup:
    """Every panel that has something to show, on one axis of time, with the phases and what happened."""
    frame = Frame.of(name, width, seconds(summary), longest(summary, course))
    head = heading(summary, frame)
    top = head.height + GAP - 8
    drawn: list[Markup] = []
    bottom = top
    for item in PANELS:
        if course.has(*item.keys):
            drawn += bands(summary, frame, bottom, bottom + item.height)
            drawn.append(panel(summary, course, item, frame, bottom))
            bottom += item.height + GAP
    for strip, height in strips(summary, course, frame, bottom):
        drawn.append(strip)
        bottom += height + GAP
    bottom -= GAP
    marks = [rule(x, head.height - 2, x, bottom, f"mark {style}") for style, x in head.marks]
    cursor = rule(frame.left, top, frame.left, bottom, "cursor")
    return svg(
        name, width, bottom + AXIS, f"Course of the run {plain(summary.scenario)}", described(summary),
        hatch(name), *clock(frame, bottom), *drawn, *marks, *head.parts, cursor,
        data_left=frame.left, data_right=frame.right,
    )  # fmt: skip


class Heading(NamedTuple):
    """What is above the panels, and where moments are marked through all of them."""

    parts: list[Markup]
    marks: list[tuple[str, float]]
    height: float


def heading(summary: Summary, frame: Frame) -> Heading:
    """The names of the phases, and under them the moments that matter."""
    names = [(frame.x(phase.start), str(phase.name), "phase-name") for phase in summary.phases]
    parts, height = _labels(names, frame, 0)
    found = [(frame.x(at), label, f"moment {style}") for at, label, style in moments(summary)]
    recovered = time_to_recover(summary)
    measured = [(frame.x(recovered[0]), recovered[2], "moment recovered")] if recovered else []
    more, height = _labels([*measured, *(moment for moment in found if moment[1])], frame, height)
    if recovered:
        more.append(rule(frame.x(recovered[0]), height + 2, frame.x(recovered[1]), height + 2, "measured"))
    return Heading(parts + more, [(style.split()[-1], x) for x, _, style in found], height)


def time_to_recover(summary: Summary) -> tuple[float, float, str] | None:
    """Return from when to when the time to recover counts, and its label; `None` where there is no such time."""
    found = summary.recovery
    if found.recovered_at is None or found.seconds is None:
        return None
    return found.recovered_at - found.seconds, found.recovered_at, f"recovers in {figure(found.seconds)} s"


def moments(summary: Summary) -> Iterator[tuple[float, str, str]]:
    """When, what, and its style; of many of a kind, those in the middle are not said what they are."""
    recovery = summary.recovery
    if recovery.breached_at is not None:
        yield recovery.breached_at, "SLO broken", "breached"
    for number, at in enumerate(recovery.broken_again_at or []):
        yield at, "broken again" if number < MOST_BREACHES else "", "breached"
    if recovery.recovered_at is not None:
        yield recovery.recovered_at, "holds again", "recovered"
    found = summary.capacity
    if found and found.limited_by:
        label = f"{'capacity' if found.limited_by == 'server' else 'the generator did'}: {figure(found.per_s)}/s"
        ends = [step.end for step in found.steps if step.achieved_per_s == found.per_s]
        yield from ((end, label, "breached") for end in ends)
    if summary.cluster:
        yield from platform_moments(summary.cluster)


def platform_moments(cluster: Cluster) -> Iterator[tuple[float, str, str]]:
    """What was done to the replicas, when enough were ready, new revisions, and how the wanted traffic changed."""
    if cluster.disruption:
        yield max(0.0, cluster.disruption.at), shortened(cluster.disruption.what, 30), "disrupted"
    for time in cluster.times:
        if time.name == "scale" and time.seconds and time.to_at is not None:
            yield time.to_at, f"enough replicas {figure(time.seconds)} s after {shortened(time.of, 16)}", "recovered"
    for at, name in arrivals(cluster):
        yield at, f"revision {shortened(name, 12)} ready", "shifted"
    changes = [change for change in cluster.traffic if change.at > 0]
    for number, change in enumerate(changes, 1):
        labelled = number < MOST_SHIFTS or number == len(changes)
        yield change.at, f"traffic: {_split(change.shares)}" if labelled else "", "shifted"


def arrivals(cluster: Cluster) -> list[tuple[float, str]]:
    """When revisions that were not there before the run had their first ready pod."""
    before = {pod.revision for pod in cluster.pods if pod.created is not None and pod.created < 0}
    before |= {name for change in cluster.traffic if change.at <= 0 for name in change.shares}
    ready: dict[str, float] = {}
    for pod in cluster.pods:
        if pod.revision and pod.ready is not None:
            ready[pod.revision] = min(pod.ready, ready.get(pod.revision, pod.ready))
    new = sorted((at, name) for name, at in ready.items() if name not in before)
    return new if before else new[1:]  # what nobody saw before may have been there, without replicas


def _split(shares: dict[str, float]) -> str:
    """Wanted shares in a few words."""
    found = [f"{percent(share)} {shortened(name, 12)}" for name, share in shares.items() if share]
    return ", ".join(found[:3]) + ", …" * (len(found) > 3) or "nobody"


def _labels(found: Sequence[tuple[float, str, str]], frame: Frame, top: float) -> tuple[list[Markup], float]:
    """Texts at their place, in as many rows as it takes for none to be on top of another; and where those end."""
    spans = []
    for x, label, style in found:
        length = CHARACTER * (BOLD if style.startswith("moment") else 1) * len(label) + 14
        left = max(0.0, min(x, frame.width - length))
        spans.append((left, left + length))
    rows = scales.rows_for(spans)
    parts = [
        text(left + 3, top + LINE * (row + 1) - 3, label, style)
        for (left, _), row, (_, label, style) in zip(spans, rows, found, strict=True)
    ]
    return parts, top + LINE * (max(rows) + 1 if rows else 0)


def bands(summary: Summary, frame: Frame, top: float, bottom: float) -> Iterator[Markup]:
    """The phases and marks of time, behind a panel."""
    for phase in summary.phases:
        left, right = frame.x(phase.start), frame.x(phase.end)
        yield box(left, top, right - left, bottom - top, f"band {phase.name}")
    for tick in frame.x.ticks(TIMES[frame.width > 500]):
        yield rule(frame.x(tick), top, frame.x(tick), bottom, "grid")
    yield from (rule(frame.x(phase.start), top, frame.x(phase.start), bottom, "border") for phase in summary.phases)


def clock(frame: Frame, bottom: float) -> Iterator[Markup]:
    """The seconds under the last panel."""
    ticks = frame.x.ticks(TIMES[frame.width > 500])
    for tick in ticks:
        yield text(
            frame.x(tick), bottom + 16, scales.mark(tick) + (" s" if tick == ticks[-1] else ""), "tick", "middle"
        )


def panel(summary: Summary, course: Course, item: Panel, frame: Frame, top: float) -> Markup:
    """One panel with its axis and the labels of its lines."""
    bottom = top + item.height
    allowed = limits(summary, item)
    y = axis(course, item, allowed, top, bottom)
    lines = [line for line in item.lines if course.has(line.key)]
    parts = [text(frame.left, top - 8, item.title, "title"), *levels(frame, y, item.whole)]
    parts += areas(course, item.stack, frame, y)
    parts += under(course.exact.get(item.filled, []), frame, y, item.filled)
    parts += slo(summary.phases, frame, y) if item.log else []
    parts += (curve(course, line, frame, y) for line in lines)
    return join(*parts, *tags([*_tags(course, item, lines, y), *_slo_tag(allowed, y)], frame.right, top, bottom))


def axis(course: Course, item: Panel, limits: Sequence[float], top: float, bottom: float) -> Scale:
    """Of all values of a panel; areas on top of each other end at their sum."""
    values: list[float | None] = [value for line in item.lines for value in course.all(line.key)]
    values += limits
    if item.log:
        return scales.logarithmic(values, bottom, top)
    layers = zip(*(course[line.key] for line in item.stack), strict=True)
    values += [sum(value or 0.0 for value in layer) for layer in layers]
    return scales.even(values, bottom, top, most=5 if item.height > 100 else 3, whole=item.whole)


def marked(y: Scale, whole: bool) -> list[float]:
    """The numbers beside a panel."""
    ticks = y.ticks(10 if y.log else 5 if y.start - y.end > 100 else 3)
    return [tick for tick in ticks if not whole or tick == int(tick)]


def levels(frame: Frame, y: Scale, whole: bool) -> Iterator[Markup]:
    """The grid of a panel, with its numbers."""
    for tick in marked(y, whole):
        level = y(tick)
        yield rule(frame.left, level, frame.right, level, "grid" if tick > y.low else "base")
        yield text(frame.left - LEFT_OF_AXIS, level + 4, scales.mark(tick), "tick", "end")


def longest(summary: Summary, course: Course) -> int:
    """How many characters the longest number beside a panel has."""
    shown = [item for item in PANELS if course.has(*item.keys)]
    axes = [(item, axis(course, item, limits(summary, item), 0, item.height)) for item in shown]
    return max((len(scales.mark(tick)) for item, y in axes for tick in marked(y, item.whole)), default=0)


def limits(summary: Summary, item: Panel) -> list[float]:
    """What the SLO allows in the phases, where a panel shows it."""
    return [phase.p95_limit_ms for phase in summary.phases] if item.log else []


def slo(phases: Sequence[PhaseResult], frame: Frame, y: Scale) -> Iterator[Markup]:
    """What the p95 of each phase may be."""
    for phase in phases:
        level = y(phase.p95_limit_ms)
        yield rule(frame.x(phase.start), level, frame.x(phase.end), level, "line slo")


def _slo_tag(limits: Sequence[float], y: Scale) -> list[Tag]:
    return [Tag("slo", "SLO p95", y(limits[-1]))] if limits else []


def _tags(course: Course, item: Panel, lines: Sequence[Line], y: Scale) -> Iterator[Tag]:
    """A label where each line ends. Areas that are 0 throughout have none."""
    for line in lines:
        if line.label and (not line.beside or course.has(line.beside)):
            last = next(value for value in reversed(course.all(line.key)) if value is not None)
            yield Tag(line.key, line.label, y(last))
    height, areas = 0.0, list[Tag]()
    for line in item.stack:
        height += course[line.key][-1] or 0.0
        if line.label and any(course[line.key]):
            areas.append(Tag(f"area {line.key}", line.label, y(height)))
    yield from reversed(areas)


def strips(summary: Summary, course: Course, frame: Frame, top: float) -> Iterator[tuple[Markup, float]]:
    """What is no number, under the panels: each with its height."""
    cluster = summary.cluster
    if cluster and len({name for change in cluster.traffic for name in change.shares}) > 1:
        yield traffic(cluster, frame, top), SHARES
        top += SHARES + GAP
    if cluster and cluster.events:
        yield events(cluster, frame, top), STRIP
        top += STRIP + GAP
    for flag in FLAGS:
        if course.has(flag.key):
            yield strip(course, flag, frame, top), STRIP
            top += STRIP + GAP


def traffic(cluster: Cluster, frame: Frame, top: float) -> Markup:
    """The share of requests that each revision was to have; the newest on top."""
    names = list(dict.fromkeys(name for change in cluster.traffic for name in change.shares))
    styles = {name: f"revision-{number % MOST_REVISIONS}" for number, name in enumerate(names)}
    starts = [max(0.0, change.at) for change in cluster.traffic]
    parts, level = [text(frame.left, top - 8, "Wanted traffic, by revision", "title")], top
    for change, (start, end) in zip(cluster.traffic, pairwise([*starts, frame.x.high]), strict=True):
        level, left = top + SHARES, frame.x(start)
        for name in names:
            height = SHARES * change.shares.get(name, 0.0)
            level -= height
            parts.append(box(left, level, frame.x(end) - left, height, f"share {styles[name]}"))
    label = int((frame.width - frame.right - 20) / (BOLD * CHARACTER))
    last = [name for name in names if cluster.traffic[-1].shares.get(name)] or names
    found = [Tag(f"share {styles[name]}", shortened(name, label), top) for name in reversed(last[-3:])]
    return join(*parts, *tags(found, frame.right, top - 4, top + SHARES + 6))


def events(cluster: Cluster, frame: Frame, top: float) -> Markup:
    """A mark for each moment with events, which says what they are; the table has all that they say."""
    places: dict[int, list[PlatformEvent]] = {}
    for event in cluster.events:
        places.setdefault(round(frame.x(max(0.0, event.at))), []).append(event)
    warnings = sum(event.warning for event in cluster.events)
    title = f"Events; tall: {warnings} warning{'s' * (warnings > 1)}" if warnings else "Events"
    return join(
        text(frame.left, top - 8, title, "title"),
        *(event_mark(x, places[x], top) for x in sorted(places, key=lambda x: any(e.warning for e in places[x]))),
        text(frame.right + 5, top + STRIP - 2, f"{len(cluster.events)} in all", "tag"),
    )


def event_mark(x: int, found: Sequence[PlatformEvent], top: float) -> Markup:
    """A low stroke, or a wedge where one of them is a warning; warnings are said first."""
    said = [
        shortened(f"{figure(event.at)} s: {event.name} {event.reason}: {event.message}", MOST_SAID)
        for event in sorted(found, key=lambda event: not event.warning)
    ]
    more = [f"and {len(said) - MOST_EVENTS} more"] if len(said) > MOST_EVENTS else []
    title = element("title", "; ".join([*said[:MOST_EVENTS], *more]))
    if any(event.warning for event in found):
        return element("path", title, d=f"M{x - 4} {top:.1f}h8l-4 {STRIP}Z", class_="warning")
    return element("path", title, d=f"M{x} {top + STRIP / 2:.1f}v{STRIP / 2:.0f}", class_="event")


def strip(course: Course, flag: Flag, frame: Frame, top: float) -> Markup:
    """When it was so. Colour is not all: the strip is lower where it was not."""
    parts = [text(frame.left, top - 8, flag.title, "title")]
    stretches = course.exact[flag.key] if flag.key in course.exact else list(_stretches(course, flag.key))
    for stretch in stretches:
        left, right = frame.x(stretch.start), frame.x(stretch.end)
        so = stretch.value == 1.0
        lowered = 0.0 if so else STRIP / 2
        parts.append(box(left, top + lowered, right - left, STRIP - lowered, flag.styles[so]))
    seen = {stretch.value for stretch in stretches}
    said = "always" if seen == {1.0} else "never" if seen == {0.0} else "not always"
    return join(*parts, text(frame.right + 5, top + STRIP - 2, said, "tag"))


def _stretches(course: Course, key: str) -> Iterator[Stretch]:
    """Neighbouring buckets with the same value; those without one belong to the value before, where they are few."""
    values = course[key]
    for part in runs(values, 2):
        start = part[0]
        for before, index in pairwise(part):
            if values[index] != values[before]:
                yield Stretch(course.edges[start], course.edges[index], values[start] or 0.0)
                start = index
        yield Stretch(course.edges[start], course.edges[part[-1] + 1], values[start] or 0.0)


def described(summary: Summary) -> str:
    """The course in words."""
    said = [
        f"{phase.name} from {figure(phase.start)} to {figure(phase.end)} s: {figure(phase.achieved_per_s)} requests "
        f"per second, p50 {figure(phase.latency.p50)}, p95 {figure(phase.latency.p95)}, p99 "
        f"{figure(phase.latency.p99)} ms"
        for phase in summary.phases
    ]
    said += [f"{what} at {figure(at)} s" for at, what, _ in moments(summary) if what]
    if recovered := time_to_recover(summary):
        said.append(f"{recovered[2]}, counted from {figure(recovered[0])} s")
    return f"{'; '.join(said)}."


# --- a picture ------------------------------------------------------------------------------------------------------


def picture(summary: Summary, course: Course, style: str, width: int = 860) -> Markup:
    """The course as a file of its own, with its style and what it shows."""
    chart = timeline(summary, course, width, "course")
    inner = trusted(str(chart).replace("<svg ", '<svg y="52" ', 1))
    height = float(chart.split('height="', 1)[1].split('"', 1)[0]) + 52
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
        element("style", trusted(style)),
        box(0, 0, width, height, "paper"),
        text(16, 24, headline, "headline"),
        text(16, 42, " · ".join(said), "tick"),
        inner,
    )  # fmt: skip
