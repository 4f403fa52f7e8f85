"""Servers and databases are killed, or stand still, under load: what was acknowledged is in the table, once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from callers import Callers, calling, compare, kill

from conftest import Serve, Server, free_port
from defects.settings import MAX_TIMEOUT_MS
from history_databases import new_database
from tools.local_postgres import LocalPostgres

CALLERS, KILLS = 4, 2
ANSWERS = 20  # between kills
MOMENT_SECONDS = 0.03  # after so many, at most: in any phase of a commit


def report(callers: Callers, times: int, seconds: list[float]) -> str:
    """Say what happened."""
    ordered = sorted(seconds)
    return (
        f"{times} times: {callers.answers} requests were answered, {callers.replayed} of them a second time, "
        f"{callers.refused} answers of 503, {len(callers.unanswered)} requests without an answer; "
        f"answered again after {ordered[len(ordered) // 2]:.2f} s (median), {ordered[-1]:.2f} s at most"
    )


def kill_servers(
    serve: Serve,
    model_dir: Path,
    url: str,
    *,
    keys: bool,
    times: int = KILLS,
    callers: int = CALLERS,
    answers: int = ANSWERS,
) -> str:
    """Kill a server under load, so many times; return what happened."""
    port, seconds, chance = free_port(), list[float](), random.Random(1)
    settings = {"MODEL_DIR": model_dir, "PORT": port, "DEFECTS_DATABASE_URL": url, "DEFECTS_HISTORY": "acknowledged"}
    with calling(f"http://127.0.0.1:{port}", keys=keys, callers=callers) as calls:
        began = time.monotonic()
        for number, server in enumerate(_servers(serve, times + 1, settings)):
            calls.more(1)
            seconds.append(time.monotonic() - began)
            _wait(calls, answers, chance)
            began = time.monotonic()
            if number < times:
                kill(server)
            else:
                calls.end()  # while there is somebody to answer
    compare(calls, url, in_flight=0 if keys else callers * times)
    return report(calls, times, seconds[1:])


def _servers(serve: Serve, number: int, settings: dict[str, object]) -> Iterator[Server]:
    """One server after the other on one port."""
    for _ in range(number):
        with serve(**settings) as server:
            yield server


def stop_database(
    serve: Serve,
    model_dir: Path,
    postgres: LocalPostgres,
    stop: Callable[[int], None],
    *,
    keys: bool,
    times: int = KILLS,
    callers: int = CALLERS,
    answers: int = ANSWERS,
    timeout_ms: int = MAX_TIMEOUT_MS,
) -> str:
    """Stop a database under load and let it go on, so many times; return what happened."""
    url, seconds, chance = new_database(postgres), list[float](), random.Random(1)
    settings = {
        "MODEL_DIR": model_dir,
        "DEFECTS_DATABASE_URL": url,
        "DEFECTS_HISTORY": "acknowledged",
        "DEFECTS_REQUEST_TIMEOUT_MS": timeout_ms,
    }
    with serve(**settings) as server, calling(server.url, keys=keys, callers=callers) as calls:
        for number in range(times):
            _wait(calls, answers, chance)
            stop(number)
            seconds.append(calls.answered_again())
        calls.more(answers)
        calls.end()
    compare(calls, url, in_flight=0 if keys else callers * times)
    return report(calls, times, seconds)


def _wait(calls: Callers, answers: int, chance: random.Random) -> None:
    """Wait for so many answers, and for a moment."""
    calls.more(answers)
    time.sleep(chance.random() * MOMENT_SECONDS)


@contextmanager
def frozen(postgres: LocalPostgres) -> Iterator[None]:
    """Stop all processes of a database meanwhile."""
    postgres.freeze()
    try:
        yield
    finally:
        postgres.thaw()


def test_a_server_is_killed(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    kill_servers(serve, model_dir, f"sqlite:///{tmp_path}/history.db", keys=True)


def test_a_database_is_killed(serve: Serve, model_dir: Path, own_postgres: LocalPostgres) -> None:
    def stop(_: int) -> None:
        own_postgres.kill()
        own_postgres.start()

    stop_database(serve, model_dir, own_postgres, stop, keys=False, times=1)
