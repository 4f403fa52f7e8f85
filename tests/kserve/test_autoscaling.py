"""What Knative's autoscaler does with these settings: a model of it, checked against recordings of the real one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import knative_autoscaler
from defects.serving.model import MAX_ROWS
from knative_autoscaler import TARGET_UTILIZATION, TICK_SECONDS, Autoscaling, Decision, Second, State, decide
from loadtests import scenario as scenarios
from loadtests.scenario import Plan
from manifests import Document, only, overlay, predictor, render
from scaling_simulation import Replica, Result, Tick, capacity, poisson, simulate

RECORDINGS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in (Path(__file__).parent / "recordings").glob("*.json")
}
KNATIVE = "autoscaling.knative.dev/"
NEW = State()
ROWS, HOLDS, SLO = 256, 45.0, 0.1  # the recordings' requests, what one replica holds of them in a second, at which p95
CALM, BURST = 22.5, 113.0  # their rates
# One replica, by the recordings: alone, a request is in queue-proxy for 5.7 ms (0.65 in flight at 113/s), 3.7 of them
# being scored. With others behind it, 75 are answered in a second. A new replica is ready 2.9 s after the decision.
REPLICA = Replica(alone=0.0037, contended=1 / 75, around=0.002, deadline=1.0, start=2.9)


def with_rows(rows: int) -> Replica:
    """Return the same replica for requests with so many rows; the work grows with them."""
    share = rows / ROWS
    return REPLICA._replace(alone=REPLICA.alone * share, contended=REPLICA.contended * share)


def burst(settings: Autoscaling, replica: Replica = REPLICA, share: float = 1.0, seconds: float = 240.0) -> Result:
    """Simulate the recordings' burst, for longer; `share` of their rates."""
    phases = (40.0, CALM * share), (seconds, BURST * share), (150.0, CALM * share)
    return simulate(poisson(1, *phases), settings, replica, sum(length for length, _ in phases))


# --- the model against the recordings --------------------------------------------------------------------------------


class Recorded:
    """One recording, by second."""

    def __init__(self, name: str):
        content = RECORDINGS[name]
        rows = [dict(zip(content["columns"], row, strict=True)) for row in content["seconds"]]
        self.settings = Autoscaling(**content["settings"])
        self.seconds = [Second(row["in_flight"], row["arrived"]) for row in rows]
        self.ready, self.desired = [[row[key] for row in rows] for key in ("ready", "desired")]
        self.p95 = [row["p95_ms"] for row in rows]
        self.said: list[list[Any]] = content["autoscaler"]
        self.burst = next((int(start), int(end)) for name, start, end in content["phases"] if name == "burst")

    def replayed(self, since: int, panic_at: float | None = None) -> list[Tick]:
        """Return what the model decides at each tick from `since` on, with the recorded requests and replicas."""
        found, state = list[Tick](), State(panic_at, self.ready[since] if panic_at is not None else 0)
        for at in range(since, len(self.seconds), TICK_SECONDS):
            decision = decide(self.settings, state, self.seconds[: at - 1], self.ready[at - 1], at)
            state = decision.state
            found.append(Tick(at, self.ready[at - 1], decision))
        return found


def falls(numbers: list[tuple[float, int]]) -> list[float]:
    """Return when numbers of replicas fell to one, after there had been four."""
    found, before = [], 0
    for at, number in numbers:
        if number == 1 and before == 4:
            found.append(at)
        before = number if number in (1, 4) else before
    return found


@pytest.mark.parametrize(("name", "since", "panic_at"), [("kpa-scale-up", 20, None), ("kpa-scale-from-zero", 30, 8.0)])
def test_the_model_decides_as_the_real_autoscaler_did(name: str, since: int, panic_at: float | None) -> None:
    recorded = Recorded(name)
    ticks = recorded.replayed(since, panic_at)
    start, end = recorded.burst
    ours = [(tick.at, tick.decision.desired) for tick in ticks if start + 10 < tick.at < end]
    theirs = [(float(at), recorded.desired[at]) for at in range(start + 10, end)]
    assert len(falls(ours)) == len(falls(theirs)) == 1
    assert falls(ours)[0] == pytest.approx(falls(theirs)[0], abs=10)
    for numbers in (ours, theirs):  # and again four soon after
        (fell,) = falls(numbers)
        assert 0 < next(at for at, number in numbers if at > fell and number == 4) - fell < 20


