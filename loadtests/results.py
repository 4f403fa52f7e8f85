"""What a load test leaves behind: every request, and the summary that reports are made of.

python -m loadtests.results    prints the JSON schema of summary.json

A run's directory has `summary.json` (a `Summary`) and `requests.parquet` (one row for each request of the schedule, in
the order of their intended times; `COLUMNS` says what is in it), and with --cluster the facts that its measures come
from, `cluster.jsonl` (`loadtests.cluster.observations`). Times called `…_s`, `start` or `at` are seconds on the
one axis of a run, whose zero is the begin of its schedule. What was not measured is null, never 0 or NaN.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    import pyarrow as pa

SUMMARY, REQUESTS = "summary.json", "requests.parquet"

# One request as it is kept and sent between processes; times in seconds since the begin, NaN where there is none.
REQUEST = np.dtype(
    [
        ("intended", "<f8"),
        ("sent", "<f8"),
        ("end", "<f8"),
        ("queue_ms", "<f4"),  # from Server-Timing
        ("score_ms", "<f4"),
        ("bytes", "<i4"),  # of the answer's body
        ("status", "<i2"),  # 0 without an answer
        ("revision", "<i2"),  # index of its name, -1 without one
        ("error", "i1"),  # index in ERRORS
        ("kind", "i1"),  # index in the scenario's payloads
        ("worker", "<i2"),
        ("retry_after", "?"),
    ]
)
Requests = NDArray[np.void]  # of REQUEST, in the order of `intended`

# How a request can fail other than by its status. "late" ones are none of these: they were answered.
ERRORS = (
    "",
    "unanswered",  # nothing came until the end of the run, plus the time that requests in flight are given
    "not sent",  # too many were in flight already, or no connection was left for it: the generator's fault
    "connect",  # no connection could be made
    "closed",  # the connection ended before the answer did
    "timeout",
    "not HTTP",
    "wrong answer",  # 2xx without a prediction
)
UNANSWERED, NOT_SENT, CONNECT, CLOSED, TIMEOUT, NOT_HTTP, WRONG = range(1, len(ERRORS))

COLUMNS = {
    "intended_s": "when the schedule said that it leaves",
    "sent_s": "when it did; null: it never did",
    "end_s": "when its answer was complete, or it was given up",
    "latency_ms": "from the intended time to the end",
    "queue_ms": "of that, waiting in the server's queue, as its answer says",
    "score_ms": "of that, being scored, as its answer says",
    "status": "HTTP status; 0: no answer",
    "outcome": "answered (2xx), refused (429 or 503 with Retry-After), failed (everything else)",
    "error": "why there is no valid answer; empty where the status says it all",
    "phase": "the scenario's phase of its intended time",
    "kind": "the payload",
    "revision": "x-revision of the answer",
    "bytes": "size of the answer's body",
    "worker": "which generator process sent it",
}
OUTCOMES = ("answered", "refused", "failed")
ANSWERED, REFUSED, FAILED = range(3)


def _finite(value: Any) -> Any:
    """JSON knows no NaN."""
    return None if isinstance(value, float | np.floating) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite)]
Outcome = Literal["Passed", "Failed", "Invalid", "Error"]
PhaseName = Literal["warm-up", "baseline", "burst", "recovery"]


class Record(BaseModel):
    """A part of the summary."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    answered: int = Field(description="2xx")
    refused: int = Field(description="429 or 503 with Retry-After: the server's admission at work")
    failed: int = Field(description="any other status, no answer, not sent")
    good: int = Field(description="answered within the phase's p95 limit; their rate is the goodput")


class Phase(Record):
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


class Capacity(Record):
    """The rate of the last of a ramp's steps before the SLO did not hold in two in a row, or in the very last."""

    per_s: Number
    limited_by: Literal["server", "generator"] | None = Field(
        description="what the next steps were too much for; where it was not the server, its capacity may be higher"
    )
    reason: str
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

    outcome: Outcome
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


# --- the cluster's part, with --cluster ---

TimeName = Literal["detect", "provision", "scale", "recover", "cold start", "down", "zero"]


