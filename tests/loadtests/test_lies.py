"""A server that lies neither hangs a load test nor passes one."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gevent
import numpy as np
import psutil
import pytest
import yaml
from kubernetes import client
from lying_server import LIES, lying

from conftest import BIN, ROOT, environment, until
from defects.features import DefectClass, Feature
from defects.schema import Schema
from defects.simulator import SCHEMA
from loadtests import results
from loadtests.cluster import api
from loadtests.load import dispatcher, server_monitor, stub_server
from loadtests.load.connections import Connections
from loadtests.results import Summary
from tools import answers, payloads, served
from tools.fetching import TooLarge
from tools.payloads import BadPayload
from tools.raw_http import post

GENEROUS = 100.0  # seconds for what takes a few; without the bounds, these runs last for many minutes or for ever
RIGHT = json.dumps(stub_server.PREDICTION)


def scenario(path: Path, **changes: Any) -> Path:
    """A file with a short scenario of 20 evenly spaced requests a second."""
    content = {
        "about": "a test", "rate": 20, "spacing": "even", "timeout_seconds": 2, "payloads": [{"kind": "json"}],
        "phases": [{"name": "baseline", "seconds": 2, "rate": 1}], "slo": {"p95_ms": 10_000},
    }  # fmt: skip
    (path / "test.yaml").write_text(yaml.safe_dump(content | changes))
    return path / "test.yaml"


@contextmanager
def locust(
    url: str, out: Path, file: str = "loadtests/locustfile.py", **changes: Any
) -> Iterator[subprocess.Popen[str]]:
    """Locust on its way, headless; `changes` are those of the scenario."""
    command = ["-f", file, "--only-summary", "--headless", "--host", url, "--out", str(out / "load")]
    process = subprocess.Popen(
        [BIN / "locust", *command, "--scenario", str(scenario(out, **changes))],
        cwd=ROOT, env=environment(out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def error_of(process: subprocess.Popen[str]) -> str:
    """The one line of a run that ends with exit code 3."""
    _, said = process.communicate(timeout=GENEROUS)
    assert process.returncode == 3, said
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert len(line) < 600
    return line


def summary_of(process: subprocess.Popen[str], out: Path) -> Summary:
    """The summary of a run that took place."""
    _, said = process.communicate(timeout=GENEROUS)
    assert "Traceback" not in said
    (found,) = (out / "load").glob("*/summary.json")
    return results.read_summary(found)


def check_failed(summary: Summary, errors: dict[str, int]) -> None:
    """The run failed, unless the machine was too busy for it, and the server is blamed for every request."""
    assert summary.phases[0].errors == errors
    assert summary.phases[0].counts.answered == 0
    assert summary.generator.not_sent == 0
    assert summary.verdict.outcome == "Failed" or all("late" in reason for reason in summary.verdict.reasons)


# --- what the server says about its model ------------------------------------------------------------------------


def model(schema: Any = None, **changes: Any) -> str:
    """What `/model` says, with changes."""
    said = {**stub_server.MODEL, "schema": SCHEMA.to_json() if schema is None else schema, **changes}
    return json.dumps(said)


def own(**feature: Any) -> dict[str, Any]:
    """A schema whose one feature has these."""
    one = {"name": "a", "observed_low": 0.5, "observed_high": 1.5, **feature}
    return {"features": [one], "classes": [{"name": "x"}, {"name": "y"}], "title": "rows"}


@pytest.mark.parametrize("lie", ["trickle", "endless", "informational", "announced", "deep"])
def test_a_model_that_never_ends_ends_the_run_with_one_line(lie: str, tmp_path: Path) -> None:
    with lying({"/model": lie}) as url, locust(url, tmp_path) as process:
        most, running = 0, psutil.Process(process.pid)
        while process.poll() is None:
            with psutil.Process(process.pid).oneshot():
                most = max(most, running.memory_info().rss if running.is_running() else 0)
            time.sleep(0.05)
        assert f"no model answers at {url}/model (" in error_of(process)
        assert most < 600e6


@pytest.mark.parametrize(
    ("number", "lie"), [(signal.SIGTERM, "trickle"), (signal.SIGINT, "silent"), (signal.SIGTERM, "informational")]
)
def test_a_signal_ends_a_run_that_waits_for_the_model(number: int, lie: str, tmp_path: Path) -> None:
    """It would wait for ten minutes."""
    with lying({"/model": lie}) as url, locust(url, tmp_path, timeout_seconds=600) as process:
        assert process.stderr
        next(line for line in process.stderr if "All users spawned" in line)
        process.send_signal(number)
        problem = error_of(process)
    if lie != "informational":  # which ends by itself, perhaps before
        assert "the run was stopped before it began: " in problem


def test_a_signal_ends_a_run_that_measures_the_capacity(tmp_path: Path) -> None:
    with (
        lying({"/classify": "silent"}) as url,
        locust(url, tmp_path, timeout_seconds=600, rate="capacity") as process,
    ):
        running = psutil.Process(process.pid)
        port = int(url.rpartition(":")[2])
        until(lambda: sum(c.raddr[1:] == (port,) for c in running.net_connections("tcp") if c.raddr) > 8, GENEROUS)
        process.send_signal(signal.SIGTERM)
        assert "the run was stopped before it began: it was terminated" in error_of(process)


def test_a_signal_ends_a_run_whose_answers_trickle(tmp_path: Path) -> None:
    with lying({"/classify": "trickle"}) as url, locust(url, tmp_path, timeout_seconds=600) as process:
        assert process.stderr
        next(line for line in process.stderr if "requests in" in line)
        time.sleep(4)  # the schedule is over, or nearly
        process.send_signal(signal.SIGTERM)
        summary = summary_of(process, tmp_path)
    assert summary.verdict.outcome == "Invalid"
    assert summary.phases[0].errors.keys() <= {"unanswered"}


def test_infinite_ranges_end_the_run_with_one_line(tmp_path: Path) -> None:
    said = model(own()).replace("1.5", "1e999")
    with lying({"/model": {"body": said}}) as url, locust(url, tmp_path) as process:
        assert "number is infinity" in error_of(process)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            model(own(observed_low=-1.7e308, observed_high=1.7e308)),
            "observed_low is -1.7e+308; expected a 32-bit number",
        ),
        (model(own(observed_high=1e300)), "observed_high is 1e+300; expected a 32-bit number"),
        (model(own(observed_low=2.0)), "observed_low 2 is above observed_high 1.5"),
        (model(own(low=3.0, high=1.0)), "low, 3, is above high, 1; expected a range"),
        (model(own(example=7.0, high=2.0)), "example is 7; expected a number of at most 2"),
        (model(own(name=5)), "schema.features.0.name: Input should be a valid string, got 5"),
        (model(own(name=None)), "schema.features.0.name: Input should be a valid string, got None"),
        (model(own(name="a" * 10_000_000)), "schema.features.0.name: String should have at most 1000 characters"),
        (model(own(low="1")), "schema.features.0.low: Input should be a valid number, got 1"),
        (model(own(low=True)), "schema.features.0.low: Input should be a valid number, got True"),
        (model(own(colour="red")), "unknown key 'colour'"),
        (model(own(kind="colour")), "kind is 'colour'; expected number, boolean or category"),
        (model({**own(), "features": [{"name": str(i)} for i in range(100_000)]}), "at most 4096 items"),
        (model({**own(), "features": []}), "schema.features: List should have at least 1 item"),
        (model({**own(), "features": {}}), "schema.features: Input should be a valid list"),
        (model({**own(), "classes": [{"name": "x"}, {"name": "x"}]}), "a class name appears twice"),
        (model({**own(), "label_type": []}), "label_type is a list; expected text"),
        (model([]), "schema: Input should be a valid dictionary"),
        (model(name="a b\r\nhost: evil"), "name: String should match pattern"),
        (model(name="a" * 1000), "name: String should match pattern"),
        (model(version=""), "version: String should match pattern"),
        (model(digest=[1]), "digest: Input should be a valid string"),
        ("[1]", "the answer: Input should be a valid dictionary"),
    ],
)
def test_a_model_for_which_nothing_can_be_made_is_one_line_with_the_field(said: str, problem: str) -> None:
    with lying({"/model": {"body": said}}) as url, pytest.raises(BadPayload) as raised:
        payloads.ask_model(url)
    assert f"what {url}/model says is no model that requests can be made for: " in str(raised.value)
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_an_error_s_text_is_one_printable_line() -> None:
    script = {"/model": {"status": "404 \x1b[31m" + "x" * 10_000, "body": ""}}
    with lying(script) as url, pytest.raises(BadPayload) as raised:
        payloads.ask_model(url)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 500


def test_requests_that_no_memory_holds_are_refused_before_one_is_made() -> None:
    features = tuple(Feature(f"{i:0>1000}", observed_low=0.0, observed_high=1.0) for i in range(4000))
    schema = Schema(features, (DefectClass("x"), DefectClass("y")))
    one = served.Served("m", "1", "", "", schema)
    rows = payloads.rows_for(schema, 8, 1)
    with pytest.raises(BadPayload, match="1024 rows of this model's features in one request take about 4198 MB"):
        payloads.prepare("json", 1024, "http://127.0.0.1:3000", one, rows, deadline_ms=None)


def test_rows_have_the_precision_of_the_schema_whatever_its_features_are_called() -> None:
    wide = Schema.from_json(json.loads(json.dumps(SCHEMA.to_json()).replace('"wide": false', '"wide": true')))
    rows = payloads.rows_for(wide, 5, 1)
    assert payloads.rows_from_bytes(wide, rows.tobytes()).shape == (5, len(SCHEMA.names))


# --- what the server answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["informational", "header_lines", "trailers", "endless"])
def test_a_flood_is_the_server_s_failure(lie: str, tmp_path: Path) -> None:
    with lying({"/classify": lie}) as url, locust(url, tmp_path) as process:
        check_failed(summary_of(process, tmp_path), {"too large": 40})


def test_a_trickle_is_the_server_s_failure(tmp_path: Path) -> None:
    with lying({"/classify": "trickle"}) as url, locust(url, tmp_path) as process:
        check_failed(summary_of(process, tmp_path), {"timeout": 40})


def test_a_2xx_that_is_no_prediction_is_a_wrong_answer(tmp_path: Path) -> None:
    with lying({"/classify": {"body": '["defect"]'}}) as url, locust(url, tmp_path) as process:
        check_failed(summary_of(process, tmp_path), {"wrong answer": 40})


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ("informational", results.TOO_LARGE), ("early_hints", results.TOO_LARGE), ("header_lines", results.TOO_LARGE),
        ("one_header", results.TOO_LARGE), ("trailers", results.TOO_LARGE), ("endless", results.TOO_LARGE),
        ("chunks", results.TOO_LARGE), ("twice", results.NOT_HTTP), ("trickle", results.TIMEOUT),
        ("trickle_head", results.TIMEOUT), ("announced", results.TIMEOUT), ("silent", results.TIMEOUT),
    ],
)  # fmt: skip
def test_an_answer_is_bounded(lie: str, error: int) -> None:
    timeout = 1.5 if error == results.TIMEOUT else GENEROUS
    with lying({"/": lie}) as url, closing(Connections(url, timeout)) as connections:
        assert connections.exchange(post("/", b""), 1_000_000).error == error


def test_every_lie_is_told() -> None:
    told = {"informational", "early_hints", "header_lines", "one_header", "trailers", "endless", "chunks", "twice"}
    assert LIES.keys() == told | {"trickle", "trickle_head", "announced", "silent", "redirect", "deep"}


def test_a_header_that_is_no_text_and_a_few_informational_answers_are_no_problem_of_ours() -> None:
    script = {"/": {"headers": {"x-revision": "\xff\xfe"}, "body": RIGHT}}
    with lying(script) as url, closing(Connections(url, GENEROUS)) as connections:
        assert connections.exchange(post("/", b"")).error in (0, results.NOT_HTTP)


MALFORMED = [
    "queue;dur=1.2.3", "queue;dur=nan", "queue;dur=-1", "queue;dur=1e999", "queue;dur=" + "9" * 400,
    "queue;dur=99999999", "queue;dur=", "queue;dur=.", "queue", ";;;,,,", "queue;dur=inf, score;dur=1.2.3",
    "queue;dur=٣",
    ", ".join(["queue;dur=1.2.3"] * 3000),
]  # fmt: skip


@pytest.mark.parametrize("timing", MALFORMED)
def test_a_malformed_server_timing_is_not_said(timing: str) -> None:
    sent = send({"/": {"headers": {"server-timing": timing}, "body": RIGHT}}, 3)
    assert sent.problem == ""
    assert sent.requests["error"].tolist() == [0, 0, 0]
    assert sent.requests["status"].tolist() == [200, 200, 200]
    assert not (sent.requests["queue_ms"] >= 0).any()
    assert not (sent.requests["score_ms"] >= 0).any()


def test_a_well_formed_server_timing_is_read() -> None:
    sent = send({"/": {"headers": {"server-timing": "queue;dur=0.25, score;dur=0.5;desc=x"}, "body": RIGHT}}, 1)
    assert (sent.requests["queue_ms"][0], sent.requests["score_ms"][0]) == (0.25, 0.5)


def send(script: dict[str, Any], count: int, report: dispatcher.RequestListener = lambda *_: None) -> Any:
    """A dispatcher that has sent so many requests to a server with this script."""
    prepared = payloads.Prepared("x", 1, (post("/", b""),), answers.checker("json", 1, SCHEMA), 100_000)
    with lying(script) as url:
        sending = dispatcher.Dispatcher(
            np.arange(count) / 100, np.zeros(count, np.int8), [prepared],
            Connections(url, GENEROUS), report,
        )  # fmt: skip
        sending.run(time.perf_counter(), GENEROUS)
        gevent.wait(timeout=10)
    return sending


def test_a_malformed_server_timing_hides_no_answer(tmp_path: Path) -> None:
    script = {"/classify": {"headers": {"server-timing": "queue;dur=1.2.3"}, "body": RIGHT}}
    with lying(script) as url, locust(url, tmp_path) as process:
        summary = summary_of(process, tmp_path)
    assert (summary.phases[0].counts.answered, summary.phases[0].queue.p50) == (40, None)


def test_few_revisions_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "REVISIONS", 0)
    sent = send({"/": {"headers": {"x-revision": "r" * 5000}, "body": RIGHT}}, 2)
    assert (sent.revisions, sent.requests["revision"].tolist()) == ({}, [-1, -1])


# --- errors of our own --------------------------------------------------------------------------------------------


def test_an_error_while_an_answer_is_kept_is_never_an_answer() -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    sent = send({"/": {"body": RIGHT}}, 3, broken)
    assert sent.problem == "RuntimeError: broken"
    assert sent.requests["error"][0] == results.UNANSWERED
    assert (results.outcomes(sent.requests) == results.FAILED).all()


@pytest.mark.parametrize("fault", ["dispatcher.TIMING = None", "worker.arrivals = None"])
def test_greenlets_that_die_make_the_run_an_error(fault: str, tmp_path: Path) -> None:
    file = tmp_path / "locustfile.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom loadtests.locustfile import *\n"
        f"from loadtests.load import dispatcher, worker\n{fault}\n"
    )
    with lying({}) as url, locust(url, tmp_path, str(file)) as process:
        _, said = process.communicate(timeout=GENEROUS)
    assert process.returncode == 3
    assert "error: worker local: AttributeError: 'NoneType' object has no attribute" in said


# --- what is read beside the load ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lie", ["trickle", "endless", "informational"])
def test_the_server_monitor_goes_on(lie: str) -> None:
    with lying({"/readyz": lie, "/metrics": lie}) as url:
        samples = list(server_monitor.watch(url, 2, {}))
    assert len(samples) >= 1
    assert all(sample.ready is None and (sample.problem or "").startswith("/readyz: ") for sample in samples)


PROXY = "/api/v1/namespaces/n/pods/p%3A1/proxy/metrics"


@pytest.mark.parametrize(("lie", "error"), [("trickle", TimeoutError), ("endless", TooLarge), ("chunks", OSError)])
def test_the_cluster_s_metrics_are_bounded_directly_and_through_the_api(lie: str, error: type[Exception]) -> None:
    with lying({"/metrics": lie, PROXY: lie}) as url:
        with pytest.raises((error, TimeoutError)):
            api.get_text(f"{url}/metrics")
        settings = client.Configuration()
        settings.host = url
        core = client.CoreV1Api(client.ApiClient(settings))
        with pytest.raises((error, TimeoutError, *api.UNANSWERED)):
            api.get_through_api(core.connect_get_namespaced_pod_proxy_with_path, "p:1", "n", "metrics")
