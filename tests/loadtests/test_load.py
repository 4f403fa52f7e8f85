"""Locust drives servers whose behaviour is known, and real ones, in all of its modes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import (
    BIN,
    ROOT,
    RUN_SECONDS,
    WAIT_SECONDS,
    Serve,
    Server,
    environment,
    free_port,
    quiet,
    run,
    undisturbed,
    until,
)
from defects import artifact
from defects.training import dataset, pipeline
from defects.training.options import Recipe
from loadtests import arrivals, results
from loadtests import scenario as scenarios
from loadtests.load import stub_server
from loadtests.results import Summary
from loadtests.scenario import BadScenario, Plan
from tools import payloads, served

NOBODY = "http://127.0.0.1:9"
FILE = ("-f", "loadtests/locustfile.py", "--only-summary")
BASELINE = [{"name": "warm-up", "seconds": 0.5, "rate": 1}, {"name": "baseline", "seconds": 3, "rate": 1}]


def scenario(path: Path, **changes: Any) -> Path:
    """A file with a short scenario of 100 evenly spaced requests a second."""
    content = {
        "about": "a test", "rate": 100, "spacing": "even", "timeout_seconds": 60, "payloads": [{"kind": "json"}],
        "phases": BASELINE, "slo": {"p95_ms": 500},
    }  # fmt: skip
    (path / "test.yaml").write_text(yaml.safe_dump(content | changes))
    return path / "test.yaml"


def plan_of(file: Path) -> Plan:
    loaded = scenarios.load(str(file))
    assert isinstance(loaded.rate, float)
    return Plan(loaded, loaded.rate, loaded.seed)


def load(url: str, file: Path | str, out: Path, *options: object) -> tuple[int, Summary, Path]:
    """Run a scenario; its exit code, summary and directory."""
    done = run(out, "locust", *FILE, "--headless", "--host", url, "--scenario", file, "--out", out / "load", *options)
    found = list((out / "load").glob("*/summary.json"))
    assert len(found) == 1, done.stderr
    summary = results.read_summary(found[0])
    assert done.returncode == ["Passed", "Failed", "Invalid"].index(summary.verdict.outcome), done.stderr
    assert f"report: {found[0].parent}" in done.stderr.splitlines()[-1]
    return done.returncode, summary, found[0].parent


def drive(file: Path, out: Path, *behaviour: object) -> tuple[int, Summary, Path]:
    """Run a scenario against a stub that behaves so; again, where the machine stood still meanwhile."""

    def measure(folder: Path) -> tuple[int, Summary, Path]:
        with stub_server.running(*behaviour) as url:
            return load(url, file, folder)

    return undisturbed(measure, out)


def number(value: float | None) -> float:
    assert value is not None
    return value


def rows(directory: Path) -> dict[str, list[Any]]:
    return pq.read_table(directory / results.REQUESTS).to_pydict()  # type: ignore[no-any-return]


# --- the instrument is right -----------------------------------------------------------------------------------------


def test_a_stall_shows_where_locusts_own_numbers_miss_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For 2 s of 8 nothing is answered: that concerns a quarter of the requests of an open loop, and p99 must say so.

    Locust's user waits meanwhile, so that it sends and counts a single slow request among some hundred.
    """
    file = scenario(tmp_path, phases=[{"name": "baseline", "seconds": 8, "rate": 1}])
    _, summary, directory = drive(file, tmp_path, "--service-ms", 2, "--stall", "3:2")
    latency = np.sort(np.array(rows(directory)["latency_ms"]))
    expected = np.sort(np.maximum(2, 1e3 * (5 - np.arange(0, 8, 0.01))[300:500]))  # of those that met the stall
    assert (latency[-200:] >= expected - 20).all()
    p99 = number(summary.phases[0].latency.p99)
    assert p99 == latency[int(0.99 * 800) - 1] > 1500

    def closed_loop(out: Path) -> Any:
        with stub_server.running("--service-ms", 2, "--stall", "3:2") as url:
            return run(
                out, "locust", "-f", "tests/closed_loop.py", "--headless", "--users", 1, "--run-time", "8s",
                "--host", url, "--json",
            )  # fmt: skip

    done = undisturbed(closed_loop, tmp_path_factory.mktemp("closed"))
    (own,) = json.loads(done.stdout)
    assert own["max_response_time"] > 1500
    slow = {ms: count for ms, count in own["response_times"].items() if float(ms) > 500}
    assert sum(slow.values()) < 0.05 * own["num_requests"]


