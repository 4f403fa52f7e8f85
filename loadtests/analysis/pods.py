"""Follow each pod through a run: its moments, what its start took, and the requests that failed near it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np

from loadtests import results
from loadtests.analysis.measures import Run
from loadtests.analysis.method import END_SECONDS, PHASES, START_SECONDS
from loadtests.analysis.moments import Interval, moment
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation, Stamp
from loadtests.results import FAILED, PodLife

MOMENTS = ("created", "scheduled", "initialised", "pulled", "started", "ready")
ORDER = (*MOMENTS, "terminating", "gone")


class PodHistory:
    """A pod's moments, from what was observed of it, in order."""

    def __init__(self, clock: results.ClusterClock | None):
        self._clock = clock
        self.last: observations.Pod | None = None
        self.moments: dict[str, float] = {}
        self.stamped: list[str] = []
        self.startup: dict[str, float] = {}
        self.problem: str | None = None
        self._turns: list[float] = []  # when it became ready, when it was no longer ready, and so on

    def note(self, name: str, observed: AnyObservation, stamp: Stamp) -> None:
        """Note a moment for the first time; by a stamp not before earlier moments, as clocks of nodes differ."""
        if name not in self.moments:
            at, stamped = moment(observed, stamp, self._clock)
            earlier = [self.moments[other] for other in ORDER[: ORDER.index(name)] if other in self.moments]
            self.moments[name] = max([at, *earlier]) if stamped else at
            self.stamped += [name] * stamped

    def take(self, observed: observations.Pod) -> None:
        """Add the pod's next observation."""
        for name, stamp in (
            ("created", observed.created_stamp),
            ("scheduled", observed.scheduled_stamp),
            ("initialised", observed.initialised_stamp),
            ("started", observed.started_stamp),
            ("terminating", observed.deleted_stamp),
        ):
            if stamp is not None:
                self.note(name, observed, stamp)
        if observed.ready:
            self.note("ready", observed, observed.ready_stamp)
        if observed.gone:
            self.note("gone", observed, None)
        if observed.ready != (self.last is not None and self.last.ready):
            self._turns.append(
                moment(observed, observed.ready_stamp if observed.ready else observed.deleted_stamp, self._clock)[0]
            )
        self.problem, self.last = observed.waiting or self.problem, observed

    def record(self, lost: FailedRequests) -> PodLife:
        """Return what the summary has of the pod."""
        assert self.last is not None  # noqa: S101 - made with its first observed
        at = self.moments
        phases = list(self.phases())
        fresh = "ready" in at and at.get("created", -math.inf) >= 0
        return PodLife(
            name=self.last.name,
            revision=self.last.revision,
            **{name: at.get(name) for name in ORDER},
            stamped=self.stamped,
            phases=phases,
            cold_start_seconds=at["ready"] - at["created"] if fresh else None,
            slowest=self._slowest(phases) if "ready" in at else None,
            startup=self.startup,
            restarts=self.last.restarts,
            problem=self.problem,
            lost_at_start=lost.near(self.starts()),
            lost_at_end=lost.near(self.ends()),
        )

    def phases(self) -> Iterator[results.StartPhase]:
        """Yield the phases of its start. Phases between which no moment was seen are one.

        Events may come late: a moment is no later here than those that it comes before.
        """
        known = [(i, self.moments[name]) for i, name in enumerate(MOMENTS) if name in self.moments]
        ends = list(accumulate((at for _, at in reversed(known)), min))[::-1]
        for (i, start), (j, end) in pairwise(zip((i for i, _ in known), ends, strict=True)):
            yield results.StartPhase(name=" and ".join(PHASES[i:j]), seconds=end - start)

    def _slowest(self, phases: list[results.StartPhase]) -> str | None:
        if not phases:
            return None
        name = max(phases, key=lambda phase: phase.seconds).name
        parts = results.parts_of(self.startup)
        return f"{name}: {max(parts, key=lambda part: parts[part])}" if name.endswith(PHASES[-1]) and parts else name

    def starts(self) -> list[Interval]:
        """Return the intervals after it became ready, each time."""
        return [(at, at + START_SECONDS) for at in self._turns[::2]]

    def ends(self) -> list[Interval]:
        """Return the intervals in which it ended, and those from each time at which it was no longer ready.

        The latter last until it is ready again or gone, as after a container was killed, or for `START_SECONDS`.
        """
        gone = self.moments.get("gone", math.inf)
        ends = self.moments.get("terminating", gone)
        found = [] if math.isinf(ends) else [(ends - END_SECONDS, gone + END_SECONDS)]
        for index, at in enumerate(self._turns[1::2]):
            again = self._turns[2 * index + 2] if 2 * index + 2 < len(self._turns) else min(gone, at + START_SECONDS)
            found.append((at - END_SECONDS, again + END_SECONDS))
        return found


class FailedRequests:
    """The intended times of failed requests."""

    def __init__(self, run: Run):
        self._times = run.intended[run.outcome == FAILED]

    def near(self, intervals: Iterable[Interval]) -> int:
        """Return how many lie in any of the intervals."""
        found = np.zeros(len(self._times), np.bool_)
        for start, end in intervals:
            found |= (self._times >= start) & (self._times <= end)
        return int(found.sum())

    def elsewhere(self, intervals: Iterable[Interval]) -> int:
        """Return how many lie in none of the intervals."""
        return len(self._times) - self.near(intervals)


def histories_of(found: Sequence[AnyObservation], clock: results.ClusterClock | None) -> dict[str, PodHistory]:
    """Return the history of every pod that was seen, by its name."""
    histories: dict[str, PodHistory] = {}
    for observed in found:
        if isinstance(observed, observations.Pod):
            histories.setdefault(observed.name, PodHistory(clock)).take(observed)
        elif isinstance(observed, observations.Inside) and observed.name in histories:
            histories[observed.name].startup |= observed.startup
    for name, event in pulled_of(found).items():
        if name in histories:
            histories[name].note("pulled", event, event.stamp)
    return histories


def pulled_of(found: Sequence[AnyObservation]) -> dict[str, observations.KubernetesEvent]:
    """Return, by pod, the event that its last image was there. A container that starts again has one each time."""
    first: dict[tuple[str, str], observations.KubernetesEvent] = {}
    for observed in found:
        if (
            isinstance(observed, observations.KubernetesEvent)
            and observed.reason == "Pulled"
            and observed.part.startswith("spec.containers")
        ):
            first.setdefault((observed.name, observed.part), observed)
    return {name: event for (name, _), event in sorted(first.items(), key=lambda pair: pair[1].at)}
