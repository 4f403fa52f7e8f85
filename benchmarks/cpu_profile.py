"""Where the time goes: a busy server's threads by what they work on, as py-spy sees it.

python -m benchmarks.cpu_profile

One-row V2 JSON over 64 connections. A sample of the main thread belongs to the innermost frame that is known below, so
that what NumPy or orjson do counts for who called them. What threads really used is the kernel's to say: py-spy can't
tell whether the event loop works or waits, and hardly sees a thread that runs without Python's lock, as the scorer's
does. So samples in the loop count as far as the main thread's CPU time goes, and other threads have one row.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import machine, wrk
from benchmarks.models import say, trained
from benchmarks.servers import SUBJECTS, ServerProcess, running
from benchmarks.workloads import workloads
from defects.pages.tables import grid
from defects.training.options import positive
from tools.computer import caption
from tools.processes import cores, end_on_sigterm, pinned

RATE = 500  # samples per second
CONNECTIONS = 64
MAIN, LOOP = "MainThread", "Runner.run (asyncio/runners.py"
THREADS = "other threads: ONNX Runtime for larger batches, writing logs"
HTTP, OTHER = "HTTP server, event loop, system calls", "other"
DECODING, ENCODING = "decoding and validation", "encoding"

# What a frame's file, and where that does not say it, its function, works on. The first match counts.
KNOWN = tuple(
    (re.compile(file), re.compile(function), category)
    for file, function, category in (
        ("onnxruntime/|defects/scoring", "", "ONNX Runtime"),
        ("defects/serving/batching|concurrent/futures", "", "batching"),
        ("defects/schema", "", DECODING),
        ("defects/protocols", "encode|output|_bytes", ENCODING),
        ("defects/protocols", "", DECODING),
        ("defects/serving/metrics", "", "metrics"),
        ("defects/serving/logs", "", "logs"),
        ("defects/http/messages", "read|check_body|_announced|_with_constants", DECODING),
        ("defects/http/messages", "answer|compressed|error", ENCODING),
        ("defects/http/messages", "", "headers"),
        ("defects/http/responses", "account", "metrics"),
        ("defects/http/responses", "", "headers"),
        ("defects/http/predictions", "encode|finish|_predict", ENCODING),
        ("defects/serving/model", "", ENCODING),
        ("defects/http/predictions|defects/http/router", "", "routing"),
        ("defects/http/exchange|defects/http/fast_path|uvicorn/|asyncio/runners", "", HTTP),
    )
)
FRAME = re.compile(r"(?P<function>.+) \((?P<file>[^()]*?)(:\d+)?\)")


@dataclass(frozen=True)
class Observed:
    """A time of the server's: py-spy's samples, CPU seconds of the main and of all other threads, requests a second."""

    raw: str
    seconds: float
    main: float
    others: float
    rate: float


def category(stack: str) -> str:
    """Return what a stack of py-spy's raw format works on."""
    for frame in reversed(stack.split(";")):
        if found := FRAME.fullmatch(frame):
            for file, function, name in KNOWN:
                if file.search(found["file"]) and function.search(found["function"]):
                    return name
    return OTHER


def cpu_seconds(seen: Observed) -> dict[str, float]:
    """Return CPU seconds by category, the largest first."""
    samples, loop = Counter[str](), 0
    for line in seen.raw.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, _, frames = stack.partition(";")
        if MAIN not in thread:
            continue
        if frames.rpartition(";")[2].startswith(LOOP):
            loop += int(count)
        else:
            samples[category(frames)] += int(count)
    busy = round(RATE * seen.main)
    samples[HTTP] += max(0, min(loop, busy - samples.total()))
    found = {name: seen.main * count / samples.total() for name, count in samples.items() if count}
    return dict(sorted((found | {THREADS: seen.others}).items(), key=lambda item: -item[1]))


def record(server: ServerProcess, seconds: int, output: Path) -> str:
    """Return py-spy's samples of the server in its raw format; ends the process with one line where there are none."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise SystemExit("py-spy is not installed; expected it beside this Python: pip install py-spy")
    pid = str(server.process.pid)
    options = ["--pid", pid, "--rate", str(RATE), "--duration", str(seconds), "--threads", "--format", "raw"]
    done = subprocess.run(  # noqa: S603 - our own command
        [program, "record", *options, "--output", str(output)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode or not output.exists():
        reason = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise SystemExit(f"py-spy can't look into the server: {reason}; expected root, or ptrace to be allowed")
    return output.read_text("utf-8")


def thread_seconds(server: ServerProcess) -> tuple[float, float]:
    """Return the CPU seconds so far of the server's main thread, and of all others."""
    times = {t.id: t.user_time + t.system_time for t in psutil.Process(server.process.pid).threads()}
    main = times.pop(server.process.pid)
    return main, sum(times.values())


def observed(seconds: int, scratch: Path) -> Observed:
    """Sample a server while wrk drives it."""
    model, requests = trained(10_000, 0, scratch), scratch / "requests"
    wrk.write_requests(requests, workloads(1)["V2"].requests)
    with (
        running({"ours": SUBJECTS["ours"]}, model, scratch / "servers", cores().server) as servers,
        pinned(cores().generator),
        ThreadPoolExecutor(1) as driver,
    ):
        server = servers["ours"]
        wrk.run(server.port, requests, CONNECTIONS, 1)  # warm-up
        driven = driver.submit(wrk.run, server.port, requests, CONNECTIONS, seconds + 2)
        say(f"sampling for {seconds} s")
        started, (main, others) = time.perf_counter(), thread_seconds(server)
        raw = record(server, seconds, scratch / "samples")
        passed, (main_then, others_then) = time.perf_counter() - started, thread_seconds(server)
        result = driven.result()
    if result.errors:
        raise SystemExit(f"{result.errors} requests failed while the server was observed; expected none")
    return Observed(raw, passed, main_then - main, others_then - others, result.requests / result.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=positive, default=8, help="to sample for (default: %(default)s)")
    options = parser.parse_args()
    wrk.executable()
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as directory:
        seen = observed(options.seconds, Path(directory))
    found, requests = cpu_seconds(seen), seen.rate * seen.seconds
    total = sum(found.values())
    rows = [[name, f"{100 * cpu / total:.1f} %", f"{1e6 * cpu / requests:.1f}"] for name, cpu in found.items()]
    where = f"{caption(machine.describe())}; {cores().text}"
    head = f"{where}; {CONNECTIONS} connections, {seen.rate:,.0f} requests/s while sampled (which slows them down)."
    table = grid("Where the time goes: V2 JSON, one row", ["Work", "Share of CPU time", "CPU µs/request"], rows)
    sys.stdout.write(f"{head}\n\n{table}\n")


if __name__ == "__main__":
    main()
