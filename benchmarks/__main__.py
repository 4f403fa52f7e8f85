"""Our server beside other ways to serve the same model, in one run on one machine.

python -m benchmarks            everything, about nine minutes
python -m benchmarks --quick    what the targets need, under two minutes

Every subject runs from the beginning to the end; each round measures every cell (a subject, a workload, a number of
connections) once, in an order shuffled by the seed, and ratios are taken within a round. Prints a report in Markdown,
and writes it as bench.md with bench.json and bench.svg into --output. Missed targets are reported; a cell whose answers
are wrong fails the run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import machine, overload, report, wrk
from benchmarks.models import given, say, trained
from benchmarks.servers import SUBJECTS, ModelFiles, ServerProcess, environment, running
from benchmarks.workloads import BATCH, Workload, workloads
from defects import artifact, scoring
from defects.training.options import positive
from tools.processes import ROOT, cores, end_on_sigterm, pinned
from tools.raw_http import RawResponse, ask

IN_PROCESS, OVERLOAD = "in-process", "overload"
PARTS = (*SUBJECTS, IN_PROCESS, OVERLOAD)
WARM_UP_CONNECTIONS = 8
ANSWER_SECONDS = 30.0
IDLE_SECONDS = 5.0  # at most, until a server has worked off what a cell left behind


class BenchmarkCell(NamedTuple):
    """What one measurement measures."""

    subject: str
    workload: str
    connections: int


@dataclass(frozen=True)
class Measured:
    """One cell in one round. Latencies in ms, per second and percent as named."""

    requests: int
    errors: int
    requests_per_second: float
    rows_per_second: float
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0
    cpu_us: float = 0.0  # of the server's processes, for each request
    rss_mb: float = 0.0
    others: float = 0.0  # share of the cores' time that neither the server nor wrk used


@dataclass
class CellResults:
    """A cell's measurements, one for each round; or why there are none."""

    subject: str
    workload: str
    connections: int
    rows: int
    rounds: list[Measured] = field(default_factory=list)
    problem: str | None = None


QUICK, FULL = ((3.0,), 2), ((0.7, 3.0, 10.0), 5)  # multiples of the capacity, and seconds of each
PRICED = ("validation-only", "metrics", "every-line")
ONE = ("classify", "V1", "V2", "V2 binary")
MANY = ("classify_batch", f"V2 x{BATCH}", f"V2 binary x{BATCH}")
CONTROLS = {
    "fastapi": ("classify", "classify_batch"),
    "stock-onnx": ("scans", f"scans x{BATCH}"),
    "stock-sklearn": ("scans", f"scans x{BATCH}"),
    "hello": ("GET",),
}


def _cells(subject: str, names: Iterable[str], connections: Iterable[int]) -> list[BenchmarkCell]:
    return [BenchmarkCell(subject, name, count) for name in names for count in connections]


def full() -> list[BenchmarkCell]:
    """Return every cell."""
    cells = _cells("ours", (*ONE, *MANY), (1, 8, 64)) + _cells("bentoml-serve", ("classify", "V2"), (1, 64))
    for subject in PRICED:
        cells += _cells(subject, ("V2",), (1, 64))
    for subject in ("ours", "no-gc-freeze"):
        cells += _cells(subject, ("V2 by ASGI",), (1, 64))
    for subject, names in CONTROLS.items():
        cells += _cells(subject, names, (1, 8, 64))
    return cells + _cells(IN_PROCESS, ("1", str(BATCH)), (0,))


def quick() -> list[BenchmarkCell]:
    """Return the cells that the targets need."""
    return [
        *_cells("ours", ("classify", "V1", "V2"), (1, 64)),
        *_cells("ours", (f"V2 x{BATCH}", f"V2 binary x{BATCH}"), (64,)),
        *_cells("validation-only", ("V2",), (64,)),
        *_cells("fastapi", ("classify",), (1, 64)),
        *_cells("fastapi", ("classify_batch",), (8,)),
        *_cells("stock-onnx", ("scans",), (64,)),
        *_cells("stock-onnx", (f"scans x{BATCH}",), (8,)),
        *_cells("stock-sklearn", ("scans",), (64,)),
        *_cells("hello", ("GET",), (1, 64)),
        *_cells(IN_PROCESS, (str(BATCH),), (0,)),
    ]


