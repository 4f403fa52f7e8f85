"""Simulate a service that KPA scales: requests that arrive, replicas that answer or refuse them, and the autoscaler.

Times are seconds from the begin of the schedule. The same arguments always give the same result.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from knative_autoscaler import TICK_SECONDS, Autoscaling, Decision, Second, State, decide

Floats = NDArray[np.float64]


class Replica(NamedTuple):
    """How one replica answers.

    It takes one request after the other, first in, first out. One that is alone takes `alone`. One behind which others
    wait takes `contended`, since the same core reads, counts and refuses those. `around` is spent beside the queue, in
    queue-proxy and on connections. A request that could not be answered within `deadline` is refused at once.
    `start` is from the decision until a new replica is ready.
    """

    alone: float
    contended: float
    around: float
    deadline: float
    start: float

    def holds(self, waiting: int) -> bool:
        """Return whether a request may wait behind so many others."""
        return (waiting + 1) * self.contended + self.around <= self.deadline


class Tick(NamedTuple):
    at: float
    ready: int
    decision: Decision


class Result(NamedTuple):
    """What happened. `latency` `[requests]` is in seconds; NaN for a refused one."""

    ticks: list[Tick]
    arrivals: Floats
    latency: Floats

    def ready_between(self, start: float, end: float) -> list[int]:
        """Return the numbers of ready replicas at the ticks of a time."""
        return [tick.ready for tick in self.ticks if start <= tick.at < end]

    def desired_between(self, start: float, end: float) -> list[int]:
        """Return the numbers of desired replicas at the ticks of a time."""
        return [tick.decision.desired for tick in self.ticks if start <= tick.at < end]

    def first(self, holds: Callable[[Tick], bool], since: float = 0.0) -> float:
        """Return the time of the first tick from `since` on for which `holds` is true; infinity if there is none."""
        return next((tick.at for tick in self.ticks if tick.at >= since and holds(tick)), float("inf"))

    def p95_between(self, start: float, end: float) -> float:
        """Return the p95 of the latency of answered requests that arrived in a time, in seconds."""
        found = self.latency[(self.arrivals >= start) & (self.arrivals < end)]
        return float(np.nanpercentile(found, 95, method="inverted_cdf"))

    def refused_between(self, start: float, end: float) -> float:
        """Return the share of the requests of a time that were refused."""
        return float(np.isnan(self.latency[(self.arrivals >= start) & (self.arrivals < end)]).mean())


def poisson(seed: int, *phases: tuple[float, float]) -> Floats:
    """Return the times of arrivals, in order; `phases` are pairs of seconds and rate, one after the other."""
    random, start, found = np.random.default_rng(seed), 0.0, list[Floats]()
    for seconds, rate in phases:
        count = random.poisson(seconds * rate)
        found.append(np.sort(random.uniform(start, start + seconds, count)))
        start += seconds
    return np.concatenate(found)


def simulate(arrivals: Floats, settings: Autoscaling, replica: Replica, seconds: float) -> Result:
    """Return what happens to requests that arrive at these times, until `seconds`."""
    return _Simulation(arrivals, settings, replica).run(seconds)


class _Pod:
    """A replica while it exists: the requests in it, in order, by their numbers."""

    def __init__(self) -> None:
        self.waiting: deque[int] = deque()


class _Simulation:
    """Events in the order of their time: arrivals, answers, replicas that get ready, and the autoscaler's ticks."""

    def __init__(self, arrivals: Floats, settings: Autoscaling, replica: Replica):
        self._arrivals, self._settings, self._replica = arrivals, settings, replica
        self._latency = np.full(len(arrivals), np.nan)
        self._pods = [_Pod() for _ in range(settings.min_replicas)]
        self._starting = 0
        self._turn = itertools.count()
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._state, self._seconds, self._ticks = State(), list[Second](), list[Tick]()
        self._in_flight, self._area, self._since, self._arrived = 0, 0.0, 0.0, 0

    def run(self, seconds: float) -> Result:
        for second in range(1, int(seconds) + 1):
            self._at(float(second), self._report)
            if second % TICK_SECONDS == 0:
                self._at(float(second), self._tick)
        following = 0
        while self._events or following < len(self._arrivals):
            arrival = self._arrivals[following] if following < len(self._arrivals) else np.inf
            if self._events and self._events[0][0] <= arrival:
                at, _, event = heapq.heappop(self._events)
                event(at)
            else:
                self._arrive(float(arrival), following)
                following += 1
        return Result(self._ticks, self._arrivals, self._latency)

    def _at(self, time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), event))

    def _count(self, at: float, change: int) -> None:
        """Add to the requests in flight from now on."""
        self._area += self._in_flight * (at - self._since)
        self._since, self._in_flight = at, self._in_flight + change

    # --- requests ---

    def _arrive(self, at: float, number: int) -> None:
        """Route a request to the replica whose turn it is."""
        pod = self._pods[next(self._turn) % len(self._pods)]
        self._arrived += 1
        if not self._replica.holds(len(pod.waiting)):
            return
        self._count(at, 1)
        pod.waiting.append(number)
        if len(pod.waiting) == 1:
            self._serve(at, pod)

    def _serve(self, at: float, pod: _Pod) -> None:
        taken = self._replica.contended if len(pod.waiting) > 1 else self._replica.alone
        self._at(at + taken, lambda end: self._served(end, pod))

    def _served(self, at: float, pod: _Pod) -> None:
        number, end = pod.waiting.popleft(), at + self._replica.around
        self._latency[number] = end - self._arrivals[number]
        self._count(at, -1)
        self._area += self._replica.around
        if pod.waiting:
            self._serve(at, pod)

    # --- the platform ---

    def _report(self, at: float) -> None:
        self._count(at, 0)
        self._seconds.append(Second(self._area, self._arrived))
        self._area, self._arrived = 0.0, 0

    def _tick(self, at: float) -> None:
        """Let the autoscaler decide, from what was reported a second ago; then start replicas, or end them."""
        decision = decide(self._settings, self._state, self._seconds[:-1], len(self._pods), at)
        self._state = decision.state
        self._ticks.append(Tick(at, len(self._pods), decision))
        for _ in range(decision.desired - len(self._pods) - self._starting):
            self._starting += 1
            self._at(at + self._replica.start, self._started)
        del self._pods[max(1, decision.desired) :]  # those answer what they have

    def _started(self, _: float) -> None:
        self._starting -= 1
        self._pods.append(_Pod())


def capacity(replica: Replica, p95: float, rates: Sequence[float], seconds: float = 60.0) -> float:
    """Return the highest of the rates at which one replica's p95 is at most `p95` seconds, as a ramp finds it."""
    alone = Autoscaling("rps", 1.0, max_replicas=1)

    def holds(rate: float) -> bool:
        found = simulate(poisson(1, (seconds, rate)), alone, replica, seconds)
        return found.refused_between(0, seconds) == 0 and found.p95_between(0, seconds) <= p95

    return max((rate for rate in rates if holds(rate)), default=0.0)
