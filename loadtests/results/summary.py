"""The summary of a run, `summary.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from loadtests.results.cluster import Cluster
from loadtests.results.records import Record
from loadtests.results.server import (
    SLO,
    Bucket,
    Budget,
    Capacity,
    Generator,
    Histogram,
    PhaseResult,
    Recovery,
    Sample,
    Verdict,
)  # fmt: skip

SUMMARY = "summary.json"


class ServedModel(Record):
    """What the server says it serves."""

    name: str
    version: str
    digest: str
    engine: str


class Environment(Record):
    host: str
    command: str
    started: str = Field(description="begin of the schedule, UTC, ISO 8601")
    machine: dict[str, str] = Field(description="of the generator: processor, kernel, versions")
    model: ServedModel


class Summary(Record):
    """summary.json."""

    schema_version: Literal[1] = 1
    scenario: str
    about: str
    seed: int
    load_digest: str | None = Field(default=None, description="of the scenario's content and the rows; null: not known")
    base_per_s: float = Field(description="the rate that the scenario's factors multiply")
    duration_s: float = Field(description="until the schedule was over, or was stopped")
    stopped: str | None = Field(description="why, where it ended before its schedule")
    verdict: Verdict
    slo: SLO
    environment: Environment
    generator: Generator
    phases: list[PhaseResult]
    recovery: Recovery
    budget: list[Budget]
    capacity: Capacity | None
    revisions: dict[str, int] = Field(description="answers by x-revision")
    kinds: dict[str, int] = Field(description="requests by payload")
    bucket_s: float
    buckets: list[Bucket]
    timeline: list[Sample]
    histograms: list[Histogram]
    cluster: Cluster | None = Field(default=None, description="with --cluster")

    @property
    def judged(self) -> list[PhaseResult]:
        """The phases that count: all but the warm-up."""
        return [phase for phase in self.phases if phase.name != "warm-up"]


def write_summary(path: Path, summary: Summary) -> None:
    path.write_text(summary.model_dump_json(indent=1) + "\n", "utf-8")


def read_summary(path: Path) -> Summary:
    """A run's summary, by its directory or file. Raises `OSError` or `ValueError` where it is none."""
    return Summary.model_validate_json((path / SUMMARY if path.is_dir() else path).read_text("utf-8"))