def test_the_model_averages_as_the_real_autoscaler_does() -> None:
    """Its own stable and panic values are in one of the recordings; the caller's view of in flight is a bit higher."""
    recorded = Recorded("kpa-scale-from-zero")
    ticks = {tick.at: tick.decision for tick in recorded.replayed(62, 8.0)}
    compared = [(stable, panic, ticks[round(at)]) for at, stable, panic, _ in recorded.said if round(at) in ticks]
    assert len(compared) > 30
    for stable, panic, ours in compared:
        assert ours.stable == pytest.approx(stable, rel=0.6, abs=2.5)
        if stable > 4 and panic < 1:  # after the queue, which the stable window remembers
            assert ours.panicking
            assert ours.panic < 2.5


@pytest.mark.parametrize("scale_target", [12.0, 1.0])
def test_on_concurrency_the_replicas_go_in_the_middle_of_a_burst_and_it_overloads_again(scale_target: float) -> None:
    """As recorded: four replicas, back to one about 60 s after the last panic, and overloaded again within seconds."""
    settings = Autoscaling("concurrency", scale_target)
    result = burst(settings)
    assert max(result.ready_between(40, 70)) == 4
    fell = [at for at in falls([(tick.at, tick.ready) for tick in result.ticks]) if at < 280]
    assert len(fell) >= 2
    assert 100 < fell[0] < 130  # recorded: 111
    for one, other in pairwise(fell):
        assert 55 < other - one < 110
    assert result.p95_between(fell[0], fell[0] + 6) > 3 * SLO  # recorded: 0.7 s
    assert result.first(lambda tick: tick.ready == 4, fell[0]) - fell[0] < 20  # recorded: 9 s


def test_a_delay_only_puts_off_what_concurrency_does() -> None:
    result = burst(Autoscaling("concurrency", 12.0, scale_down_delay=60))
    assert [at for at in falls([(tick.at, tick.ready) for tick in result.ticks]) if at < 280]


def test_the_modelled_replica_holds_what_the_recorded_one_did() -> None:
    """At 45/s its p95 is within the SLO, as the ramp found; beyond, it answers as many as the recorded one did."""
    assert capacity(REPLICA, SLO, [HOLDS]) == HOLDS
    assert capacity(REPLICA, SLO, [BURST]) == 0
    alone = Autoscaling("rps", HOLDS, max_replicas=1)
    answered = (1 - simulate(poisson(1, (60, BURST)), alone, REPLICA, 60).refused_between(10, 60)) * BURST
    (low, high) = (55, 98)  # answers in a second of a single, overloaded replica, in both recordings
    assert low < answered < high
    four = simulate(poisson(1, (60, BURST)), Autoscaling("concurrency", 12.0, min_replicas=4), REPLICA, 60)
    assert 0.5 < four.ticks[-1].decision.stable < 1.1  # recorded: 0.57 to 0.8


# --- the rate --------------------------------------------------------------------------------------------------------


def test_the_rate_with_the_measured_capacity_holds_all_replicas_for_the_whole_burst() -> None:
    """As it was on the cluster: `scaleMetric: rps` with `scaleTarget: 45` held 4 replicas."""
    result = burst(Autoscaling("rps", HOLDS))
    assert result.first(lambda tick: tick.ready == 4, 40) < 60
    assert set(result.ready_between(60, 280)) == {4}
    assert result.p95_between(60, 280) < SLO
    assert result.refused_between(60, 280) == 0
    assert result.ticks[-1].ready == 1, "and goes down again"


