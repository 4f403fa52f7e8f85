"""Real server processes, started, killed and drained, by both entry points."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import faulty_values as faulty
import httpx
import psutil
import pytest

from conftest import (
    BENTOML,
    BIN,
    MODULE,
    ROOT,
    WAIT_SECONDS,
    Command,
    Serve,
    Server,
    environment,
    free_port,
    run,
    until,
)
from defects import artifact, simulator
from defects.serving.drain import CRASHED, LINGER_SECONDS

EXAMPLE = simulator.SCHEMA.example
BODY = json.dumps(EXAMPLE)
JSON = {"content-type": "application/json"}
PATIENT = {"x-request-timeout-ms": "600000"}
FAULTY: Command = [BIN / "python", "tests/faulty.py"]
SLOW = [EXAMPLE | {"weight_g": faulty.SLOW}] * 1024
HELD = [EXAMPLE | {"weight_g": faulty.HELD}] * 1024
DRAIN_SECONDS = 6.0  # longer than the machine may stop while a test looks at a drain

entry_points = pytest.mark.parametrize("command", [BENTOML, MODULE], ids=["bentoml serve", "defects.serve"])
faulty_entry_points = pytest.mark.parametrize(
    ("target", "command"),
    [("tests.faulty:DefectClassifier", None), ("", FAULTY)],
    ids=["bentoml serve", "defects.serve"],
)

# A replica whose scorer gives what `change` makes of the probabilities, once it has been built.
TURNING = """
from defects import scoring, serve
from defects.replica import Replica, find_artifact
from defects.settings import Settings

def turning(change):
    settings = Settings.from_environment()
    artifact, _ = find_artifact(settings)
    healthy, built = scoring.load(artifact), []
    replica = Replica.build(
        settings, artifact=artifact, scorer=lambda rows: change(healthy(rows)) if built else healthy(rows)
    )
    built.append(True)
    return replica

