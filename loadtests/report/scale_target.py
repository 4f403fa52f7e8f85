"""Say what one replica holds, what a ramp's capacity was divided by, and which patch makes an overlay scale on it."""

from __future__ import annotations

from defects.pages.axes import figure
from loadtests.analysis import scale_target
from loadtests.results import ReplicaCapacity, Summary

UNDER_ONE = "One replica holds less than one request/s, and Knative's target is a whole number: there is no patch."
HIGHER = "It may be higher, so there is no patch: the server was not the limit."
STANDARD = "Standard mode has no target for a rate. This is the patch for its autoscaler, on CPU:"
KNATIVE = "This patch makes Knative scale on it. It is what these requests take; with larger ones, measure again."


def one_replica(summary: Summary) -> str:
    """Return what one replica holds, in sentences; nothing where a ramp found nothing, or was of an older version."""
    found = summary.capacity and summary.capacity.replica
    if not found:
        return ""
    if found.per_s is None:
        return f"What one replica holds is not known: {found.why}."
    if not found.watched:
        return f"One replica: {figure(found.per_s)} requests/s, if there was only one; no cluster was watched."
    return f"One replica: {figure(found.per_s)} requests/s; {_divided(found)}"


def _divided(found: ReplicaCapacity) -> str:
    one = found.replicas == 1
    said = f"divided by {found.replicas} ready replica{'' if one else 's'} that got requests."
    if found.left_out:
        said += f" Left out: {found.left_out} ready of revisions that got none."
    return said


def heading(summary: Summary) -> str:
    """Return the sentence in front of the patch, or why there is none; nothing where no ramp found a capacity."""
    found = summary.capacity
    if found is None or found.replica is None or found.replica.per_s is None:
        return ""
    if patch(summary) is None:
        return UNDER_ONE if found.limited_by == "server" else HIGHER
    return STANDARD if summary.cluster and summary.cluster.mode == "Standard" else KNATIVE


def patch(summary: Summary) -> str | None:
    """Return the patch, made of the summary's numbers and not of its text, which may come from anywhere."""
    return scale_target.patch_for(summary.capacity, summary.cluster.mode if summary.cluster else None)


def text(summary: Summary) -> str:
    """Return all of it for a terminal, or nothing."""
    parts = (one_replica(summary), heading(summary), patch(summary) or "")
    return "\n".join(part.rstrip() for part in parts if part)