def settings_of(documents: list[Document]) -> Autoscaling:
    """Return what a rendered InferenceService tells KPA."""
    spec, notes = predictor(documents), only(documents, "InferenceService")["metadata"]["annotations"]
    delay = notes.get(f"{KNATIVE}scale-down-delay", "0s")
    assert delay.endswith("s")
    assert delay[:-1].isdigit()
    return Autoscaling(
        metric=spec["scaleMetric"],
        scale_target=spec["scaleTarget"],
        min_replicas=spec["minReplicas"],
        max_replicas=spec["maxReplicas"],
        panic_threshold=float(notes.get(f"{KNATIVE}panic-threshold-percentage", 200)) / 100,
        scale_down_delay=int(delay[:-1]),
    )


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Autoscaling:
    return settings_of(render(overlay(tmp_path_factory.mktemp("rate"), "knative", "autoscale-rate")))


def test_knative_takes_the_components_annotations(component: Autoscaling) -> None:
    """Within the bounds of pkg/apis/autoscaling/annotation_validation.go; one out of them refuses the revision."""
    assert 110 <= 100 * component.panic_threshold <= 1000
    assert 0 <= component.scale_down_delay <= 3600


def held(result: Result, start: float, end: float) -> bool:
    """Return whether the replicas that a burst had stayed, and answered everything within the SLO."""
    ready = result.ready_between(start, end)
    return min(ready) == max(ready) and result.refused_between(start, end) == 0 and result.p95_between(start, end) < SLO


@pytest.mark.parametrize("target", [HOLDS, None], ids=["the ramp's", "the component's own"])
def test_what_the_component_says_holds_through_a_burst(component: Autoscaling, target: float | None) -> None:
    settings = component if target is None else component._replace(scale_target=target)
    assert held(burst(settings), 60, 280)
    concurrency = burst(settings._replace(metric="concurrency", scale_target=12.0))
    assert not held(concurrency, 60, 280), "this test would notice"


@pytest.mark.parametrize("name", ["staging", "production"])
def test_every_overlay_in_knative_mode_scales_on_the_rate(name: str, component: Autoscaling) -> None:
    settings = settings_of(render(f"overlays/{name}"))
    assert (settings.metric, settings.scale_target) == ("rps", component.scale_target)


@pytest.mark.parametrize("rows", [128, 256, 512, MAX_ROWS])
def test_the_default_is_safe_however_large_requests_are(component: Autoscaling, rows: int) -> None:
    """It is what one replica holds of the largest requests, so it never makes too few replicas, only too many."""
    share = ROWS / rows
    result = burst(component, with_rows(rows), share, seconds=120)
    assert set(result.ready_between(60, 160)) == {component.max_replicas}
    assert result.refused_between(60, 160) == 0
    assert result.p95_between(60, 160) < SLO


def test_the_default_is_what_one_replica_holds_of_the_largest_requests(component: Autoscaling) -> None:
    assert component.scale_target == int(HOLDS * ROWS / MAX_ROWS)


def test_with_requests_of_one_row_the_default_makes_too_many_replicas_but_no_more_than_allowed(
    component: Autoscaling,
) -> None:
    """200/s would be a part of what one replica answers of them (docs/performance.md: 13,000/s on one core)."""
    result = simulate(poisson(1, (60, 200)), component, with_rows(1), 60)
    assert set(result.ready_between(20, 60)) == {component.max_replicas}


def test_a_capacity_for_smaller_requests_is_not_safe_for_the_largest() -> None:
    """What README says of mixed sizes: the autoscaler sees no need for more, and the replicas are overloaded."""
    result = burst(Autoscaling("rps", HOLDS), with_rows(MAX_ROWS), ROWS / MAX_ROWS)
    assert max(result.ready_between(60, 280)) < 3, "what the burst needs"
    assert result.refused_between(60, 280) > 0.1


# --- the help beside it ----------------------------------------------------------------------------------------------


