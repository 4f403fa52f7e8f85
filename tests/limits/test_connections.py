"""Connections have a bound below the limit of file descriptors; beyond it health is answered, and others are told."""

from __future__ import annotations

import json
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Thread

import faulty_values as faulty
import httpx
import pytest

from attacks import (
    BATCH,
    ENTRY_POINTS,
    MIB,
    ask,
    ask_on,
    assert_common_headers,
    assert_error,
    attack,
    beside_others,
    connect,
    ended,
    get,
    head,
    log_lines,
    many_files,
    metric,
    post,
    report,
    serving_process,
)
from conftest import BIN, CI, MODULE, Command, Serve, Server, free_port, run, until
from defects import simulator

CONNECTIONS = 40
SPARE = 16  # that are taken beyond the bound, for one answer each
OTHERS = 2  # connections of who measures beside an attack
MANY = 10_000


@pytest.fixture(scope="module")
def health_port() -> int:
    return free_port()


@pytest.fixture(scope="module", params=ENTRY_POINTS)
def server(request: pytest.FixtureRequest, serve: Serve, model_dir: Path, health_port: int) -> Iterator[Server]:
    settings = {"DEFECTS_MAX_CONNECTIONS": CONNECTIONS, "DEFECTS_HEALTH_PORT": health_port}
    settings |= {"DEFECTS_ACCESS_LOG_SHARE": 0}
    with serve(command=ENTRY_POINTS[request.param], MODEL_DIR=model_dir, **settings) as running:
        until(lambda: connections(running, health_port) == 0)
        yield running


def connections(server: Server, port: int | None) -> float:
    return metric(server, "defects_connections", port)


def crowded(server: Server, port: int | None) -> float:
    return metric(server, "defects_connections_ended_total", port, reason="crowded")


@contextmanager
def full(server: Server, port: int, beside: int = OTHERS) -> Iterator[list[socket.socket]]:
    """Hold all connections that the server takes, of which `beside` exist already, each after one answer."""
    with ExitStack() as held:
        opened = [held.enter_context(closing(connect(server))) for _ in range(CONNECTIONS - beside)]
        for connection in opened:
            assert ask_on(connection, get("/livez")).status == 200
        until(lambda: connections(server, port) == CONNECTIONS)
        yield opened
    until(lambda: connections(server, port) <= beside)


def test_beyond_the_bound_health_is_answered_and_others_are_told(server: Server, health_port: int) -> None:
    refused = metric(server, "defects_refused_total", health_port, reason="connections")
    with beside_others(server), full(server, health_port):
        for path in ("/livez", "/readyz", "/metrics"):
            outcome = attack(server, [get(path)], seconds=5)
            (answer,) = outcome.answers
            assert (answer.status, answer.headers["connection"]) == (200, "close"), answer
            assert outcome.ended
            assert_common_headers(answer)
        for sent in (
            post(),
            get("/"),
            get("/model"),
            get("/nowhere"),
            post(BATCH, "/classify_batch"),
            head("/livez", method="DELETE"),
        ):
            answer = attack(server, [sent], seconds=5).assert_refused(503, 405)
            if answer.status == 503:
                assert int(answer.headers["retry-after"]) >= 1
        assert metric(server, "defects_refused_total", health_port, reason="connections") - refused >= 5
    assert ask(server, post()).status == 200


def test_only_one_request_is_answered_beyond_the_bound(server: Server, health_port: int) -> None:
    with beside_others(server), full(server, health_port):
        outcome = attack(server, [get("/livez") * 5], seconds=5)
        assert [answer.status for answer in outcome.answers] == [200]
        assert outcome.ended


def test_the_oldest_that_asks_nothing_makes_room(server: Server, health_port: int) -> None:
    with beside_others(server), full(server, health_port) as usual, ExitStack() as held:
        before = crowded(server, health_port)
        idle = [held.enter_context(closing(connect(server))) for _ in range(SPARE)]
        half = b"GET /livez HTTP/1.1\r\nhost: x\r\n"
        for opened in idle[::2]:  # half a head is no request
            opened.sendall(half)
        until(lambda: connections(server, health_port) == CONNECTIONS + SPARE)
        assert ask(server, get("/livez")).status == 200
        until(lambda: crowded(server, health_port) == before + 1)
        until(lambda: ended(idle[0]))
        assert [number for number, opened in enumerate(idle) if ended(opened)] == [0]
        for _ in range(20):
            assert ask(server, get("/readyz")).status == 200
        assert not any(map(ended, usual))