"""


class KeepAlive(threading.Thread):
    """A client that sends one request after another on a connection that it keeps, as long as it is told to.

    Nor does it send on one that was idle for long, because the machine stopped: that may end at any moment.
    """

    def __init__(self, url: str):
        super().__init__(daemon=True)
        self.address = url.removeprefix("http://")
        self.statuses: list[int] = []
        self.lost = 0  # requests that were sent on an accepted connection and never answered
        self.refused = 0
        self.told_to_close = 0

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        used = 0.0
        while self.refused < 3:
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self.address, timeout=WAIT_SECONDS)
                    connection.connect()
                    used = time.monotonic()
            except OSError:
                connection = None
                self.refused += 1
                time.sleep(0.05)
                continue
            try:
                if time.monotonic() - used > LINGER_SECONDS / 2:
                    connection.close()
                    connection = None
                    continue
                connection.request("POST", "/classify", BODY, JSON)
                answer = connection.getresponse()
                answer.read()
                used = time.monotonic()
                self.statuses.append(answer.status)
                time.sleep(0.02)  # 32 threads that never pause leave the test itself no time to look
                if answer.getheader("connection") == "close":
                    self.told_to_close += 1
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException):
                self.lost += 1
                connection = None


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=WAIT_SECONDS)


def clients(server: Server, count: int = 32) -> list[KeepAlive]:
    threads = [KeepAlive(server.url) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: all(t.statuses for t in threads))
    return threads


@entry_points
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_a_drain_under_load_loses_nothing(serve: Serve, model_dir: Path, command: Command | None, twice: bool) -> None:
    with serve(command=command, MODEL_DIR=model_dir, DEFECTS_DRAIN_SECONDS=DRAIN_SECONDS) as server:
        threads = clients(server)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        answer = until(lambda: (got := httpx.get(f"{server.url}/readyz")).status_code == 503 and got)
        assert answer.headers["connection"] == "close"
        assert answer.json() == {"error": "not ready: this replica is shutting down; expected another try"}
        assert httpx.get(f"{server.url}/v2/health/ready").status_code == 503
        assert httpx.get(f"{server.url}/livez").status_code == 200
        if twice:
            server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0
        assert DRAIN_SECONDS - 0.1 < time.monotonic() - began < 10 * DRAIN_SECONDS
        for thread in threads:
            thread.join(WAIT_SECONDS)
    assert sum(t.lost for t in threads) == 0
    assert {status for t in threads for status in t.statuses} == {200}
    assert all(t.told_to_close for t in threads)
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


@entry_points
def test_new_connections_are_refused_not_hung_while_the_last_answers_are_given(
    serve: Serve, command: Command | None, model_dir: Path, tmp_path: Path
) -> None:
    """A request that is held keeps the process after it stopped listening."""
    held = FAULTY if command == MODULE else None
    with serve("tests.faulty:DefectClassifier", command=held, MODEL_DIR=model_dir, GATE=tmp_path) as server:
        assert post(server, SLOW) == 200  # after this one, such batches are scored in a thread
        gate = faulty.Gate(tmp_path)
        with ThreadPoolExecutor(1) as asking:
            held_answer = asking.submit(post, server, HELD)
            until(lambda: gate.reached)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_refused(server))
            assert server.process.poll() is None
            assert min(seconds_to_be_refused(server) for _ in range(5)) < 1  # whoever hangs takes that each time
            assert server.process.poll() is None
            gate.open()
            assert held_answer.result() == 200
        assert server.wait() == 0


def seconds_to_be_refused(server: Server) -> float:
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        connect(server)
    return time.monotonic() - began


def request(path: str, body: str) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def post(server: Server, scans: list[dict[str, Any]]) -> int:
    """The status of a request with these scans, which may take as long as it likes."""
    return httpx.post(f"{server.url}/classify_batch", json=scans, headers=PATIENT).status_code


def test_a_half_sent_request_does_not_hold_the_drain_up(serve: Serve, model_dir: Path) -> None:
    settings = {"MODEL_DIR": model_dir, "DEFECTS_FINISH_SECONDS": 1, "WATCHDOG_SECONDS": 600}
    with serve(command=FAULTY, **settings) as server, connect(server) as half:
        half.sendall(b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        until(lambda: in_flight(server) == 1)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == 0


def test_a_caller_who_goes_away_is_not_scored(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    """Five come while a batch is held in the scorer's thread, and are gone before it may go on."""
    with serve(command=FAULTY, MODEL_DIR=model_dir, GATE=tmp_path) as server, ExitStack() as going:
        assert post(server, SLOW) == 200  # after this one, such batches are scored in a thread
        before, gate = rows_scored(server), faulty.Gate(tmp_path)
        with ThreadPoolExecutor(1) as asking:
            held_answer = asking.submit(post, server, HELD)
            until(lambda: gate.reached)
            for _ in range(5):
                going.enter_context(connect(server)).sendall(request("/classify", BODY))
            until(lambda: metric(server, "defects_queue_rows") == len(HELD) + 5)
            going.close()
            until(lambda: 'code="499",route="/classify"} 5.0' in httpx.get(f"{server.url}/metrics").text)
            gate.open()
            assert held_answer.result() == 200
        until(lambda: metric(server, "defects_queue_rows") == 0)
        assert rows_scored(server) - before == len(HELD)


def rows_scored(server: Server) -> float:
    return metric(server, "defects_batch_rows_sum")


def in_flight(server: Server) -> float:
    return metric(server, "defects_requests_in_flight")


