"""Hold the metrics in one in-process registry, and write them as Prometheus reads them.

Every label is bounded: routes are names from the table, reasons and phases are fixed, classes are the model's.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

# `bentoml serve` sets this for every worker; the client library would then write its values to files that no process
# series survive in. It reads the variable once, when it is imported.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SHORT_SECONDS = (0.00005, 0.0001, 0.00025, *SECONDS[:11])
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
REFUSALS = ("queue_full", "deadline", "draining", "bodies", "connections")
ENDS = ("stalled_write", "slow_head", "slow_body", "crowded")  # of connections, before their time
LAG_INTERVAL = 0.1  # seconds between looks at the event loop
PEAK_SECONDS = 15.0  # the usual time between two scrapes


class Number:
    """The value of one series of a counter or a gauge.

    Only the event loop changes it, so it needs none of the client library's locks: those and its generality cost more
    than a validation does.
    """

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Peak:
    """The highest value that `level` had in the last `PEAK_SECONDS`, no matter who reads it, and how often.

    `level` returns the value of now. Whoever raises it calls `observe`, which costs one comparison; a fall needs no
    call, because each bin begins with the level of that moment. `close_bin` is called regularly. A peak is forgotten
    `PEAK_SECONDS` after the end of its bin, so at most one bin late.
    """

    __slots__ = ("_bins", "_clock", "_highest", "_level")

    def __init__(self, level: Callable[[], float], clock: Callable[[], float] = time.monotonic):
        self._level, self._clock = level, clock
        self._highest = level()  # in the bin that is open
        self._bins: deque[tuple[float, float]] = deque()  # when each closed, and the highest value in it

    def observe(self, level: float) -> None:
        """Note that the level has risen to `level`."""
        if level > self._highest:  # noqa: PLR1730 - `max` takes three times as long
            self._highest = level

    def close_bin(self) -> None:
        """End the open bin and begin the next one; drop the bins that are too old."""
        now = self._clock()
        self._bins.append((now, self._highest))
        self._highest = self._level()
        while self._bins[0][0] <= now - PEAK_SECONDS:
            self._bins.popleft()

    def reset(self) -> None:
        """Forget every peak up to now."""
        self._bins.clear()
        self._highest = self._level()

    def read(self) -> float:
        """Return the maximum; reading changes nothing."""
        oldest = self._clock() - PEAK_SECONDS
        return max(self._highest, *(highest for closed, highest in self._bins if closed > oldest), 0.0)


class Level(Number):
    """The value of a gauge that rises and falls by one, and its peak."""

    __slots__ = ("peak",)

    def __init__(self) -> None:
        super().__init__()
        self.peak = Peak(lambda: self.value)

    def increment(self) -> None:
        """Add one."""
        self.value += 1
        self.peak.observe(self.value)

    def decrement(self) -> None:
        """Take one away."""
        self.value -= 1


class Distribution:
    """One series of a histogram with the upper `bounds`, in the unit of what is observed. As lock-free as `Number`."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]):
        self._bounds, self._counts, self._total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return how many values were at most each bound, and the sum of all values."""
        names = map(floatToGoString, (*self._bounds, math.inf))
        return list(zip(names, accumulate(self._counts), strict=True)), self._total


class Metrics:
    """Every metric. What others hold (queue, readiness, start) is read from them at each scrape."""

    def __init__(self, model_version: str, digest: str, engine: str, classes: Iterable[str]):
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = self.numbers(CounterMetricFamily, "defects_requests", "Answers.", "route", "code")
        self._durations = self.distributions(SECONDS, "defects_request_duration_seconds", "Time to answer.", "route")
        phases = self.distributions(
            SHORT_SECONDS, "defects_phase_duration_seconds", "Time of answered predictions, by phase.", "phase"
        )
        self._phases = [phases.of(name) for name in ("queue", "score", "encode", "total")]
        self.batch_rows = self.distributions(ROWS, "defects_batch_rows", "Rows scored together.").of()
        self._refusals = self.numbers(
            CounterMetricFamily, "defects_refused", "Requests refused by admission.", "reason"
        )
        self._refused = {reason: self._refusals.of(reason) for reason in REFUSALS}
        text = "Connections that were closed because their callers were too slow or too many."
        ended = self.numbers(CounterMetricFamily, "defects_connections_ended", text, "reason")
        self._ended = {reason: ended.of(reason) for reason in ENDS}
        self._peaks: list[Peak] = []
        self.in_flight = Level()
        text = "Requests being answered, without scrapes of these metrics."
        self.read("defects_requests_in_flight", text, lambda: {"": self.in_flight.value})
        self.add_peak("defects_requests_in_flight", text, self.in_flight.peak)
        self.lag = self.distributions(SECONDS, "defects_event_loop_lag_seconds", "How late the event loop ran.").of()
        predictions = self.numbers(
            CounterMetricFamily, "defects_predictions", "Answered rows, by class.", "defect", "model_version"
        )
        self._predictions = [predictions.of(name, model_version) for name in classes]
        info = self.numbers(
            GaugeMetricFamily, "defects_model_info", "The model, as labels.", "version", "digest", "engine"
        )
        info.of(model_version, digest, engine).value = 1
        self._answers: dict[tuple[str, int], tuple[Number, Distribution]] = {}

    def numbers(self, family: NumberFamily, name: str, text: str, *labels: str) -> Numbers:
        """Add a counter or a gauge; return its series, which are made when they are asked for."""
        numbers = Numbers(family, name, text, labels)
        self.registry.register(numbers)
        return numbers

    def distributions(self, bounds: Sequence[float], name: str, text: str, *labels: str) -> Distributions:
        """Add a histogram with the upper `bounds`; return its series."""
        distributions = Distributions(bounds, name, text, labels)
        self.registry.register(distributions)
        return distributions

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count an answer. `route` is a name from the table, never what a caller sent."""
        pair = self._answers.get((route, code))
        if pair is None:
            pair = self._answers[route, code] = (self._requests.of(route, str(code)), self._durations.of(route))
        pair[0].value += 1
        pair[1].observe(seconds)

    def add_refusal(self, reason: str) -> None:
        """Add a reason for which requests can be refused."""
        self._refused[reason] = self._refusals.of(reason)

    def refused(self, reason: str) -> None:
        """Count a request that admission refused."""
        self._refused[reason].value += 1

    def connection_ended(self, reason: str) -> None:
        """Count a connection that was closed before its time."""
        self._ended[reason].value += 1

    def predicted(self, best: Iterable[int], *seconds: float) -> None:
        """Count an answered prediction: its rows' classes, and the seconds in queue, score, encode and total."""
        for index in best:
            self._predictions[index].value += 1
        for phase, value in zip(self._phases, seconds, strict=True):
            phase.observe(value)

    def read(self, name: str, text: str, samples: Callable[[], dict[str, float]], label: str | None = None) -> None:
        """Add a gauge whose value, or values by `label`, `samples` gives at each scrape."""
        self.registry.register(_GaugeReader(name, text, samples, label))

    def add_peak(self, name: str, text: str, peak: Peak) -> None:
        """Add the gauge `name` with `_max`: the maximum of the gauge `name` over the last `PEAK_SECONDS`."""
        self._peaks.append(peak)
        self.read(f"{name}_max", f"{text} The highest of the last {PEAK_SECONDS:g} s.", lambda: {"": peak.read()})

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the header `accept` asks for, and their content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except Exception:  # the version that it asks for is not a number
            encode, content_type = choose_encoder("")
        return encode(self.registry), content_type

    async def watch_loop(self) -> None:
        """Measure how late the event loop is, and close the peaks' bins, until cancelled."""
        while True:
            started = time.perf_counter()
            await asyncio.sleep(LAG_INTERVAL)
            self.lag.observe(max(0.0, time.perf_counter() - started - LAG_INTERVAL))
            for peak in self._peaks:
                peak.close_bin()