def test_the_panic_threshold_makes_many_replicas_follow_soon(component: Autoscaling) -> None:
    """Ten replicas, and suddenly twice their rate."""

    def seconds_until_enough(threshold: float) -> float:
        settings = component._replace(scale_target=HOLDS, min_replicas=10, max_replicas=30, panic_threshold=threshold)
        result = simulate(poisson(1, (60, 300), (40, 600)), settings, REPLICA, 100)
        assert set(result.ready_between(0, 60)) == {10}
        return result.first(lambda tick: tick.ready * HOLDS >= 600, 60) - 60

    assert component.panic_threshold >= 1 / TARGET_UTILIZATION, "no panic while the replicas hold what comes"
    assert seconds_until_enough(component.panic_threshold) <= 12
    assert seconds_until_enough(2.0) >= 20


def test_the_delay_keeps_replicas_from_coming_and_going_at_a_steady_rate(component: Autoscaling) -> None:
    """63/s is just at the edge between two replicas and three."""

    def changes(delay: int) -> int:
        settings = component._replace(scale_target=HOLDS, scale_down_delay=delay)
        ready = [tick.ready for tick in simulate(poisson(2, (900, 63)), settings, REPLICA, 900).ticks]
        return sum(one != other for one, other in pairwise(ready))

    assert changes(0) > 3 * changes(component.scale_down_delay)


def test_scale_down_gives_the_component_half_as_much_time_again_as_it_takes(component: Autoscaling) -> None:
    """The limit is for a service with the target that a ramp found, and the rates for what one replica holds."""
    plan, settings = Plan(scenarios.load("scale-down"), HOLDS, 1), component._replace(scale_target=HOLDS)
    assert plan.burst is not None
    end, limit = plan.burst.end, plan.scenario.slo.down_seconds
    result = simulate(plan.times, settings, REPLICA, plan.seconds)
    assert set(result.ready_between(end - 10, end)) == {4}
    assert limit is not None
    assert end + limit <= plan.seconds
    assert 1.5 * (result.first(lambda tick: tick.ready == 1, end) - end) <= limit


# --- the model's own rules -------------------------------------------------------------------------------------------


def test_the_target_is_70_percent_of_either_metric() -> None:
    assert Autoscaling("rps", 45).target == pytest.approx(31.5)
    assert Autoscaling("concurrency", 12).target == pytest.approx(8.4)
    assert Autoscaling("rps", 0.001).target == knative_autoscaler.MIN_TARGET


def one_tick(
    settings: Autoscaling, rates: Sequence[float], ready: int, state: State = NEW, at: float = 100
) -> Decision:
    return decide(settings, state, [Second(arrived=int(rate)) for rate in rates], ready, at)


def test_one_tick() -> None:
    settings = Autoscaling("rps", 100, max_replicas=100)
    calm = one_tick(settings, [60] * 60, ready=1)
    assert (calm.desired, calm.panicking) == (1, False)
    assert one_tick(settings, [60], ready=1).stable == 60, "a window that is not full has the seconds so far"
    assert one_tick(settings, [0] * 60, ready=8).desired == 4, "down by half at most"
    panicking = one_tick(settings, [60] * 54 + [140] * 6, ready=1)
    assert (panicking.desired, panicking.panicking) == (2, True)
    later = one_tick(settings, [0] * 60, 2, panicking.state, at=160)
    assert (later.desired, later.panicking) == (2, True), "never down while panicking"
    assert not one_tick(settings, [0] * 60, 2, panicking.state, at=161).panicking
    delayed = settings._replace(scale_down_delay=30)
    before = one_tick(delayed, [140] * 60, ready=2).state
    assert one_tick(delayed, [60] * 60, 2, before, at=128).desired == 2
    assert one_tick(delayed, [60] * 60, 2, before, at=130).desired == 1
    assert one_tick(settings, [0] * 60, ready=1).desired == settings.min_replicas
    assert one_tick(settings._replace(max_replicas=3), [900] * 60, ready=1).desired == 3