def test_a_flood_of_connections_is_logged_once_and_hurts_nobody(server: Server, health_port: int) -> None:
    lines = len(log_lines(server))
    with many_files(2000), beside_others(server), full(server, health_port) as usual, ExitStack() as held:
        for number in range(500):
            held.enter_context(closing(connect(server)))
            if number % 25 == 0:
                assert ask(server, get("/livez")).status == 200
                assert ask(server, get("/readyz"), health_port).status == 200
                assert_error(ask(server, post()), 503)
        until(lambda: connections(server, health_port) <= CONNECTIONS + SPARE)
        assert not any(map(ended, usual))
        for opened in usual:
            assert ask_on(opened, post()).status == 200
    logged = [line for line in log_lines(server)[lines:] if "DEFECTS_MAX_CONNECTIONS" in line]
    assert len(logged) == 1, logged
    assert json.loads(logged[0])["level"] == "warning"
    assert str(CONNECTIONS) in logged[0]
    assert len(log_lines(server)) - lines <= 3


def test_who_comes_after_a_connection_ended_is_taken(server: Server, health_port: int) -> None:
    with full(server, health_port, beside=0) as usual:
        assert_error(ask(server, post()), 503)
        usual[0].close()
        until(lambda: connections(server, health_port) < CONNECTIONS)
        with closing(connect(server)) as opened:
            for _ in range(3):
                answer = ask_on(opened, post())
                assert (answer.status, "connection" in answer.headers) == (200, False)


def test_connections_are_counted(server: Server, health_port: int) -> None:
    with ExitStack() as held:
        for _ in range(7):
            held.enter_context(closing(connect(server)))
        until(lambda: connections(server, health_port) == 7)
    until(lambda: connections(server, health_port) == 0)


def test_the_health_port_has_health_only(server: Server, health_port: int) -> None:
    for path in ("/livez", "/readyz", "/readyz?verbose", "/metrics"):
        answer = ask(server, get(path), health_port)
        assert answer.status == 200, path
        assert_common_headers(answer)
    for sent in (
        post(),
        get("/"),
        get("/model"),
        get("/docs.json"),
        get("/v2/health/live"),
        get("/nowhere"),
        post(BATCH, "/classify_batch"),
    ):
        assert_error(ask(server, sent, health_port), 404)
    attack(server, [b"garbage\r\n\r\n"], seconds=5, port=health_port).assert_refused(400)
    attack(server, [get("/livez", "x: ".ljust(70_000, "v"))], seconds=5, port=health_port).assert_refused(431)


def test_a_flood_of_the_health_port_hurts_nobody(server: Server, health_port: int) -> None:
    with many_files(2000), beside_others(server), ExitStack() as held:
        for number in range(500):
            held.enter_context(closing(connect(server, health_port)))
            if number % 50 == 0:
                assert ask(server, get("/livez"), health_port).status == 200
                assert ask(server, post()).status == 200


SLOW = [BIN / "python", "tests/faulty.py"]


def test_the_health_port_answers_until_the_end(serve: Serve, model_dir: Path) -> None:
    """Readiness is refused, and life told, after the main port has stopped to listen."""
    slow = json.dumps([simulator.SCHEMA.example | {"weight_g": faulty.SLOW}] * 1024).encode()
    port = free_port()
    with serve(command=SLOW, MODEL_DIR=model_dir, DEFECTS_HEALTH_PORT=port) as server:
        asking = [
            Thread(
                target=lambda: attack(server, [post(slow, "/classify_batch", "x-request-timeout-ms: 60000")] * 20, 20)
            )
            for _ in range(2)
        ]
        for thread in asking:
            thread.start()
        until(lambda: metric(server, "defects_requests_in_flight", port) >= 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not listens(server))
        assert ask(server, get("/livez"), port).status == 200
        assert_error(ask(server, get("/readyz"), port), 503)
        assert server.process.wait(30) == 0
        for thread in asking:
            thread.join(30)
        with pytest.raises(ConnectionRefusedError):
            connect(server, port)


