"""Measures of runs whose numbers are known, and the verdicts on them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from defects.pages import axes
from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis import measures, recovery
from loadtests.analysis import summary as summaries
from loadtests.analysis.measures import Run
from loadtests.analysis.method import HOLD_SECONDS
from loadtests.report import markdown, tables, tiles
from loadtests.results import CLOSED, NOT_SENT, REQUEST, UNANSWERED, Requests, Verdict
from loadtests.scenario import Plan, Scenario

PHASES = [
    {"name": "warm-up", "seconds": 2, "rate": 1},
    {"name": "baseline", "seconds": 5, "rate": 1},
    {"name": "burst", "seconds": 5, "rate": 4},
    {"name": "recovery", "seconds": 10, "rate": 1},
]
LONG = [*PHASES[:3], PHASES[3] | {"seconds": 20}]  # long enough to recover in
ENVIRONMENT = results.Environment(
    host="http://x", command="locust", started="2026-01-01T00:00:00+00:00", machine={},
    model=results.ServedModel(name="m", version="1", digest="sha256:0", engine="none"),
)  # fmt: skip


def plan(**changes: Any) -> Plan:
    """100 requests a second, evenly spaced, with a fourfold burst from 7 s to 12 s."""
    slo = {"p95_ms": 50, "failed_share": 0.01, "refused_share": 0.02, "recover_seconds": 3}
    given = {"about": "x", "rate": 100, "spacing": "even", "payloads": [{"kind": "json"}], "phases": PHASES, "slo": slo}
    return Plan(Scenario.model_validate(given | changes), base=100, seed=1)


def answered(times: NDArray[np.float64], latency_ms: NDArray[np.float64] | float = 10.0) -> Requests:
    """Requests that were sent in time and answered."""
    requests = np.zeros(len(times), REQUEST)
    requests["intended"] = requests["sent"] = times
    requests["end"] = times + np.asarray(latency_ms) / 1e3
    requests["status"], requests["queue_ms"], requests["score_ms"] = 200, 2, 3
    return requests


def run(plan: Plan, requests: Requests, **more: Any) -> Run:
    given: dict[str, Any] = {"revisions": ["r1"], "seconds": plan.seconds} | more
    return Run(plan=plan, requests=requests, **given)


def judged(seen: Run) -> Verdict:
    return summaries.summarise(seen, "test", ENVIRONMENT).verdict


def refuse(requests: Requests, where: Any) -> None:
    requests["status"][where], requests["retry_after"][where] = 503, True


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_percentiles_are_measured_values_by_nearest_rank(values: list[float]) -> None:
    found = measures.spread(np.array(values))
    ordered = sorted(values)
    for share, value in ((50, found.p50), (95, found.p95), (99, found.p99), (100, found.max)):
        assert value == ordered[-(-share * len(values) // 100) - 1]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200), st.floats(0, 100))
def test_over_says_whether_the_p95_is_over_the_limit(values: list[float], limit: float) -> None:
    p95 = measures.spread(np.array(values)).p95
    assert p95 is not None
    bad = np.array([sum(value > limit for value in values)])
    assert bool(measures.over(bad, np.array([len(values)]))[0]) == (p95 > limit)


def test_a_clean_run_passes_with_every_phase_measured() -> None:
    p = plan()
    summary = summaries.summarise(run(p, answered(p.times)), "test", ENVIRONMENT)
    assert summary.verdict == Verdict(outcome="Passed", reasons=[])
    assert [phase.counts.planned for phase in summary.phases] == [200, 500, 2000, 1000]
    assert [(phase.start, phase.end) for phase in summary.phases] == [(0, 2), (2, 7), (7, 12), (12, 22)]
    burst = summary.phases[2]
    assert (burst.planned_per_s, burst.achieved_per_s, burst.goodput_per_s) == (400, 400, 400)
    assert (burst.queue.p99, burst.score.p99) == (2, 3)
    assert burst.rest.p50 == pytest.approx(5)
    assert summary.revisions == {"r1": 3700}
    assert (summary.recovery.seconds, summary.recovery.breached_at) == (0, None)
    assert sum(bucket.counts.planned for bucket in summary.buckets) == 3700
    assert sum(sum(h.counts) for h in summary.histograms) == 3700


def test_a_generator_that_lags_achieves_less_than_was_planned() -> None:
    """From 8 s on, requests leave at 200/s only, until the backlog is gone at 20 s."""
    p = plan()
    requests = answered(p.times)
    requests["sent"] = np.maximum(p.times, np.where(p.times < 8, 0, 8 + (np.arange(len(p.times)) - 1100) / 200))
    requests["end"] = requests["sent"] + 0.01
    found = summaries.summarise(run(p, requests), "test", ENVIRONMENT)
    assert [phase.achieved_per_s for phase in found.phases[:2]] == [100, 100]
    assert [phase.achieved_per_s for phase in found.phases[2:]] == pytest.approx([240, 180], abs=1)
    assert [bucket.counts.planned for bucket in found.buckets[6:14]] == [100, *[400] * 5, 100, 100]
    assert [bucket.counts.sent for bucket in found.buckets[6:14]] == pytest.approx([100, 400, *[200] * 6], abs=1)


def test_refusals_are_counted_apart_from_failures_and_flatter_no_latency() -> None:
    p = plan()
    requests = answered(p.times, 40.0)
    refuse(requests, slice(700, 800))
    requests["end"][700:800] = requests["sent"][700:800] + 0.001
    requests["status"][800:803] = 503  # without Retry-After
    requests["status"][803:805], requests["error"][803:805] = 0, CLOSED
    burst = measures.phases(run(p, requests))[2]
    assert (burst.counts.answered, burst.counts.refused, burst.counts.failed) == (1895, 100, 5)
    assert burst.errors == {"HTTP 503": 3, "closed": 2}
    assert burst.latency.p50 == pytest.approx(40)
    assert burst.refusal.max == pytest.approx(1)


def test_latency_counts_from_the_intended_time_and_the_never_answered_are_in_it() -> None:
    p = plan()
    requests = answered(p.times)
    requests["sent"][200:700] += 0.03
    requests["end"][200:700] += 0.03
    given_up = p.times[200] + 9  # that is when they end, as `test_loadtests` shows
    requests["status"][200], requests["error"][200], requests["end"][200] = 0, UNANSWERED, given_up
    baseline = measures.phases(run(p, requests))[1]
    assert baseline.latency.p50 == pytest.approx(40)
    assert baseline.delay.p50 == pytest.approx(30)
    assert baseline.latency.max == pytest.approx(9000)
    assert baseline.counts.failed == 1


@pytest.mark.parametrize(("start", "end"), [(7.0, 7.3), (7.0, 9.0), (8.0, 14.0), (11.0, 16.5)])
def test_recovery_is_from_the_bursts_start_until_the_slo_holds_again(start: float, end: float) -> None:
    p = plan(phases=LONG)
    slow = (p.times >= start) & (p.times < end)
    found = recovery.recovery(run(p, answered(p.times, np.where(slow, 90.0, 10.0))))
    assert found.breached_at == pytest.approx(start, abs=0.011)
    assert found.recovered_at == pytest.approx(end, abs=0.11)
    assert found.seconds == pytest.approx(end - 7, abs=0.11)
    assert found.after_burst_seconds == pytest.approx(max(0, end - 12), abs=0.11)


def test_too_few_windows_until_the_end_are_no_recovery() -> None:
    p = plan()
    slow = (p.times >= 8) & (p.times < 20.5)
    found = recovery.recovery(run(p, answered(p.times, np.where(slow, 90.0, 10.0))))
    assert found.breached_at == pytest.approx(8, abs=0.011)
    assert found.recovered_at is None


@pytest.mark.parametrize(("end", "seconds"), [(12.5, 9.5), (16.5, 5.5), (19.5, 2.5)])
def test_less_than_ten_seconds_until_the_end_are_no_recovery(end: float, seconds: float) -> None:
    p = plan()
    slow = (p.times >= 8) & (p.times < end)
    seen = run(p, answered(p.times, np.where(slow, 90.0, 10.0)))
    found = recovery.recovery(seen)
    assert (found.recovered_at, found.seconds, found.broken_again_at) == (None, None, [])
    assert found.held_at_end_seconds == pytest.approx(seconds, abs=0.11)
    said = f"the SLO held again only for the last {found.held_at_end_seconds:.1f} s of the run; expected at least 10 s"
    assert said in judged(seen).reasons
    summary = summaries.summarise(seen, "test", ENVIRONMENT)
    assert f"held again only for the last {axes.figure(found.held_at_end_seconds)} s of it" in tables.recovery(summary)


def frozen(*starts: float, seconds: float = 1.5, recover_seconds: float = 15) -> Run:
    """A burst from 7 to 47 s, in which the server freezes at these times, and 20 s after it."""
    phases = [*PHASES[:2], PHASES[2] | {"seconds": 40}, PHASES[3] | {"seconds": 20}]
    slo = {"p95_ms": 50, "failed_share": 0.01, "refused_share": 0.02, "recover_seconds": recover_seconds}
    p = plan(phases=phases, slo=slo)
    latency = np.full(len(p.times), 10.0)
    for start in starts:
        waits = (p.times >= start) & (p.times < start + seconds)
        latency[waits] += 1e3 * (start + seconds - p.times[waits])
    return run(p, answered(p.times, latency))


@pytest.mark.parametrize(
    ("starts", "again", "recovered"),
    [
        ((9,), [], 10.5),
        ((9, 20, 30), [20, 30], 31.5),
        ((9, 14, 18), [14, 18], 19.5),
        ((9, 10.6, 12.2), [], 13.7),  # less than two seconds between them: one breach
        ((9, 46.9), [46.9], 48.4),
        ((9, 50), [50], 10.5),  # in the next phase
        ((9, 30, 50), [30, 50], 31.5),
        ((9, 50, 60), [50, 60], 10.5),
        ((36, 46, 54), [46, 54], 55.5),  # the SLO must hold for ten seconds, also across the burst's end
    ],
)
def test_the_slo_has_not_recovered_if_it_is_broken_again_in_that_phase(
    starts: tuple[float, ...], again: list[float], recovered: float | None
) -> None:
    found = recovery.recovery(frozen(*starts))
    assert found.breached_at == pytest.approx(starts[0], abs=0.011)
    assert found.broken_again_at == pytest.approx(again, abs=0.011)
    assert found.recovered_at == pytest.approx(recovered, abs=0.11)
    assert found.seconds == pytest.approx((recovered or 0) - 7, abs=0.11)


def test_later_breaches_are_said_and_judged() -> None:
    """Three freezes in a burst: the old rule saw a recovery 3.5 s after the burst's start."""
    summary = summaries.summarise(frozen(9, 20, 30), "test", ENVIRONMENT)
    assert summary.verdict.outcome == "Failed"
    (reason,) = (reason for reason in summary.verdict.reasons if "held again" in reason)
    assert reason == (
        "it took 24.5 s from the burst's start until the SLO held again; expected at most 15 s; "
        "it was broken again 2 times, at 20.0, 30.0 s"
    )
    said = "After it had held, it was broken again 2 times, at 20.0, 30.0 s."
    assert tables.recovery(summary).endswith(said)
    assert said in markdown.report(summary)
    (tile,) = (tile for tile in tiles.tiles(summary) if tile[0] == "time to recover")
    assert (tile[1].text, tile[1].bad, tile[2]) == ("24.5", True, "s; 15 allowed; broken again 2 times")
    assert not any("held again" in reason for reason in judged(frozen(9, 20, 30, recover_seconds=30)).reasons)
    assert any("held again" in reason for reason in judged(frozen(9, 20, 30, recover_seconds=24)).reasons)


