"""Measure what recording predictions costs: the same server without a history, and with each mode on each database.

python -m benchmarks.history

Every server runs from the beginning to the end, with a database of its own. Each round measures every server once, in
an order shuffled by the seed, and ratios are taken within a round. CPU is that of the server's processes, without
PostgreSQL's, which has the generator's core. Prints Markdown; missed targets are reported, and failed answers end it.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine, wrk
from benchmarks.models import say, trained
from benchmarks.report import over, spread
from benchmarks.servers import ModelFiles, ServerProcess, Subject, running, start
from benchmarks.workloads import workloads
from defects.history.databases import database_of
from defects.pages.tables import grid
from defects.training.options import positive
from tools.computer import caption
from tools.local_postgres import LocalPostgres
from tools.processes import ROOT, cores, end_on_sigterm, pinned
from tools.raw_http import get

CONNECTIONS = 64
STEADY = ROOT / "loadtests" / "scenarios" / "steady.yaml"
STEADY_SECONDS = 8
RUN_SECONDS = 120.0  # for a load test to end
OFF = "off"
MODES = {
    "buffered, SQLite": ("sqlite", "buffered"),
    "buffered, PostgreSQL": ("postgres", "buffered"),
    "acknowledged, SQLite": ("sqlite", "acknowledged"),
    "acknowledged, PostgreSQL": ("postgres", "acknowledged"),
}
MOST_CPU = {"buffered, SQLite": 12.0, "buffered, PostgreSQL": 6.0}  # µs a request more than without
LEAST_SHARE = 0.85  # of the requests/s without a history, buffered
LEAST_RATE = {"acknowledged, SQLite": 4_000.0, "acknowledged, PostgreSQL": 6_000.0}  # requests/s
MOST_P99 = 40.0  # ms, acknowledged, at half of the lower rate
MOST_START = 0.15  # seconds more until it is ready


@dataclass
class Measured:
    """What each round measured of a server, and what was measured once."""

    cpu_us: list[float] = field(default_factory=list)  # a request
    rate: list[float] = field(default_factory=list)  # requests/s
    p99: list[float] = field(default_factory=list)  # ms
    p999: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)  # seconds
    half_rate: float | None = None  # of an open loop
    half_p99: float | None = None


@contextmanager
def subjects(scratch: Path) -> Iterator[dict[str, Subject]]:
    """Make a database for each server; yield the servers by name."""
    postgres = LocalPostgres(scratch / "postgres")
    with pinned(cores().generator):
        postgres.start()
    try:
        made = {OFF: _subject(OFF, {})}
        for name, (kind, mode) in MODES.items():
            url = f"sqlite:///{scratch}/{mode}.db" if kind == "sqlite" else _new_database(postgres, mode)
            made[name] = _subject(name, {"DEFECTS_DATABASE_URL": url, "DEFECTS_HISTORY": mode})
        yield made
    finally:
        postgres.stop()


def _subject(name: str, settings: Mapping[str, str]) -> Subject:
    return Subject(name, ("python", "-m", "defects.serve"), settings)


def _new_database(postgres: LocalPostgres, name: str) -> str:
    import asyncio

    import asyncpg

    async def make() -> None:
        connection = await asyncpg.connect(postgres.url("postgres"))
        await connection.execute(f'CREATE DATABASE "{name}"')
        await connection.close()
        database = database_of(postgres.url(name))
        await database.migrate()
        await database.close()

    asyncio.run(make())
    return postgres.url(name)


def measure(server: ServerProcess, requests: Path, seconds: int, measured: Measured) -> None:
    """Send one-row requests, closed loop; ends the process where an answer is no success."""
    before = server.cpu_seconds()
    result = wrk.run(server.port, requests, CONNECTIONS, seconds)
    if result.errors:
        raise SystemExit(f"{server.label}: {result.errors} of {result.requests} requests failed\n{server.last_lines()}")
    measured.cpu_us.append((server.cpu_seconds() - before) / result.requests * 1e6)
    measured.rate.append(result.requests / result.seconds)
    measured.p99.append(result.latency(0.99))
    measured.p999.append(result.latency(0.999))


def measure_steady(server: ServerProcess, rate: float, scratch: Path, measured: Measured) -> None:
    """Send requests at a steady rate, open loop, from the load tests' own generator."""
    content = yaml.safe_load(STEADY.read_text("utf-8"))
    content["payloads"] = [{"kind": "json"}]
    for phase in content["phases"]:
        phase["seconds"] = STEADY_SECONDS
    scratch.mkdir(parents=True)
    (scratch / "steady.yaml").write_text(yaml.safe_dump(content), "utf-8")
    command = [
        str(Path(sys.executable).parent / "locust"), "-f", "loadtests/locustfile.py", "--headless", "--only-summary",
        "--host", f"http://127.0.0.1:{server.port}", "--scenario", str(scratch / "steady.yaml"),
        "--rate", f"{rate:.0f}", "--out", str(scratch / "out"),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )
    found = list((scratch / "out").glob("*/summary.json"))
    if not found:
        raise SystemExit(f"{server.label}: the steady load could not be measured: {done.stderr.strip()[-300:]}")
    phase = json.loads(found[0].read_text("utf-8"))["phases"][-1]
    measured.half_rate, measured.half_p99 = phase["planned_per_s"], phase["latency"]["p99"]