@dataclass
class Bench:
    """Everything that measuring a cell needs."""

    servers: Mapping[str, ServerProcess]
    model: ModelFiles
    workloads: Mapping[str, Workload]
    scratch: Path
    seconds: int
    warm: set[str] = field(default_factory=set)

    def requests(self, name: str) -> Path:
        """Return the file that wrk reads a workload's requests from."""
        file = self.scratch / f"{name.replace(' ', '-')}.requests"
        if not file.exists():
            wrk.write_requests(file, self.workloads[name].requests)
        return file

    def check(self, row: CellResults, score: scoring.Scorer) -> None:
        """Send one request, and record what is wrong with the answer."""
        if row.subject == IN_PROCESS:
            return
        workload = self.workloads[row.workload]
        expected = score(workload.scored) if workload.rows else workload.read(RawResponse(200, {}, b"hello"))
        try:
            answer = ask(self.servers[row.subject].port, workload.requests[0], ANSWER_SECONDS)
        except OSError as error:
            row.problem = f"no answer: {error}"
            return
        row.problem = workload.problem(answer, expected)

    def _seconds(self, row: CellResults) -> int:
        """Return how long to measure: longer where one answer can take a second."""
        return self.seconds * (2 if row.rows > 1 and row.subject in CONTROLS else 1)

    def measure(self, row: CellResults) -> None:
        """Add a round to the cell."""
        if row.subject == IN_PROCESS:
            row.rounds.append(in_process(self.model, row.rows, self.seconds))
            return
        server, requests = self.servers[row.subject], self.requests(row.workload)
        if row.subject not in self.warm:
            wrk.run(server.port, requests, WARM_UP_CONNECTIONS, 1)
            self.warm.add(row.subject)
        wait_idle(server)
        before, busy, children = server.cpu_seconds(), machine.Busy(cores().both), _children_seconds()
        result = wrk.run(server.port, requests, row.connections, self._seconds(row))
        cpu = server.cpu_seconds() - before
        others = busy.others(cpu + _children_seconds() - children)
        row.rounds.append(_measured(result, row.rows, cpu, server.resident_bytes(), others))
        if result.errors or not result.requests:
            row.problem = f"{result.errors} of {result.requests} requests failed; expected answers to all, and some"
        wait_idle(server)