def test_a_breach_that_lasts_to_the_end_names_those_before() -> None:
    seen = frozen(9, 20)
    seen.requests["end"][seen.intended >= 46] += 0.2
    (reason,) = (r for r in judged(run(seen.plan, seen.requests)).reasons if "did not hold again" in r)
    assert reason == (
        "the SLO did not hold again before the end of the run; it was broken again 2 times, at 20.0, 46.0 s"
    )


def test_refusals_keep_a_run_from_having_recovered() -> None:
    p = plan()
    requests = answered(p.times)
    refuse(requests, (p.times >= 8) & (np.arange(len(p.times)) % 10 == 0))
    found = recovery.recovery(run(p, requests))
    assert (found.recovered_at, found.seconds) == (None, None)
    assert found.breached_at == pytest.approx(8, abs=0.03)


@pytest.mark.parametrize("name", scenarios.names())
def test_a_scenario_is_long_enough_to_see_whether_the_slo_was_recovered_in_time(name: str) -> None:
    scenario = scenarios.load(name)
    p, allowed = Plan(scenario, base=100, seed=1), scenario.slo.recover_seconds
    assert allowed is None or (p.burst and p.burst.start + allowed + HOLD_SECONDS <= p.seconds)


def test_the_budget_tells_what_each_cause_used() -> None:
    p = plan()
    requests = answered(p.times)
    refuse(requests, slice(1000, 1035))
    requests["status"][2000:2007] = 500
    requests["end"][3000:3175] += 1
    found = {part.cause: part for part in measures.budget(run(p, requests))}
    assert [found[cause].count for cause in ("refused", "failed", "late")] == [35, 7, 175]
    assert found["refused"].spent == pytest.approx(0.5)
    assert found["failed"].spent == pytest.approx(0.2)
    assert found["late"].spent == pytest.approx(1)