def metric(server: Server, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", httpx.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def is_refused(server: Server) -> bool:
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    return False


def test_ctrl_c_drains_and_a_second_one_hurries(serve: Serve, model_dir: Path) -> None:
    with serve(command=MODULE, MODEL_DIR=model_dir, DEFECTS_DRAIN_SECONDS=600) as server:
        server.process.send_signal(signal.SIGINT)
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0


@pytest.mark.parametrize("delay", [0, 0.25, 0.65, 0.95])
def test_a_signal_while_starting_ends_with_0(model_dir: Path, tmp_path: Path, delay: float) -> None:
    settings = {"MODEL_DIR": model_dir, "HOST": "127.0.0.1", "PORT": free_port(), "DEFECTS_DRAIN_SECONDS": 0}
    process = subprocess.Popen([*MODULE], cwd=ROOT, env=environment(tmp_path, **settings))
    until(lambda: catches(process.pid, signal.SIGTERM))  # before that, it is the interpreter that is ended
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    assert process.wait(WAIT_SECONDS) == 0


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    found = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (number - 1) & 1)


def test_a_signal_during_warm_up_ends_with_0(model_dir: Path, tmp_path: Path) -> None:
    code = TURNING + (
        "import time\n"
        "def slowly(probabilities):\n"
        "    print('warming', flush=True)\n"
        "    time.sleep(0.1)\n"
        "    return probabilities\n"
        "serve.main(lambda: turning(slowly))\n"
    )
    settings = {"MODEL_DIR": model_dir, "HOST": "127.0.0.1", "PORT": free_port(), "DEFECTS_DRAIN_SECONDS": 0.1}
    command = [str(BIN / "python"), "-c", code]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(tmp_path, **settings), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert any("warming" in line for line in process.stdout)  # reads no further than that
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0


def test_a_scorer_that_hangs_does_not_keep_the_process_alive(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    settings = {"MODEL_DIR": model_dir, "GATE": tmp_path, "DEFECTS_FINISH_SECONDS": 0.5}
    with serve(command=FAULTY, **settings) as server, connect(server) as asking:
        assert post(server, SLOW[:1]) == 200  # after this one, such batches are scored in a thread
        asking.sendall(request("/classify_batch", json.dumps(HELD[:1])))
        until(lambda: faulty.Gate(tmp_path).reached)  # which is never opened
        server.process.send_signal(signal.SIGTERM)
        assert server.wait() == CRASHED


@faulty_entry_points
def test_a_scorer_that_only_fails_ends_the_process_too(
    serve: Serve, model_dir: Path, target: str, command: Command | None
) -> None:
    with serve(target, command=command, MODEL_DIR=model_dir) as server:
        assert httpx.post(f"{server.url}/classify", json=EXAMPLE | {"weight_g": faulty.BREAK}).status_code == 500
        for _ in range(20):
            with suppress(httpx.HTTPError):
                httpx.post(f"{server.url}/classify", json=EXAMPLE)
            if server.process.poll() is not None:
                break
            time.sleep(0.05)
        assert server.wait() == (CRASHED if command else -signal.SIGKILL)


def test_who_can_not_be_answered_in_time_is_told_so(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    settings = {"MODEL_DIR": model_dir, "DEFECTS_FINISH_SECONDS": 0.3, "WATCHDOG_SECONDS": 600}
    with serve(command=FAULTY, GATE=tmp_path, **settings) as server, ThreadPoolExecutor(4) as asking:
        assert post(server, SLOW) == 200  # after this one, such batches are scored in a thread
        held = [asking.submit(post, server, HELD) for _ in range(4)]
        until(lambda: in_flight(server) == len(held))
        server.process.send_signal(signal.SIGTERM)
        assert [answer.result() for answer in held] == [503] * len(held)
        faulty.Gate(tmp_path).open()
        assert server.wait() == 0


def test_a_worker_ends_with_its_arbiter(serve: Serve, model_dir: Path) -> None:
    port = free_port()
    for _ in range(2):
        with serve(command=BENTOML, MODEL_DIR=model_dir, PORT=port) as server:
            (worker,) = workers(server)
            server.process.kill()
            worker.wait(WAIT_SECONDS)


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ((), {"BENTOML_CONFIG_OPTIONS": "services.defect_classifier.workers=2"}, "workers: is 2; expected 1"),
        (("--api-workers", "4"), {}, "--api-workers: is 4; expected 1"),
        ((), {"BENTOML_API_WORKERS": "3"}, "--api-workers: is 3; expected 1"),
    ],
)
def test_more_than_one_worker_is_refused(
    model_dir: Path, tmp_path: Path, options: tuple[str, ...], settings: dict[str, str], message: str
) -> None:
    command = ("bentoml", "serve", "service:DefectClassifier", "--port", free_port(), *options)
    code, errors = failing(tmp_path, *command, MODEL_DIR=model_dir, **settings)
    assert (code, f"defects: {message}" in errors) == (78, True), errors


