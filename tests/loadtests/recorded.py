"""Runs that were recorded on a real cluster, to be measured again: see `recordings/README.md`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis import summary as summaries
from loadtests.analysis.measures import Run, Watched
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation
from loadtests.results import Cluster, Summary
from loadtests.scenario import Plan, Scenario
from test_measures import ENVIRONMENT

FOLDER = Path(__file__).parent / "recordings"
RATE, SEED = 45.0, 1  # requests/s that one replica held
UNTIL = 0.01  # seconds after the schedule, when the watch ended
SCALE_UP = [
    {"name": "warm-up", "seconds": 10, "rate": 0.5},
    {"name": "baseline", "seconds": 30, "rate": 0.5},
    {"name": "burst", "seconds": 120, "rate": 2.5, "p95_ms": 1200},
    {"name": "recovery", "seconds": 150, "rate": 0.5},
]
FROM_ZERO = [
    {"name": "baseline", "seconds": 60, "rate": 0.2, "p95_ms": 60000},
    {"name": "burst", "seconds": 90, "rate": 2.5, "p95_ms": 1200},
    {"name": "recovery", "seconds": 30, "rate": 0.5},
]
PHASES = {"kpa-scale-from-zero": FROM_ZERO, "kpa-scale-up": SCALE_UP, "hpa-scale-up": SCALE_UP}


def scenario_of(name: str) -> Scenario:
    """The scenario that comes with the project now, with the phases of the recorded run."""
    shipped = scenarios.load(name.partition("-")[2])
    return Scenario.model_validate(shipped.model_dump(exclude_unset=True) | {"phases": PHASES[name]})


def observations_of(name: str) -> list[AnyObservation]:
    return list(observations.read((FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()))


def requests_of(name: str) -> results.Requests:
    columns = pq.read_table(FOLDER / f"{name}.parquet").to_pydict()
    intended, delay, latency = (
        np.array(columns[key]) / per_s
        for key, per_s in (("intended_ms", 1e3), ("delay_100us", 1e4), ("latency_100us", 1e4))
    )
    requests = np.zeros(len(intended), results.REQUEST)
    requests["intended"], requests["sent"], requests["end"] = intended, intended + delay, intended + latency
    requests["retry_after"] = columns["refused"]
    requests["status"] = np.where(requests["retry_after"], 503, 200)
    return requests


@cache
def replayed(name: str) -> Summary:
    """The recorded run, measured and judged by the code and the scenario of today."""
    return measured(name, observations_of(name))


def measured(name: str, found: list[AnyObservation]) -> Summary:
    """The requests of a recorded run, with these observations."""
    plan = Plan(scenario_of(name), RATE, SEED)
    watched = Watched("defect-classifier", found, plan.seconds + UNTIL)
    run = Run(plan=plan, requests=requests_of(name), revisions=["r1"], seconds=plan.seconds, watched=watched)
    return summaries.summarise(run, name.partition("-")[2], ENVIRONMENT)


def cluster_of(summary: Summary) -> Cluster:
    assert summary.cluster is not None
    return summary.cluster