def staircase(broken: set[int]) -> Run:
    """A run in which these steps of 100, 200, 400, 800, 1600 requests/s are slow."""
    steps = {"name": "burst", "rate": 1, "steps": {"seconds": 2, "factor": 2, "to": 16}}
    p = plan(phases=[PHASES[0], steps], stop_at_slo=True)
    slow = np.isin((p.times - 2) // 2, list(broken))
    return run(p, answered(p.times, np.where(slow, 90.0, 10.0)))


def test_a_ramp_passes_where_it_ends_itself_and_not_where_somebody_does() -> None:
    whole = staircase({2, 3, 4})
    here = whole.requests["intended"] < 10
    for by_rule, outcome in ((True, "Passed"), (False, "Invalid")):
        seen = run(whole.plan, whole.requests[here], seconds=10, stopped="why", by_rule=by_rule)
        assert capacity_of(seen).limited_by == "server"
        assert judged(seen).outcome == outcome
    assert judged(seen).reasons == ["the run was stopped early: why"]


def test_steps_are_held_to_the_limit_of_their_phase() -> None:
    steps = {"name": "burst", "rate": 1, "p95_ms": 20, "steps": {"seconds": 2, "factor": 2, "to": 16}}
    p = plan(phases=[PHASES[0], steps], stop_at_slo=True)
    seen = run(p, answered(p.times, np.where(p.times >= 6, 30.0, 10.0)))
    found = capacity_of(seen)
    assert (found.per_s, found.limited_by) == (200, "server")
    assert "took more than 20 ms" in found.reason
    assert [limit for _, _, limit in measures.staircase(p)] == [20] * 5
    table = tables.steps(summaries.summarise(seen, "test", ENVIRONMENT))
    assert [row[3].bad for row in table.rows] == [False, False, True, True, True]


def capacity_of(run: Run) -> results.Capacity:
    found = measures.capacity(run)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("broken", "capacity", "limit"),
    [
        ({3, 4}, 400, "server"), (set(), 1600, None), ({1}, 1600, None), ({4}, 800, "server"),
        ({1, 3, 4}, 400, "server"),
    ],
)  # fmt: skip
def test_the_capacity_is_the_step_before_two_that_break(broken: set[int], capacity: int, limit: str | None) -> None:
    found = capacity_of(staircase(broken))
    assert (found.per_s, found.limited_by) == (capacity, limit)
    assert [s.planned_per_s for s in found.steps] == [100, 200, 400, 800, 1600]


