"""What the platform did during a run with --cluster: records of the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from loadtests.results.records import AutoscalerKind, LimitsName, Number, PhaseName, Record

TimeName = Literal["detect", "provision", "scale", "recover", "cold start", "down", "zero"]


class Replicas(Record):
    """From `at` to the next one's, these are the numbers of replicas, of revisions that get requests."""

    at: float
    desired: int | None = Field(description="by whatever `Cluster.desired_from` names")
    existing: int | None = Field(description="pods that are not being ended; null: not seen")
    ready: int | None
    needed: int | None = Field(description="planned rate / what one replica holds, rounded up; 0 after the schedule")


class ScalingTime(Record):
    """One of the times that matter; `scaling` defines each. Null with a reason where there is none."""

    name: TimeName
    of: str = Field(description="what it counts from, or the pod")
    seconds: Number
    from_at: Number
    to_at: Number
    limit_seconds: Number = Field(description="what the SLO allows")
    met: bool | None = Field(description="null: nothing is asked for, or there was nothing to do")
    why: str | None = Field(default=None, description="why there is no time")


class Fall(Record):
    """A time in which fewer replicas were ready than needed, after enough had been."""

    phase: PhaseName = Field(description="in which it began")
    from_at: float
    to_at: float = Field(description="as many were ready again, no more were needed, or the schedule was over")
    seconds: float
    ready: int = Field(description="fewest of this time")
    needed: int = Field(description="most of this time, of the need that had been reached")


class BelowNeed(Record):
    """How often the ready replicas fell below the needed ones again; see `loadtests.analysis.below_need`."""

    times: int
    seconds: float = Field(description="of all of them")
    limit_seconds: Number = Field(description="what the SLO allows")
    met: bool | None = Field(description="null: nothing is asked for")
    falls: list[Fall]


class ScaledBy(Record):
    """What scales the service; `external`: something that KServe knows nothing of; `none`: always as many replicas."""

    kind: AutoscalerKind
    metric: str | None = None
    target: Number = None
    fewest: int | None = Field(default=None, description="replicas, at least; null: not known")
    most: int | None = Field(default=None, description="replicas, at most; null: no bound, or not known")

    @property
    def is_fixed(self) -> bool:
        """Whether there are always as many replicas."""
        return self.kind == "none" or (self.most is not None and self.most == self.fewest)

    @property
    def limits(self) -> LimitsName | None:
        """The lengths and limits of scenarios that fit. KEDA scales through an HPA."""
        return {"KPA": "kpa", "HPA": "hpa", "KEDA": "hpa"}.get(self.kind)  # type: ignore[return-value]

    def __str__(self) -> str:
        if self.kind == "none":
            return f"no autoscaler: always {self.fewest or 'as many'} replica{'s' * (self.fewest != 1)}"
        on = f" on {self.metric}" if self.metric else ""
        to = f", target {self.target:g}" if self.target is not None else ""
        if self.fewest is None:
            return f"{self.kind}{on}{to}"
        bounds = f"{self.fewest} to {self.most}" if self.most is not None else f"{self.fewest} or more"
        return f"{self.kind}{on}{to}, {bounds} replicas"


class StartPhase(Record):
    name: str
    seconds: float


class PodLife(Record):
    """One pod's moments; null: not so far, or not seen."""

    name: str
    revision: str | None
    created: Number
    scheduled: Number
    initialised: Number
    pulled: Number = Field(description="the last of its images, by its events")
    started: Number = Field(description="the predictor's container")
    ready: Number
    terminating: Number
    gone: Number
    stamped: list[str] = Field(
        description="which moments are what the object says (whole seconds, by its writer's clock); others were seen"
    )
    phases: list[StartPhase] = Field(description="from created to ready, in order")
    cold_start_seconds: Number = Field(description="from created to ready; null for pods from before the run")
    slowest: str | None = Field(description="the longest phase; with the slowest part inside of the process")
    startup: dict[str, float] = Field(description="seconds of the process's own start, by phase, as it says itself")
    restarts: int
    problem: str | None = Field(description="why a container did not run, last seen")
    lost_at_start: int = Field(
        description="requests that failed in the seconds after it became ready, whichever pod they went to"
    )
    lost_at_end: int = Field(
        description="requests that failed while it ended, or was no longer ready, whichever pod they went to"
    )


