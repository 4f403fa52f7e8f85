"""Estimate how far the API server's clock is from this one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

from loadtests.cluster import observations
from loadtests.cluster.api import PATIENCE, UNANSWERED, reason
from loadtests.cluster.process import BadCluster

CLOCK_SECONDS = 5.0
PROBES, PROBE_SECONDS = 10, 0.1037  # answers for the clock at the begin: their phases cover a second


class Clock:
    """What must be added to `time.monotonic` to have the API server's clock, from the `Date` of its answers.

    A server that says `d` for an answer between `asked` and `came` had a time in [d, d + 1) then, so that the offset
    lies between d - came and d + 1 - asked. All answers together leave what these intervals have in common. Where
    they have nothing in common, a clock was set (or several servers answer), and it begins anew.
    """

    def __init__(self) -> None:
        self._low, self._high, self._answers = -float("inf"), float("inf"), 0

    def hear(self, date: float, asked: float, came: float) -> bool:
        """Take an answer; return whether the offset is better known now."""
        before, self._answers = self._high - self._low, self._answers + 1
        low, high = max(self._low, date - came), min(self._high, date + 1 - asked)
        self._low, self._high = (low, high) if low < high else (date - came, date + 1 - asked)
        return self._high - self._low != before

    def observation(self) -> observations.ClockReading:
        now, offset = time.monotonic(), (self._low + self._high) / 2
        return observations.ClockReading(
            at=now,
            offset=offset,
            error=(self._high - self._low) / 2,
            skew=now + offset - time.time(),
            answers=self._answers,
        )


class ClockReader:
    """Reads the API server's clock from its answers, and reports it when it is better known; called by many threads."""

    def __init__(self, api: client.ApiClient, report: Callable[[observations.Observation], None]):
        self._api, self._report = api, report
        self._lock, self.clock = threading.Lock(), Clock()

    def take(self, answer: Any, asked: float, came: float) -> None:
        """Take the `Date` of an answer that was asked for and came then, on `time.monotonic`."""
        with suppress(TypeError, ValueError, AttributeError):  # without a Date, or without an answer
            date = parsedate_to_datetime(answer.headers.get("date")).timestamp()
            with self._lock:
                is_better = self.clock.hear(date, asked, came)
                observation = self.clock.observation()
            if is_better:
                self._report(observation)

    def ask(self) -> None:
        """Ask once more; no answer is no matter."""
        with suppress(ApiException, *UNANSWERED):
            self._ask_version()

    def probe(self) -> None:
        """Ask often enough to know the clock well. Raises `BadCluster` without a login or without an answer.

        Then there is nothing to watch. The version that is asked for is not needed.
        """
        for _ in range(PROBES):
            try:
                self._ask_version()
            except ApiException as error:
                if error.status == 401:
                    raise BadCluster("--cluster: the API server answered HTTP 401; expected a login") from None
                if not error.status:
                    raise self._unreached(error) from None
            except UNANSWERED as error:
                raise self._unreached(error) from None
            time.sleep(PROBE_SECONDS)

    def _ask_version(self) -> None:
        asked = time.monotonic()
        try:
            answer = client.VersionApi(self._api).get_code(_preload_content=False, _request_timeout=PATIENCE)
        except ApiException as error:  # has a Date too
            self.take(error, asked, time.monotonic())
            raise
        self.take(answer, asked, time.monotonic())
        answer.close()

    def _unreached(self, error: Exception) -> BadCluster:
        text = f"the API server at {self._api.configuration.host} can't be reached ({reason(error)})"
        return BadCluster(f"--cluster: {text}; expected one that answers")