def _children_seconds() -> float:
    """Return the CPU seconds of the processes that ended and were waited for: wrk's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _measured(result: wrk.Result, rows: int, cpu_seconds: float, resident: int, others: float) -> Measured:
    rate = result.requests / result.seconds
    return Measured(
        requests=result.requests,
        errors=result.errors,
        requests_per_second=rate,
        rows_per_second=rate * rows,
        p50_ms=result.latency(0.5),
        p90_ms=result.latency(0.9),
        p99_ms=result.latency(0.99),
        p999_ms=result.latency(0.999),
        max_ms=result.latency(1.0),
        cpu_us=1e6 * cpu_seconds / max(1, result.requests),
        rss_mb=resident / 1e6,
        others=others,
    )


def wait_idle(server: ServerProcess) -> None:
    """Wait, but not for long, until the server has worked off the requests that wrk abandoned at its end."""
    until = time.monotonic() + IDLE_SECONDS
    while time.monotonic() < until:
        before = server.cpu_seconds()
        time.sleep(0.05)
        if server.cpu_seconds() - before <= 0.021:  # two ticks, for what idle servers do
            return


def in_process(model: ModelFiles, rows: int, seconds: int) -> Measured:
    """Measure the rows per second of ONNX Runtime alone, on the servers' core."""
    command = [sys.executable, "-m", "benchmarks.controls.in_process", str(model.artifact), str(rows), str(seconds)]
    with pinned(cores().server):
        done = subprocess.run(  # noqa: S603 - our own command
            command,
            cwd=ROOT,
            env=environment(model.artifact, {}),
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the in-process control failed: {done.stderr.strip()}")
    rate = float(done.stdout)
    return Measured(round(rate * seconds / rows), 0, rate / rows, rate)


def measure_rounds(bench: Bench, rows: list[CellResults], rounds: int, seed: int) -> None:
    """Measure every cell once a round, each round in another order."""
    score = scoring.load(artifact.load(bench.model.artifact))
    for row in rows:
        bench.check(row, score)
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}: {len(rows)} cells")
        order = [row for row in rows if row.problem is None]
        random.Random(seed + number).shuffle(order)  # noqa: S311 - an order, no secret
        for row in order:
            try:
                bench.measure(row)
            except RuntimeError as error:  # such as a server that is gone
                row.problem = str(error)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer cells, a second each")
    parser.add_argument("--rounds", type=positive, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive, help="per cell; whole ones, as wrk counts (default: 2; quick: 1)")
    parser.add_argument("--rows", type=positive, default=10_000, help="built-in data to train on (%(default)s)")
    parser.add_argument("--model-dir", type=Path, help="an artifact of the built-in data, instead of training one")
    parser.add_argument("--pipeline", type=Path, help="with --model-dir: its pipeline from joblib, for the controls")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--connections", nargs="+", type=positive, metavar="N", help="only cells with as many")
    parser.add_argument("--seed", type=int, default=0, help="of model, parcels and order (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("build/bench"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if not 0 <= options.seed < 2**31:
        parser.error("--seed: expected a number from 0 to 2147483647")
    options.seconds = options.seconds or (1 if options.quick else 2)
    return options


def planned(options: argparse.Namespace, known: Mapping[str, Workload]) -> list[CellResults]:
    """Return the cells that the options leave."""
    cells = [cell for cell in (quick() if options.quick else full()) if cell.subject in options.only]
    if options.connections:
        cells = [cell for cell in cells if cell.connections in (0, *options.connections)]
    if not cells:
        raise SystemExit("--only, --connections: nothing is left to measure; expected some of what there is")
    return [
        CellResults(*cell, rows=int(cell.workload) if cell.subject == IN_PROCESS else known[cell.workload].rows)
        for cell in cells
    ]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure; return the content of bench.json."""
    known = workloads(options.seed + 1)  # not the parcels that the model was fitted on
    rows = planned(options, known)
    names = {row.subject: SUBJECTS[row.subject] for row in rows if row.subject != IN_PROCESS}
    load, pressed = {"start": os.getloadavg()}, None
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        model = given(options, names) if options.model_dir else trained(options.rows, options.seed, scratch)
        card = artifact.load(model.artifact).card
        say(f"starting {len(names)} servers; {cores().text}")
        with running(names, model, scratch / "servers", cores().server) as servers, pinned(cores().generator):
            bench = Bench(servers, model, known, scratch, options.seconds)
            measure_rounds(bench, rows, options.rounds, options.seed)
            if OVERLOAD in options.only and "ours" in servers:
                say("overload")
                url, (multiples, seconds) = f"http://127.0.0.1:{servers['ours'].port}", QUICK if options.quick else FULL
                pressed = overload.measure(url, multiples, seconds, scratch / "overload")
    load["end"] = os.getloadavg()
    return {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "seed": options.seed,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "model": {"estimator": card["estimator"], "data": card["data"], "version": card["version"]},
        "machine": machine.describe(),
        "pinning": cores().text,
        "load_average": load,
        "subjects": {name: subject.label for name, subject in SUBJECTS.items()},
        "cells": [asdict(row) for row in rows],
        "overload": pressed,
    }


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    wrk.executable()
    end_on_sigterm()
    try:
        raw = run(options)
    except (artifact.NoModel, artifact.BadArtifact) as error:
        raise SystemExit(f"--model-dir: {error}") from None
    raw["targets"] = report.targets(raw)
    text = report.markdown(raw)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "bench.json").write_text(json.dumps(raw, indent=1), "utf-8")
    (options.output / "bench.md").write_text(text, "utf-8")
    report.draw(raw, options.output / "bench.svg")
    sys.stdout.write(text)
    say(f"wrote bench.md, bench.json and bench.svg into {options.output}")
    failed = [row for row in raw["cells"] if row["problem"]]
    if failed:
        raise SystemExit("\n".join(f"failed: {r['subject']}, {r['workload']}: {r['problem']}" for r in failed))


if __name__ == "__main__":
    main()
