"""Locust drives a real server with scans that it accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import Serve, Server, quiet, run
from defects import artifact, tables, training


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
    code, _ = locust("http://127.0.0.1:9", tmp_path)
    assert code != 0
