"""Tell failed probes that belong to the start or the end of a pod from those that say that something is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadtests.analysis.method import EVENT_SECONDS
from loadtests.results import PlatformEvent, PodLife, ProbeFailures

EXPECTED = ("Readiness probe ", "Startup probe ")  # how messages begin; a liveness probe that fails is never expected


def split(events: Iterable[PlatformEvent], pods: Sequence[PodLife]) -> tuple[list[PlatformEvent], ProbeFailures | None]:
    """Return the other events, and how often probes failed while their pods started or ended; `None`: never."""
    lives, others, failed = {pod.name: pod for pod in pods}, list[PlatformEvent](), list[PlatformEvent]()
    for event in events:
        (failed if _is_expected(event, lives.get(event.name)) else others).append(event)
    if not failed:
        return others, None
    return others, ProbeFailures(
        count=len(failed),
        pods=len({event.name for event in failed}),
        first_at=failed[0].at,
        last_at=failed[-1].at,
    )


def _is_expected(event: PlatformEvent, pod: PodLife | None) -> bool:
    """Return whether a probe failed before its pod was ready for the first time, or while it ended.

    Of a pod that never got ready, a failed probe may be the reason.
    """
    if event.kind != "Pod" or event.reason != "Unhealthy" or not event.message.startswith(EXPECTED) or pod is None:
        return False
    ends = [at for at in (pod.terminating, pod.gone) if at is not None]
    if ends and event.at >= min(ends) - EVENT_SECONDS:
        return True
    return pod.ready is not None and event.at <= pod.ready + EVENT_SECONDS
