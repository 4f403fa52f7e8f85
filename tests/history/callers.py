"""Callers who ask a server that is killed, or whose database is, and what the database has of their answers."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from conftest import WAIT_SECONDS, Server, until
from defects import simulator
from history_databases import ask

SCAN = simulator.SCHEMA.example
PAUSE_SECONDS = 0.02  # before somebody who was not answered asks again
RECORDED = "SELECT id, request_id FROM predictions"


class Callers:
    """Callers who ask one thing after the other, until `end`.

    With `keys`, they ask again until they are answered, with the same key. `acknowledged` has the id of each answer by
    its request id, and `unanswered` the requests that got none.
    """

    def __init__(self, url: str, *, keys: bool, callers: int = 4, rows: int = 1):
        self._url, self._keys = url, keys
        self._over, self._given_up = threading.Event(), threading.Event()
        self._path, asked = ("/classify", SCAN) if rows == 1 else ("/classify_batch", [SCAN] * rows)
        self._content = json.dumps(asked).encode()
        self.acknowledged: dict[str, list[str]] = {}
        self.unanswered: set[str] = set()
        self.refused = 0  # answers of 503, all with `Retry-After`
        self.replayed = 0
        self.faults: list[str] = []  # what should never come
        self.answered_at = 0.0  # the newest
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(callers)]
        for thread in self._threads:
            thread.start()

    def _ask(self, caller: int) -> None:
        with httpx.Client(timeout=WAIT_SECONDS) as client:
            for number in count():
                if self._over.is_set():
                    return
                name = f"{caller}-{number}"
                if not self._keys:
                    self._answer(client, name)
                    continue
                deadline = time.monotonic() + WAIT_SECONDS
                while not self._answer(client, name) and not self._given_up.wait(PAUSE_SECONDS):
                    if time.monotonic() > deadline:
                        self.faults.append(f"{name} was never answered")
                        return

    def _answer(self, client: httpx.Client, name: str) -> bool:
        """Ask once; return whether the answer came."""
        headers = {"content-type": "application/json", "x-request-id": name}
        if self._keys:
            headers["idempotency-key"] = name
        try:
            answer = client.post(f"{self._url}{self._path}", content=self._content, headers=headers)
        except httpx.ConnectError:
            time.sleep(PAUSE_SECONDS)
            return False  # nothing was asked
        except httpx.TransportError:
            answer = None
        if answer is None or answer.status_code != 200:
            self.unanswered.add(name)
            if answer is None:
                return False
            if answer.status_code == 503 and "retry-after" in answer.headers:
                self.refused += 1
            else:
                self.faults.append(f"{answer.status_code} {answer.text}")
            return False
        made = answer.json()
        self.acknowledged[name] = [each["prediction_id"] for each in (made if isinstance(made, list) else [made])]
        self.unanswered.discard(name)
        self.replayed += "idempotency-replayed" in answer.headers
        self.answered_at = time.monotonic()
        return True

    @property
    def answers(self) -> int:
        """The number of requests that were answered."""
        return len(self.acknowledged)

    @property
    def ids(self) -> list[str]:
        """The ids of all answers."""
        return [id_ for ids in [*self.acknowledged.values()] for id_ in ids]

    def more(self, answers: int) -> None:
        """Wait until so many more requests are answered."""
        before = self.answers
        until(lambda: bool(self.faults) or self.answers > before + answers)

    def answered_again(self) -> float:
        """Wait until something is answered that was not before; return the seconds until then."""
        began = time.monotonic()
        until(lambda: bool(self.faults) or self.answered_at > began)
        return self.answered_at - began

    def end(self) -> None:
        """Let everyone get the answer to what was asked last; nothing was answered that should not be.

        To be called once more does nothing.
        """
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.faults, self.faults[:3]

    def give_up(self) -> None:
        """End without the answers that did not come."""
        self._over.set()
        self._given_up.set()


@contextmanager
def calling(url: str, **options: Any) -> Iterator[Callers]:
    """Let callers ask; they end with the block, if not before."""
    callers = Callers(url, **options)
    try:
        yield callers
    except BaseException:
        callers.give_up()
        raise
    callers.end()


def recorded(url: str) -> list[tuple[str, str]]:
    """Return the id and the request id of each record in a database."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as database:
            return [(id_.hex(), request_id) for id_, request_id in database.execute(RECORDED)]
    return [(row["id"].hex, row["request_id"]) for row in ask(url, RECORDED)]


def compare(callers: Callers, url: str, in_flight: int = 0) -> None:
    """Assert that everything that was acknowledged is recorded, and nothing twice.

    What was not acknowledged and is recorded was in flight when something was killed: at most `in_flight` requests.
    """
    found = recorded(url)
    ids = {id_ for id_, _ in found}
    assert len(found) == len(ids)
    acknowledged = {*callers.ids}
    assert len(acknowledged) == len(callers.ids)
    assert acknowledged <= ids
    besides = {request_id for id_, request_id in found if id_ not in acknowledged}
    assert besides <= callers.unanswered
    assert len(besides) <= in_flight


def kill(server: Server) -> None:
    """Kill a server, and wait for its end."""
    server.process.kill()
    server.wait()
