"""The benchmark's overload is the load tests' scenario, and its figures are those of the run's summary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import overload, report
from conftest import Serve, free_port, quiet
from defects import artifact
from defects.training import dataset, export, pipeline
from defects.training.options import Recipe
from loadtests import scenario as scenarios
from loadtests.analysis import summary as summaries
from loadtests.load import stub_server
from loadtests.scenario import Plan, Scenario
from test_measures import ENVIRONMENT, answered
from test_measures import run as run_of


def test_an_overload_is_answered_or_refused(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scikit-learn serves this one, so that there is something to overload."""
    monkeypatch.setattr(export, "to_onnx", lambda _, **__: b"not a model")
    result = pipeline.train(dataset.builtin(4_000, seed=1), Recipe("hist-gradient-boosting", 1, 0.2), quiet)
    assert result.card["engine"]["name"] == "scikit-learn"
    artifact.replace(tmp_path / "model", result.files)
    monkeypatch.setitem(overload.SECONDS, "recovery", 1)
    with serve(MODEL_DIR=tmp_path / "model") as server:
        found = overload.measure(server.url, [3.0], 2, tmp_path / "runs")
    (run,) = found["runs"]
    assert (found["rows"], found["deadline_ms"], run["multiple"]) == (256, 500, 3.0)
    assert run["offered/s"] > 1.5 * run["capacity/s"]  # by a Poisson process, of which few requests came
    assert run["failed"] == 0, "a refusal without Retry-After is a failure"
    assert run["refused"] > 0
    assert 0 < run["goodput/s"] < run["offered/s"]
    assert run["refusal p50"] > 0


def test_the_figures_are_those_of_the_burst() -> None:
    """A tenth of the burst is refused after 10 ms, a fifth comes after the deadline, everything else after 100 ms."""
    scenario = Scenario.model_validate(overload.scenario(3, 10) | {"rate": 10, "spacing": "even"})
    plan = Plan(scenario, 10, 1)
    burst = next(span for span in plan.spans if span.phase.name == "burst")
    requests = answered(plan.times, 100.0)
    (of_burst,) = np.nonzero((plan.times >= burst.start) & (plan.times < burst.end))
    late, refused = of_burst[:60], of_burst[-30:]
    requests["end"][late] = plan.times[late] + 0.6
    requests["end"][refused] = requests["sent"][refused] + 0.01
    requests["status"][refused], requests["retry_after"][refused] = 503, True
    summary = summaries.summarise(run_of(plan, requests), "overload", ENVIRONMENT).model_dump(mode="json")
    found = overload.figures(summary, 3)
    assert (found["capacity/s"], found["offered/s"], found["goodput/s"]) == (10, 30, 21)
    assert (found["goodput share"], found["refused"], found["failed"]) == (2.1, 30, 0)
    assert found["in time"] == pytest.approx(210 / 270)
    assert [found[name] for name in ("p50", "p99", "refusal p50")] == pytest.approx([100, 600, 10])
    raw = {"overload": {"rows": 256, "deadline_ms": 500, "slo_p95_ms": 250, "runs": [found | {"valid": False}]}}
    text = report._overload(raw)
    assert "| 3× | 10 | 30 | 210 % | 77.8% | 100.00 / 600.00 | 30 | 10.00 / 10.00 | 0 |" in text
    assert "At 3× the run was invalid" in text


def test_every_answer_within_the_deadline_is_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(overload.SECONDS, "recovery", 1)
    with stub_server.running("--service-ms", 20) as url:
        (run,) = overload.measure(url, [0.2], 2, tmp_path)["runs"]
    assert (run["in time"], run["refused"], run["failed"], run["recovered after s"]) == (1, 0, 0, 0)
    assert run["p50"] >= 20


def test_an_overload_that_cannot_be_measured_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="could not be measured: error: no model answers at"):
        overload.measure(f"http://127.0.0.1:{free_port()}", [3.0], 2, tmp_path)


def test_the_scenario_differs_from_the_load_tests_in_its_phases_alone() -> None:
    changed, original = Scenario.model_validate(overload.scenario(10, 5)), scenarios.load("overload")
    assert changed.model_copy(update={"phases": original.phases}) == original
    assert [phase.name for phase in changed.phases] == [phase.name for phase in original.phases]
    assert [(p.rate, p.seconds) for p in changed.phases if p.name == "burst"] == [(10, 5)]
