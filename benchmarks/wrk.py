"""Run wrk against a server; read the latencies that it measured, without its correction of them.

wrk assumes that a request which took several times as long as usual kept others from being sent, and adds those to its
histogram. That exaggerates a single pause, and what it adds was never measured; so it is taken out again, exactly.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_suffix(".lua")
TIMEOUT_SECONDS = 10  # of one request; a slower one is an error
MARK = "wrk-result "

LatencyCounts = Mapping[int, int]  # microseconds -> requests


@dataclass(frozen=True)
class Result:
    """What a run measured. `errors` counts answers of 400 and above, failed connections and requests that timed out."""

    requests: int
    errors: int
    seconds: float
    latencies: LatencyCounts

    def latency(self, share: float) -> float:
        """Return the latency in ms that `share` of the requests did not exceed; NaN without any."""
        rank, seen = math.ceil(share * sum(self.latencies.values())), 0
        for value, count in sorted(self.latencies.items()):
            seen += count
            if seen >= rank:
                return value / 1e3
        return math.nan


def executable() -> str:
    """Return the path of wrk; ends the process with one line where it is missing."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("wrk is not installed: run .ci/system-packages, or your system's package manager")
    return path


def write_requests(path: Path, requests: Iterable[bytes]) -> None:
    """Write requests, as they go over the wire, so that `run` can send them in turn."""
    path.write_bytes(b"".join(b"%d\n%s" % (len(request), request) for request in requests))


def run(port: int, requests: Path, connections: int, seconds: int) -> Result:
    """Send what `write_requests` wrote, closed loop, on one thread; raises `RuntimeError` where wrk fails."""
    command = [
        executable(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s",
        "--timeout", f"{TIMEOUT_SECONDS}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}/",
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own arguments
        command,
        env=os.environ | {"WRK_REQUESTS": str(requests)},
        capture_output=True,
        text=True,
        timeout=seconds + 60,  # a wide histogram takes wrk a while to print
        check=False,
    )
    lines = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        raise RuntimeError(f"wrk failed with exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return result(json.loads(lines[0]), connections)


def result(measured: Mapping[str, Any], connections: int) -> Result:
    """Return what wrk.lua printed, with the correction taken out."""
    requests, each = measured["requests"], measured["requests"] // connections
    latencies: LatencyCounts = dict(measured["latency_us"])
    if each:  # wrk corrects in just this case, and with just this interval
        latencies = uncorrected(latencies, measured["duration_us"] // each)
    if sum(latencies.values()) != requests - measured["timeout"]:
        raise RuntimeError(f"wrk's histogram has {sum(latencies.values())} latencies; expected {requests}")
    errors = measured["status"] + measured["socket"] + measured["timeout"]
    return Result(requests, errors, measured["duration_us"] / 1e6, latencies)


def uncorrected(histogram: LatencyCounts, interval: int) -> LatencyCounts:
    """Return the histogram before `stats_correct` of wrk 4 with that interval in microseconds.

    It adds each count above twice the interval again at every whole interval below, down to one. So above one
    interval, a corrected count is the measured one plus the corrected count one interval higher. Raises `ValueError`
    where the histogram can't be the outcome of that.
    """
    measured = {
        value: count - (histogram.get(value + interval, 0) if value > interval else 0)
        for value, count in histogram.items()
    }
    if any(count < 0 for count in measured.values()):
        raise ValueError(f"not a histogram that wrk corrected with an interval of {interval} us")
    return {value: count for value, count in measured.items() if count}
