"""Expositions are read as Prometheus writes them, and a malformed one is a `ValueError` and nothing else."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest

from tools import prometheus

NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True).filter(
    lambda name: not re.search("_(total|created)$", name)
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.floats(allow_nan=False, allow_infinity=False)


@given(NAMES, TEXTS, TEXTS, VALUES)
@example("job:requests:rate5m", 'a "quoted" one', r"back\slash, } and {", 1.5)
@example("x", "line\nbreak", "separators \u2028 \x0c \x85", 2.0)
def test_whatever_prometheus_writes_is_read(name: str, label: str, other: str, value: float) -> None:
    registry = CollectorRegistry()
    Gauge(name, "A gauge.", ["one", "other"], registry=registry).labels(label, other).set(value)
    text = generate_latest(registry).decode()
    assert list(prometheus.series(text, {name})) == [(name, {"one": label, "other": other}, value)]
    assert prometheus.values(text, {name}) == {}


def test_a_counter_keeps_its_name_whatever_its_type_says() -> None:
    registry = CollectorRegistry()
    Counter("requests", "Some.", registry=registry).inc(3)
    text = generate_latest(registry).decode() + "# TYPE plain counter\nplain 4\n"
    assert prometheus.values(text, {"requests_total", "plain"}) == {"requests_total": 3, "plain": 4}


def test_names_that_only_begin_alike_and_values_that_are_no_numbers_are_left_out() -> None:
    text = 'queue 1\nqueue_max 2\nother NaN\nmore +Inf\nwith{a="b"} 3 1700000000\n'
    assert prometheus.values(text, {"queue", "other", "more", "with"}) == {"queue": 1}
    assert list(prometheus.series(text, {"with"})) == [("with", {"a": "b"}, 3.0)]


@given(st.text(st.sampled_from('x{}=",\\ \t#1.eN+_-é'), max_size=20))
@example('{a="')
@example("{a= }")
@example(" " + "9" * 400)
def test_a_malformed_line_is_a_value_error_and_nothing_else(rest: str) -> None:
    with suppress(ValueError):
        list(prometheus.series(f"x{rest}", {"x"}))


@pytest.mark.parametrize("line", ["x", "x fast", 'x{a="b} 1', 'x{a="b"}', "x{a=b} 1", "x " + "9" * 400])
def test_a_line_without_a_value_or_the_end_of_a_label_is_malformed(line: str) -> None:
    with pytest.raises(ValueError, match="malformed exposition: 'x"):
        list(prometheus.series(f"ok 1\n{line}\n", {"x"}))