def test_every_fate_is_counted_as_scripted(tmp_path: Path) -> None:
    """The stub decides from a seed, in the order in which requests come: so how many get what is known."""
    script = stub_server.Script(
        refuse_share=0.2, fail_share=0.1, drop_share=0.1, slow_share=0.1, slow_ms=40, queue_ms=1, service_ms=4,
        revisions={"stub": 0.8, "canary": 0.2},
    )  # fmt: skip
    shares = ("--refuse-share", 0.2, "--fail-share", 0.1, "--drop-share", 0.1, "--slow-share", 0.1)
    times = ("--slow-ms", 40, "--service-ms", 4, "--queue-ms", 1, "--canary-share", 0.2)
    file = scenario(tmp_path, phases=BASELINE[1:], slo={"p95_ms": 60_000})
    with stub_server.running(*shares, *times) as url:
        code, summary, directory = load(url, file, tmp_path)
    behaviour, total = stub_server.Behaviour(script), len(plan_of(file).times)
    answers = [behaviour.next()[1] for _ in range(total)]
    counts, seen = summary.phases[0].counts, rows(directory)
    assert counts.planned == counts.sent == total
    assert counts.refused == sum(answer.startswith(b"HTTP/1.1 503") for answer in answers)
    assert summary.phases[0].errors == {
        "HTTP 500": sum(answer.startswith(b"HTTP/1.1 500") for answer in answers),
        "closed": answers.count(b""),
    }
    good = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")]
    assert counts.answered == len(good) == seen["outcome"].count("answered")
    canary = sum(b"canary" in answer for answer in good)
    assert summary.revisions == {"stub": len(good) - canary, "canary": canary}
    assert summary.phases[0].queue.p99 == 1
    assert summary.phases[0].score.p50 == 3
    assert code in (1, 2)
    assert {"failed", "refused"} == {part.cause for part in summary.budget if part.share > part.allowed_share}


def test_requests_that_are_never_answered_are_awaited_and_counted(tmp_path: Path) -> None:
    """Of 300 requests, 200 are answered."""
    file = scenario(tmp_path, timeout_seconds=5, phases=BASELINE[1:])
    with stub_server.running("--hang-after", 200) as url:
        code, summary, directory = load(url, file, tmp_path)
    assert code in (1, 2)
    counts, seen = summary.phases[0].counts, rows(directory)
    assert counts.planned == 300 == len(seen["status"])
    assert (counts.answered, counts.failed) == (200, 100)
    assert summary.phases[0].errors == {"timeout": counts.failed}
    assert number(summary.phases[0].latency.max) >= 5000


def test_a_backlog_recovers_when_it_must(tmp_path: Path) -> None:
    """A server that does 150/s gets 300/s for 2 s, then 50/s: 300 requests too many take 3 s to work off."""
    phases = [
        {"name": "baseline", "seconds": 1, "rate": 1},
        {"name": "burst", "seconds": 2, "rate": 6},
        {"name": "recovery", "seconds": 15, "rate": 1},
    ]
    file = scenario(tmp_path, rate=50, phases=phases, slo={"p95_ms": 100, "recover_seconds": 2})
    code, summary, _ = drive(file, tmp_path, "--capacity", 150)
    assert code in (1, 2)
    assert summary.recovery.after_burst_seconds == pytest.approx(3, abs=1)
    assert summary.recovery.seconds == pytest.approx(5, abs=1)
    assert re.fullmatch("sha256:[0-9a-f]{64}", summary.load_digest or "")
    burst = summary.phases[1]
    assert burst.queue.max == pytest.approx(2000, abs=300)
    assert burst.planned_per_s == 300
    assert burst.achieved_per_s == pytest.approx(300, rel=0.2), "an open loop does not slow down with the server"