def listens(server: Server) -> bool:
    try:
        connect(server).close()
    except OSError:
        return False
    return True


def bad(tmp_path: Path, command: Command, model_dir: Path, **settings: object) -> str:
    """Return the one line with which a start ends that has a bad setting."""
    port = settings.get("PORT", free_port())
    address = {"HOST": "127.0.0.1", "PORT": port, "BENTOML_HOST": "127.0.0.1", "BENTOML_PORT": port}
    done = run(tmp_path, *command, **(address | {"MODEL_DIR": model_dir} | settings))
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("defects: ")]
    assert (done.returncode, len(lines), "Traceback" in done.stderr + done.stdout) == (78, 1, False), done
    assert "unknown setting" not in lines[0]
    return lines[0]


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_health_port_that_is_taken_is_a_bad_setting(model_dir: Path, tmp_path: Path, command: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = bad(tmp_path, command, model_dir, DEFECTS_HEALTH_PORT=port)
    assert "DEFECTS_HEALTH_PORT" in line
    assert str(port) in line


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_a_health_port_that_is_the_main_one_is_a_bad_setting(model_dir: Path, tmp_path: Path, command: Command) -> None:
    port = free_port()
    assert "DEFECTS_HEALTH_PORT" in bad(tmp_path, command, model_dir, DEFECTS_HEALTH_PORT=port, PORT=port)


def limited(files: int, command: Command) -> Command:
    """Return the command with a limit of open files, which it can't raise."""
    return ["/bin/bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command]


@pytest.mark.parametrize("command", ENTRY_POINTS.values(), ids=ENTRY_POINTS)
def test_more_connections_than_files_is_a_bad_setting(model_dir: Path, tmp_path: Path, command: Command) -> None:
    line = bad(tmp_path, limited(200, command), model_dir, DEFECTS_MAX_CONNECTIONS=200)
    assert "DEFECTS_MAX_CONNECTIONS" in line
    assert "200" in line


def test_few_files_are_enough_to_tell_newcomers(serve: Serve, model_dir: Path) -> None:
    """`ulimit -n 64`, and 200 connections that ask nothing: newcomers were reset without a word."""
    with serve(command=limited(64, MODULE), MODEL_DIR=model_dir) as server, beside_others(server), ExitStack() as held:
        for number in range(200):
            held.enter_context(closing(connect(server)))
            if number % 10 == 0:
                assert ask(server, get("/livez")).status == 200
                assert ask(server, get("/readyz")).status == 200
        assert_error(ask(server, post()), 503)
        assert metric(server, "defects_connections") < 64
        assert "Traceback" not in server.log.read_text()
        assert "Too many open files" not in server.log.read_text()


def test_ten_thousand_idle_connections_are_held(serve: Serve, model_dir: Path) -> None:
    """Half of them after an answer, half without a request."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < MANY + 500:
        assert not CI, f"at most {hard} files may be open"
        pytest.skip(f"at most {hard} files may be open, {MANY + 500} are needed")
    soft = min(1024, hard) if hard != resource.RLIM_INFINITY else 1024
    command: Command = ["bash", "-c", f'ulimit -S -n {soft}; exec "$@"', "bash", *MODULE]
    with (
        serve(command=command, MODEL_DIR=model_dir) as server,
        many_files(MANY + 500),
        beside_others(server, growth=600 * MIB),
        ExitStack() as held,
    ):
        process = serving_process(server)
        before, idle = process.memory_info().rss, []
        for number in range(MANY):
            idle.append(held.enter_context(closing(connect(server))))
            if number % 2:
                assert ask_on(idle[-1], get("/livez")).status == 200
        until(lambda: metric(server, "defects_connections") >= MANY)
        each = (process.memory_info().rss - before) / MANY / 1024
        report(f"{MANY} idle connections: {each:.1f} KiB each")
        for opened in idle[::500]:
            assert ask_on(opened, post()).status == 200
        assert httpx.get(f"{server.url}/readyz").status_code == 200
