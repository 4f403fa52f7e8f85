"""Measure how much load the generator itself can make: its schedule delay against a stub that answers at once.

python -m loadtests.load.self_test

With two cores, stub and generator have one each. Prints a row for each rate; where the generator can't keep up, the
verdict says Invalid. The SLO's p95 is 20 ms, so that a p99 of the delay above 5 ms is already too much.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from defects.pages.tables import grid
from loadtests import results
from loadtests.load import stub_server
from tools.computer import caption, computer
from tools.processes import ROOT, cores, end_on_sigterm, pinned

SCENARIO = """\
about: A constant rate, to see how well the generator keeps to it.
rate: 1000
payloads: [{{kind: json}}]
phases:
  - {{name: warm-up, seconds: 2, rate: 1}}
  - {{name: baseline, seconds: {seconds}, rate: 1}}
slo: {{p95_ms: 20}}
"""


def drive(url: str, rate: float, scenario: Path, out: Path) -> results.Summary:
    """Run the load test at `rate` requests per second; return its summary."""
    command = [
        str(Path(sys.executable).parent / "locust"), "-f", "loadtests/locustfile.py", "--headless", "--only-summary",
        "--host", url, "--scenario", str(scenario), "--rate", str(rate), "--out", str(out / f"{rate:g}"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    found = list((out / f"{rate:g}").glob("*/summary.json"))
    if not found:
        raise SystemExit(f"the run at {rate:g}/s failed: {done.stderr.strip().splitlines()[-1]}")
    return results.read_summary(found[0])


def row(rate: float, summary: results.Summary) -> list[str]:
    phase, generator = summary.phases[-1], summary.generator
    times = (phase.delay.p50, phase.delay.p99, phase.delay.max, phase.latency.p99)
    figures = [f"{rate:,.0f}", f"{phase.achieved_per_s:,.0f}", *("–" if t is None else f"{t:.2f}" for t in times)]
    return [*figures, f"{generator.cpu_share:.0%}", summary.verdict.outcome]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1000, 2000, 3000, 4000, 8000])
    parser.add_argument("--seconds", type=float, default=10, help="of each (default: %(default)s)")
    options = parser.parse_args()
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as directory:
        scenario = Path(directory) / "selftest.yaml"
        scenario.write_text(SCENARIO.format(seconds=options.seconds), "utf-8")
        with pinned(cores().server), stub_server.running() as url, pinned(cores().generator):
            rows = [row(rate, drive(url, rate, scenario, Path(directory))) for rate in options.rates]
    heads = ["Rate, 1/s", "sent, 1/s", "delay p50, ms", "p99", "max", "latency p99", "CPU of a core", "Verdict"]
    sys.stdout.write(f"{caption(computer())}; {cores().text}\n\n{grid('Generator', heads, rows)}\n")


if __name__ == "__main__":
    main()
