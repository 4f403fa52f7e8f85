"""Start the cluster watcher's process, read what it has observed, and end it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from tools.processes import ROOT, end

OBSERVATIONS = "cluster.jsonl"  # in the run's directory: every observation, with times on the run's axis
STOP_SECONDS = 3.0


class BadCluster(ValueError):
    """The cluster can't be watched; one line with the option and what was expected."""


class ClusterTarget(NamedTuple):
    """What is watched, and how the API is reached; empty: as kubectl would."""

    service: str
    namespace: str = ""
    kubeconfig: str = ""
    context: str = ""

    @property
    def name(self) -> str:
        return "/".join(filter(None, (self.namespace, self.service)))


def service(text: str) -> ClusterTarget:
    """Read `NAME` or `NAMESPACE/NAME` of an InferenceService; raises `BadCluster`."""
    if not re.fullmatch(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z]([-a-z0-9]*[a-z0-9])?", text):
        raise BadCluster(f"--cluster: {text!r}; expected NAME or NAMESPACE/NAME of an InferenceService")
    namespace, _, name = text.rpartition("/")
    return ClusterTarget(name, namespace)


def replicas_of(found: Iterable[AnyObservation]) -> int:
    """Return how many pods there were last that were not being ended, of revisions with traffic.

    Those of other revisions are asked for nothing, and may stay. Raises `BadCluster` where pods may not be seen.
    """
    pods, shares = dict[str, observations.Pod](), dict[str, float]()
    for observation in found:
        if isinstance(observation, observations.Pod):
            pods[observation.name] = observation
        elif isinstance(observation, observations.Service):
            shares = observation.traffic or shares
        elif isinstance(observation, observations.Unseen) and observation.resource == "pods":
            raise BadCluster(
                f"--cluster: {observation.text}; expected a role that may, to know when there is none left"
            )
    return sum(pod.stays and (not shares or pod.revision in (None, *shares)) for pod in pods.values())


class WatcherProcess:
    """A process that watches the cluster, and writes observations to a file in `directory`."""

    def __init__(self, target: ClusterTarget, seconds: float, directory: Path, options: Sequence[str] = ()):
        self._file, self._found, self._read = directory / OBSERVATIONS, list[AnyObservation](), 0
        command = [
            *(
                sys.executable,
                "-P",
                "-m",
                "loadtests.cluster",
                "--cluster",
                target.name,
                "--seconds",
                str(seconds),
            ),
            *("--kubeconfig", target.kubeconfig, "--context", target.context, *options),
        ]
        # Where the run is, as a kubeconfig, and what it names, may have relative paths.
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))}
        with self._file.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command, env=env, stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_begun(self) -> bool:
        """Return whether everything has been listed; raises `BadCluster` where that can't be."""
        ended = self._process.poll() is not None  # asked first: what it wrote is complete then
        found = self.observations()
        for observation in found:
            if isinstance(observation, observations.WatchProblem):
                raise BadCluster(observation.text)
        if ended:
            lines = self._file.read_text("utf-8", "replace").strip().splitlines()
            raise BadCluster(f"--cluster: the watcher ended: {lines[-1] if lines else 'it said nothing'}")
        return any(isinstance(observation, observations.Begun) for observation in found)

    def observations(self) -> list[AnyObservation]:
        """Return what it has observed so far."""
        with self._file.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        self._found += observations.read(whole.decode("utf-8", "replace").splitlines())
        return self._found

    def replicas(self) -> int:
        """Return how many pods there are, as `replicas_of`; raises `BadCluster` where pods may not be seen."""
        return replicas_of(self.observations())

    def order(self, at: float) -> None:
        """Order the disruption for `at` on `time.monotonic`. If this process ends before, it does not happen."""
        self._say({"at": at})

    def cancel(self) -> None:
        """Take the order back, if it was not carried out; the watch goes on."""
        self._say({"at": None})

    def _say(self, order: dict[str, float | None]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        with suppress(OSError):  # it has ended, which `stop` says
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()

    def stop(self, begin: float) -> list[AnyObservation]:
        """End the process; return its observations with times in seconds since `begin` on `time.monotonic`.

        The file keeps them with these times too.
        """
        code = self._process.poll()
        self.kill()
        found = [observations.shifted(observation, begin) for observation in self.observations()]
        if code is not None:
            last = max((observation.at for observation in found), default=0.0)
            found.append(observations.Unseen(at=last, text=f"anything after {last:.1f} s: the watcher ended ({code})"))
        self._file.write_text("".join(observation.model_dump_json() + "\n" for observation in found), "utf-8")
        return found

    def kill(self) -> None:
        """End the process, if it has not ended."""
        end(self._process, STOP_SECONDS)
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