def test_one_worker_may_be_asked_for(serve: Serve, model_dir: Path) -> None:
    with serve(command=BENTOML, MODEL_DIR=model_dir, BENTOML_API_WORKERS=1) as server:
        assert len(workers(server)) == 1


def test_output_that_nobody_reads_stops_nobody(model_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"MODEL_DIR": model_dir, "HOST": "127.0.0.1", "PORT": port, "DEFECTS_DRAIN_SECONDS": 0}
    with subprocess.Popen(
        [*MODULE], cwd=ROOT, env=environment(tmp_path, **settings), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            server = Server(process, f"http://127.0.0.1:{port}", tmp_path)
            server.wait_ready()
            with httpx.Client(base_url=server.url) as client:
                for _ in range(1500):
                    assert client.get("/nowhere").status_code == 404
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 0
        finally:
            process.kill()


def test_a_closed_output_is_no_reason_to_fail(model_dir: Path, tmp_path: Path) -> None:
    code = "import sys; sys.stdout = None; import service"
    assert failing(tmp_path, "python", "-c", code, MODEL_DIR=model_dir) == (0, "")


def test_a_killed_server_starts_again(serve: Serve, model_dir: Path) -> None:
    port = free_port()
    for _ in range(2):
        with serve(command=MODULE, MODEL_DIR=model_dir, PORT=port) as server:
            assert httpx.post(f"{server.url}/classify", json=EXAMPLE).status_code == 200
            server.process.kill()
            assert server.wait() == -signal.SIGKILL


def workers(server: Server) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "worker.service" in " ".join(child.cmdline())]


def test_bentoml_serve_ends_when_its_worker_is_killed(serve: Serve, model_dir: Path) -> None:
    with serve(command=BENTOML, MODEL_DIR=model_dir) as server:
        (worker,) = workers(server)
        worker.kill()
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{server.url}/readyz", timeout=1)
        assert server.wait() == CRASHED
    assert "Traceback" not in server.log.read_text()


@faulty_entry_points
def test_a_dead_scorer_ends_the_process_tree(
    serve: Serve, model_dir: Path, target: str, command: Command | None
) -> None:
    with serve(target, command=command, MODEL_DIR=model_dir) as server:
        tree = [server.process.pid, *(p.pid for p in psutil.Process(server.process.pid).children(recursive=True))]
        with suppress(httpx.HTTPError):  # the answer may or may not leave in time
            answer = httpx.post(f"{server.url}/classify", json=EXAMPLE | {"weight_g": faulty.DIE})
            assert answer.status_code == 503
        assert server.wait() == (CRASHED if command else -signal.SIGKILL)
        until(lambda: not any(map(psutil.pid_exists, tree)))
        assert "the scorer was told to die" in server.log.read_text()


@pytest.mark.parametrize(
    "command", ["bentoml serve tests.broken_start:DefectClassifier", "python tests/broken_start.py"]
)
def test_a_start_that_fails_ends_the_process_and_says_why(model_dir: Path, tmp_path: Path, command: str) -> None:
    address = {"HOST": "127.0.0.1", "PORT": free_port(), "BENTOML_PORT": free_port()}
    done = run(tmp_path, *command.split(), MODEL_DIR=model_dir, **address)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "the start failed" in done.stdout
    assert "broken on purpose" in done.stdout


