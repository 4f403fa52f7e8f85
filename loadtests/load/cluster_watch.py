"""What a run asks of the process that watches the cluster: to begin, to see no replica, to disrupt, to end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from loadtests.analysis.measures import Watched
from loadtests.analysis.replicas import scaled_by
from loadtests.cluster.process import BadCluster, WatcherProcess
from loadtests.load import autoscaling
from loadtests.load.options import Options
from loadtests.results import LimitsName
from loadtests.scenario import Plan, Scenario

LISTED_SECONDS = 60.0  # for the cluster watcher to have listed everything

logger = logging.getLogger("loadtests")
# Whether it is true in so many seconds; not once the run is stopped.
WaitFor = Callable[[Callable[[], bool], float], bool]


class ClusterWatch:
    """The cluster while a run is on; where none is to be watched, nothing is done."""

    def __init__(self, options: Options, scenario: Scenario, wait_for: WaitFor):
        self._options, self._platform, self._wait_for = options, scenario.cluster, wait_for
        self._disruption = options.disruption(scenario)
        self._arguments = options.watcher(scenario)
        self._process: WatcherProcess | None = None
        self._limits_of: LimitsName | None = None

    @property
    def is_on(self) -> bool:
        return self._process is not None

    def begin(self, directory: Path, seconds: float) -> bool:
        """Watch for at most `seconds` of a run with its waits; return whether everything was listed in time.

        Raises `BadCluster`.
        """
        if self._options.cluster is None:
            return True
        longest = LISTED_SECONDS + seconds
        self._process = WatcherProcess(self._options.cluster, longest, directory, self._arguments)
        return self._wait_for(self._process.has_begun, LISTED_SECONDS)

    def fit(self, scenario: Scenario) -> Scenario:
        """Return the scenario with its lengths and limits for what scales the service; raises `BadCluster`.

        Where that service can't do what the scenario measures, this says so before there is any load.
        """
        if self._process is None:
            return scenario.fitted(None)
        scaled = scaled_by(self._process.observations())
        fitted = scenario.fitted(scaled.limits if scaled else None)
        if scenario.cluster:
            logger.info("%s", autoscaling.described(scenario, scaled))
            autoscaling.check(Path(self._options.scenario).stem, fitted, scaled)
        self._platform = fitted.cluster
        self._limits_of = scaled.limits if scaled and scaled.limits in scenario.by_autoscaler else None
        return fitted

    def wait_for_zero_before(self) -> bool:
        """Return whether there is no replica in time, where the scenario begins with none."""
        seconds = self._platform and self._platform.from_zero_seconds
        return not seconds or self._wait_for_zero(seconds)

    def wait_for_zero_after(self) -> None:
        """Wait until there is no replica any more, where the scenario asks for that."""
        if self._platform and self._platform.to_zero_seconds:
            with suppress(BadCluster):  # then it is just not known
                self._wait_for_zero(self._platform.to_zero_seconds)

    def _wait_for_zero(self, seconds: float) -> bool:
        logger.info("waiting for no replica, at most %g s", seconds)
        return self._wait_for(self._is_at_zero, seconds)

    def _is_at_zero(self) -> bool:
        return self._process is not None and self._process.replicas() == 0

    def order_disruption(self, plan: Plan, begin: float) -> None:
        """Order what is to happen to the cluster for the burst's begin; `begin` is the run's on `time.monotonic`."""
        burst = plan.burst
        if burst is None or self._process is None or self._platform is None:
            return
        if self._disruption:
            self._process.order(begin + burst.start)
        elif self._platform.disruption:
            logger.info("from %.0f s to %.0f s: roll a new revision out", burst.start, burst.end)

    def cancel_disruption(self) -> None:
        """Take the order back, if it was not carried out."""
        if self._process:
            self._process.cancel()

    def end(self, begin: float) -> Watched | None:
        """End the watch; return what it saw, with times in seconds since `begin` on `time.monotonic`."""
        if self._process is None or self._options.cluster is None:
            return None
        until = time.monotonic() - begin
        return Watched(self._options.cluster.name, self._process.stop(begin), until, self._limits_of)

    def kill(self) -> None:
        """End the process, whatever it is at."""
        if self._process:
            self._process.kill()