def parts_of(startup: Mapping[str, float]) -> dict[str, float]:
    """The phases of a process's own start, in their order; `ready` is all of them."""
    return {part: seconds for part, seconds in startup.items() if part != "ready"}


class PlatformEvent(Record):
    at: float
    stamped: bool = Field(description="the time is what the object says; otherwise it was seen then")
    kind: str
    name: str
    reason: str
    message: str
    warning: bool = Field(default=False, description="the platform calls it one")


class ProbeFailures(Record):
    """Readiness and startup probes that failed while their pods started or ended, as they do."""

    count: int
    pods: int
    first_at: float
    last_at: float


class Traffic(Record):
    """From `at` on, the share of requests that each revision was to have, by the InferenceService's status."""

    at: float
    shares: dict[str, float]


class Split(Record):
    """What one revision had of the answers while the wanted shares stayed the same."""

    start: float
    end: float
    revision: str
    wanted_share: float
    answers: int
    total: int
    share: float
    low: float = Field(description="Wilson's interval of the share, 99 %")
    high: float
    within: bool = Field(description="the wanted share lies in it")


class AutoscalerSample(Record):
    """What Knative's autoscaler said of a revision: averages over time of its metric, summed over its replicas."""

    at: float
    revision: str
    metric: Literal["concurrency", "rps"] = Field(
        default="concurrency", description="requests in flight, or in a second"
    )
    stable: Number
    panic: Number
    panicking: bool | None


class ClusterClock(Record):
    """Where moments are on the API server's clock."""

    zero: float = Field(description="the API server's clock at the run's zero, seconds since 1970")
    error_seconds: float = Field(description="at most so wrong, by the Date of its answers")
    skew_seconds: float = Field(description="what it was ahead of this machine's time of day")
    answers: int


class Disruption(Record):
    at: float
    what: str


class Cluster(Record):
    """What the platform did. Times may be negative: pods are older than the run."""

    service: str
    mode: Literal["Knative", "Standard"] | None
    clock: ClusterClock | None
    desired_from: str | None = Field(description="kind of objects that the desired numbers are of")
    scaled_by: ScaledBy | None = Field(default=None, description="when the run began; null: not known")
    limits_of: LimitsName | None = Field(
        default=None, description="the scenario's lengths and limits are those for this autoscaler; null: for any"
    )
    replica_per_s: Number = Field(description="what one replica holds at the SLO, as --rate said")
    watched_until: float
    replicas: list[Replicas]
    times: list[ScalingTime]
    over_replica_seconds: Number = Field(description="ready replicas beyond need, summed over time")
    under_replica_seconds: Number = Field(description="replicas that were needed and not ready, summed over time")
    idle_replica_seconds: Number = Field(
        default=None, description="ready replicas of revisions that got no requests, summed over time"
    )
    below_need: BelowNeed | None = Field(
        default=None, description="how often fewer were ready than needed, after enough had been; null: not known"
    )
    pods: list[PodLife]
    lost_elsewhere: int = Field(description="failed requests that were near no pod's start or end")
    traffic: list[Traffic]
    splits: list[Split]
    events: list[PlatformEvent]
    probe_failures: ProbeFailures | None = Field(
        default=None, description="which are not among the events; null: none, or of an older run, among the events"
    )
    autoscaler: list[AutoscalerSample]
    disruption: Disruption | None
    not_seen: list[str] = Field(description="what could not be watched, or not all of the time; one sentence each")
    problems: list[str] = Field(description="what the scenario asked for and did not happen; makes a run invalid")
