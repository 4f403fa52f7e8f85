"""Model Knative's pod autoscaler (KPA): from requests in flight or arriving, second by second, to desired replicas.

Pure functions, with times in seconds and numbers summed over the revision's replicas. Written from knative/serving
1.23, whose files are named at each part. Left out, as nothing here needs it: sampling (KPA reads some of more than
three replicas), initial and activation scale, the weighted average, and the activator's own statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Metric = Literal["concurrency", "rps"]

TICK_SECONDS = 2  # `tickInterval` in pkg/autoscaler/scaling/multiscaler.go
TARGET_UTILIZATION = 0.7  # `defaultTargetUtilization` and container-concurrency-target-percentage
MIN_TARGET = 0.01  # `TargetMin` in pkg/apis/autoscaling/register.go


class Autoscaling(NamedTuple):
    """What a PodAutoscaler is told; the defaults are those of the ConfigMap config-autoscaler.

    `scale_target` is what one replica may hold in all: requests in flight, or arriving in a second. `panic_threshold`
    is the ratio of the replicas that the panic window asks for to ready ones: panic-threshold-percentage / 100.
    """

    metric: Metric
    scale_target: float
    min_replicas: int = 1
    max_replicas: int = 4
    stable_window: int = 60
    panic_window: int = 6  # 10 % of the stable one
    panic_threshold: float = 2.0
    scale_down_delay: int = 0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0

    @property
    def target(self) -> float:
        """What KPA aims at in each replica.

        `ResolveMetricTarget` in pkg/reconciler/autoscaling/resources/target.go multiplies the target of either metric,
        also one from an annotation, by the utilization that is aimed at: 70 % for both.
        """
        return max(MIN_TARGET, self.scale_target * TARGET_UTILIZATION)


class Second(NamedTuple):
    """What queue-proxies report of one second; `RequestStats` in knative.dev/networking, pkg/http/stats/request.go.

    A request counts when it comes, whatever its answer is: a refused one is part of the rate as well.
    """

    in_flight: float = 0.0  # average over the second
    arrived: int = 0

    def of(self, metric: Metric) -> float:
        """Return what the autoscaler takes from this second."""
        return self.in_flight if metric == "concurrency" else float(self.arrived)


class State(NamedTuple):
    """What KPA remembers from one tick to the next: the last time over the panic threshold, and the most replicas
    since; and what it wanted at each tick of the delay."""

    panic_at: float | None = None
    panic_replicas: int = 0
    wanted: tuple[tuple[float, int], ...] = ()


class Decision(NamedTuple):
    desired: int  # within the bounds
    stable: float
    panic: float
    state: State

    @property
    def panicking(self) -> bool:
        return self.state.panic_at is not None


def window_average(seconds: Sequence[float], window: int) -> float:
    """Return the average of the last `window` seconds; of all of them where there are fewer; 0 for none.

    `TimedFloat64Buckets.WindowAverage` in pkg/autoscaler/aggregation/bucketing.go: buckets of a second, each with the
    same weight, and a window that is not full yet is divided by the buckets so far.
    """
    last = seconds[-window:]
    return sum(last) / len(last) if last else 0.0


def decide(settings: Autoscaling, state: State, seconds: Sequence[Second], ready: int, now: float) -> Decision:
    """Return what one tick decides; `Scale` in pkg/autoscaler/scaling/autoscaler.go.

    `seconds` are all that were reported until `now`, and `ready` the replicas that were ready then.
    """
    values = [second.of(settings.metric) for second in seconds[-settings.stable_window :]]
    stable, panic = (window_average(values, size) for size in (settings.stable_window, settings.panic_window))
    pods = max(1, ready)
    wanted, wanted_in_panic = (_limited(settings, average, pods) for average in (stable, panic))
    state = _panic(settings, state, math.ceil(panic / settings.target) / pods, now)
    if state.panic_at is not None:  # never down
        state = state._replace(panic_replicas=max(state.panic_replicas, wanted, wanted_in_panic))
        wanted = state.panic_replicas
    state, wanted = _delayed(settings, state, wanted, now)
    return Decision(min(max(wanted, settings.min_replicas), settings.max_replicas), stable, panic, state)


def _limited(settings: Autoscaling, average: float, pods: int) -> int:
    """Return the replicas for an average, as far as one tick may go up or down."""
    highest = math.ceil(settings.max_scale_up_rate * pods)
    lowest = math.floor(pods / settings.max_scale_down_rate)
    return min(max(math.ceil(average / settings.target), lowest), highest)


def _panic(settings: Autoscaling, state: State, ratio: float, now: float) -> State:
    """Return the state with panic begun, prolonged, or over once the threshold was not met for a stable window."""
    if ratio >= settings.panic_threshold:
        return state._replace(panic_at=now)
    if state.panic_at is not None and state.panic_at + settings.stable_window < now:
        return state._replace(panic_at=None, panic_replicas=0)
    return state


def _delayed(settings: Autoscaling, state: State, wanted: int, now: float) -> tuple[State, int]:
    """Return the most that was wanted within the delay; pkg/autoscaler/aggregation/max/timewindow.go."""
    if not settings.scale_down_delay:
        return state, wanted
    kept = tuple((at, number) for at, number in state.wanted if now - at < settings.scale_down_delay)
    state = state._replace(wanted=(*kept, (now, wanted)))
    return state, max(number for _, number in state.wanted)
