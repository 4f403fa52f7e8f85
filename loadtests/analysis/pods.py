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

    def note(self, name: str, fact: AnyObservation, stamp: Stamp) -> None:
        """Note a moment for the first time; by a stamp not before earlier moments, as clocks of nodes differ."""
        if name not in self.moments:
            at, stamped = moment(fact, stamp, self._clock)
            earlier = [self.moments[other] for other in ORDER[: ORDER.index(name)] if other in self.moments]
            self.moments[name] = max([at, *earlier]) if stamped else at
            self.stamped += [name] * stamped

    def take(self, fact: observations.Pod) -> None:
        """Add the pod's next observation."""
        for name, stamp in (
            ("created", fact.created_stamp),
            ("scheduled", fact.scheduled_stamp),
            ("initialised", fact.initialised_stamp),
            ("started", fact.started_stamp),
            ("terminating", fact.deleted_stamp),
        ):
            if stamp is not None:
                self.note(name, fact, stamp)
        if fact.ready:
            self.note("ready", fact, fact.ready_stamp)
        if fact.gone:
            self.note("gone", fact, None)
        if fact.ready != (self.last is not None and self.last.ready):
            self._turns.append(moment(fact, fact.ready_stamp if fact.ready else fact.deleted_stamp, self._clock)[0])
        self.problem, self.last = fact.waiting or self.problem, fact

    def record(self, lost: FailedRequests) -> PodLife:
        """Return what the summary has of the pod."""
        assert self.last is not None  # noqa: S101 - made with its first fact
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
    for fact in found:
        if isinstance(fact, observations.Pod):
            histories.setdefault(fact.name, PodHistory(clock)).take(fact)
        elif isinstance(fact, observations.Inside) and fact.name in histories:
            histories[fact.name].startup |= fact.startup
    for name, event in pulled_of(found).items():
        if name in histories:
            histories[name].note("pulled", event, event.stamp)
    return histories


def pulled_of(found: Sequence[AnyObservation]) -> dict[str, observations.Event]:
    """Return, by pod, the event that its last image was there. A container that starts again has one each time."""
    first: dict[tuple[str, str], observations.Event] = {}
    for fact in found:
        if isinstance(fact, observations.Event) and fact.reason == "Pulled" and fact.part.startswith("spec.containers"):
            first.setdefault((fact.name, fact.part), fact)
    return {name: event for (name, _), event in sorted(first.items(), key=lambda pair: pair[1].at)}
