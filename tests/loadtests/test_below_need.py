"""How often fewer replicas were ready than needed again: measured, judged, shown and compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from recorded import cluster_of, replayed
from test_report import Page

from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis.measures import Watched
from loadtests.analysis.summary import summarise
from loadtests.cluster import observations
from loadtests.compare import comparison
from loadtests.report import charts, markdown
from loadtests.report import page as report
from loadtests.report.tiles import tiles
from loadtests.results import BelowNeed, Summary
from loadtests.scenario import Scenario
from test_measures import ENVIRONMENT, PHASES, answered, plan, run

SLO = {"p95_ms": 50, "below_need_seconds": 1}
UNTIL = 30.0
# The planned rate needs one replica, four from 7 s to 12 s, and one until 22 s.


def ready(at: float, count: int) -> observations.ReplicaCount:
    return observations.ReplicaCount(at=at, kind="Deployment", name="d", desired=count, ready=count)


BLIND = observations.Unseen(at=-5, text="pods: not allowed to list and watch them (HTTP 403)", resource="pods")


def measured(changes: Sequence[tuple[float, int]], until: float = UNTIL, **changed: Any) -> Summary:
    """A run in which so many replicas were ready from these times on."""
    given: dict[str, Any] = {"rate": "replica", "cluster": {}, "slo": SLO}
    p = plan(**(given | changed))
    watched = Watched("parcels", [BLIND, *(ready(at, count) for at, count in changes)], until)
    return summarise(run(p, answered(p.times), watched=watched), "test", ENVIRONMENT)


def below(summary: Summary) -> BelowNeed:
    found = cluster_of(summary).below_need
    assert found is not None
    return found


def spans(summary: Summary) -> list[tuple[str, float, float]]:
    return [(fall.phase, fall.from_at, fall.to_at) for fall in below(summary).falls]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(-5, 4)], []),
        ([(-5, 1), (9, 4)], []),
        ([(-5, 1), (9, 3), (9.5, 2), (10, 4)], []),
        ([(-5, 1), (8, 4), (9, 3), (10, 4)], [("burst", 9, 10)]),
        ([(-5, 4), (9, 3), (9.5, 1), (10, 3), (10.5, 5)], [("burst", 9, 10.5)]),
        ([(-5, 4), (8, 1), (9, 4), (10, 0), (11.5, 4)], [("burst", 8, 9), ("burst", 10, 11.5)]),
        ([(-5, 4), (10, 2)], [("burst", 10, 12)]),
        ([(-5, 1), (5, 0), (8, 1), (9, 4)], [("baseline", 5, 8)]),
        ([(-5, 1), (1, 0), (3, 1)], []),
        ([(-5, 4), (10, 0), (15, 1)], [("burst", 10, 15)]),
        ([(-5, 1), (14, 0)], [("recovery", 14, 22)]),
        ([(3, 1), (4, 0), (5, 1)], [("baseline", 4, 5)]),
    ],
    ids=["always enough", "late", "late, and fewer before", "once", "in steps", "twice", "until the load fell",
         "below what was reached before a rise", "in the warm-up", "over a phase's end", "to the end", "from none"],
)  # fmt: skip
def test_a_fall_begins_after_enough_were_ready_and_ends_with_enough(changes: Any, expected: Any) -> None:
    found = measured(changes)
    assert spans(found) == expected
    assert below(found).times == len(expected)
    assert below(found).seconds == pytest.approx(sum(end - start for _, start, end in expected))


def test_replicas_of_a_fall_are_the_fewest_and_the_need_the_most() -> None:
    (fall,) = below(measured([(-5, 4), (8, 3), (9, 1), (10, 2), (11, 4)])).falls
    assert (fall.ready, fall.needed, fall.seconds) == (1, 4, 3)


def test_a_rate_that_rises_has_to_be_reached_and_spikes_are_no_falls() -> None:
    rising = [PHASES[0], {"name": "burst", "seconds": 10, "rate": 1, "to": 3}]
    assert spans(measured([(-5, 1), (7, 3)], phases=rising)) == []
    assert spans(measured([(-5, 3), (6.5, 1), (8, 2), (9, 3)], phases=rising)) == [("burst", 6.5, 8)]
    spikes = {"every_seconds": 2, "seconds": 0.5, "rate": 4}
    assert spans(measured([(-5, 1)], phases=[PHASES[0], {**PHASES[2], "rate": 1, "spikes": spikes}])) == []


def test_only_what_the_watch_and_the_run_had_counts() -> None:
    changes = [(-5, 4), (10, 1)]
    assert spans(measured(changes, until=11.0)) == [("burst", 10, 11)]
    assert spans(measured(changes, until=9.0)) == []
    p = plan(rate="replica", cluster={}, slo=SLO)
    requests = answered(p.times[p.times < 10.5])
    watched = Watched("parcels", [BLIND, *(ready(at, count) for at, count in changes)], 12.0)
    stopped = summarise(run(p, requests, watched=watched, seconds=10.5, stopped="x"), "test", ENVIRONMENT)
    assert spans(stopped) == [("burst", 10, 10.5)]


def test_where_need_or_replicas_are_not_known_it_is_not_measured() -> None:
    slo = {"p95_ms": 50}
    assert cluster_of(measured([(-5, 4)], rate=100, slo=slo)).below_need is None
    unseen = measured([])
    assert cluster_of(unseen).below_need is None
    assert unseen.verdict.outcome == "Passed"
    assert [name for name, *_ in tiles(unseen) if name == "below need again"] == []


@pytest.mark.parametrize(
    ("limit", "outcome"), [(None, "Passed"), (0, "Failed"), (0.99, "Failed"), (1.01, "Passed"), (60, "Passed")]
)
def test_the_verdict_counts_all_falls_together(limit: float | None, outcome: str) -> None:
    slo = SLO | {"below_need_seconds": limit}
    found = measured([(-5, 4), (9, 1), (9.5, 4), (10, 1), (10.5, 4)], slo=slo)
    assert found.verdict.outcome == outcome
    assert below(found).met == (None if limit is None else outcome == "Passed")
    if outcome == "Failed":
        (reason,) = found.verdict.reasons
        assert "2 times, at 9.0, 10.0 s, for 1.0 s in all; expected at most" in reason


def test_without_a_fall_nothing_is_allowed_and_it_passes() -> None:
    assert measured([(-5, 4)], slo=SLO | {"below_need_seconds": 0}).verdict.outcome == "Passed"


@pytest.mark.parametrize("changes", [{"cluster": None}, {"rate": 100}])
def test_a_limit_needs_a_cluster_and_rates_in_replicas(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"slo\.below_need_seconds: the need is not known; expected rate: replica"):
        plan(**({"rate": "replica", "cluster": {}, "slo": SLO} | changes))


def test_every_scenario_for_a_cluster_has_a_limit_and_no_other_has() -> None:
    for name in scenarios.names():
        loaded: Scenario = scenarios.load(name)
        assert (loaded.slo.below_need_seconds is not None) == (loaded.cluster is not None), name


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_the_second_break_of_the_recorded_run_stands_on_the_page_and_in_the_summary() -> None:
    found = replayed("kpa-scale-up")
    text = report.page(found)
    page = Page(text)
    assert page.tables["falls"][1] == ["burst", "109", "118", "9.19", "1", "3"]
    said = "there were fewer again 1 time, for 9.19 s in all (2 s are allowed)."
    assert said in "".join(page.texts)
    assert said in markdown.report(found)
    assert "| burst |" in markdown.report(found).partition("Fell below need again")[2]
    (tile,) = (tile for tile in tiles(found) if tile[0] == "below need again")
    assert (tile[1].text, tile[1].bad, tile[2]) == ("9.19", True, "s, 1 time; 2 allowed")
    (moment,) = (moment for moment in charts.moments(found) if moment.label == "below need again")
    assert moment.at == pytest.approx(109.2, abs=0.1)


def test_a_run_without_a_fall_says_so() -> None:
    found = measured([(-5, 4)])
    assert "falls" not in Page(report.page(found)).tables
    assert "there were never fewer again" in report.page(found)
    (tile,) = (tile for tile in tiles(found) if tile[0] == "below need again")
    assert (tile[1].text, tile[1].bad, tile[2]) == ("0", False, "s; 1 allowed")


def test_summaries_from_before_are_read_and_do_not_say_that_it_never_fell() -> None:
    older = measured([(-5, 4)]).model_dump(mode="json")
    del older["cluster"]["below_need"]
    del older["slo"]["below_need_seconds"]
    found = Summary.model_validate(older)
    assert cluster_of(found).below_need is None
    assert "fewer again" not in report.page(found)
    assert "fell below need" not in markdown.report(found)


# --- runs are compared by it -----------------------------------------------------------------------------------------


def seeded(found: Summary, seed: int) -> Summary:
    return found.model_copy(update={"seed": seed})


def test_runs_that_fall_below_need_are_worse() -> None:
    steady = [seeded(measured([(-5, 4)]), seed) for seed in range(4)]
    falling = [seeded(measured([(-5, 4), (8, 1), (9 + seed / 100, 4), (10, 1), (11, 4)]), seed) for seed in range(4)]
    rows = {row.measure.name: row for row in comparison.compare(steady, falling)}
    for name in ("fell below need again, times", "below need again, s"):
        assert rows[name].finding == "worse", name
    assert [value.value for value in rows["fell below need again, times"].b] == [2, 2, 2, 2]
    assert np.mean([value.value for value in rows["below need again, s"].b]) == pytest.approx(2.015)
    back = {row.measure.name: row.finding for row in comparison.compare(falling, steady)}
    assert back["below need again, s"] == "better"


def test_runs_from_before_have_no_such_measure() -> None:
    now = measured([(-5, 4)])
    older = now.model_copy(update={"cluster": cluster_of(now).model_copy(update={"below_need": None})})
    rows = {row.measure.name: row for row in comparison.compare([older] * 3, [now] * 3)}
    assert rows["below need again, s"].finding == "can't tell"
    assert "fell below need again, times" not in {row.measure.name for row in comparison.compare([older], [older])}


def test_the_records_are_in_the_schema() -> None:
    schema = results.Summary.model_json_schema()
    assert {"BelowNeed", "Fall"} <= schema["$defs"].keys()
