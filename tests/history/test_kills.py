"""A server that is killed under load: what was acknowledged is in the table, once."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import httpx

from conftest import Serve, Server, free_port, until
from defects import simulator

SCAN = simulator.SCHEMA.example
CALLERS = 4
KILLS = 2


class Callers:
    """Callers who ask with a key until they are answered; `acknowledged` has the ids of all answers."""

    def __init__(self, url: str):
        self._url, self._over = url, threading.Event()
        self.acknowledged: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client() as client:
            for request in count():
                if self._over.is_set():
                    return
                self.acknowledged.append(until(lambda: self._answer(client, f"{number}-{request}")))  # noqa: B023

    def _answer(self, client: httpx.Client, key: str) -> str:
        answer = client.post(f"{self._url}/classify", json=SCAN, headers={"idempotency-key": key})
        return answer.json()["prediction_id"] if answer.status_code == 200 else ""

    def end(self) -> None:
        """Let everyone get the answer to what was asked last."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def ids(file: Path) -> list[str]:
    """The ids in the table."""
    with closing(sqlite3.connect(file)) as database:
        return [row[0].hex() for row in database.execute("SELECT id FROM predictions")]


def killed(server: Server, callers: Callers) -> None:
    """Kill a server once some more were answered."""
    before = len(callers.acknowledged)
    until(lambda: len(callers.acknowledged) > before + 20)
    server.process.send_signal(signal.SIGKILL)
    server.wait()


def servers(serve: Serve, kills: int, **settings: object) -> Iterator[Server]:
    """One server after the other on one port: each is killed, but for the last."""
    for _ in range(kills + 1):
        with serve(**settings) as server:
            yield server


def test_what_was_acknowledged_is_in_the_table_once_after_kills(serve: Serve, model_dir: Path, tmp_path: Path) -> None:
    file, port = tmp_path / "history.db", free_port()
    callers = Callers(f"http://127.0.0.1:{port}")
    settings = {"DEFECTS_DATABASE_URL": f"sqlite:///{file}", "DEFECTS_HISTORY": "acknowledged"}
    for number, server in enumerate(servers(serve, KILLS, MODEL_DIR=model_dir, PORT=port, **settings)):
        if number < KILLS:
            killed(server, callers)
        else:
            callers.end()
    found = ids(file)
    assert len(found) == len({*found})
    assert {*found} == {*callers.acknowledged}
