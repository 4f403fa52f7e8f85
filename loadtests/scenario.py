"""Scenarios as strictly checked data: what is sent when, and what is expected of the answers.

A scenario is a YAML file: one of `loadtests/scenarios`, by its name, or any other, by its path. Rates of phases are
factors of `rate`, which `--rate` replaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from loadtests import arrivals
from loadtests.arrivals import Segment, Times
from loadtests.results import SLO, LimitsName, PhaseName

FOLDER = Path(__file__).parent / "scenarios"
MAX_REQUESTS = 5_000_000  # of one run, which are all kept in memory
MAX_RATE = 1_000_000  # requests/s

Positive = Annotated[float, Field(gt=0, le=MAX_RATE)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]


class BadScenario(ValueError):
    """A scenario that can't be used; one line with the file, the field and what was expected."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Spikes(Strict):
    """For `seconds`, at the begin of every `every_seconds`, `rate` instead of the phase's."""

    every_seconds: Seconds
    seconds: Seconds
    rate: Positive

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.seconds >= self.every_seconds:
            raise ValueError(f"seconds: {self.seconds:g} is too long; expected less than every_seconds")
        return self


class Steps(Strict):
    """A staircase from the phase's `rate` to `to`: each step lasts `seconds` and is `factor` times the one before."""

    seconds: Seconds
    factor: Annotated[float, Field(gt=1, le=100)]
    to: Positive


class ScenarioPhase(Strict):
    """`rate` is a factor of the scenario's; with `to`, it changes evenly until the end."""

    name: PhaseName
    rate: Positive
    seconds: Seconds | None = None
    to: Positive | None = None
    spikes: Spikes | None = None
    steps: Steps | None = None
    p95_ms: Positive | None = Field(None, description="instead of the SLO's, in this phase")

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if sum(shape is not None for shape in (self.to, self.spikes, self.steps)) > 1:
            raise ValueError("to, spikes, steps: more than one is given; expected at most one")
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("seconds: expected a number, or none where there are steps")
        return self

    def profile(self, base: float) -> list[Segment]:
        """Return its segments, where a factor of 1 is `base` requests per second."""
        rate = self.rate * base
        if self.steps:
            return arrivals.steps(rate, self.steps.to * base, self.steps.factor, self.steps.seconds)
        assert self.seconds is not None  # noqa: S101 - checked above
        if self.spikes:
            s = self.spikes
            return arrivals.spikes(self.seconds, rate, s.rate * base, s.every_seconds, s.seconds)
        return [Segment(self.seconds, rate, rate if self.to is None else self.to * base)]


class Payload(Strict):
    """What is sent, and how often among the others."""

    kind: Literal["json", "v2-json", "v2-binary"]
    rows: Annotated[int, Field(ge=1, le=1024)] = 1
    share: Positive = 1

    @property
    def name(self) -> str:
        return f"{self.kind} x{self.rows}"


class Objective(Strict):
    """The SLO: p95 of every phase but warm-up, and the shares of requests that may fail and be refused."""

    p95_ms: Positive
    failed_share: Share = 0.001
    refused_share: Share = 0.0
    recover_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    detect_seconds: Seconds | None = None
    provision_seconds: Seconds | None = None
    scale_seconds: Seconds | None = None
    cold_start_seconds: Seconds | None = None
    down_seconds: Seconds | None = None
    zero_seconds: Seconds | None = None
    below_need_seconds: Annotated[float, Field(ge=0, le=86_400)] | None = Field(
        None, description="in all, with fewer replicas ready than needed, after enough were"
    )

    def record(self) -> SLO:
        return SLO(**self.model_dump())


class Platform(Strict):
    """What is asked of the cluster; such a scenario needs one to watch."""

    from_zero_seconds: Seconds | None = Field(None, description="wait at most so long for no replica before the begin")
    to_zero_seconds: Seconds | None = Field(None, description="and so long for that after the last request")
    disruption: Literal["delete-pod", "new-revision"] | None = Field(None, description="when the burst begins")

    @property
    def waits(self) -> float:
        """Seconds that the run waits at most: before it, also for what is served to answer, and after it."""
        return 2 * (self.from_zero_seconds or 0.0) + (self.to_zero_seconds or 0.0)


LimitName = Literal[
    "failed_share", "refused_share", "recover_seconds", "detect_seconds", "provision_seconds", "scale_seconds",
    "cold_start_seconds", "down_seconds", "zero_seconds", "below_need_seconds",
]  # fmt: skip