def test_a_server_that_freezes_again_has_not_recovered(tmp_path: Path) -> None:
    """Three freezes in a burst, with 3 s between them: the time to recover ends after the last one."""
    phases = [{"name": "baseline", "seconds": 1, "rate": 1}, {"name": "burst", "seconds": 24, "rate": 2}]
    file = scenario(tmp_path, rate=50, phases=phases, slo={"p95_ms": 100, "recover_seconds": 8})
    stalls = [argument for start in (2, 6, 10) for argument in ("--stall", f"{start}:1")]
    code, summary, directory = drive(file, tmp_path, "--service-ms", 2, *stalls)
    found = summary.recovery
    assert found.breached_at == pytest.approx(2, abs=0.3)
    assert found.broken_again_at == pytest.approx([6, 10], abs=0.3)
    assert found.recovered_at == pytest.approx(11, abs=0.3)
    assert found.seconds == pytest.approx(10, abs=0.3)
    assert code in (1, 2), "a busy machine may make a run invalid"
    said = (directory / "summary.md").read_text()
    assert "it was broken again 2 times" in said


def test_a_ramp_finds_the_capacity_and_stops_by_itself(tmp_path: Path) -> None:
    steps = {"name": "burst", "rate": 1, "p95_ms": 60, "steps": {"seconds": 1.5, "factor": 1.5, "to": 40}}
    file = scenario(tmp_path, phases=[steps], stop_at_slo=True, slo={"p95_ms": 10_000})
    code, summary, _ = drive(file, tmp_path, "--capacity", 300)
    assert code in (0, 2)
    assert summary.capacity is not None
    assert summary.stopped == "the SLO did not hold in two steps in a row"
    assert not any(summary.stopped in reason for reason in summary.verdict.reasons)
    assert summary.duration_s < plan_of(file).seconds
    assert [round(step.planned_per_s) for step in summary.capacity.steps if step.problem][-1] > 300
    assert summary.capacity.per_s is None or summary.capacity.per_s < 300


def test_an_overloaded_generator_calls_its_run_invalid(tmp_path: Path) -> None:
    with stub_server.running() as url:
        code, summary, _ = load(url, scenario(tmp_path, phases=BASELINE[1:]), tmp_path, "--rate", 30_000)
    assert code == 2
    assert any("left" in reason and "late" in reason for reason in summary.verdict.reasons)


