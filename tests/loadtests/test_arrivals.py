"""The schedule is what the profile says, for every profile."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from loadtests import arrivals
from loadtests.arrivals import Segment, Spacing

RATES = st.floats(0.5, 500)
SEGMENTS = st.builds(Segment, st.floats(0.1, 20), RATES, RATES)
PROFILES = st.lists(SEGMENTS, min_size=1, max_size=5)
SPACINGS: st.SearchStrategy[Spacing] = st.sampled_from(["poisson", "even"])
SEEDS = st.integers(0, 2**31 - 1)


def reached(profile: list[Segment], time: float) -> float:
    """How many arrivals are expected before `time`: the area under the rate."""
    total = 0.0
    for segment in profile:
        x = min(segment.seconds, max(0.0, time))
        total += segment.first * x + (segment.last - segment.first) * x * x / (2 * segment.seconds)
        time -= segment.seconds
    return total


@given(PROFILES, SPACINGS, SEEDS)
def test_times_ascend_within_the_profile_and_come_from_the_seed(
    profile: list[Segment], spacing: Spacing, seed: int
) -> None:
    times = arrivals.schedule(profile, spacing, seed)
    assert (np.diff(times) >= 0).all()
    assert len(times) == 0 or (times[0] >= 0 and times[-1] <= sum(s.seconds for s in profile) + 1e-9)
    np.testing.assert_array_equal(times, arrivals.schedule(profile, spacing, seed))


@given(PROFILES)
def test_even_arrivals_are_where_the_expected_number_is_whole(profile: list[Segment]) -> None:
    times = arrivals.schedule(profile, "even", 0)
    assert len(times) == math.ceil(sum(s.expected for s in profile))
    np.testing.assert_allclose([reached(profile, t) for t in times.tolist()], np.arange(len(times)), atol=1e-6)


@given(PROFILES, st.data())
def test_inversion_is_exact(profile: list[Segment], data: st.DataObject) -> None:
    whole = sum(s.expected for s in profile)
    levels = np.sort(np.array(data.draw(st.lists(st.floats(0, whole, exclude_max=True), max_size=20))))
    times = arrivals.times_at(profile, levels)
    np.testing.assert_allclose([reached(profile, t) for t in times.tolist()], levels, atol=1e-6)


@given(PROFILES, SPACINGS, SEEDS, st.integers(1, 9))
def test_the_workers_parts_are_the_schedule(profile: list[Segment], spacing: Spacing, seed: int, workers: int) -> None:
    times = arrivals.schedule(profile, spacing, seed)
    parts = [times[arrivals.part(i, workers)] for i in range(workers)]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), times)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_poisson_arrivals_are_poisson() -> None:
    """Counts of each second of many schedules have the rate as mean and as variance; other seeds, other times."""
    profile = [Segment(2.0, 40.0, 40.0), Segment(4.0, 40.0, 120.0), Segment(1.0, 10.0, 10.0)]
    schedules = [arrivals.schedule(profile, "poisson", seed) for seed in range(2_000)]
    counts = np.array([np.histogram(times, np.arange(8.0))[0] for times in schedules])
    expected = np.array([40, 40, 50, 70, 90, 110, 10])
    np.testing.assert_allclose(counts.mean(0), expected, atol=5 * math.sqrt(110 / 2_000))
    np.testing.assert_allclose(counts.var(0) / expected, 1, atol=0.2)
    assert abs(np.corrcoef(counts[:, 4], counts[:, 5])[0, 1]) < 0.1


def test_a_phase_without_a_rate_change_is_evenly_spaced() -> None:
    times = arrivals.schedule([Segment(1.0, 10.0, 10.0), Segment(1.0, 100.0, 100.0)], "even", 0)
    np.testing.assert_allclose(times[:11], np.arange(11) / 10)
    np.testing.assert_allclose(times[10:], 1 + np.arange(100) / 100)


def test_steps_multiply_up_to_the_last() -> None:
    assert arrivals.steps(10, 80, 2, 3) == [Segment(3, rate, rate) for rate in (10, 20, 40, 80)]
    assert [s.first for s in arrivals.steps(10, 79, 2, 3)] == [10, 20, 40]


def test_spikes_start_each_interval_and_end_with_the_phase() -> None:
    found = arrivals.spikes(5.2, 10, 100, every=2, wide=0.5)
    assert sum(s.seconds for s in found) == 5.2
    assert [(round(s.seconds, 6), s.first) for s in found] == [
        (0.5, 100), (1.5, 10), (0.5, 100), (1.5, 10), (0.5, 100), (0.7, 10),
    ]  # fmt: skip
