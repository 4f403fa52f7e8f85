"""Locust drives a real server with scans that it accepts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from conftest import Serve, Server, quiet, run
from defects import artifact, tables, training
from loadtests import overload

NOBODY = "http://127.0.0.1:9"


def locust(url: str, home: Path) -> tuple[int, dict[str, Any]]:
    done = run(
        home, "locust", "-f", "loadtests/locustfile.py", "--headless", "--users", 4, "--spawn-rate", 100,
        "--run-time", "3s", "--stop-timeout", 10, "--host", url, "--json",
    )  # fmt: skip
    rows = json.loads(done.stdout) if done.stdout.strip() else []
    return done.returncode, {row["name"]: row for row in rows}


def test_it_reports_scans_that_were_answered(server: Server, tmp_path: Path) -> None:
    code, report = locust(server.url, tmp_path)
    assert code == 0
    assert report.keys() == {"/classify", "/classify_batch"}
    assert all(row["num_requests"] > 0 and row["num_failures"] == 0 for row in report.values())


def test_it_drives_a_model_of_ones_own(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "a,b,defect\n" + "".join(f"{i % 7},{i % 5},{'x' if i % 7 > 3 else 'y'}\n" for i in range(99))
    )
    result = training.train(tables.read(tmp_path / "t.csv", "defect"), "logistic-regression", 0, 0.2, quiet)
    artifact.replace(tmp_path / "model", result.files)
    with serve(MODEL_DIR=tmp_path / "model") as server:
        code, report = locust(server.url, tmp_path)
    assert code == 0
    assert report["/classify"]["num_failures"] == 0


def test_a_failing_server_is_reported(tmp_path: Path) -> None:
    done = run(tmp_path, "locust", "-f", "loadtests/locustfile.py", "--headless", "--run-time", "3s", "--host", NOBODY)
    assert done.returncode != 0
    assert f"no model answers at {NOBODY}/model" in done.stderr
    assert len(done.stderr.splitlines()) < 20, done.stderr


def test_an_overload_is_answered_or_refused(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scikit-learn serves this one, so that there is something to overload."""
    monkeypatch.setattr(training, "to_onnx", lambda _: b"not a model")
    result = training.train(tables.builtin(4_000, seed=1), "hist-gradient-boosting", 1, 0.2, quiet)
    assert result.card["engine"]["name"] == "scikit-learn"
    artifact.replace(tmp_path / "model", result.files)

    async def press(url: str) -> list[overload.Answer]:
        what = overload.target(url, rows=64, deadline=0.3)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            most = await overload.capacity(session, what, 1)
            answers = await overload.open_loop(session, what, 3 * most, 2)
            assert overload.measures(answers, what.deadline, 2)["failed"] == 0
            assert await overload.lone(session, what) > 0
        return answers

    with serve(MODEL_DIR=tmp_path / "model") as server:
        answers = asyncio.run(press(server.url))
    assert {a.status for a in answers} == {200, 503}
    assert all((a.retry_after or "").isdigit() for a in answers if a.status == 503)


def test_the_overload_figures_are_right() -> None:
    good = [overload.Answer(i / 10, i / 10, i / 10 + latency, 200, None) for i, latency in enumerate((0.1, 0.2, 0.6))]
    refused = [overload.Answer(1.0, 1.2, 1.21, 503, "1")]
    failed = [overload.Answer(1.0, 1.0, 1.1, 0, None)]
    figures = overload.measures([*good, *refused, *failed], deadline=0.5, seconds=1)
    assert (figures["goodput/s"], figures["refused"], figures["failed"]) == (2, 1, 1)
    assert (figures["offered/s"], figures["in time"], figures["sent late"]) == (5, "66.7%", "20.0%")
    np.testing.assert_allclose([figures["p50"], figures["refusal p50"]], [200, 10])
