"""The benchmarks run, say what they measured, and measure what they say. How fast anything is, is not tested."""

from __future__ import annotations

import json
import statistics
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as bench
from benchmarks import cpu_profile, workloads, wrk
from benchmarks import report as bench_report
from conftest import CI, run
from tools.raw_http import RawResponse

SUBJECTS = {"ours", "validation-only", "fastapi", "hello", "in-process"}


def need_wrk() -> None:
    """Skip where it is missing, but not in continuous integration."""
    try:
        wrk.executable()
    except SystemExit as error:
        (pytest.fail if CI else pytest.skip)(str(error))


def corrected(histogram: dict[int, int], interval: int) -> dict[int, int]:
    """As stats_correct of wrk 4.1.0 does it."""
    data = Counter(histogram)
    for n in range(2 * interval, max(histogram) + 1):
        count, m = data[n], n - interval
        while count and m > interval:
            data[m] += count
            m -= interval
    return {value: count for value, count in data.items() if count}


@given(st.dictionaries(st.integers(1, 500), st.integers(1, 5), min_size=1), st.integers(1, 600))
def test_wrks_correction_is_undone(histogram: dict[int, int], interval: int) -> None:
    assert wrk.uncorrected(corrected(histogram, interval), interval) == histogram


def test_a_pause_is_counted_once() -> None:
    """100 requests on one connection in 1.1 s, one of them with a pause: wrk makes ten of that one."""
    measured = {9_000: 99, 110_000: 1}
    shown = corrected(measured, 11_000)
    assert sum(shown.values()) > 105
    line = {"requests": 100, "duration_us": 1_100_000, "status": 2, "socket": 0, "timeout": 0}
    result = wrk.result({**line, "latency_us": list(shown.items())}, connections=1)
    assert (result.latencies, result.errors, result.requests) == (measured, 2, 100)
    assert (result.latency(0.5), result.latency(0.99), result.latency(1.0)) == (9, 9, 110)
    with pytest.raises(RuntimeError, match="expected 100"):
        wrk.result({**line, "latency_us": [[9_000, 99]]}, connections=1)


def test_a_histogram_that_wrk_did_not_correct_is_refused() -> None:
    with pytest.raises(ValueError, match="not a histogram"):
        wrk.uncorrected({15: 1, 25: 2}, 10)


def test_without_wrk_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SystemExit, match="not installed: run"):
        wrk.executable()


def test_bodies_vary_and_wrong_answers_are_noticed() -> None:
    known = workloads.workloads(seed=1)
    different = {name: (workload.rows, len(set(workload.requests))) for name, workload in known.items()}
    assert different.pop("GET") == (0, 1)
    assert set(different.values()) == {(1, workloads.SINGLES), (workloads.BATCH, workloads.BATCHES)}
    workload = known["classify"]
    expected = np.array([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]])
    names = ("ok", "crushed", "punctured", "wet", "open_flap", "label_damaged")
    body = json.dumps({"probabilities": dict(zip(names, expected[0].tolist(), strict=True))}).encode()
    assert workload.problem(RawResponse(200, {}, body), expected) is None
    assert "other probabilities" in str(workload.problem(RawResponse(200, {}, body), 1 - expected))
    assert "can't be read" in str(workload.problem(RawResponse(200, {}, b"[]"), expected))
    assert "answered 503" in str(workload.problem(RawResponse(503, {}, body), expected))


