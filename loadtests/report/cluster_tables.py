"""Make the tables of a cluster, and the sentences about it, in a run's report."""

from __future__ import annotations

from collections.abc import Iterator

from defects.pages.axes import figure, percent
from defects.pages.tables import Cell, Table, number, outside
from loadtests.analysis.method import AHEAD_SECONDS, SETTLE_SECONDS, START_SECONDS
from loadtests.analysis.method import PHASES as POD_PHASES
from loadtests.report import events
from loadtests.results import Cluster, Summary, parts_of


def everything(summary: Summary) -> list[Table]:
    """Return the tables of what the cluster did; none without one."""
    found = summary.cluster
    return (
        [scaling(found), falls(found), splits(found), starts(found), pods(found), events.table(found)] if found else []
    )


def scaling(cluster: Cluster) -> Table:
    """Return how long detecting, scaling and the other times took."""
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
        "created to ready. Down: until no more are ready than are needed or were before. Zero: until none is left."
    )
    return Table("scaling", "How it scaled", heads, rows, left=2, note=f"{note} {provisioning(cluster)}".strip())


def falls(cluster: Cluster) -> Table:
    """Return each time in which fewer replicas were ready than needed, after enough had been."""
    heads = ("Phase", "From, s", "To, s", "Seconds", "Ready", "Needed")
    found = cluster.below_need.falls if cluster.below_need else []
    rows = [
        [Cell(fall.phase), number(fall.from_at), number(fall.to_at), number(fall.seconds),
         number(fall.ready), number(fall.needed)]
        for fall in found
    ]  # fmt: skip
    note = f"{below_need(cluster)} Ready: the fewest of that time; needed: the most."
    return Table("falls", "Fell below need again", heads, rows, note=note)


def below_need(cluster: Cluster) -> str:
    """Return how often fewer replicas were ready than needed again, in a sentence; nothing where it is not known."""
    found = cluster.below_need
    if found is None:
        return ""
    allowed = "" if found.limit_seconds is None else f" ({figure(found.limit_seconds)} s are allowed)"
    if not found.times:
        return "Once as many replicas were ready as needed, there were never fewer again."
    return (
        f"After as many replicas were ready as needed, there were fewer again {found.times} "
        f"time{'s' * (found.times > 1)}, for {figure(found.seconds)} s in all{allowed}."
    )


def provisioning(cluster: Cluster) -> str:
    """Return the replicas beyond need and short of it, in a sentence; nothing where the need is not known."""
    over, under = cluster.over_replica_seconds, cluster.under_replica_seconds
    idle = (
        f"Ready without requests, and not counted: {figure(cluster.idle_replica_seconds)} replica-seconds of other "
        "revisions."
        if cluster.idle_replica_seconds
        else ""
    )
    if over is None or under is None:
        return idle
    needed = f" At {figure(cluster.replica_per_s)} requests/s for a replica" if cluster.replica_per_s else " In all"
    sums = f"{needed.strip()}: {figure(over)} replica-seconds beyond need, {figure(under)} short of it."
    return " ".join(filter(None, (sums, below_need(cluster), idle)))


def splits(cluster: Cluster) -> Table:
    """Return the share of the answers that each revision had, beside the wanted one."""
    heads = ("Revision", "From, s", "To, s", "Wanted", "Got", "99 % interval", "Answers", "Of", "")
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
    """Return how each pod started."""
    heads = ["Pod", "Created, s", *(phase.capitalize() for phase in POD_PHASES), "Cold start", "Slowest", "Process"]
    rows = [
        [
            outside(pod.name), number(pod.created), *_phases({phase.name: phase.seconds for phase in pod.phases}),
            number(pod.cold_start_seconds), outside(pod.slowest or "–"), outside(_process(pod.startup)),
        ]
        for pod in cluster.pods
    ]  # fmt: skip
    note = (
        "Seconds of each phase, and of the phases of the process itself. A cold start is from created to ready, of a "
        "pod that was created in the run."
    )
    return Table("starts", "Starts of pods, s", heads, rows, note=note)


def pods(cluster: Cluster) -> Table:
    """Return how each pod ended, and the failed requests near its start and end."""
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
        f"Lost: requests that failed in the {figure(START_SECONDS)} s after the pod became ready, or while it ended, "
        f"whichever pod they went to. {figure(cluster.lost_elsewhere)} failed near no pod's start or end."
    )
    return Table("pods", "Pods", heads, rows, left=2, note=note)


def _phases(spans: dict[str, float]) -> Iterator[Cell]:
    """Yield a cell for each phase; phases that were measured as one stand with the last of them."""
    for phase in POD_PHASES:
        together = next((name for name in spans if name.endswith(f"and {phase}")), None)
        if together:
            yield number(spans[together], show=lambda value: f"{figure(value)} (with those before)")
        else:
            yield number(spans.get(phase))


def _process(startup: dict[str, float]) -> str:
    """Return the phases of a process's own start, in words."""
    return ", ".join(f"{part} {figure(seconds)}" for part, seconds in parts_of(startup).items()) or "–"


def watched(cluster: Cluster) -> str:
    """Return what was watched, and how, in sentences."""
    mode = f" in {cluster.mode} mode" if cluster.mode else ""
    said = [f"{cluster.service or '(nothing)'}{mode}, watched until {figure(cluster.watched_until)} s."]
    if cluster.scaled_by:
        limits = f" Lengths and limits are the scenario's for {cluster.limits_of}." if cluster.limits_of else ""
        said.append(f"Scaled by {cluster.scaled_by}.{limits}")
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
