"""Real servers that share a PostgreSQL: two replicas that acknowledge, one of them under `bentoml serve`, and one that
does not."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest

from conftest import Serve, Server, until
from defects import simulator
from defects.serving.recording import PROTOCOLS
from history_databases import ask, new_database
from tools.local_postgres import LocalPostgres

SCAN = simulator.SCHEMA.example
VALUES = [math.nan if value is None else value for value in SCAN.values()]
SHARE = 0.5
V1, V2 = "/v1/models/defect-classifier:predict", "/v2/models/defect-classifier/infer"


class Fleet(NamedTuple):
    """The servers, and the URL of their database. `half` and `buffered` record half of all, without features."""

    all: Server
    half: Server
    buffered: Server
    url: str


class Question(NamedTuple):
    """A request, and how many rows it has."""

    path: str
    body: bytes
    rows: int = 1
    protocol: str = "json"
    headers: dict[str, str] = {"content-type": "application/json"}  # noqa: RUF012 - nobody changes it


@pytest.fixture(scope="module")
def fleet(serve: Serve, model_dir: Path, own_postgres: LocalPostgres) -> Iterator[Fleet]:
    url = new_database(own_postgres)
    recording = {"MODEL_DIR": model_dir, "DEFECTS_DATABASE_URL": url}
    acknowledged = {"DEFECTS_HISTORY": "acknowledged"}
    half = {"DEFECTS_HISTORY_SHARE": SHARE, "DEFECTS_HISTORY_FEATURES": 0}
    with ExitStack() as stack:
        bentoml = serve("service:DefectClassifier", **recording, **acknowledged, **half)
        servers = (serve(**recording, **acknowledged), bentoml, serve(**recording, **half))
        everything, some, buffered = (stack.enter_context(server) for server in servers)
        yield Fleet(everything, some, buffered, url)


def v2(*, binary: bool, rows: int) -> Question:
    values = np.array([VALUES] * rows, np.float32)
    tensor: dict[str, Any] = {"name": "rows", "shape": [*values.shape], "datatype": "FP32"}
    asked: dict[str, Any] = {"id": "same", "inputs": [tensor]}
    if not binary:
        tensor["data"] = [None if math.isnan(value) else value for value in values.ravel().tolist()]
        return Question(V2, json.dumps(asked).encode(), rows, "v2")
    tensor["parameters"] = {"binary_data_size": values.nbytes}
    asked["outputs"] = [{"name": "probabilities", "parameters": {"binary_data": True}}]
    head = json.dumps(asked).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return Question(V2, head + values.tobytes(), rows, "v2", headers)


def scans(rows: int) -> bytes:
    return json.dumps([SCAN] * rows).encode()


PACKED = {"content-type": "application/json", "content-encoding": "gzip"}
QUESTIONS = {
    "one": Question("/classify", json.dumps(SCAN).encode()),
    "batch": Question("/classify_batch", scans(3), 3),
    "V1": Question(V1, json.dumps({"instances": [SCAN] * 2}).encode(), 2, "v1"),
    "V2, one row": v2(binary=False, rows=1),
    "V2": v2(binary=False, rows=2),
    "V2, binary": v2(binary=True, rows=2),
    "packed": Question("/classify_batch", gzip.compress(scans(2)), 2, headers=PACKED),
    "packed, large": Question("/classify_batch", gzip.compress(scans(300)), 300, headers=PACKED),
}


def asked(server: Server, question: Question, key: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    headers = {**question.headers, "idempotency-key": key, **named}
    return httpx.post(f"{server.url}{question.path}", content=question.body, headers=headers)


def records(fleet: Fleet, request_id: str) -> list[Any]:
    """Return the records of a request, by row."""
    sql = (
        "SELECT p.*, s.name AS source_name FROM predictions p JOIN sources s ON s.no = p.source "
        "WHERE request_id = $1 ORDER BY row"
    )
    return ask(fleet.url, sql, request_id)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_key_gets_the_first_answer_from_any_replica(name: str, fleet: Fleet) -> None:
    question, key = QUESTIONS[name], f"key of {name}"
    names = {"x_request_id": f"first/{name}".replace(", ", "-").replace(" ", "-"), "x_source": "tunnel/7"}
    first = asked(fleet.all, question, key, **names).raise_for_status()
    assert "idempotency-replayed" not in first.headers
    again = [asked(server, question, key, x_request_id="again") for server in (fleet.half, fleet.all)]
    for answer in again:
        assert (answer.status_code, answer.headers["idempotency-replayed"]) == (200, "true")
        assert answer.content == first.content
        for header in ("content-type", "x-prediction-id", "inference-header-content-length"):
            assert answer.headers.get(header) == first.headers.get(header)
        assert answer.headers["x-request-id"] == "again"
    found = records(fleet, names["x_request_id"])
    assert [(row["row"], row["source_name"]) for row in found] == [(row, "tunnel/7") for row in range(question.rows)]
    assert {PROTOCOLS[row["protocol"]] for row in found} == {question.protocol}
    assert records(fleet, "again") == []
    if "x-prediction-id" in first.headers:
        assert [row["id"].hex for row in found] == [first.headers["x-prediction-id"]]


def test_a_key_of_another_question_is_a_conflict(fleet: Fleet) -> None:
    one, other = QUESTIONS["one"], QUESTIONS["one"]._replace(body=json.dumps(SCAN | {"weight_g": 1}).encode())
    assert asked(fleet.half, one, "taken").status_code == 200
    for question in (other, QUESTIONS["batch"]):
        for server in (fleet.all, fleet.half):
            answer = asked(server, question, "taken")
            assert answer.status_code == 409
            assert "idempotency-key was used for another request" in answer.json()["error"]
    assert asked(fleet.all, one, "taken").headers["idempotency-replayed"] == "true"


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", None])
def test_a_key_is_of_what_a_body_means(content_type: str | None, fleet: Fleet) -> None:
    question, key = QUESTIONS["one"], f"as {content_type}"
    first = asked(fleet.all, question, key)
    headers = {} if content_type is None else {"content-type": content_type}
    again = asked(fleet.half, question._replace(headers=headers), key)
    assert (again.status_code, again.content) == (200, first.content)
    packed = question._replace(body=gzip.compress(question.body), headers=PACKED)
    assert asked(fleet.half, packed, key).content == first.content


def test_what_is_refused_may_be_asked_again_with_its_key(fleet: Fleet) -> None:
    wrong = QUESTIONS["one"]._replace(body=json.dumps(SCAN | {"weight_g": "much"}).encode())
    assert asked(fleet.all, wrong, "refused").status_code == 400
    answer = asked(fleet.half, QUESTIONS["one"], "refused")
    assert (answer.status_code, answer.headers.get("idempotency-replayed")) == (200, None)


def test_a_key_is_refused_where_answers_leave_before_they_are_recorded(fleet: Fleet) -> None:
    answer = asked(fleet.buffered, QUESTIONS["one"], "k")
    assert answer.status_code == 400
    assert "expected DEFECTS_HISTORY=acknowledged, or no key" in answer.json()["error"]


def test_replicas_agree_on_the_share_that_is_recorded(fleet: Fleet) -> None:
    names = [f"share-{number}" for number in range(40)]
    chosen = {name for name in names if zlib.crc32(name.encode()) < SHARE * (1 << 32)}
    assert 10 < len(chosen) < 30
    with httpx.Client() as client:
        for server in (fleet.half, fleet.buffered, fleet.all):
            for name in names:
                client.post(f"{server.url}/classify", json=SCAN, headers={"x-request-id": name}).raise_for_status()
    sql = "SELECT request_id, features FROM predictions WHERE request_id LIKE 'share-%'"
    until(lambda: len(ask(fleet.url, sql)) == 2 * len(chosen) + len(names))
    found = [(row["request_id"], row["features"] is None) for row in ask(fleet.url, sql)]
    expected = [(name, True) for name in chosen] * 2 + [(name, False) for name in names]
    assert sorted(found) == sorted(expected)


def test_replicas_are_not_ready_while_the_database_is_away_and_come_back(
    fleet: Fleet, own_postgres: LocalPostgres
) -> None:
    acknowledging = (fleet.all, fleet.half)
    own_postgres.kill()
    for server in acknowledging:
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)  # noqa: B023
        state = httpx.get(f"{server.url}/readyz?verbose").json()
        assert (state["ready"], state["reason"]) == (False, "history")
        for headers in ({}, {"idempotency-key": "away"}):
            answer = httpx.post(f"{server.url}/classify", json=SCAN, headers=headers)
            assert (answer.status_code, answer.headers["retry-after"].isdigit()) == (503, True)
    answer = httpx.post(f"{fleet.buffered.url}/classify", json=SCAN, headers={"x-request-id": "share-0"})
    assert answer.status_code == 200
    own_postgres.start()
    for server in acknowledging:
        server.wait_ready()
        answer = asked(server, QUESTIONS["one"], "away", x_request_id="back")
        assert answer.status_code == 200
    assert len(records(fleet, "back")) == 1