def test_requests_for_which_the_generator_has_no_connection_left_make_the_run_invalid(tmp_path: Path) -> None:
    """It may have 100 open files, and a stall needs more: that is not the server's failure."""
    file = scenario(tmp_path, timeout_seconds=4, phases=BASELINE[1:])
    with stub_server.running("--stall", "1:30") as url:
        done = subprocess.run(
            ["bash", "-c", 'ulimit -n 100; exec "$@"', "bash", BIN / "locust", *FILE, "--headless", "--host", url,
             "--scenario", file, "--out", tmp_path / "load"],
            cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=RUN_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (found,) = (tmp_path / "load").glob("*/summary.json")
    summary = results.read_summary(found)
    errors, counts = summary.phases[0].errors, summary.phases[0].counts
    assert errors.keys() == {"timeout", "not sent"}
    assert counts.sent == 300 - errors["not sent"]
    assert f"{errors['not sent']} requests could not be sent" in summary.verdict.reasons[0]


# --- all of Locust's modes -------------------------------------------------------------------------------------------


def check_whole(file: Path, summary: Summary, directory: Path, workers: int) -> None:
    """All parts together are the schedule, each request once."""
    seen, expected = rows(directory), plan_of(file)
    np.testing.assert_array_equal(seen["intended_s"], expected.times)
    names = [payload.name for payload in expected.scenario.payloads]
    assert seen["kind"] == [names[kind] for kind in expected.kinds]
    assert set(seen["worker"]) == set(range(workers))
    assert (summary.generator.workers, summary.generator.missing) == (workers, [])


def mixed(path: Path) -> Path:
    kinds = [{"kind": "json", "share": 3}, {"kind": "v2-binary", "rows": 64}, {"kind": "v2-json"}]
    return scenario(path, spacing="poisson", payloads=kinds)


def test_processes_share_the_schedule(server: Server, tmp_path: Path) -> None:
    file = mixed(tmp_path)
    _, summary, directory = load(server.url, file, tmp_path, "--processes", 2)
    check_whole(file, summary, directory, 2)
    assert all(phase.counts.answered == phase.counts.planned for phase in summary.phases)
    assert summary.kinds.keys() == {"json x1", "v2-binary x64", "v2-json x1"}


@contextmanager
def started(home: Path, *command: object, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """A Locust process, whose output is a pipe."""
    process = subprocess.Popen(
        [BIN / "locust", *map(str, command)],
        cwd=ROOT, env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        **more,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_workers_elsewhere_share_the_schedule(tmp_path: Path) -> None:
    file, port = mixed(tmp_path), free_port()
    worker = (*FILE[:2], "--worker", "--master-port", port)
    master = ("--master", "--expect-workers", 2, "--master-bind-host", "127.0.0.1", "--master-bind-port", port)
    with stub_server.running() as url, started(tmp_path, *worker), started(tmp_path, *worker):
        _, summary, directory = load(url, file, tmp_path, *master)
    check_whole(file, summary, directory, 2)


def test_a_worker_that_goes_away_makes_the_run_invalid(tmp_path: Path) -> None:
    file, port = scenario(tmp_path, phases=[{"name": "baseline", "seconds": 6, "rate": 1}]), free_port()
    worker = (*FILE[:2], "--worker", "--master-port", port)
    command = (
        *FILE, "--headless", "--scenario", file, "--out", tmp_path / "load", "--master", "--expect-workers", 2,
        "--master-bind-host", "127.0.0.1", "--master-bind-port", port,
    )  # fmt: skip
    with (
        stub_server.running() as url,
        started(tmp_path, *worker),
        started(tmp_path, *worker) as victim,
        started(tmp_path, *command, "--host", url) as master,
    ):
        assert master.stderr
        next(line for line in master.stderr if "requests in" in line)
        under_load(url)
        victim.kill()
        _, said = master.communicate(timeout=WAIT_SECONDS)
        assert master.returncode == 2, said
    assert "never reported its part" in said


def test_a_run_that_is_ended_early_says_so(tmp_path: Path) -> None:
    file = scenario(tmp_path, phases=[{"name": "baseline", "seconds": 60, "rate": 1}])
    with stub_server.running() as url:
        command = (*FILE, "--headless", "--host", url, "--scenario", file, "--out", tmp_path / "load")
        with started(tmp_path, *command) as process:
            assert process.stderr
            next(line for line in process.stderr if "requests in" in line)
            under_load(url)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=WAIT_SECONDS)
            assert process.returncode == 2, said
    (found,) = (tmp_path / "load").glob("*/summary.json")
    summary = results.read_summary(found)
    assert summary.stopped == "it was terminated"
    assert 0 < summary.phases[0].counts.answered == summary.phases[0].counts.planned


def test_ctrl_c_keeps_the_requests_of_all_processes(tmp_path: Path) -> None:
    """A terminal sends it to every process of the group."""
    file = scenario(tmp_path, phases=[{"name": "baseline", "seconds": 60, "rate": 1}])
    for name, more in (("1", ()), ("2", ("--processes", 2))):
        out = tmp_path / name
        with stub_server.running() as url:
            command = (*FILE, "--headless", "--host", url, "--scenario", file, "--out", out, *more)
            with started(tmp_path, *command, start_new_session=True) as process:
                assert process.stderr
                next(line for line in process.stderr if "requests in" in line)
                under_load(url)
                os.killpg(process.pid, signal.SIGINT)
                _, said = process.communicate(timeout=WAIT_SECONDS)
                assert process.returncode == 2, said
        assert "Traceback" not in said
        (found,) = out.glob("*/summary.json")
        summary = results.read_summary(found)
        assert (summary.stopped, summary.generator.missing) == ("somebody ended it", [])
        counts, sent, times = summary.phases[0].counts, rows(found.parent), plan_of(file).times
        assert 0 < counts.answered == counts.sent == len(sent["worker"])
        assert counts.planned == counts.sent or len(more), "of several processes, one ends before the other"
        for worker in set(sent["worker"]):
            own = [at for at, by in zip(sent["intended_s"], sent["worker"], strict=True) if by == worker]
            np.testing.assert_array_equal(own, times[arrivals.part(worker, 2 if more else 1)][: len(own)])


def test_a_run_that_is_ended_twice_says_so_once(tmp_path: Path) -> None:
    """Its requests hang, so that the second end comes while the first waits for them."""
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    file = scenario(tmp_path, timeout_seconds=4, phases=[{"name": "baseline", "seconds": 60, "rate": 1}])
    with stub_server.running("--stall", "0:60") as url:
        command = (*FILE, "--host", url, "--out", tmp_path / "load", "--web-host", "127.0.0.1", "--web-port", port)
        with started(tmp_path, *command) as process, ThreadPoolExecutor(1) as other:
            until(lambda: httpx.get(page).status_code == 200)
            start(page, scenario=str(file), rate="", seed="")
            until(lambda: list((tmp_path / "load").glob("*/timeline.jsonl")))
            time.sleep(1)
            stopped = other.submit(httpx.post, f"{page}/stop")
            time.sleep(1)
            process.terminate()
            _, said = process.communicate(timeout=WAIT_SECONDS)
            stopped.exception()
    assert "Traceback" not in said
    assert said.count("report: ") == 1


def test_locusts_page_starts_and_stops_runs(tmp_path: Path) -> None:
    port = free_port()
    page = f"http://127.0.0.1:{port}"
    with stub_server.running() as url:
        command = (*FILE, "--host", url, "--out", tmp_path / "load", "--web-host", "127.0.0.1", "--web-port", port)
        with started(tmp_path, *command) as process:
            until(lambda: httpx.get(page).status_code == 200)
            assert "Schedule" in start(page, scenario=str(scenario(tmp_path)), rate="50", seed="")
            until(lambda: len(list((tmp_path / "load").glob("*/summary.json"))) == 1)
            until(lambda: httpx.get(f"{page}/stats/requests").json()["state"] == "stopped")
            assert sum(s["num_requests"] for s in httpx.get(f"{page}/stats/requests").json()["stats"][:-1]) == 175
            start(page, scenario="burst")
            until(lambda: httpx.get(f"{page}/stats/requests").json()["total_rps"] > 0)
            httpx.post(f"{page}/stop")
            until(lambda: len(list((tmp_path / "load").glob("burst-*/summary.json"))) == 1)
            process.terminate()
            _, said = process.communicate(timeout=WAIT_SECONDS)
    assert "the run was stopped early: somebody ended it" in said
    assert said.count("report: ") == 2


def start(page: str, **form: str) -> str:
    return str(httpx.post(f"{page}/swarm", data=form).json()["message"])


def under_load(url: str) -> None:
    """Wait until a stub has been asked for a hundred predictions."""
    until(lambda: int(httpx.get(f"{url}/metrics").text.rpartition("stub_predictions_total ")[2]) > 100)


def problems(summary: Summary) -> set[str | None]:
    """Those of the timeline, but for answers that did not come in time; `None` where the server was ready."""
    assert all(sample.ready for sample in summary.timeline if sample.problem is None)
    return {sample.problem for sample in summary.timeline if "timed out" not in (sample.problem or "")}


# --- behind an ingress -----------------------------------------------------------------------------------------------


def test_headers_that_an_ingress_needs_go_along_with_everything(tmp_path: Path) -> None:
    header = ("--header", "Path: a", "--heade", "Host: parcels.test")
    urls = ("--autoscaler-metrics", "http://me:secret@h/m?token=secret", "--autoscaler=http://h/m?token=secret&a=b")
    with stub_server.running("--name", "parcels.test") as url:
        _, summary, directory = load(
            url, scenario(tmp_path), tmp_path, *header, "--header=Authorization: Bearer secret", *urls
        )
        done = run(tmp_path, "locust", *FILE, "--headless", "--host", url, "--scenario", scenario(tmp_path))
    assert [phase.counts.answered for phase in summary.phases] == [50, 300]
    assert problems(summary) <= {None}
    words = shlex.split(summary.environment.command)
    assert words[-3:] == [urls[0], "http://…@h/m?token=…", "--autoscaler=http://h/m?token=…&a=…"]
    assert [word for word in words if ": " in word] == ["Path: …", "Host: …", "--header=Authorization: …"]
    assert (done.returncode, "no model answers at" in done.stderr) == (3, True)
    assert not [file for file in directory.glob("*.*") if b"secret" in file.read_bytes()]


# --- real servers ----------------------------------------------------------------------------------------------------


def test_smoke_and_a_short_burst_against_the_real_server(server: Server, tmp_path: Path) -> None:
    said = httpx.get(f"{server.url}/model").json()
    for name, folder in (("smoke", tmp_path / "1"), (str(short_burst(tmp_path)), tmp_path / "2")):
        folder.mkdir()
        _, summary, directory = undisturbed(partial(load, server.url, name), folder)
        assert [p.counts.answered for p in summary.phases] == [p.counts.planned for p in summary.phases]
        assert all(p.score.p50 and p.rest.p50 and p.queue.p50 is not None for p in summary.phases)
        assert summary.environment.model.digest == said["digest"]
        assert summary.revisions == {"local": sum(p.counts.answered for p in summary.phases)}
        last = summary.timeline[-1]
        assert (last.ready, last.problem, last.queue_rows is not None) == (True, None, True)
        assert last.processes in {1, 2}  # BentoML's arbiter listens too
        assert number(last.rss_mb) > 20
        assert len(summary.timeline) >= int(summary.duration_s) / 2  # one a second, if the machine lets it
        assert Counter(rows(directory)["outcome"]).keys() == {"answered"}
        files = ["report.html", "requests.parquet", "summary.json", "summary.md"]
        assert sorted(path.name for path in directory.iterdir()) == files


def short_burst(path: Path) -> Path:
    phases = [{"name": name, "seconds": s, "rate": r} for name, s, r in (("baseline", 2, 1), ("burst", 2, 5))]
    phases.append({"name": "recovery", "seconds": 2, "rate": 1})
    return scenario(path, rate=40, phases=phases, slo={"p95_ms": 250, "recover_seconds": 3})


def test_overload_measures_the_capacity_first(server: Server, tmp_path: Path) -> None:
    phases = [{"name": "baseline", "seconds": 1, "rate": 0.2}, {"name": "burst", "seconds": 2, "rate": 3}]
    kinds = [{"kind": "v2-binary", "rows": 1024}]
    slo = {"p95_ms": 400, "refused_share": 0.9}
    file = scenario(tmp_path, rate="capacity", deadline_ms=300, phases=phases, payloads=kinds, slo=slo)
    _, summary, _ = load(server.url, file, tmp_path)
    burst = summary.phases[-1].counts
    assert burst.planned == pytest.approx(6 * summary.base_per_s, abs=1)
    assert burst.refused > 0
    assert burst.answered > 0
    assert burst.failed == 0


def test_it_drives_a_model_of_ones_own_with_its_ranges_or_a_file(serve: Serve, tmp_path: Path) -> None:
    lines = [f"{i % 7},{i % 5},{'x' if i % 7 > 3 else 'y'}" for i in range(99)]
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["a,b,defect", *lines]))
    result = pipeline.train(dataset.read(table, "defect"), Recipe("logistic-regression", 0, 0.2), quiet)
    artifact.replace(tmp_path / "model", result.files)
    with serve(MODEL_DIR=tmp_path / "model") as server:
        model = served.Served.from_json(payloads.ask_model(server.url))
        for folder, options in ((tmp_path / "1", ()), (tmp_path / "2", ("--payload", table))):
            folder.mkdir()
            _, summary, _ = load(server.url, mixed(folder), folder, *options)
            assert [p.counts.answered for p in summary.phases] == [p.counts.planned for p in summary.phases]
    drawn = payloads.rows_for(model.schema, 500, seed=1)
    assert drawn.min(0) == pytest.approx([0, 0], abs=0.1)
    assert drawn.max(0) == pytest.approx([6, 4], abs=0.1)
    np.testing.assert_array_equal(payloads.rows_from_file(table, model.schema)[:3], [[0, 0], [1, 1], [2, 2]])
    for text, problem in (
        ("a,c\n1,2", "column 'b' is missing"),
        ("a,b\n1,x", "row 1: 'x' is not"),
        ("a,b\n", "no rows"),
    ):
        table.write_text(text)
        with pytest.raises(payloads.BadPayload, match=problem):
            payloads.rows_from_file(table, model.schema)