@pytest.fixture(scope="module")
def report(model_dir: Path, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output of one quick round without the single connections."""
    need_wrk()
    output = tmp_path_factory.mktemp("bench")
    done = run(
        output, "python", "-m", "benchmarks", "--quick", "--rounds", 1, "--connections", 64, "--only", *SUBJECTS,
        "--model-dir", model_dir, "--pipeline", fitted, "--output", output,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output, done.stdout


def test_every_cell_is_measured(report: tuple[Path, str]) -> None:
    raw = json.loads((report[0] / "bench.json").read_text())
    assert {row["subject"] for row in raw["cells"]} == SUBJECTS
    for row in raw["cells"]:
        assert row["problem"] is None
        (measured,) = row["rounds"]
        assert measured["errors"] == 0
        assert measured["requests"] > 0
        if row["subject"] != "in-process":
            assert 0 < measured["p50_ms"] <= measured["p99_ms"] <= measured["max_ms"]
            assert measured["cpu_us"] > 0
            assert measured["rss_mb"] > 10
    assert {"cpu", "kernel", "bentoml", "wrk"} <= raw["machine"].keys()
    assert {target["ours"][1] for target in raw["targets"]} == {"V2", "V1", "classify", "V2 binary x64"}


def test_the_report_shows_what_was_measured(report: tuple[Path, str]) -> None:
    output, printed = report
    raw = json.loads((output / "bench.json").read_text())
    assert (output / "bench.md").read_text() == printed == bench_report.markdown(raw)
    for title in ("## A. ", "## B. ", "## C. ", "## D. "):
        assert title in printed
    assert "failed" not in printed
    lines = printed.splitlines()
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert len(widths) > 20
    rate = statistics.median(r["requests_per_second"] for r in cell(raw, "ours", "V1")["rounds"])
    assert any(line.startswith("| ours | V1 JSON | 64 |") and f"{rate:,.0f}" in line for line in lines)
    ET.fromstring((output / "bench.svg").read_text())  # noqa: S314 - our own


def cell(raw: dict[str, Any], subject: str, workload: str) -> dict[str, Any]:
    return next(row for row in raw["cells"] if (row["subject"], row["workload"]) == (subject, workload))


def test_ratios_are_taken_within_a_round(report: tuple[Path, str]) -> None:
    raw = json.loads((report[0] / "bench.json").read_text())
    ours, fastapi = cell(raw, "ours", "V2"), cell(raw, "fastapi", "classify")
    raw["cells"] = [ours, fastapi]
    for row, rates in ((ours, (100, 300, 800)), (fastapi, (1, 10, 10))):
        row["rounds"] = [{**row["rounds"][0], "requests_per_second": rate} for rate in rates]
    target = next(t for t in bench_report.targets(raw) if t["text"] == "V2 JSON, 64 connections / FastAPI")
    assert target["rounds"] == [100, 30, 80]
    assert target["met"]  # the median is 80, the target 40


def test_a_failed_cell_is_shown_and_not_compared(report: tuple[Path, str]) -> None:
    raw = json.loads((report[0] / "bench.json").read_text())
    cell(raw, "fastapi", "classify")["problem"] = "3 of 9 requests failed"
    raw["targets"] = bench_report.targets(raw)
    text = bench_report.markdown(raw)
    assert "**failed**: 3 of 9 requests failed" in text
    assert not any("FastAPI" in target["text"] for target in raw["targets"])


def test_starts_are_measured(model_dir: Path, fitted: Path, tmp_path: Path) -> None:
    need_wrk()
    done = run(
        tmp_path, "python", "-m", "benchmarks.startup", "--rounds", 1, "--model-dir", model_dir,
        "--pipeline", fitted,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for subject in ("ours", "ours, `bentoml serve`", "FastAPI, scikit-learn", "hello", "`import bentoml"):
        assert f"\n| {subject}" in done.stdout
    assert "| interpreter |" in done.stdout


def test_bad_arguments_are_refused(model_dir: Path) -> None:
    need_wrk()
    with pytest.raises(SystemExit, match="fastapi need the model's pipeline"):
        bench.main(["--model-dir", str(model_dir), "--only", "fastapi"])
    with pytest.raises(SystemExit, match="nothing is left to measure"):
        bench.main(["--only", "overload"])
    with pytest.raises(SystemExit, match="is not a directory"):
        bench.main(["--model-dir", "/nowhere"])


def test_samples_belong_to_the_innermost_frame_that_is_known() -> None:
    main = "thread (7): MainThread;main (defects/serve.py:34);Server.run (uvicorn/server.py:85)"
    raw = "\n".join(
        (
            f"{main};decode (defects/protocols/v2.py:74);loads (orjson/x.py:1) 30",
            f"{main};encode (defects/protocols/v2.py:229) 10",
            f"{main};Runner.run (asyncio/runners.py:118) 900",
            "thread (8): scorer_0;_worker (concurrent/futures/thread.py:81) 500",
        )
    )
    seen = cpu_profile.Observed(raw, seconds=2, main=0.1, others=0.2, rate=1)
    assert cpu_profile.cpu_seconds(seen) == pytest.approx(
        {cpu_profile.THREADS: 0.2, cpu_profile.DECODING: 0.06, cpu_profile.ENCODING: 0.02, cpu_profile.HTTP: 0.02}
    )
