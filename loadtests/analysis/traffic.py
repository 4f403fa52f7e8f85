"""Say which revisions get requests, and compare the traffic that they got with what was wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from loadtests import results
from loadtests.analysis import measures
from loadtests.analysis.measures import Run
from loadtests.analysis.method import AHEAD_SECONDS, SETTLE_SECONDS, Z_99
from loadtests.analysis.moments import StepFunction
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's score interval of a binomial share, 99 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, z2 = count / total, Z_99**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_99 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return centre - half if count else 0.0, centre + half if count < total else 1.0


def traffic_of(found: Sequence[AnyObservation]) -> list[results.Traffic]:
    """Return the wanted shares, each time that they changed."""
    changes: list[results.Traffic] = []
    for observed in found:
        if (
            isinstance(observed, observations.Service)
            and observed.traffic
            and not (changes and changes[-1].shares == observed.traffic)
        ):
            changes.append(results.Traffic(at=observed.at, shares=observed.traffic))
    return changes


class Routing(NamedTuple):
    """Which revisions get requests, over time. A replica of another one is ready, but takes none of the load.

    `revisions`: the set of their names over time; `None`: all do, or it is not known. `deployments`: the revisions of
    each Deployment's pods.
    """

    revisions: StepFunction | None
    deployments: Mapping[str, set[str]]

    @property
    def times(self) -> list[float]:
        """When it changed."""
        return [] if self.revisions is None else [at for at in self.revisions.times if math.isfinite(at)]

    def has_traffic(self, name: str | None, at: float) -> bool:
        """Return whether a revision gets requests; or one of a Deployment, an autoscaler or any that has this name."""
        if self.revisions is None or name is None:
            return True
        names = self.deployments.get(name, {name, name.removesuffix("-deployment")})  # as Knative calls a revision's
        return not names.isdisjoint(self.revisions.at(at))


def routing_of(found: Sequence[AnyObservation], run: Run) -> Routing:
    """Return which revisions get requests.

    In Knative mode, the service's status says it. But where all answers are of other revisions than it names, the
    requests went to the URL of a revision's own. In Standard mode, all ready pods get requests, except those of
    canaries, of which the status names no pods: there it is the revisions that answered.
    """
    pods = [observed for observed in found if isinstance(observed, observations.Pod) and observed.revision]
    deployments: dict[str, set[str]] = {}
    for pod in pods:
        deployments.setdefault(pod.name.rpartition("-")[0].rpartition("-")[0], set()).add(str(pod.revision))
    answered = {name for name, count in measures.revisions(run).items() if count} & {str(pod.revision) for pod in pods}
    changes = traffic_of(found)
    if answered and (answered.isdisjoint(_wanted(changes)) if changes else _has_canaries(found)):
        return Routing(StepFunction([(-math.inf, frozenset(answered))]), deployments)
    if not changes:
        return Routing(None, deployments)
    first, *later = changes
    shares = StepFunction([(-math.inf, first.shares), *((change.at, change.shares) for change in later)])
    times = [*shares.times, *(change.at - AHEAD_SECONDS for change in later)]
    return Routing(StepFunction((at, _soon(shares, at)) for at in times), deployments)


def _soon(shares: StepFunction, at: float) -> frozenset[str]:
    """Return the revisions that have a share, or get one so soon that routers may be ahead of the status."""
    following = (
        value for time, value in zip(shares.times, shares.values, strict=True) if 0 < time - at <= AHEAD_SECONDS
    )
    return frozenset(shares.at(at)).union(*following)


def _wanted(changes: Sequence[results.Traffic]) -> set[str]:
    return {name for change in changes for name in change.shares}


def _has_canaries(found: Sequence[AnyObservation]) -> bool:
    return any(isinstance(observed, observations.Service) and observed.canaries for observed in found)


def splits(run: Run, traffic: Sequence[results.Traffic]) -> Iterator[results.Split]:
    """Yield what each revision had of the answers that name one, for as long as the wanted shares stayed the same.

    By intended time, from `SETTLE_SECONDS` after a change until `AHEAD_SECONDS` before the next. The interval takes
    each request as routed by itself; where connections are (a Service without a gateway), it is too narrow.
    """
    ends = [*(change.at - AHEAD_SECONDS for change in traffic), run.seconds][1:]
    for change, end in zip(traffic, ends, strict=True):
        start = max(0.0, change.at + SETTLE_SECONDS if change.at > 0 else 0.0)
        where = (run.intended >= start) & (run.intended < end) & (run.requests["revision"] >= 0)
        counts = np.bincount(run.requests["revision"][where], minlength=len(run.revisions)).tolist()
        by_name, total = dict(zip(run.revisions, counts, strict=True)), int(where.sum())
        names = dict.fromkeys([*change.shares, *(name for name, count in by_name.items() if count)])
        for name in names if total else ():
            wanted, count = change.shares.get(name, 0.0), by_name.get(name, 0)
            low, high = wilson(count, total)
            yield results.Split(
                start=start, end=end, revision=name, wanted_share=wanted, answers=count, total=total,
                share=count / total, low=low, high=high, within=low <= wanted <= high,
            )  # fmt: skip