@faulty_entry_points
def test_a_wedged_event_loop_turns_liveness_off(
    serve: Serve, model_dir: Path, tmp_path: Path, target: str, command: Command | None
) -> None:
    gate = faulty.Gate(tmp_path)
    with serve(target, command=command, MODEL_DIR=model_dir, GATE=tmp_path) as server, ThreadPoolExecutor(1) as asking:
        assert httpx.get(f"{server.url}/livez").status_code == 200
        wedge = asking.submit(httpx.post, f"{server.url}/classify", json=EXAMPLE | {"weight_g": faulty.WEDGE})
        until(lambda: gate.reached)
        with pytest.raises(httpx.TimeoutException):
            httpx.get(f"{server.url}/livez", timeout=1)
        gate.open()
        assert wedge.result().status_code == 200
        until(lambda: httpx.get(f"{server.url}/livez").status_code == 200)


def failing(tmp_path: Path, *command: object, **settings: object) -> tuple[int, str]:
    done = run(tmp_path, *command, **settings)
    return done.returncode, done.stderr


def damaged(model_dir: Path, tmp_path: Path) -> dict[str, object]:
    files = {p.name: p.read_bytes() for p in model_dir.iterdir() if p.name != artifact.DIGESTS}
    (tmp_path / "damaged").mkdir()
    artifact.write(tmp_path / "damaged", files)
    (tmp_path / "damaged" / "model.onnx").write_bytes(files["model.onnx"][:-100])
    return {"MODEL_DIR": tmp_path / "damaged"}


def pipe(_: Path, tmp_path: Path) -> dict[str, object]:
    os.mkfifo(tmp_path / "pipe")
    return {"DEFECTS_REVISION_FILE": tmp_path / "pipe"}


@pytest.mark.parametrize("command", [BENTOML, MODULE], ids=["bentoml serve", "defects.serve"])
@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda *_: {"DEFECTS_DRAIN_SECONDS": "soon"}, 78, "DEFECTS_DRAIN_SECONDS: expected a valid number"),
        (lambda *_: {"PORT": "0"}, 78, "PORT: expected greater than or equal to 1, got '0'"),
        (lambda *_: {"MODEL_DIR": "/nowhere"}, 66, "no model: /nowhere"),
        (lambda *_: {"HOST": "\udcff"}, 78, "HOST: expected text in UTF-8, got '\\udcff'"),
        (lambda *_: {"MODEL_DIR": "/\udcff"}, 78, "MODEL_DIR: expected text in UTF-8, got '/\\udcff'"),
        (lambda *_: {"DEFECTS_REVISION_FILE": "/dev/zero"}, 78, "can't read /dev/zero: is a device"),
        (pipe, 78, "is a named pipe; expected a regular file"),
        (damaged, 65, "model.onnx: changed or truncated"),
    ],
)
def test_a_start_that_fails_ends_with_the_pinned_code_and_one_line(
    model_dir: Path, tmp_path: Path, command: Command, change: Any, code: int, message: str
) -> None:
    got, errors = failing(tmp_path, *command, **({"MODEL_DIR": model_dir} | change(model_dir, tmp_path)))
    (line,) = [line for line in errors.splitlines() if line.startswith("defects: ")]
    assert (got, message in line, "Traceback" in errors) == (code, True, False), errors