def test_no_capacity_where_no_step_holds() -> None:
    seen = staircase({0, 1, 2, 3, 4})
    found = capacity_of(seen)
    assert found.per_s is None
    assert "took more than 50 ms" in found.reason
    assert judged(seen).outcome == "Failed"


def test_a_ramp_passes_unless_the_generator_was_its_limit() -> None:
    assert judged(staircase({3, 4})).outcome == "Passed"
    seen = staircase({3, 4})
    seen.delay[seen.intended >= 8] += 80
    assert capacity_of(seen).limited_by == "generator"
    verdict = judged(seen)
    assert verdict.outcome == "Invalid"
    assert "at 800/s the generator could not keep up" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("happens", "outcome", "reason"),
    [
        (lambda r: r["status"].__setitem__(slice(200, 700), 500), "Failed", "500 requests (100.00%) failed"),
        (lambda r: refuse(r, slice(200, 250)), "Failed", "50 requests (10.00%) were refused"),
        (lambda r: r["end"].__setitem__(slice(200, 250), 20), "Failed", "p95 in the baseline was"),
        (lambda r: r["sent"].__setitem__(slice(200, 250), 7), "Invalid", "requests of the baseline left late"),
    ],
    ids=["failing", "refusing", "slow", "late"],
)
def test_a_ramp_excuses_no_other_phase(happens: Any, outcome: str, reason: str) -> None:
    steps = {"name": "burst", "rate": 1, "steps": {"seconds": 2, "factor": 2, "to": 16}}
    p = plan(phases=[*PHASES[:2], steps], stop_at_slo=True)
    requests = answered(p.times, np.where(p.times >= 11, 90.0, 10.0))
    assert judged(run(p, requests)).outcome == "Passed"
    happens(requests)
    verdict = judged(run(p, requests))
    assert (verdict.outcome, len(verdict.reasons)) == (outcome, 1)
    assert reason in verdict.reasons[0]


