"""Measure what an open-loop overload does to the server: the load tests' `overload` scenario, run as a process.

The scenario measures the capacity itself, closed loop, and sends a multiple of it. Here its phases are shorter, the
multiple varies, and an answer is in time when it comes within the deadline that goes along with each request.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.processes import ROOT

SCENARIO = ROOT / "loadtests" / "scenarios" / "overload.yaml"
RECOVERY_SECONDS = 12  # the SLO must hold for ten seconds to count as recovered
SECONDS = {"warm-up": 1, "baseline": 2, "recovery": RECOVERY_SECONDS}
RUN_SECONDS = 180.0  # for one run to end
ERROR = 3  # exit code of a load test that could not take place

Figures = dict[str, Any]


def scenario(multiple: float, seconds: float) -> dict[str, Any]:
    """Return the `overload` scenario with a burst of `seconds` at `multiple` times the capacity."""
    content: dict[str, Any] = yaml.safe_load(SCENARIO.read_text("utf-8"))
    burst = {"rate": multiple, "seconds": seconds, "p95_ms": content["deadline_ms"]}
    content["phases"] = [
        phase | (burst if phase["name"] == "burst" else {"seconds": SECONDS[phase["name"]]})
        for phase in content["phases"]
    ]
    return content


def measure(url: str, multiples: Sequence[float], seconds: float, scratch: Path) -> dict[str, Any]:
    """Return what happened at each multiple of the capacity; ends the process where a run can't take place."""
    content = scenario(1, seconds)
    return {
        "rows": content["payloads"][0]["rows"],
        "deadline_ms": content["deadline_ms"],
        "slo_p95_ms": content["slo"]["p95_ms"],
        "runs": [figures(run(url, multiple, seconds, scratch / f"{multiple:g}"), multiple) for multiple in multiples],
    }


def run(url: str, multiple: float, seconds: float, scratch: Path) -> dict[str, Any]:
    """Run the scenario against the server at `url`; return its summary.json."""
    scratch.mkdir(parents=True)
    file, out = scratch / "overload.yaml", scratch / "load"
    file.write_text(yaml.safe_dump(scenario(multiple, seconds)), "utf-8")
    command = [
        str(Path(sys.executable).parent / "locust"), "-f", "loadtests/locustfile.py", "--headless", "--only-summary",
        "--host", url, "--scenario", str(file), "--out", str(out),
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the overload could not be measured: it did not end in {RUN_SECONDS:g} s") from None
    found = list(out.glob("*/summary.json"))
    if done.returncode == ERROR or not found:
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SystemExit(f"the overload could not be measured: {reason}")
    summary: dict[str, Any] = json.loads(found[0].read_text("utf-8"))
    return summary


def figures(summary: Mapping[str, Any], multiple: float) -> Figures:
    """Return what a summary says of its burst: rates per second, latencies in ms, of answers from the intended time."""
    burst = next(phase for phase in summary["phases"] if phase["name"] == "burst")
    counts, capacity = burst["counts"], summary["base_per_s"]
    return {
        "multiple": multiple,
        "capacity/s": capacity,
        "offered/s": burst["planned_per_s"],
        "goodput/s": burst["goodput_per_s"],
        "goodput share": burst["goodput_per_s"] / capacity,
        "in time": counts["good"] / max(1, counts["answered"]),
        "p50": burst["latency"]["p50"],
        "p99": burst["latency"]["p99"],
        "refused": counts["refused"],
        "refusal p50": burst["refusal"]["p50"],
        "refusal p99": burst["refusal"]["p99"],
        "failed": counts["failed"],
        "sent late": summary["generator"]["late_share"],
        "recovered after s": summary["recovery"]["after_burst_seconds"],
        "valid": summary["verdict"]["outcome"] != "Invalid",
        "reasons": summary["verdict"]["reasons"],
    }