NumberFamily = type[CounterMetricFamily] | type[GaugeMetricFamily]


class Numbers:
    """The series of a counter or a gauge by the values of their labels, for the client library to collect."""

    def __init__(self, family: NumberFamily, name: str, text: str, labels: Sequence[str]):
        self._family = partial(family, name, text, labels=labels)
        self._series: dict[tuple[str, ...], Number] = {}

    def of(self, *values: str) -> Number:
        """Return the series with these labels, a new one at the first call."""
        return self._series.setdefault(values, Number())

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, number in self._series.items():
            family.add_metric(values, number.value)
        yield family


class Distributions:
    """The series of a histogram with the upper `bounds`, by the values of their labels."""

    def __init__(self, bounds: Sequence[float], name: str, text: str, labels: Sequence[str]):
        self._family = partial(HistogramMetricFamily, name, text, labels=labels)
        self._bounds = bounds
        self._series: dict[tuple[str, ...], Distribution] = {}

    def of(self, *values: str) -> Distribution:
        """Return the series with these labels, a new one at the first call."""
        return self._series.setdefault(values, Distribution(self._bounds))

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, distribution in self._series.items():
            family.add_metric(values, *distribution.buckets())
        yield family


class _GaugeReader:
    """A gauge whose samples are asked for at each scrape."""

    def __init__(self, name: str, text: str, samples: Callable[[], dict[str, float]], label: str | None):
        self._name, self._text, self._samples, self._label = name, text, samples, label

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(self._name, self._text, labels=[self._label] if self._label else None)
        for value, sample in self._samples().items():
            family.add_metric([value] if self._label else [], sample)
        yield family