def test_a_step_that_only_the_generators_delay_breaks_is_the_generators() -> None:
    seen = staircase(set())
    hit = seen.requests["intended"] >= 8
    seen.requests["sent"][hit] += 0.012
    seen.requests["end"][hit] += 0.045
    found = capacity_of(run(seen.plan, seen.requests))
    assert found.per_s == pytest.approx(400, rel=0.02)
    assert found.limited_by == "generator"
    assert "the generator lagged" in found.reason
    seen.requests["end"][hit] += 0.03
    assert capacity_of(run(seen.plan, seen.requests)).limited_by == "server"


def late(r: Requests) -> None:
    r["sent"][1000:1100] += 0.06
    r["end"][1000:1100] += 0.06


def delayed(r: Requests) -> None:
    r["sent"] += np.where(np.arange(len(r)) % 50 == 0, 0.02, 0)
    r["end"] += np.where(np.arange(len(r)) % 50 == 0, 0.02, 0)


def tipped(r: Requests) -> None:
    """The delay is within its limit, and the server within its own, but not both together."""
    r["sent"][700:2700] += 0.012
    r["end"][700:2700] += 0.045


def unsent(r: Requests) -> None:
    r["sent"][1500], r["end"][1500], r["status"][1500], r["error"][1500] = np.nan, np.nan, 0, NOT_SENT


def slow(r: Requests) -> None:
    r["end"][300:350] += 0.1


def failing(r: Requests) -> None:
    r["status"][1000:1040] = 500


def refusing(r: Requests) -> None:
    refuse(r, slice(1000, 1080))


def stuck(r: Requests) -> None:
    r["end"][800:2400] += 0.1


@pytest.mark.parametrize(
    ("happens", "outcome", "reasons"),
    [
        (late, "Invalid", ["left more than 50 ms late", "requests of the burst left late"]),
        (delayed, "Invalid", ["baseline left late", "burst left late", "recovery left late"]),
        (tipped, "Invalid", ["p95 in the burst was 55.0 ms, but 43.0 ms from when requests left; the limit is 50 ms"]),
        (unsent, "Invalid", ["1 requests could not be sent"]),
        (slow, "Failed", ["p95 in the baseline was 110.0 ms; expected at most 50 ms"]),
        (failing, "Failed", ["40 requests (1.14%) failed; expected at most 1.00%"]),
        (refusing, "Failed", ["80 requests (2.29%) were refused; expected at most 2.00%"]),
        (stuck, "Failed", ["p95 in the burst", "s from the burst's start until the SLO held again"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_verdict_says_why(happens: Any, outcome: str, reasons: list[str]) -> None:
    p = plan()
    requests = answered(p.times)
    happens(requests)
    verdict = judged(run(p, requests))
    assert verdict.outcome == outcome
    assert len(verdict.reasons) == len(reasons)
    assert all(part in said for part, said in zip(reasons, verdict.reasons, strict=True)), verdict


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"missing": ["w2"]}, "worker w2 never reported its part"),
        ({"cpu_share": 0.99}, "the generator used 99% of a core"),
        ({"stopped": "somebody ended it", "seconds": 21.9}, "the run was stopped early: somebody ended it"),
    ],
)
def test_a_run_that_was_not_whole_is_invalid(more: dict[str, Any], reason: str) -> None:
    p = plan()
    verdict = judged(run(p, answered(p.times), **more))
    assert verdict.outcome == "Invalid"
    assert reason in verdict.reasons[0]


def test_requests_that_vanished_make_a_run_invalid() -> None:
    p = plan()
    verdict = judged(run(p, answered(p.times)[: len(p.times) // 2]))
    assert verdict.outcome == "Invalid"
    assert "planned requests of the recovery had their time" in verdict.reasons[-1]


def test_a_run_that_was_stopped_in_its_warm_up_is_summarised_too() -> None:
    p = plan()
    verdict = judged(run(p, answered(p.times)[:50], seconds=0.5, stopped="somebody ended it"))
    assert verdict.reasons == ["the run was stopped early: somebody ended it", "nothing was sent after the warm-up"]
    assert judged(run(p, answered(p.times)[:0], seconds=1e-3, stopped="x")).outcome == "Invalid"


def test_the_summary_is_json_without_nan_and_reads_back(tmp_path: Any) -> None:
    p = plan()
    requests = answered(p.times)
    requests["queue_ms"] = requests["score_ms"] = np.nan
    summary = summaries.summarise(run(p, requests), "test", ENVIRONMENT)
    results.write_summary(tmp_path / results.SUMMARY, summary)
    assert results.read_summary(tmp_path) == summary
    text = (tmp_path / results.SUMMARY).read_text()
    json.loads(text, parse_constant=pytest.fail)
    assert summary.phases[0].queue.p50 is None
