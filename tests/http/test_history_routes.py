"""The routes that need a history, on a real server that records into SQLite."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from conftest import Serve, Server, until
from defects import simulator
from defects.serving.model import OUTCOMES_BYTES

EXAMPLE = simulator.SCHEMA.example
ID = "019aa8e1c3f57a39b183f64ed287b956"
CLASSES = simulator.SCHEMA.class_names


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("history") / "history.sqlite"


@pytest.fixture(scope="module")
def recording(serve: Serve, model_dir: Path, file: Path) -> Iterator[Server]:
    with serve(MODEL_DIR=model_dir, DEFECTS_DATABASE_URL=f"sqlite:///{file}", DEFECTS_REVISION="r-7") as running:
        yield running


@pytest.fixture(scope="module")
def client(recording: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=recording.url) as client:
        yield client


def classified(client: httpx.Client, scan: Any = EXAMPLE, **headers: str) -> dict[str, Any]:
    """Classify a scan, and wait until the answer is recorded."""
    answer = client.post("/classify", json=scan, headers={name.replace("_", "-"): v for name, v in headers.items()})
    made: dict[str, Any] = answer.raise_for_status().json() | {"request_id": answer.headers["x-request-id"]}
    until(lambda: client.get(f"/predictions/{made['prediction_id']}").status_code == 200)
    return made


# --- a prediction and its outcomes ------------------------------------------------------------------------------------


def test_a_prediction_is_answered_as_it_was(client: httpx.Client) -> None:
    scan = EXAMPLE | {"weight_g": 4380.1, "surface_moisture_pct": None}
    made = classified(client, scan, x_request_id="r-1", x_source="tunnel/7")
    record = client.get(f"/predictions/{made['prediction_id']}").json()
    model = client.get("/model").json()
    assert record["features"] == scan
    assert record["class"] == made["defect"]
    assert (record["confidence"], record["probabilities"]) == (made["confidence"], made["probabilities"])
    assert (record["model_version"], record["model_digest"]) == (model["version"], model["digest"])
    assert (record["revision"], record["source"], record["protocol"]) == ("r-7", "tunnel/7", "json")
    assert (record["request_id"], record["row"], record["kind"], record["outcomes"]) == ("r-1", 0, "served", [])
    assert record["latency_ms"] > 0
    for spelling in (made["prediction_id"].upper(), str(UUID(made["prediction_id"]))):
        assert client.get(f"/predictions/{spelling}").json() == record


def test_outcomes_are_stored_corrected_and_shown(client: httpx.Client) -> None:
    made = classified(client)
    outcome = {"prediction_id": made["prediction_id"], "class": made["defect"]}
    other = next(name for name in CLASSES if name != made["defect"])
    told = {"result": "stored", "prediction_id": made["prediction_id"]}
    assert client.post("/outcomes", json=outcome).json() == told
    assert client.post("/outcomes", json=outcome).json() == told | {"result": "duplicate"}
    conflict = client.post("/outcomes", json=outcome | {"class": other})
    assert (conflict.status_code, conflict.json()) == (200, told | {"result": "conflict", "class": made["defect"]})
    by_row = {"request_id": made["request_id"], "row": 0, "class": other}
    several = [by_row | {"replace": True, "occurred_at": "2026-11-27T05:00:00.5+01:00"}, by_row | {"origin": "audit"}]
    assert client.post("/outcomes", json=several).json() == [told, told]
    stored = client.get(f"/predictions/{made['prediction_id']}").json()["outcomes"]
    shown = {(one["origin"], one["class"], one["replaced_at"] is None) for one in stored}
    assert shown == {("default", made["defect"], False), ("default", other, True), ("audit", other, True)}
    assert "2026-11-27T04:00:00.500Z" in {one["occurred_at"] for one in stored}


def test_the_summary(client: httpx.Client) -> None:
    made = classified(client, x_source="summed")
    client.post("/outcomes", json={"prediction_id": made["prediction_id"], "class": made["defect"], "origin": "s"})
    summary = client.get("/outcomes/summary?by=source&since=1h&origin=s").json()
    (group,) = (group["measures"] for group in summary["groups"] if group["group"] == "summed")
    assert (group["rows"], group["labelled"], group["accuracy"]["value"]) == (1, 1, 1.0)
    assert summary["overall"]["rows"] >= 1
    since = client.get("/outcomes/summary?since=2026-01-01T00:00:00+01:00").json()["since"]
    assert since == "2025-12-31T23:00:00.000Z"


def test_a_thousand_outcomes_in_pieces_and_packed(client: httpx.Client) -> None:
    answer = client.post("/classify_batch", json=[EXAMPLE] * 1_024, headers={"x-request-id": "batch"})
    last = answer.json()[-1]["prediction_id"]
    until(lambda: client.get(f"/predictions/{last}").status_code == 200)
    items = [{"request_id": "batch", "row": row, "class": CLASSES[0]} for row in range(1_024)]
    told = client.post("/outcomes", json=items, headers={"accept-encoding": "gzip"})
    assert {one["result"] for one in told.json()} == {"stored"}
    assert told.headers["content-encoding"] == "gzip"


# --- what is refused --------------------------------------------------------------------------------------------------

ONE = {"prediction_id": ID, "class": CLASSES[0]}
BODIES: list[tuple[Any, int, str]] = [
    (b"{", 400, "JSON"), (b"", 400, "JSON"), (b"nul", 400, "JSON"), (b"\xff", 400, "JSON"), (b"[]", 400, "body"),
    (b"null", 400, "body"), (b'{"class": "ok", "class": "ok"}', 400, "twice"), (b"[" * 100_000, 400, ""),
    (b'{"prediction_id": "%s", "class": NaN}' % ID.encode(), 400, "class"),
    (b'{"prediction_id": "%s", "class": 1e999}' % ID.encode(), 400, ""),
    (b'{"prediction_id": "%s", "class": %s}' % (ID.encode(), b"9" * 400), 400, ""),
    (b'{"prediction_id": "%s", "class": "\\u0000"}' % ID.encode(), 400, "class"),
    (b'{"request_id": "r", "row": 99999999999999999999, "class": "ok"}', 400, "row"),
    (b" " * (OUTCOMES_BYTES + 1), 413, "bytes"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "named"), BODIES, ids=range(len(BODIES)))
def test_hostile_bodies_are_refused(client: httpx.Client, body: bytes, status: int, named: str) -> None:
    answer = client.post("/outcomes", content=body)
    assert answer.status_code == status, answer.text
    assert named in answer.json()["error"]


def test_one_wrong_item_refuses_all(client: httpx.Client, file: Path) -> None:
    made = classified(client)
    good = {"prediction_id": made["prediction_id"], "class": CLASSES[0]}
    answer = client.post("/outcomes", json=[good, good | {"class": "colour"}, ONE | {"class": "lost"}])
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["fields"]] == ["[1].class", "[2].class"]
    assert client.get(f"/predictions/{made['prediction_id']}").json()["outcomes"] == []
    with sqlite3.connect(file) as connection:
        (count,) = connection.execute("SELECT count(*) FROM early_outcomes WHERE class = 'lost'").fetchone()
    assert count == 0


@pytest.mark.parametrize(
    ("path", "status", "named"),
    [
        (f"/predictions/{ID}", 404, ID), ("/predictions/", 400, "id"), ("/predictions/x", 400, "id"),
        (f"/predictions/{ID}0", 400, "id"), (f"/predictions/{ID}/x", 404, "path"), ("/predictions", 404, "path"),
        ("/predictions/%00", 400, "id"), ("/predictions/%ff", 400, "id"), ("/outcomes/", 404, "path"),
        ("/outcomes/summary?since=tomorrow", 400, "since"),
        ("/outcomes/summary?since=2999-01-01T00:00:00Z", 400, "since"),
        ("/outcomes/summary?by=colour", 400, "by"), ("/outcomes/summary?since=1h&since=2h", 400, "since"),
        ("/outcomes/summary?since=", 400, "since"), ("/outcomes/summary?colour=1", 400, "colour"),
        ("/outcomes/summary?origin=%ff", 400, "query"), ("/outcomes/summary?" + "a&" * 100, 400, "query"),
        ("/outcomes", 405, "POST"),
    ],
)  # fmt: skip
def test_wrong_questions_are_refused(client: httpx.Client, path: str, status: int, named: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert named in answer.json()["error"]
    assert client.head(path).status_code == status


def test_no_id_is_in_a_metric(client: httpx.Client, recording: Server) -> None:
    client.get(f"/predictions/{ID}")
    text = client.get("/metrics").text
    assert ID not in text
    assert "/predictions/{id}" in text
    assert "Traceback" not in recording.log.read_text()


def test_a_caller_that_goes_away_while_it_sends_is_counted_as_gone(client: httpx.Client, recording: Server) -> None:
    url = httpx.URL(recording.url)
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(b"POST /outcomes HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n" + b" " * 20_000)
        until(lambda: "defects_bodies_bytes 20000.0" in client.get("/metrics").text)
    until(lambda: 'defects_requests_total{code="499",route="/outcomes"} 1.0' in client.get("/metrics").text)
    assert "defects_bodies_bytes 0.0" in client.get("/metrics").text
    assert "Traceback" not in recording.log.read_text()


# --- without a database, and while it is away -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/outcomes"), ("GET", f"/predictions/{ID}"), ("GET", "/outcomes/summary"), ("GET", "/predictions/x/y")],
)
def test_without_a_database_the_answer_says_which_setting_is_missing(server: Server, method: str, path: str) -> None:
    answer = httpx.request(method, f"{server.url}{path}")
    assert answer.status_code == 404
    assert "DEFECTS_DATABASE_URL" in answer.json()["error"]
    assert not {"/outcomes", "/outcomes/summary"} & httpx.get(f"{server.url}/docs.json").json()["paths"].keys()
