"""Print observations, and keep what others of the watcher's threads need of them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from loadtests.cluster import observations
from loadtests.cluster.api import one_line
from loadtests.cluster.observations import Observation


class Reporter:
    """Prints each observation as a line of JSON; called by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, observations.Pod] = {}
        self._unseen: set[str] = set()
        self.service: observations.Service | None = None

    @property
    def pods(self) -> list[observations.Pod]:
        """Every pod as it was seen last, also those that are gone."""
        with self._lock:
            return list(self._pods.values())

    def report(self, observation: Observation) -> None:
        """Print an observation."""
        with self._lock:
            if isinstance(observation, observations.Pod):
                self._pods[observation.name] = observation
            elif isinstance(observation, observations.Service):
                self.service = observation
            sys.stdout.write(observation.model_dump_json(exclude_defaults=False) + "\n")
            sys.stdout.flush()
        if isinstance(observation, observations.Service) and observation.canaries:
            names = ", ".join(observation.canaries)
            self.report_unseen(f"the wanted shares of the traffic: which pods are the canary's ({names}) is not known")

    def report_missed(self, source: str, why: str, text: str) -> None:
        """Print that metrics could not be read this time, and once with this text."""
        self.report_unseen(text)
        self.report(observations.Missed(at=time.monotonic(), source=source, why=why))

    def report_unseen(self, text: str, *, lost: bool = False) -> None:
        """Print once that something could not be watched; `lost`: that it can be no longer."""
        with self._lock:
            is_new = text not in self._unseen
            self._unseen.add(text)
        if is_new:
            self.report(observations.Unseen(at=time.monotonic(), text=text, lost=lost))

    def start(self, what: str, run: Callable[[], None]) -> None:
        """Run it in a thread; if it fails, say so."""

        def guarded() -> None:
            try:
                run()
            except Exception as error:  # what was not thought of
                self.report_unseen(f"{what}: watched no longer ({type(error).__name__}: {one_line(error)})", lost=True)

        threading.Thread(target=guarded, daemon=True).start()

    def end_process(self) -> None:
        """End the process at once, when the line that is being printed is complete."""
        with self._lock:
            os._exit(0)