# --- what can't be run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ((), f"no model answers at {NOBODY}/model"),
        (("--host", "127.0.0.1:9"), "--host: '127.0.0.1:9' is no URL; expected one such as http://127.0.0.1:3000"),
        (("--scenario", "bursts"), "no scenario 'bursts'; expected burst, chaos"),
        (("--rate", "fast"), "--rate: fast; expected requests/s"),
        (("--seed", "-1"), "--seed: -1; expected a whole number"),
        (("--header", "Host"), "--header: 'Host'; expected NAME: VALUE, and none of connection"),
        (("--header", "Authorization: a\nb"), "--header: 'Authorization'; expected NAME: VALUE"),
        (("--header", "Content-Length: 3"), "--header: 'Content-Length'; expected NAME: VALUE"),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_code_3(tmp_path: Path, options: Any, problem: str) -> None:
    done = run(tmp_path, "locust", *FILE, "--headless", "--host", NOBODY, "--out", tmp_path, *options)
    assert done.returncode == 3
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert problem in line


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rate": -1}, "rate: expected greater than 0, got -1"),
        ({"rates": 5}, "rates: unknown field"),
        ({"slo": {}}, "slo.p95_ms: is missing"),
        ({"payloads": [{"kind": "grpc"}]}, "payloads.0.kind: expected 'json', 'v2-json' or 'v2-binary', got 'grpc'"),
        ({"phases": BASELINE[:1]}, "phases: only warm-up; expected one that counts"),
        (
            {"rate": "capacity", "payloads": [{"kind": "json"}, {"kind": "v2-json"}]},
            "rate: capacity is of one payload, not of 2; expected one, or a number",
        ),
        ({"stop_at_slo": True}, "stop_at_slo: no phase has steps"),
        ({"phases": BASELINE + BASELINE[1:]}, "phases: warm-up, baseline, baseline; expected each once"),
        ({"phases": [{"name": "lunch", "seconds": 1, "rate": 1}]}, "phases.0.name: expected 'warm-up'"),
        ({"phases": [{"name": "burst", "rate": 1}]}, "phases.0: seconds: expected a number"),
        (
            {"phases": [BASELINE[1] | {"spikes": {"every_seconds": 1, "seconds": 2, "rate": 3}}]},
            "phases.0.spikes: seconds: 2 is too long; expected less than every_seconds",
        ),
    ],
)
def test_a_bad_scenario_is_refused_with_file_field_and_what_was_expected(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    file = scenario(tmp_path, **changes)
    with pytest.raises(BadScenario, match=re.escape(f"{file}: {problem}")) as raised:
        scenarios.load(str(file))
    assert "\n" not in str(raised.value)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = scenario(tmp_path)
    file.write_text(file.read_text() + "rate: 7\n")
    with pytest.raises(BadScenario, match="rate: appears twice"):
        scenarios.load(str(file))


def test_every_scenario_that_comes_along_is_sound() -> None:
    platform = {"scale-up", "scale-from-zero", "scale-down", "rolling", "chaos"}
    assert set(scenarios.names()) == {"smoke", "steady", "burst", "spikes", "ramp", "overload", "mixed"} | platform
    for name in scenarios.names():
        loaded = scenarios.load(name)
        plan = Plan(loaded, loaded.rate if isinstance(loaded.rate, float) else 100.0, loaded.seed)
        assert plan.seconds <= (400 if name in platform else 90)
        assert (loaded.cluster is not None, loaded.rate == "replica") == (name in platform,) * 2
        if name in platform:  # so that the capacity that `ramp` finds is one of theirs
            ramp = scenarios.load("ramp")
            assert (loaded.payloads, loaded.slo.p95_ms) == (ramp.payloads, ramp.slo.p95_ms)
        assert len(plan.kinds) == len(plan.times) > 100
        assert set(plan.phase_of(plan.times)) == set(range(len(loaded.phases)))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.xlsx", "rows.json.gz"])
def test_a_payload_of_no_known_format_is_refused_with_those_that_are_known(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, "locust", *FILE, "--headless", "--host", NOBODY, "--payload", tmp_path / name)
    assert done.returncode == 3
    assert "is of no known format, by its name; expected .csv, .parquet or .json (a list of objects)" in done.stderr


def test_make_load_takes_a_url_an_address_or_one_with_its_port(tmp_path: Path) -> None:
    """Locust is a script here that writes its arguments."""
    (tmp_path / "locust").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "locust").chmod(0o755)
    for given, url in {
        "localhost": "http://localhost:3000",
        "localhost:4000": "http://localhost:4000",
        "127.0.0.1:4000": "http://127.0.0.1:4000",
        "::1": "http://[::1]:3000",
        "[::1]": "http://[::1]:3000",
        "[::1]:4000": "http://[::1]:4000",
        "https://parcels.example.com/a": "https://parcels.example.com/a",
    }.items():
        command = ["make", "--old-file=.venv/.installed", "load", f"BIN={tmp_path}", f"HOST={given}"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(tmp_path, MAKEFLAGS=""), capture_output=True, text=True, check=True
        )
        assert done.stdout.split()[-2:] == ["--host", url]


