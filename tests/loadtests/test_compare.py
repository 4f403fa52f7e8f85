"""Comparisons of runs find differences that are there, and none that are not; what can't be compared is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import run
from loadtests import results
from loadtests.analysis import summary as summaries
from loadtests.compare import comparison
from loadtests.compare import measures as compared
from loadtests.compare.intervals import Difference, bonferroni
from loadtests.compare.objections import objections
from loadtests.compare.report import report as comparison_report
from loadtests.results import Summary
from test_measures import ENVIRONMENT, LONG, PHASES, answered, plan, refuse
from test_measures import run as run_of

MACHINE = {"cpu": "a processor", "cores": "2", "kernel": "Linux 6"}


def one(number: int, latency_ms: float = 10.0, refused: int = 0, slow_until: float = 0.0, **more: Any) -> Summary:
    """A run whose latencies vary around `latency_ms`, as does their middle from run to run, by 2 %."""
    p, random = plan(phases=LONG), np.random.default_rng(number)
    latency = latency_ms * random.normal(1, 0.02) * random.uniform(0.9, 1.1, len(p.times))
    requests = answered(p.times, np.where((p.times >= 8) & (p.times < slow_until), 90.0, latency))
    refuse(requests, slice(1000, 1000 + refused))
    environment = ENVIRONMENT.model_copy(update={"machine": MACHINE})
    found = summaries.summarise(run_of(p, requests), "burst", environment)
    return found.model_copy(update=more)


def group(first: int, *, size: int = 5, **more: Any) -> list[Summary]:
    return [one(number, **more) for number in range(first, first + size)]


def findings(rows: Sequence[comparison.Row]) -> dict[str, str]:
    return {row.measure.name: row.finding for row in rows}


def test_runs_of_one_kind_show_no_difference() -> None:
    found = findings(comparison.compare(group(0), group(5)))
    assert set(found.values()) == {"no difference"}
    assert len(found) == 19


def test_slower_runs_are_worse_and_faster_ones_better() -> None:
    fast, slow = group(0), group(5, latency_ms=12)
    for a, b, expected in ((fast, slow, "worse"), (slow, fast, "better")):
        rows = comparison.compare(a, b)
        found = findings(rows)
        assert {word for name, word in found.items() if name.endswith("ms")} == {expected}
        assert {word for name, word in found.items() if not name.endswith("ms")} == {"no difference"}
    (change,) = (row.change for row in rows if row.measure.name == "burst p50, ms")
    assert change
    assert change.low is not None
    assert change.high is not None
    assert change.low < 10 / 12 < change.high < 1
    assert change.middle == pytest.approx(10 / 12, rel=0.03)


def test_refusals_and_lost_goodput_are_worse() -> None:
    a, b = group(0), [one(number, refused=20 + number) for number in range(5, 10)]
    found = findings(comparison.compare(a, b))
    worse = {name for name, word in found.items() if word == "worse"}
    assert worse == {"burst refused", "burst goodput/s", "time to recover, s"}  # refusals break the SLO too


def test_recovery_is_compared_also_where_it_never_came() -> None:
    quick = [one(n, slow_until=11 + n / 10) for n in range(5)]
    slow = [one(n, slow_until=15 + n / 10) for n in range(5, 10)]
    never = [one(n, slow_until=32) for n in range(10, 15)]
    assert findings(comparison.compare(quick, slow))["time to recover, s"] == "worse"
    assert findings(comparison.compare(quick, never))["time to recover, s"] == "worse"
    assert findings(comparison.compare(never, quick))["time to recover, s"] == "better"
    both = [*never[:3], *slow[:2]]
    assert findings(comparison.compare(never, both))["time to recover, s"] == "can't tell"


def test_with_few_runs_nothing_is_told() -> None:
    a, b = group(0, size=2), group(5, size=5, latency_ms=30)
    rows = comparison.compare(a, b)
    assert set(findings(rows).values()) == {"can't tell"}
    assert all(row.change is not None and row.change.low is None for row in rows)
    text = comparison_report(a, b, rows, [])
    assert "No intervals, so no verdicts" in text
    assert re.search(r"\| burst p50, ms \| .* \| .* \| [23]\.\d\d× \| can't tell \|", text)


def test_what_was_not_measured_everywhere_is_not_told() -> None:
    p = plan()
    requests = answered(p.times)
    requests["status"], requests["error"] = 0, results.CONNECT
    nothing = summaries.summarise(run_of(p, requests), "burst", ENVIRONMENT.model_copy(update={"machine": MACHINE}))
    found = {row.measure.name: row for row in comparison.compare(group(0), [*group(5, size=4), nothing])}
    assert found["burst p50, ms"].finding == "can't tell"
    assert found["burst p50, ms"].change is None


# --- intervals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("freedom", "expected"), [(2, 4.30265), (4, 2.77645), (8, 2.30600), (30, 2.04227)])
def test_welchs_bounds_are_students_where_both_sides_vary_alike(freedom: float, expected: float) -> None:
    """Two groups of equal size and variance: their degrees of freedom are those of both together."""
    each = round(freedom / 2) + 1
    a = np.linspace(0, 1, each)
    low, high = Difference(a, a + 3).welch(0.95)
    half = expected * math.sqrt(2 * a.var(ddof=1) / each)
    assert (low, high) == pytest.approx((3 - half, 3 + half), rel=2e-4)


def test_welchs_bounds_of_a_published_example() -> None:
    """Sleep of two groups of ten, of `t.test(extra ~ group, data = sleep)` in R: t = -1.8608, df = 17.776."""
    one = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    two = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    assert Difference(one, two).welch(0.95) == pytest.approx((-0.2054832, 3.3654832), abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [([2.0] * 3, [5.0] * 4), ([1e6 + 1e-9, 1e6, 1e6], [1e6 + 3] * 3)])
def test_values_that_do_not_vary_have_narrow_bounds(a: list[float], b: list[float]) -> None:
    difference = Difference(np.array(a), np.array(b))
    for low, high in (difference.welch(0.99), difference.bootstrap(np.random.default_rng(1))):
        assert (low, high) == pytest.approx((3, 3), abs=1e-6)


def covered(draw: Callable[[np.random.Generator, int], Any], n: int, m: int, times: int = 400) -> float:
    """How often the interval has the true difference, which is 3."""
    random, hits = np.random.default_rng([n, m]), 0
    for _ in range(times):
        low, high = Difference(draw(random, n), draw(random, m) + 3).bootstrap(random)
        hits += low <= 3 <= high
    return hits / times


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 5), (10, 10), (3, 6)])
def test_intervals_have_the_truth_as_often_as_they_say(n: int, m: int) -> None:
    assert 0.9 <= covered(lambda random, size: random.normal(0, 1, size), n, m) <= 0.99


def test_intervals_find_what_is_there_and_repeat_themselves() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, 8), random.normal(4, 1, 8)
    low, high = Difference(a, b).bootstrap(np.random.default_rng(2))
    assert 0 < low < b.mean() - a.mean() < high
    assert Difference(a, b).bootstrap(np.random.default_rng(2)) == (low, high)
    assert Difference(np.ones(3), np.ones(3)).bootstrap(random) == (0, 0)


@pytest.mark.parametrize("runs", [3, 5, 10])
def test_of_many_measures_without_a_difference_hardly_any_seems_to_have_one(runs: int) -> None:
    """19 independent ones, 100 times: a false word in at most 5 % of comparisons, give or take 3 standard errors."""
    random, level, wrong = np.random.default_rng(runs), bonferroni(19), 0
    nothing = compared.Measure("x", lambda _: None)
    for _ in range(100):
        values = [[list(map(compared.Value, random.normal(0, 1, runs))) for _ in "ab"] for _ in range(19)]
        wrong += any(comparison.row(nothing, a, b, 1, level).finding != "no difference" for a, b in values)
    assert wrong <= 5 + 3 * math.sqrt(5 * 0.95)


def test_words_need_more_than_the_bounds_that_are_shown() -> None:
    random = np.random.default_rng(1)
    a, b = (list(map(compared.Value, random.normal(middle, 1, 8))) for middle in (0, 1.6))
    measure = compared.Measure("x", lambda _: None)
    alone, among = (comparison.row(measure, a, b, 1, bonferroni(count)) for count in (1, 1000))
    assert alone.change
    assert among.change
    assert alone.change[:3] == among.change[:3]
    assert among.change.low is not None
    assert among.change.low > 0
    assert (alone.finding, among.finding) == ("worse", "no difference")


# --- may they be compared? -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scenario": "spikes"}, "scenario: burst and spikes; expected the same in all runs"),
        ({"base_per_s": 200.0}, "requests/s at a factor of 1 (--rate fixes it): 100 and 200"),
        ({"seed": 2}, "seeds: 1 in A and 1, 2 in B; expected the same on both sides"),
        ({"load_digest": "sha256:1"}, "load: the scenario's content or the rows differ, or are not known"),
        ({"kinds": {"json x64": 1}}, "payloads: json x1 and json x64"),
        ({"slo": results.SLO(p95_ms=70, failed_share=0, refused_share=0)}, "SLO: p95_ms 50.0"),
        ({"environment": ENVIRONMENT}, "machine: a processor, 2, Linux 6 and ?, ?, ?"),
        (
            {"verdict": results.Verdict(outcome="Invalid", reasons=["the generator lagged"])},
            "B3 is Invalid: the generator lagged",
        ),
    ],
    ids=["scenario", "rate", "seed", "load", "payloads", "SLO", "machine", "Invalid"],
)
def test_what_differs_is_said(changes: dict[str, Any], said: str) -> None:
    a, b = group(0, size=3), [*group(5, size=2), one(9, **changes)]
    (objection,) = objections(a, b)
    assert objection.startswith(said)


def test_equal_groups_have_no_objections_but_the_same_run_twice_has() -> None:
    assert objections(group(0), group(5)) == []
    assert objections(group(0), group(0)) == ["a run is given twice; expected each once"]
    seeds: list[dict[str, Any]] = [{"seed": seed, "load_digest": f"sha256:{seed}"} for seed in (1, 2, 3)]
    a, b = ([one(first + n, **seeds[n]) for n in range(3)] for first in (0, 5))
    assert objections(a, b) == []


def test_times_to_recover_of_two_rules_are_not_comparable() -> None:
    """Runs from before later breaches counted, and runs since."""
    now = group(0, size=3, slow_until=9.0)
    older = [run.model_copy(update={"recovery": run.recovery.model_copy(update={"broken_again_at": None})})
             for run in group(5, size=3, slow_until=9.0)]  # fmt: skip
    (objection,) = objections(now, older)
    assert objection.startswith("time to recover: some runs are from before later breaks counted")
    assert objections(older[:1], older[1:]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"phases": [*PHASES[:3], PHASES[3] | {"seconds": 11}]},
        {"phases": [*PHASES[:2], PHASES[2] | {"rate": 5}, PHASES[3]]},
        {"payloads": [{"kind": "json", "share": 2}, {"kind": "v2-json"}]},
        {"deadline_ms": 100},
        {"timeout_seconds": 5},
        {"spacing": "poisson"},
    ],
    ids=["length", "rate", "payloads", "deadline", "timeout", "spacing"],
)
def test_the_digest_of_a_load_is_of_all_that_decides_it(changes: dict[str, Any]) -> None:
    usual = plan().scenario.digest(b"rows")
    assert plan(**changes).scenario.digest(b"rows") != usual
    assert plan().scenario.digest(b"other rows") != usual
    assert plan(about="y", rate=50, seed=2).scenario.digest(b"rows") == usual


# --- the command -----------------------------------------------------------------------------------------------------


def save(parent: Path, runs: Sequence[Summary]) -> list[Path]:
    """Each in a directory, and of every second the file itself."""
    found = []
    for number, summary in enumerate(runs):
        directory = parent / str(number)
        directory.mkdir(parents=True)
        results.write_summary(directory / results.SUMMARY, summary)
        found.append(directory / results.SUMMARY if number % 2 else directory)
    return found


def command(home: Path, *arguments: object) -> tuple[int, str, str]:
    done = run(home, "python", "-m", "loadtests.compare", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_it_with_its_exit_code(tmp_path: Path) -> None:
    a, same = save(tmp_path / "a", group(0)), save(tmp_path / "same", group(5))
    slow = save(tmp_path / "slow", group(5, latency_ms=12))
    code, said, _ = command(tmp_path, *a, "--", *same)
    assert (code, said.splitlines()[0]) == (0, "# burst: no difference")
    code, said, _ = command(tmp_path, *a, "--", *slow)
    assert (code, said.splitlines()[0]) == (1, "# burst: 9 worse")
    assert re.search(r"\| burst p95, ms \| .* \| 1\.\d\d× \[1\.\d\d× to 1\.\d\d×\] \| \*\*worse\*\* \|", said)
    assert command(tmp_path, *a, "--", *slow)[1] == said
    code, said, _ = command(tmp_path, *slow, "--", *a)
    assert (code, said.splitlines()[0]) == (0, "# burst: 9 better")
    assert command(tmp_path, *a[:2], "--", *slow)[0] == 2


def test_the_command_refuses_unless_told_otherwise(tmp_path: Path) -> None:
    a, b = save(tmp_path / "a", group(0)), save(tmp_path / "b", group(5, scenario="x|y"))
    code, said, problems = command(tmp_path, *a, "--", *b)
    assert (code, said) == (2, "")
    assert problems == "not comparable: scenario: burst and x|y; expected the same in all runs\n"
    code, said, _ = command(tmp_path, "--anyway", *a, "--", *b)
    assert code == 0
    assert "**Compared although:**\n\n- scenario: burst and x\\|y" in said


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("a",), "expected runs, --, and the runs to compare them with"),
        (("a", "--"), "no runs after --"),
        (("--sead", "1", "a", "--", "b"), "unrecognized arguments: --sead"),
        (("--seed", "x", "a", "--", "b"), "argument --seed: invalid int value"),
        (("/nowhere", "--", "b"), "/nowhere: "),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    code, said, problems = command(tmp_path, *arguments)
    assert (code, said) == (3, "")
    (line,) = problems.splitlines()
    assert line.startswith(f"error: {problem}")
