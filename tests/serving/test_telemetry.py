"""Metrics and logs of a real server process."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import BENTOML, MODULE, Serve, Server, until
from defects import artifact, simulator
from defects.serving.logs import AccessLog, JSONLines, Readable

EXAMPLE = simulator.SCHEMA.example
TRACE = "0af7651916cd43dd8448eb211c80319c"


def scrape(server: Server) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = httpx.get(f"{server.url}/metrics").text
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


@pytest.fixture(scope="module", params=[BENTOML, MODULE], ids=["bentoml", "defects.serve"])
def logged(request: pytest.FixtureRequest, serve: Serve, model_dir: Path) -> Any:
    with serve(
        command=request.param, MODEL_DIR=model_dir, DEFECTS_ACCESS_LOG_SHARE=1, K_REVISION="parcels-00002"
    ) as running:
        yield running


def test_answers_are_counted_by_route_and_code(logged: Server) -> None:
    before = scrape(logged)
    httpx.post(f"{logged.url}/classify_batch", json=[EXAMPLE] * 3)
    httpx.post(f"{logged.url}/classify", json={})
    after = scrape(logged)

    def rise(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    version = httpx.get(f"{logged.url}/model").json()["version"]
    assert rise("defects_requests_total", route="/classify_batch", code="200") == 1
    assert rise("defects_requests_total", route="/classify", code="400") == 1
    assert rise("defects_request_duration_seconds_count", route="/classify") == 1
    assert rise("defects_predictions_total", defect="punctured", model_version=version) == 3
    assert rise("defects_batch_rows_sum") == 3
    for phase in ("queue", "score", "encode", "total"):
        assert rise("defects_phase_duration_seconds_count", phase=phase) == 1
    total = rise("defects_phase_duration_seconds_sum", phase="total")
    assert 0 < rise("defects_phase_duration_seconds_sum", phase="score") < total


def test_the_state_is_there_to_scrape(logged: Server, model_dir: Path) -> None:
    until(lambda: scrape(logged)["defects_event_loop_lag_seconds_count", ()] > 0)  # looked at ten times a second
    now, loaded = scrape(logged), artifact.load(model_dir)
    assert now["defects_ready", (("reason", "ready"),)] == 1
    assert now["defects_queue_rows", ()] == 0
    assert now["defects_requests_in_flight", ()] == 0  # a scrape is not counted
    labels = (("digest", loaded.digest), ("engine", "onnxruntime"), ("version", loaded.version))
    assert now["defects_model_info", labels] == 1
    assert now["defects_startup_seconds", (("phase", "ready"),)] > 0
    assert now["process_resident_memory_bytes", ()] > 1e7
    assert now["python_gc_collections_total", (("generation", "2"),)] >= 0
    assert now["defects_event_loop_lag_seconds_count", ()] > 0
    assert {labels for name, labels in now if name == "defects_refused_total"} == {
        (("reason", reason),) for reason in ("queue_full", "deadline", "draining", "bodies", "connections")
    }


def test_unknown_urls_add_no_series(logged: Server) -> None:
    with httpx.Client(base_url=logged.url) as client:
        client.get("/nowhere")
        client.get("/static_content/nothing")
        before = scrape(logged).keys()
        for i in range(1000):
            client.get(f"/nowhere/{i}")
        for i in range(20):
            client.get(f"/static_content/{i}")
            client.get(f"/v2/models/{i}", headers={"x-request-id": str(i)})
    assert scrape(logged).keys() == before


def test_both_formats_are_served(logged: Server) -> None:
    assert httpx.get(f"{logged.url}/metrics").headers["content-type"].startswith("text/plain")
    openmetrics = httpx.get(f"{logged.url}/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")
    odd = httpx.get(f"{logged.url}/metrics", headers={"accept": "application/openmetrics-text;version=abc"})
    assert odd.status_code == 200


def lines(server: Server) -> list[dict[str, Any]]:
    """What is in the log as whole lines; an answer's comes after the answer."""
    return [json.loads(line) for line in server.log.read_text().splitlines(keepends=True) if line[-1:] == "\n"]


def test_every_line_is_json_with_the_fields(logged: Server) -> None:
    headers = {"x-request-id": "call-7", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    httpx.post(f"{logged.url}/classify", json=EXAMPLE, headers=headers)
    version = httpx.get(f"{logged.url}/model").json()["version"]
    (line,) = until(lambda: [line for line in lines(logged) if line.get("request_id") == "call-7"])
    assert line.pop("latency_ms") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "defects.access", "message": "POST 200", "request_id": "call-7", "trace_id": TRACE,
        "model_version": version, "revision": "parcels-00002", "method": "POST", "route": "/classify",
        "path": "/classify", "status": 200,
    }  # fmt: skip
    until(lambda: any(line["message"] == "ready" and line["ready_seconds"] > 0 for line in lines(logged)))


def test_no_feature_value_is_logged(logged: Server) -> None:
    httpx.post(f"{logged.url}/classify", json=EXAMPLE | {"weight_g": 43.2109})
    httpx.post(f"{logged.url}/classify", json=EXAMPLE | {"weight_g": -432109})
    assert "432109" not in logged.log.read_text()
    assert "43.2109" not in logged.log.read_text()


def test_a_path_can_not_forge_a_line(logged: Server) -> None:
    httpx.get(f"{logged.url}/x%0a%7b%22level%22%3a%22critical%22%7d")
    assert all(line["level"] != "critical" for line in lines(logged))


def test_errors_are_always_logged_and_the_rest_evenly() -> None:
    log = AccessLog(0.25)
    assert [log.wants(failed=False) for _ in range(9)] == [True, False, False, False, True, False, False, False, True]
    assert all(log.wants(failed=True) for _ in range(10))
    assert not any(AccessLog(0.0).wants(failed=False) for _ in range(9) if _)


def test_a_terminal_gets_colours_and_others_json() -> None:
    record = logging.LogRecord("n", logging.WARNING, "", 0, "a %s", ("b\ud800",), None)
    record.fields = {"k": "v"}
    assert "\033[33mWARNING\033[0m a b" in Readable().format(record)
    line = json.loads(JSONLines({"revision": "r"}).format(record))
    assert (line["level"], line["message"], line["k"], line["revision"]) == ("warning", "a b?", "v", "r")


def test_a_path_in_any_alphabet_is_logged_in_any_locale(serve: Serve, model_dir: Path) -> None:
    with serve(MODEL_DIR=model_dir, PYTHONIOENCODING="ascii") as server:
        httpx.get(f"{server.url}/stra%C3%9Fe")
        httpx.get(f"{server.url}/road")
    paths = [json.loads(line).get("path") for line in server.log.read_text().splitlines() if '"path"' in line]
    assert paths[-2:] == ["/straße", "/road"]
