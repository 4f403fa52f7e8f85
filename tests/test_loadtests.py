"""The overload measurement says what a server did."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from conftest import Serve, quiet
from defects import artifact, tables, training
from loadtests import overload


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