def measured(model: ModelFiles, options: argparse.Namespace, scratch: Path) -> dict[str, Measured]:
    """Measure every server."""
    requests = scratch / "requests"
    wrk.write_requests(requests, workloads(options.seed)["classify"].requests)
    with subjects(scratch) as servers:
        found = {name: Measured() for name in servers}
        _measure_starts(servers, model, options, scratch, found)
        with running(servers, model, scratch / "servers", cores().server) as processes:
            for number in range(options.rounds + 1):  # the first one warms up
                say(f"round {number} of {options.rounds}")
                for name in _order(servers, options.seed + number):
                    kept = found[name] if number else Measured()
                    measure(processes[name], requests, options.seconds if number else 2, kept)
            half = min(statistics.median(found[name].rate) for name in LEAST_RATE) / 2
            for name in (OFF, *LEAST_RATE):
                say(f"{half:,.0f} requests/s: {name}")
                measure_steady(processes[name], half, scratch / f"steady {name}", found[name])
    return found


def _measure_starts(
    servers: Mapping[str, Subject],
    model: ModelFiles,
    options: argparse.Namespace,
    scratch: Path,
    found: Mapping[str, Measured],
) -> None:
    """Start every server, by itself, once in each round, and once before."""
    for number in range(options.rounds + 1):
        for name in _order(servers, options.seed + number):
            server = start(servers[name], model, scratch / "starts" / f"{name} {number}", cores().server)
            try:
                seconds = server.wait_ready(get("/readyz"))
            finally:
                server.stop()
            if number:
                found[name].start.append(seconds)


def _order(names: Mapping[str, Subject], seed: int) -> list[str]:
    order = list(names)
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, no secret
    return order


def markdown(found: Mapping[str, Measured], head: str) -> str:
    """Return the report."""
    off = found[OFF]
    rows = [
        [
            name,
            spread(each.cpu_us, ".1f"),
            spread(each.rate),
            spread(over(each.rate, off.rate), ".2f", unit="×"),
            spread(each.p99, ".1f"),
            spread(each.p999, ".1f"),
            spread(each.start, ".2f"),
        ]
        for name, each in found.items()
    ]
    titles = ["History", "CPU µs a request", "requests/s", "of off's", "p99 ms", "p99.9 ms", "ready after s"]
    title = f"One row, {CONNECTIONS} connections"
    return "\n\n".join([head, grid(title, titles, rows), grid("Targets", TARGETS, _targets(found))]) + "\n"


TARGETS = ["What", "Measured", "Target", ""]


def _targets(found: Mapping[str, Measured]) -> list[list[str]]:
    off = found[OFF]

    def more(name: str, read: Callable[[Measured], list[float]]) -> list[float]:
        return [a - b for a, b in zip(read(found[name]), read(off), strict=True)]

    rows = []
    for name, most in MOST_CPU.items():
        rows.append(_judged(f"{name}: CPU µs more", more(name, lambda m: m.cpu_us), ".1f", most=most))
        share = over(found[name].rate, off.rate)
        rows.append(_judged(f"{name}: requests/s of off's", share, ".2f", least=LEAST_SHARE))
    for name, least in LEAST_RATE.items():
        rows.append(_judged(f"{name}: requests/s", found[name].rate, ",.0f", least=least))
        half = found[name].half_p99
        text = f"{name}: p99 ms at {off.half_rate or 0:,.0f}/s, open loop; off: {off.half_p99 or 0:.1f}"
        rows.append(_judged(text, [] if half is None else [half], ".1f", most=MOST_P99))
    starts = {name: more(name, lambda m: m.start) for name in MODES}
    return rows + [_judged(f"{name}: ready later by s", late, ".2f", most=MOST_START) for name, late in starts.items()]


def _judged(
    what: str, values: Sequence[float], form: str, *, most: float | None = None, least: float | None = None
) -> list[str]:
    if not values:
        return [what, "nothing was answered", "", "**missed**"]
    middle = statistics.median(values)
    met = middle <= most if most is not None else middle >= (least or 0)
    bound = f"≤ {most:g}" if most is not None else f"≥ {least:g}"
    return [what, spread(values, form), bound, "met" if met else "**missed**"]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=positive, default=5, help="of each measurement (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of model, requests and order (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        model = trained(10_000, options.seed, scratch)
        with pinned(cores().generator):
            found = measured(model, options, scratch)
    described: dict[str, Any] = machine.describe()
    head = (
        f"# `{' '.join(['python -m benchmarks.history', *sys.argv[1:]])}`\n\n"
        f"{caption(described)}; {cores().text}; {options.rounds} rounds of {options.seconds} s; "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Medians [lowest–highest], ratios within a round."
    )
    sys.stdout.write(markdown(found, head))


if __name__ == "__main__":
    main()