def test_the_verdict_and_its_exit_code_are_the_last_line(tmp_path: Path) -> None:
    """`make` ends with 2 whatever the run's exit code is."""
    failing = scenario(tmp_path, phases=BASELINE[1:], slo={"p95_ms": 500})
    with stub_server.running("--fail-share", 0.5) as url:
        done = run(tmp_path, "locust", *FILE, "--headless", "--host", url, "--scenario", failing, "--out", tmp_path)
    (found,) = tmp_path.glob("*/summary.json")
    verdict, code = results.read_summary(found).verdict, done.returncode
    assert code == {"Failed": 1, "Invalid": 2}[verdict.outcome]
    *reasons, last = done.stderr.splitlines()[-1 - len(verdict.reasons) :]
    assert reasons == [f"  {reason}" for reason in verdict.reasons]
    assert last == f"{verdict.outcome}: test against {url} (exit code {code}); report: {found.parent}/report.html"
    assert "Aggregated" in done.stderr + done.stdout


def test_no_empty_tables_stand_above_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, "locust", *FILE, "--headless", "--host", NOBODY, "--out", tmp_path)
    assert done.stderr.splitlines()[-1].startswith(f"error: no model answers at {NOBODY}/model")
    assert done.stderr.splitlines()[-1].endswith("(exit code 3)")
    assert "Aggregated" not in done.stderr + done.stdout


def test_a_server_on_this_machine_is_reached_whatever_proxies_there_are(tmp_path: Path) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    with stub_server.running() as url:
        done = run(
            tmp_path, "locust", *FILE, "--headless", "--host", url, "--scenario", scenario(tmp_path), "--out", tmp_path,
            http_proxy=proxy, HTTP_PROXY=proxy, all_proxy=proxy, no_proxy="",
        )  # fmt: skip
    (found,) = tmp_path.glob("*/summary.json")
    summary = results.read_summary(found)
    assert sum(phase.counts.answered for phase in summary.phases) == 350, done.stderr
    assert problems(summary) <= {None}
