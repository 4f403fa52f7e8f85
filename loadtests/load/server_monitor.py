"""Sample the server's state once a second while it is under load.

python -m loadtests.load.server_monitor --host http://127.0.0.1:3000 --seconds 60

Runs in a process of its own, so that it neither disturbs the generator nor waits for it. Prints a JSON line a sample,
whose `at` is `time.monotonic` (the same clock in every process of a machine), until its time is over or it is ended.
From /readyz and /metrics come readiness, queue and requests in flight. CPU and memory come from the processes that
serve the port where they are on this machine and may be seen, and from /metrics, of one process, where not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit

import psutil

from loadtests.results import GAUGES, Sample
from tools import prometheus, urls
from tools.fetching import UNREADABLE, fetch, shown
from tools.processes import ROOT, end

EVERY_SECONDS = 1.0
ASK_SECONDS = 0.8  # at most, so that a server that hangs delays no sample
HEADERS = "TIMELINE_HEADERS"  # in the environment: a JSON object with what goes along with every request
CPU, RESIDENT = "process_cpu_seconds_total", "process_resident_memory_bytes"
METRICS = {*GAUGES, CPU, RESIDENT}


class Usage(NamedTuple):
    """Processes, their resident bytes, and the CPU seconds that they have used so far."""

    processes: int
    resident: float
    cpu_seconds: float


class ServerMonitor:
    """Samples the server at the URL `host`; requests have these headers besides the usual ones."""

    def __init__(self, host: str, headers: Mapping[str, str]):
        self._host, self._headers, parts = host.rstrip("/"), headers, urlsplit(host)
        self._processes = Processes(parts.port or 80) if urls.is_loopback(host) else None
        self._before: tuple[float, Usage] | None = None

    def sample(self) -> Sample:
        """Return the server's state now; what can't be read is left out, and `problem` says why."""
        at = time.monotonic()
        ready, problem = self._ready()
        try:
            values = prometheus.values(self._get("/metrics"), METRICS)
        except UNREADABLE as error:
            values, problem = {}, problem or f"/metrics: {shown(error)}"
        usage = self._processes.usage() if self._processes else None
        if usage is None and RESIDENT in values:
            usage = Usage(1, values[RESIDENT], values.get(CPU, 0.0))
        read = time.monotonic()  # the server may have taken its time to answer
        return Sample(
            at=at,
            ready=ready,
            problem=problem,
            processes=usage and usage.processes,
            rss_mb=usage and usage.resident / 1e6,
            cpu_cores=self._cores(read, usage),
            **{ours: values.get(theirs) for theirs, ours in GAUGES.items()},
        )

    def _cores(self, at: float, usage: Usage | None) -> float | None:
        """Return the cores' worth of CPU used since the sample before; `None` where processes came or went."""
        before, self._before = self._before, (at, usage) if usage else None
        if usage is None or before is None or before[1].processes != usage.processes:
            return None
        return max(0.0, usage.cpu_seconds - before[1].cpu_seconds) / (at - before[0])

    def _ready(self) -> tuple[bool | None, str | None]:
        try:
            self._get("/readyz")
        except HTTPError as error:
            return False, f"/readyz: {error.code}"
        except UNREADABLE as error:
            return None, f"/readyz: {shown(error)}"
        return True, None

    def _get(self, path: str) -> str:
        return fetch(f"{self._host}{path}", ASK_SECONDS, self._headers).decode()


class Processes:
    """The processes that listen on a local port, and their descendants.

    Looking for listeners means to look at every open file of the machine, so that is only done when one is gone.
    """

    def __init__(self, port: int):
        self._port = port
        self._listening: set[psutil.Process] = set()

    def usage(self) -> Usage | None:
        """Return what they use; `None` where they can't be seen, or there are none."""
        if not self._listening or not all(process.is_running() for process in self._listening):
            self._listening = _listening_on(self._port)
        found, resident, cpu = set(self._listening), 0, 0.0
        for process in self._listening:
            with suppress(psutil.Error):
                found |= set(process.children(recursive=True))
        for process in found:
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                resident, cpu = resident + process.memory_info().rss, cpu + times.user + times.system
        return Usage(len(found), resident, cpu) if found else None


def _listening_on(port: int) -> set[psutil.Process]:
    found: set[psutil.Process] = set()
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                with suppress(psutil.Error):
                    found.add(psutil.Process(connection.pid))
    return found


def watch(host: str, seconds: float, headers: Mapping[str, str]) -> Iterator[Sample]:
    """Yield a sample a second for `seconds`; missed ones are not made up for, as CPU over a few ms says nothing."""
    watcher, started, number = ServerMonitor(host, headers), time.monotonic(), 0
    while number * EVERY_SECONDS <= seconds:
        time.sleep(max(0.0, started + number * EVERY_SECONDS - time.monotonic()))
        yield watcher.sample()
        number = max(number, int((time.monotonic() - started) / EVERY_SECONDS)) + 1


class MonitorProcess:
    """A process that samples the server, and writes the samples to a file."""

    def __init__(self, host: str, headers: Mapping[str, str], seconds: float, file: Path):
        self._file = file
        command = [sys.executable, "-m", "loadtests.load.server_monitor", "--host", host, "--seconds", str(seconds)]
        env = {**os.environ, HEADERS: json.dumps(dict(headers))}  # others can read command lines
        with file.open("wb") as output:
            self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)  # noqa: S603 - our own

    def stop(self, begin: float) -> list[Sample]:
        """End the process; return its samples since `begin` on `time.monotonic`, at seconds since then."""
        end(self._process, 2 * ASK_SECONDS + 1)
        with self._file.open(encoding="utf-8", errors="replace") as lines:
            samples = list(_samples(lines))
        self._file.unlink(missing_ok=True)
        return [s.model_copy(update={"at": s.at - begin}) for s in samples if s.at >= begin]


def _samples(lines: IO[str]) -> Iterator[Sample]:
    """Yield samples from whole lines: the last one may have been cut off."""
    for line in lines:
        with suppress(ValueError):
            yield Sample.model_validate_json(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="http://127.0.0.1:3000", help="URL (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="(default: %(default)s)")
    options: dict[str, Any] = vars(parser.parse_args())
    os.nice(10)  # the generator comes first
    for sample in watch(**options, headers=json.loads(os.environ.get(HEADERS, "{}"))):
        sys.stdout.write(json.dumps(sample.model_dump(exclude_none=True)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