class PhaseChanges(Strict):
    """A phase's own length and limit under an autoscaler."""

    seconds: Seconds | None = None
    p95_ms: Positive | None = None


class AutoscalerChanges(Strict):
    """What is different under an autoscaler; null: not asked for there. The SLO's p95 is that of the capacity."""

    phases: dict[PhaseName, PhaseChanges] = {}
    slo: dict[LimitName, Annotated[float, Field(ge=0, le=86_400)] | None] = {}
    cluster: dict[Literal["from_zero_seconds", "to_zero_seconds"], Seconds | None] = {}

    def apply(self, content: dict[str, Any]) -> None:
        """Change a scenario's content."""
        phases = {phase["name"]: phase for phase in content["phases"]}
        for name, changes in self.phases.items():
            if name not in phases:
                raise ValueError(f"phases.{name}: there is no such phase; expected {', '.join(phases)}")
            phases[name] |= changes.model_dump(exclude_unset=True)
        content["slo"] |= self.slo
        if self.cluster:
            content["cluster"] = (content.get("cluster") or {}) | self.cluster


class Scenario(Strict):
    """A whole scenario."""

    about: str = Field(min_length=1, max_length=300)
    rate: Positive | Literal["capacity", "replica"] = Field(
        description="requests/s; capacity: what a closed loop of one worker gets answered; "
        "replica: what one replica holds, by --rate"
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    spacing: arrivals.Spacing = "poisson"
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    deadline_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        None, description="sent as x-request-timeout-ms"
    )
    stop_at_slo: bool = Field(default=False, description="end when it does not hold in two steps in a row")
    connection_seconds: Seconds | None = Field(
        None, description="for which a connection is used: where connections are balanced, new replicas get some so"
    )
    payloads: Annotated[list[Payload], Field(min_length=1, max_length=20)]
    phases: Annotated[list[ScenarioPhase], Field(min_length=1, max_length=4)]
    slo: Objective
    cluster: Platform | None = None
    by_autoscaler: dict[LimitsName, AutoscalerChanges] = Field(
        {}, description="what is different where this one scales the service"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for what, names in (("phases", [p.name for p in self.phases]), ("payloads", [p.name for p in self.payloads])):
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: {', '.join(names)}; expected each once")
        if self.rate == "capacity" and len(self.payloads) > 1:
            raise ValueError(
                f"rate: capacity is of one payload, not of {len(self.payloads)}; expected one, or a number"
            )
        if not self.judged:
            raise ValueError("phases: only warm-up; expected one that counts")
        if self.stop_at_slo and not any(phase.steps for phase in self.phases):
            raise ValueError("stop_at_slo: no phase has steps; expected one, whose steps are judged")
        if self.slo.below_need_seconds is not None and (self.cluster is None or self.rate != "replica"):
            raise ValueError("slo.below_need_seconds: the need is not known; expected rate: replica, and cluster")
        if self.cluster and self.cluster.disruption and "burst" not in [p.name for p in self.phases]:
            raise ValueError("cluster.disruption: there is no burst; expected one, at whose begin it happens")
        return self

    @model_validator(mode="after")
    def _variants(self) -> Self:
        if self.by_autoscaler and self.cluster is None:
            raise ValueError("by_autoscaler: no cluster is watched; expected cluster, too")
        for name in self.by_autoscaler:
            try:
                self.fitted(name)
            except ValidationError as error:
                raise ValueError(f"by_autoscaler.{name}: {_described(error)}") from None
            except ValueError as error:
                raise ValueError(f"by_autoscaler.{name}.{error}") from None
        return self

    def fitted(self, autoscaler: LimitsName | None) -> Scenario:
        """Return the scenario with its lengths and limits for an autoscaler; `None`: for any other."""
        content = self.model_dump(exclude={"by_autoscaler"}, exclude_unset=True)
        if autoscaler in self.by_autoscaler:
            self.by_autoscaler[autoscaler].apply(content)
        return Scenario.model_validate(content)

    @property
    def judged(self) -> list[ScenarioPhase]:
        return [phase for phase in self.phases if phase.name != "warm-up"]

    def digest(self, rows: bytes) -> str:
        """Return a digest of all that decides which load is made of these rows.

        Rate, seed and SLO are left out: summaries have them apart.
        """
        apart = {"about", "rate", "seed", "slo", "cluster", "by_autoscaler"}
        apart |= {"connection_seconds"} if self.connection_seconds is None else set()
        said = self.model_dump_json(exclude=apart).encode()
        return f"sha256:{hashlib.sha256(said + rows).hexdigest()}"

    @property
    def seconds(self) -> float:
        """Seconds that its schedule takes, at whatever rate."""
        return sum(segment.seconds for phase in self.phases for segment in phase.profile(1.0))

    @property
    def longest(self) -> float:
        """Seconds that its schedule and its waits for no replica take at most, whatever scales the service."""
        variants = [self, *map(self.fitted, self.by_autoscaler)]
        return max(variant.seconds + (variant.cluster.waits if variant.cluster else 0.0) for variant in variants)

    def limit_ms(self, phase: ScenarioPhase) -> float:
        """Return what the p95 of a phase may be, in ms."""
        return phase.p95_ms or self.slo.p95_ms


class Span(NamedTuple):
    """A phase on the run's axis, in seconds."""

    phase: ScenarioPhase
    start: float
    end: float


class Plan:
    """A scenario with its rate and seed fixed: who has the same computes the same schedule."""

    def __init__(self, scenario: Scenario, base: float, seed: int):
        self.scenario, self.base, self.seed = scenario, base, seed
        self.profile = [segment for phase in scenario.phases for segment in phase.profile(base)]
        expected = sum(segment.expected for segment in self.profile)
        if expected > MAX_REQUESTS:
            raise BadScenario(f"{expected:,.0f} requests at a rate of {base:g}/s; expected at most {MAX_REQUESTS:,}")
        if expected < 1:
            raise BadScenario(f"no request at a rate of {base:g}/s; expected at least one")

    @cached_property
    def spans(self) -> list[Span]:
        spans, start = [], 0.0
        for phase in self.scenario.phases:
            end = start + sum(segment.seconds for segment in phase.profile(self.base))
            spans.append(Span(phase, start, end))
            start = end
        return spans

    @property
    def seconds(self) -> float:
        return self.spans[-1].end

    @property
    def burst(self) -> Span | None:
        return next((span for span in self.spans if span.phase.name == "burst"), None)

    @cached_property
    def times(self) -> Times:
        """Seconds from the begin at which each request is to leave, `[requests]`."""
        return arrivals.schedule(self.profile, self.scenario.spacing, self.seed)

    @cached_property
    def kinds(self) -> NDArray[np.int8]:
        """Index of the payload of each request, `[requests]`."""
        shares = np.array([payload.share for payload in self.scenario.payloads])
        random = np.random.default_rng([self.seed, 1])
        return random.choice(len(shares), size=len(self.times), p=shares / shares.sum()).astype(np.int8)

    def phase_of(self, times: Times) -> NDArray[np.int8]:
        """Return the index of the phase that each time lies in."""
        ends = np.array([span.end for span in self.spans[:-1]])
        return np.searchsorted(ends, times, side="right").astype(np.int8)


def names() -> list[str]:
    """Return the names of the scenarios that come with the project."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def load(name: str) -> Scenario:
    """Return the scenario called `name`, or in the file `name`; raises `BadScenario`."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.parent == FOLDER and not path.is_file():
        raise BadScenario(f"--scenario: no scenario {name!r}; expected {', '.join(names())}, or a .yaml file")
    try:
        return Scenario.model_validate(yaml.load(path.read_text("utf-8"), _Loader))  # noqa: S506 - a safe one
    except ValidationError as error:
        raise BadScenario(f"{path}: {_described(error)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadScenario(f"{path}: can't be read: {' '.join(str(error).split())}; expected YAML") from None


def _described(error: ValidationError) -> str:
    first, more = error.errors()[0], error.error_count() - 1
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part.isidentifier())  # no type tags
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    message = {"Field required": "is missing; expected a value", "Extra inputs are not permitted": "unknown field"}.get(
        message, message
    )
    got = f", got {first['input']!r:.60}" if first["type"] not in ("missing", "extra_forbidden", "value_error") else ""
    text = f"{place}: {message}{got}" if place else message
    return f"{text} (and {more} more)" if more else text


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.YAMLError(f"{', '.join(map(str, twice))}: appears twice{node.start_mark}")
        return super().construct_mapping(node, deep)