@entry_points
@pytest.mark.parametrize("redirected", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >/dev/full 2>/dev/full"])
def test_a_start_that_fails_ends_with_the_pinned_code_where_nobody_can_read_why(
    tmp_path: Path, command: Command, redirected: str
) -> None:
    for settings, code in (({"DEFECTS_LOG_LEVEL": "loud"}, 78), ({"MODEL_DIR": "/nowhere"}, 66)):
        started = [str(BIN / str(command[0])), *map(str, command[1:])]
        shell = ["sh", "-c", f'exec "$@" {redirected}', "sh", *started]
        done = subprocess.run(shell, cwd=ROOT, env=environment(tmp_path, **settings), timeout=60, check=False)
        assert done.returncode == code


def test_a_server_without_standard_files_gives_their_numbers_to_nothing_else(model_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    settings = {"MODEL_DIR": model_dir, "HOST": "127.0.0.1", "PORT": port, "DEFECTS_DRAIN_SECONDS": 0}
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *map(str, MODULE)]
    with subprocess.Popen(shell, cwd=ROOT, env=environment(tmp_path, **settings)) as process:
        try:
            Server(process, f"http://127.0.0.1:{port}", tmp_path / "no log").wait_ready()
            files = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)]  # noqa: PTH115
            assert files == ["/dev/null"] * 3
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("nowhere.invalid", r"can't listen on nowhere\.invalid:\d+: .+; expected a free address"),
        ("é" * 100, r"can't listen on é{100}:\d+: no host can have this name; expected a free address"),
        ("a\nb", r"can't listen on a\\nb:\d+: .+; expected a free address"),
        ("x" * 100_000, r"can't listen on x{200}:\d+: .+; expected a free address"),
    ],
)
def test_a_host_that_is_none_is_one_line(model_dir: Path, tmp_path: Path, host: str, problem: str) -> None:
    code, errors = failing(tmp_path, *MODULE, MODEL_DIR=model_dir, HOST=host, PORT=free_port())
    assert code == 78, errors
    assert re.fullmatch(rf"defects: HOST, PORT: {problem}\n", errors), errors


def test_a_port_in_use_is_one_line(model_dir: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, errors = failing(tmp_path, *MODULE, MODEL_DIR=model_dir, HOST="127.0.0.1", PORT=port)
    assert code == 78
    assert (
        errors.strip()
        == f"defects: HOST, PORT: can't listen on 127.0.0.1:{port}: Address already in use; expected a free address"
    )


@entry_points
def test_both_entry_points_answer_the_same(
    serve: Serve, server: Server, model_dir: Path, command: Command | None
) -> None:
    paths = ("/", "/model", "/docs.json", "/schema.json", "/v2", "/v2/models/defect-classifier", "/livez", "/nowhere")
    with serve(command=command, MODEL_DIR=model_dir) as other:
        for path in paths:
            ours, theirs = (httpx.get(f"{s.url}{path}") for s in (server, other))
            assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content), path
            assert ours.headers.keys() == theirs.headers.keys(), path
        ours, theirs = (httpx.post(f"{s.url}/classify", json=EXAMPLE).json() for s in (server, other))
        assert ours["probabilities"] == theirs["probabilities"]


def test_the_start_is_timed_and_verbose_readiness_tells_it(server: Server) -> None:
    state = httpx.get(f"{server.url}/readyz?verbose").json()
    assert (state["ready"], state["reason"], state["problem"]) == (True, "ready", None)
    phases = state["startup_seconds"]
    assert list(phases) == ["interpreter", "imports", "artifact", "verification", "application", "warm_up", "ready"]
    parts = [seconds for phase, seconds in phases.items() if phase != "ready"]
    assert phases["ready"] == pytest.approx(sum(parts), abs=0.02)
    assert os.environ.get("HOME", "?") not in json.dumps(state)


def test_wrong_golden_answers_mean_not_ready(model_dir: Path, tmp_path: Path) -> None:
    """The scorer goes wrong after the artifact was verified: only the replay through the data plane can notice."""
    code = TURNING + (
        "import asyncio\n"
        "replica = turning(lambda probabilities: probabilities[:, ::-1])\n"
        "asyncio.run(replica.verify())\n"
        "health = replica.health\n"
        "print(f'{health.ready} {health.reason} {health.problem}')\n"  # at once: log lines come in between
    )
    done = run(tmp_path, "python", "-c", code, MODEL_DIR=model_dir)
    assert done.returncode == 0, done.stderr
    assert "\nFalse wrong_answers golden answers differ by" in f"\n{done.stdout}"
