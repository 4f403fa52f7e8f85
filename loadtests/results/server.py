"""What a run's requests say about the server and the generator: records of the summary."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from loadtests.results.records import Number, PhaseName, Record, VerdictOutcome

# The server's gauges, and the fields that keep them. Those called _max are maxima over the last 15 s.
GAUGES = {
    "defects_queue_rows": "queue_rows",
    "defects_queue_rows_max": "queue_rows_max",
    "defects_requests_in_flight": "in_flight",
    "defects_requests_in_flight_max": "in_flight_max",
}


class Spread(Record):
    """Exact percentiles, by nearest rank, in ms: each is a value that was measured."""

    p50: Number
    p95: Number
    p99: Number
    max: Number


class Counts(Record):
    """Requests by what became of them: answered + refused + failed = planned, unless the run was stopped."""

    planned: int = Field(description="by the schedule")
    sent: int = Field(description="that left; of a bucket: that left during it, whenever they were meant to")
    answered: int = Field(description="2xx with a right prediction for each row")
    refused: int = Field(description="429 or 503 with Retry-After: the server's admission at work")
    failed: int = Field(description="any other status, no answer, not sent")
    good: int = Field(description="answered within the phase's p95 limit; their rate is the goodput")


class PhaseResult(Record):
    """One phase. Warm-up is here too, but counts for nothing."""

    name: PhaseName
    start: float
    end: float
    p95_limit_ms: float = Field(description="what the SLO allows the p95 of this phase")
    counts: Counts
    planned_per_s: float
    achieved_per_s: float = Field(description="requests that left during it, whenever they were meant to")
    goodput_per_s: float
    latency: Spread = Field(description="from the intended time, of requests that were answered or never answered")
    from_sent: Spread | None = Field(default=None, description="as `latency`, but from when they left; null: not known")
    queue: Spread = Field(description="in the server's queue")
    score: Spread = Field(description="being scored")
    rest: Spread = Field(description="latency without queue and score: network, HTTP, the wait to be sent")
    delay: Spread = Field(description="how late requests left: the generator's own share of the latency")
    refusal: Spread = Field(description="from sending to the refusal")
    errors: dict[str, int] = Field(description="failed requests by error or status")


class Bucket(Record):
    """One bucket of `Summary.bucket_s` seconds, by intended time; `sent` by when they left. Latencies as in `Phase`."""

    start: float
    counts: Counts
    p50: Number
    p95: Number
    p99: Number
    queue_p95: Number
    score_p95: Number


class Sample(Record):
    """What the server looked like at one moment; about once a second."""

    at: float
    ready: bool | None = None
    processes: int | None = None
    rss_mb: Number = None
    cpu_cores: Number = Field(default=None, description="cores' worth of CPU since the sample before")
    queue_rows: Number = Field(default=None, description="when it was read")
    queue_rows_max: Number = Field(default=None, description="highest within the 15 s before; null: not exported")
    in_flight: Number = Field(default=None, description="when it was read")
    in_flight_max: Number = Field(default=None, description="highest within the 15 s before; null: not exported")
    replicas_desired: int | None = None
    replicas_ready: int | None = None
    problem: str | None = Field(default=None, description="why something could not be read")


class Step(Record):
    """One step of a ramp."""

    start: float
    end: float
    planned_per_s: float
    achieved_per_s: float
    p95: Number
    problem: str | None = Field(description="why the SLO did not hold; null: it did")
    limited_by: Literal["server", "generator"] | None = Field(description="whose problem that is")


class ReplicaCapacity(Record):
    """What one replica holds: the capacity, divided by the replicas that took part."""

    per_s: Number = Field(description="of the busiest replica; null: not known")
    replicas: int | None = Field(description="ready replicas of revisions that got requests, all the time")
    left_out: int | None = Field(description="ready replicas of revisions that got no requests")
    watched: bool = Field(description="a cluster was watched; otherwise there is taken to be one replica")
    why: str | None = Field(default=None, description="why it is not known")


class Capacity(Record):
    """The rate of the last of a ramp's steps before the SLO did not hold in two in a row, or in the very last."""

    per_s: Number
    limited_by: Literal["server", "generator"] | None = Field(
        description="what the next steps were too much for; where it was not the server, its capacity may be higher"
    )
    reason: str
    replica: ReplicaCapacity | None = Field(default=None, description="null: none was found, or by an older version")
    patch: str | None = Field(
        default=None, description="what to add to an overlay's kustomization.yaml, so that it scales on this capacity"
    )
    steps: list[Step]


class Recovery(Record):
    """When the SLO held again; see `loadtests.analysis.recovery`. Null without a burst, or with steps since."""

    breached_at: Number = Field(description="first request over the limit, in the first window whose p95 is")
    recovered_at: Number = Field(
        description="from here on the SLO held for ten whole seconds, and was not broken again in the same phase"
    )
    seconds: Number = Field(description="from the burst's start to `recovered_at`; 0: never breached")
    after_burst_seconds: Number = Field(description="from the burst's end to `recovered_at`; 0: before its end")
    broken_again_at: list[float] | None = Field(
        default=None,
        description="when the SLO was broken again after it had held; null: not measured, and `recovered_at` is "
        "from an older rule: the SLO held for about two seconds",
    )
    held_at_end_seconds: Number = Field(
        default=None, description="for how long it held at the run's end, where that is too short for a recovery"
    )


class Budget(Record):
    """One cause's share of the error budget, outside of warm-up."""

    cause: Literal["failed", "refused", "late"] = Field(description="late: answered, but slower than the p95 limit")
    count: int
    share: float = Field(description="of the requests")
    allowed_share: float
    spent: Number = Field(description="share / allowed_share; null where nothing is allowed and something happened")


class Generator(Record):
    """How well the generator kept to the schedule, outside of warm-up."""

    workers: int
    delay: Spread
    delay_limit_ms: float = Field(description="what the p99 of the delay of each phase may be")
    late_share: float = Field(description="of requests that left more than 50 ms late")
    not_sent: int = Field(description="requests for which too many were in flight")
    peak_in_flight: int = Field(description="of the busiest worker")
    cpu_share: float = Field(description="of a core, of the busiest worker in its busiest second")
    missing: list[str] = Field(description="workers that never reported their part")


class Histogram(Record):
    """Latencies of answered requests of one phase; `counts[i]` lie in `edges_ms[i]` (included) to `edges_ms[i + 1]`."""

    phase: PhaseName
    edges_ms: list[float]
    counts: list[int]


class Verdict(Record):
    """Exit codes: Passed 0, Failed 1, Invalid 2, Error 3."""

    outcome: VerdictOutcome
    reasons: list[str] = Field(description="one sentence each; none where it passed")


class SLO(Record):
    p95_ms: float
    failed_share: float
    refused_share: float
    recover_seconds: float | None = None
    detect_seconds: float | None = None
    provision_seconds: float | None = None
    scale_seconds: float | None = None
    cold_start_seconds: float | None = None
    down_seconds: float | None = None
    zero_seconds: float | None = None
    below_need_seconds: float | None = None