class Replicas(Record):
    """From `at` to the next one's, these are the numbers of replicas."""

    at: float
    desired: int | None = Field(description="of all revisions, by whatever `Cluster.desired_from` names")
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
    lost_at_start: int = Field(description="failed requests of the seconds after it became ready, whoever had them")
    lost_at_end: int = Field(description="failed requests while it ended, or was not ready any more, whoever had them")


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
    """What Knative's autoscaler said of a revision; concurrencies are averages over its replicas."""

    at: float
    revision: str
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
    replica_per_s: Number = Field(description="what one replica holds at the SLO, as --rate said")
    watched_until: float
    replicas: list[Replicas]
    times: list[ScalingTime]
    over_replica_seconds: Number = Field(description="ready replicas beyond need, summed over time")
    under_replica_seconds: Number = Field(description="replicas that were needed and not ready, summed over time")
    pods: list[PodLife]
    lost_elsewhere: int = Field(description="failed requests that were near no pod's start or end")
    traffic: list[Traffic]
    splits: list[Split]
    events: list[PlatformEvent]
    autoscaler: list[AutoscalerSample]
    disruption: Disruption | None
    not_seen: list[str] = Field(description="what could not be watched, or not all of the time; one sentence each")
    problems: list[str] = Field(description="what the scenario asked for and did not happen; makes a run invalid")


class Model(Record):
    """What the server says it serves."""

    name: str
    version: str
    digest: str
    engine: str


class Environment(Record):
    host: str
    command: str
    started: str = Field(description="begin of the schedule, UTC, ISO 8601")
    machine: dict[str, str] = Field(description="of the generator: processor, kernel, versions")
    model: Model


class Summary(Record):
    """summary.json."""

    schema_version: Literal[1] = 1
    scenario: str
    about: str
    seed: int
    load_digest: str | None = Field(default=None, description="of the scenario's content and the rows; null: not known")
    base_per_s: float = Field(description="the rate that the scenario's factors multiply")
    duration_s: float = Field(description="until the schedule was over, or was stopped")
    stopped: str | None = Field(description="why, where it ended before its schedule")
    verdict: Verdict
    slo: SLO
    environment: Environment
    generator: Generator
    phases: list[Phase]
    recovery: Recovery
    budget: list[Budget]
    capacity: Capacity | None
    revisions: dict[str, int] = Field(description="answers by x-revision")
    kinds: dict[str, int] = Field(description="requests by payload")
    bucket_s: float
    buckets: list[Bucket]
    timeline: list[Sample]
    histograms: list[Histogram]
    cluster: Cluster | None = Field(default=None, description="with --cluster")


def outcomes(requests: Requests) -> NDArray[np.int8]:
    """ANSWERED, REFUSED or FAILED for each request."""
    status = requests["status"]
    answered = (status >= 200) & (status < 300) & (requests["error"] == 0)
    refused = ((status == 429) | (status == 503)) & requests["retry_after"]
    return np.where(answered, ANSWERED, np.where(refused, REFUSED, FAILED)).astype(np.int8)


class Names(NamedTuple):
    """What indices in requests stand for."""

    phases: Sequence[str]
    kinds: Sequence[str]
    revisions: Sequence[str]


def write_requests(path: Path, requests: Requests, phases: NDArray[np.int8], names: Names) -> None:
    """The requests as Parquet. `phases` `[requests]` has the index of each one's phase."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sent, end = requests["sent"], requests["end"]
    columns = {
        "intended_s": pa.array(requests["intended"]),
        "sent_s": _present(sent),
        "end_s": _present(end),
        "latency_ms": _present(1e3 * (end - requests["intended"])),
        "queue_ms": _present(requests["queue_ms"]),
        "score_ms": _present(requests["score_ms"]),
        "status": pa.array(requests["status"]),
        "outcome": _named(outcomes(requests), OUTCOMES),
        "error": _named(requests["error"], ERRORS),
        "phase": _named(phases, names.phases),
        "kind": _named(requests["kind"], names.kinds),
        "revision": _named(requests["revision"], names.revisions),
        "bytes": pa.array(requests["bytes"]),
        "worker": pa.array(requests["worker"]),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


def _present(values: NDArray[np.floating]) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values))


def _named(indices: NDArray[np.integer], names: Sequence[str]) -> pa.Array:
    """Indices as the names that they stand for, null where negative."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int16), mask=indices < 0), pa.array(list(names)))


def write_summary(path: Path, summary: Summary) -> None:
    path.write_text(summary.model_dump_json(indent=1) + "\n", "utf-8")


def read_summary(path: Path) -> Summary:
    """A run's summary, by its directory or file. Raises `OSError` or `ValueError` where it is none."""
    return Summary.model_validate_json((path / SUMMARY if path.is_dir() else path).read_text("utf-8"))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(Summary.model_json_schema(), indent=1) + "\n")
