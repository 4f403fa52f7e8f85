"""Draw how pods started: a row for each, its phases one after the other, by the seconds since it was created."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from defects.pages import axes
from defects.pages.axes import Scale, figure
from defects.pages.html import plain
from defects.pages.svg import AXIS, BOLD, CHARACTER, LINE, box, numbers, rule, shortened, svg, text
from loadtests.results import Cluster, PodLife, Summary, parts_of

MAX_PODS = 12  # as many as a page of paper has room for
BAR, INSIDE = 14, 6  # heights: of a pod's phases, of those of its process
ROW = 2 * LINE + BAR + INSIDE + 16
LEGEND = {
    "scheduling": "scheduling",
    "initialising": "initialising",
    "pulling": "pulling the image",
    "starting": "starting the container",
    "getting-ready": "getting ready",
    "unready": "not ready",
}


def shown(cluster: Cluster) -> list[PodLife]:
    """Return the pods that were created in the run, in that order; where there are many, those that took longest."""
    found = [pod for pod in cluster.pods if pod.created is not None and pod.created >= 0]
    slowest = sorted(found, key=lambda pod: -took(pod, cluster))[:MAX_PODS]
    return sorted(slowest, key=lambda pod: pod.created or 0.0)


def took(pod: PodLife, cluster: Cluster) -> float:
    """Return the seconds from created to ready; for a pod that was never ready, to its end or the watch's."""
    if pod.cold_start_seconds is not None:
        return pod.cold_start_seconds
    ends = [end for end in (pod.terminating, pod.gone, cluster.watched_until) if end is not None]
    return max(0.0, min(ends) - (pod.created or 0.0))


def waterfall(summary: Summary, width: int, name: str) -> Markup:
    """Return a drawing with a row for each pod; nothing where there is none."""
    cluster = summary.cluster
    pods = shown(cluster) if cluster else []
    if not cluster or not pods:
        return Markup("")
    left, right = 8, width - 16
    ready = [took(pod, cluster) for pod in pods if pod.cold_start_seconds is not None]
    most = max(ready or (took(pod, cluster) for pod in pods))
    x = axes.even([most], left, right, most=11 if width > 500 else 6)
    legend, top = _legend(pods, width)
    bottom = top + ROW * len(pods)
    ticks = x.ticks(11 if width > 500 else 6)
    parts = [rule(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    for number, pod in enumerate(pods):
        parts += row(pod, took(pod, cluster), x, top + ROW * number)
    parts += numbers(x, ticks, bottom, width)
    parts.append(text((left + right) / 2, bottom + 32, "seconds since the pod was created", "tick", "middle"))
    words = "; ".join(f"{pod.name}: {said(pod, took(pod, cluster))}" for pod in pods)
    return svg(name, width, bottom + AXIS + 6, "How pods started", f"{words}.", *legend, *parts)


def row(pod: PodLife, seconds: float, x: Scale, top: float) -> Iterator[Markup]:
    """Yield the row of a pod: its name, a sentence, its phases, and under them those of its process."""
    most = int((x.end - x.start) / CHARACTER)
    words = said(pod, seconds)
    yield text(x.start, top + LINE, shortened(pod.name, int(most / BOLD)), "title")
    yield text(x.start, top + 2 * LINE, words if len(words) <= most else f"{words[: most - 1]}…", "tick")
    level, at = top + 2 * LINE + 5, 0.0
    for phase in pod.phases:
        yield box(x(at), level, x(at + phase.seconds) - x(at), BAR, f"start {style_of(phase.name)}")
        at += phase.seconds
    if pod.cold_start_seconds is None:
        yield box(x(at), level, x(seconds) - x(at), BAR, "start unready")
    yield from inside(pod, x, level + BAR + 1)


def inside(pod: PodLife, x: Scale, top: float) -> Iterator[Markup]:
    """Yield the phases of the process itself, which end when it says that it is ready; the longest one stands out."""
    parts = parts_of(pod.startup)
    if pod.cold_start_seconds is None or not parts:
        return
    at, longest = max(0.0, pod.cold_start_seconds - sum(parts.values())), max(parts, key=lambda part: parts[part])
    for part, seconds in parts.items():
        yield box(x(at), top, x(at + seconds) - x(at) - 0.6, INSIDE, "inside slowest" if part == longest else "inside")
        at += seconds


def style_of(phase: str) -> str:
    """Return the class of a phase; of phases that were measured as one, the last one's."""
    return phase.rpartition(" and ")[2].replace(" ", "-")


def said(pod: PodLife, seconds: float) -> str:
    """Return when a pod was created, whether it became ready and, where it is known, what took longest."""
    created = f"created at {figure(pod.created)} s"
    if pod.cold_start_seconds is None:
        why = f": {plain(pod.problem)}" if pod.problem else ""
        return f"not ready after {figure(seconds)} s, {created}{why}"
    slowest = f"; slowest: {plain(pod.slowest)}" if pod.slowest else ""
    return f"ready after {figure(pod.cold_start_seconds)} s{slowest}; {created}"


def _legend(pods: Sequence[PodLife], width: int) -> tuple[list[Markup], float]:
    """Return the legend of the phases that there are, in as many rows as it takes, and where those end."""
    there = {style_of(phase.name) for pod in pods for phase in pod.phases}
    there |= {"unready"} if any(pod.cold_start_seconds is None for pod in pods) else set()
    entries = [(f"start {style}", label) for style, label in LEGEND.items() if style in there]
    if any(pod.cold_start_seconds is not None and parts_of(pod.startup) for pod in pods):
        entries += [("inside", "in the process itself"), ("inside slowest", "its longest phase")]
    parts, left, top = list[Markup](), 8.0, 4.0
    for style, label in entries:
        length = 16 + CHARACTER * len(label) + 14
        if left > 8 and left + length > width:
            left, top = 8.0, top + LINE + 2
        parts += [box(left, top, 10, 10, style), text(left + 15, top + 9, label, "tick")]
        left += length
    return parts, top + LINE + 6
