"""The directory that a run leaves behind."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from loadtests import results
from loadtests.analysis.measures import Run
from loadtests.cluster.process import OBSERVATIONS
from loadtests.report import page
from loadtests.results import Summary

MOST = 100  # directories of one scenario in one second


def create(parent: Path, name: str) -> Path:
    """Make and return a new directory for a run of the scenario `name`; raises `OSError`."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ["", *(f"-{number}" for number in range(2, MOST))]:
        path = parent / f"{name}-{stamp}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            return path
    raise FileExistsError(f"--out: {parent} has a hundred runs of this second; expected fewer")


def write(directory: Path, run: Run, summary: Summary) -> None:
    """Write the run's requests, its summary and its report."""
    names = results.Names(
        [span.phase.name for span in run.plan.spans],
        [payload.name for payload in run.plan.scenario.payloads],
        run.revisions,
    )
    results.write_requests(directory / results.REQUESTS, run.requests, run.phase, names)
    results.write_summary(directory / results.SUMMARY, summary)
    page.write(directory, summary)


def discard(directory: Path) -> None:
    """Remove the directory of a run that did not take place, unless something else is in it."""
    if not (directory / results.SUMMARY).exists():
        with suppress(OSError):
            (directory / OBSERVATIONS).unlink(missing_ok=True)
            directory.rmdir()
