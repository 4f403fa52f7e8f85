"""Sends each request at its time, whether or not earlier ones were answered, and keeps what became of it.

One greenlet a request. What is kept is one array that is made beforehand, and garbage is not collected meanwhile: a
generator that stops to tidy up would measure itself.
"""

from __future__ import annotations

import gc
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import gevent
import numpy as np
from gevent.event import Event
from geventhttpclient.response import HTTPResponse
from numpy.typing import NDArray

from loadtests.arrivals import Times
from loadtests.payloads import Prepared
from loadtests.results import NOT_SENT, REQUEST, UNANSWERED, WRONG, Requests
from loadtests.wire import Connections, Reply

MAX_IN_FLIGHT = 4096  # of one process; each has a connection
GRACE_SECONDS = 1.0  # beyond their timeout, for requests that are in flight at the end
BEHIND = 16  # requests that are started in a row where the dispatcher is late, before answers are read again
NAP_SECONDS = 0.2  # at most, so that an early end is noticed
TIMING = re.compile(r"\b(queue|score)\s*;\s*dur=([0-9.]+)")

# Of one request: its payload's name, latency in ms, the answer's length, its status (0: none), the index of its error.
Tell = Callable[[str, float, int, int, int], None]


class Dispatcher:
    """Sends requests at `times` `[n]`, of the payloads `kinds` `[n]`; `run` once, and everything is in `requests`.

    `due` is how many requests of the schedule have had their time, `peak` the most that were in flight together.
    """

    def __init__(
        self, times: Times, kinds: NDArray[np.int8], payloads: Sequence[Prepared], connections: Connections, tell: Tell
    ):
        self.requests: Requests = np.zeros(len(times), REQUEST)
        for name in ("sent", "end", "queue_ms", "score_ms"):
            self.requests[name] = math.nan
        self.requests["intended"], self.requests["kind"] = times, kinds
        self.requests["revision"], self.requests["error"] = -1, UNANSWERED
        self._at = {name: self.requests[name] for name in REQUEST.fields or ()}  # its columns
        self.revisions: dict[str, int] = {}
        self.due = self.peak = 0
        self.cpu_seconds = self.seconds = 0.0  # of the process, while it sent
        self._times, self._kinds, self._payloads = times.tolist(), kinds.tolist(), payloads
        self._connections, self._tell = connections, tell
        self._begin, self._flying, self._over = 0.0, 0, False
        self._ending, self._landed = Event(), Event()

    def run(self, begin: float, patience: float) -> None:
        """Send everything, where 0 is `begin` on `time.perf_counter`; then wait for answers, at most `patience` s."""
        self._begin = begin
        gevent.sleep(max(0.0, begin - time.perf_counter()))
        cpu, started = time.process_time(), time.perf_counter()
        with no_collection():
            self._send_all()
            self.cpu_seconds, self.seconds = time.process_time() - cpu, time.perf_counter() - started
            self._ending.set()
            if self._flying:
                self._landed.wait(patience + GRACE_SECONDS)
        self._over = True
        self._connections.close()

    def end(self) -> None:
        """Send nothing more."""
        self._ending.set()

    def _now(self) -> float:
        return time.perf_counter() - self._begin

    def _send_all(self) -> None:
        for number, intended in enumerate(self._times):
            if intended <= self._now() and number % BEHIND == 0:
                gevent.sleep(0)
            while (delay := intended - self._now()) > 0 and not self._ending.is_set():
                gevent.sleep(min(delay, NAP_SECONDS))
            if self._ending.is_set():
                return
            self.due = number + 1
            if self._flying >= MAX_IN_FLIGHT:
                self.requests["error"][number] = NOT_SENT
                continue
            self._flying += 1
            self.peak = max(self.peak, self._flying)
            gevent.spawn_raw(self._send, number, intended)

    def _send(self, number: int, intended: float) -> None:
        payload = self._payloads[self._kinds[number]]
        self._at["sent"][number] = self._now()
        reply = self._connections.exchange(payload.requests[number % len(payload.requests)])
        end = self._now()
        if not self._over:
            self._tell(payload.name, 1e3 * (end - intended), *self._keep(number, end, reply, payload.proof))
        self._flying -= 1
        if not self._flying and self._ending.is_set():
            self._landed.set()

    def _keep(self, number: int, end: float, reply: Reply, proof: bytes) -> tuple[int, int, int]:
        """Write down what came of a request; gives the answer's length and status, and the index of the error."""
        at, response = self._at, reply.response
        at["end"][number], at["error"][number] = end, reply.error
        if reply.error == NOT_SENT:
            at["sent"][number] = math.nan
        if response is None:
            return 0, 0, reply.error
        status, body = response.status_code, reply.body
        error = WRONG if 200 <= status < 300 and proof not in body else 0
        at["status"][number], at["bytes"][number], at["error"][number] = status, len(body), error
        at["retry_after"][number], at["revision"][number] = "retry-after" in response, self._revision(response)
        for name, ms in TIMING.findall(_header(response, "server-timing")):
            at[f"{name}_ms"][number] = float(ms)
        return len(body), status, error

    def _revision(self, response: HTTPResponse) -> int:
        name = _header(response, "x-revision")
        return self.revisions.setdefault(name, len(self.revisions)) if name else -1


def _header(response: HTTPResponse, name: str) -> str:
    value = response.get(name)
    return value if isinstance(value, str) else ", ".join(value or ())


@contextmanager
def no_collection() -> Iterator[None]:
    """What there is now is left out of garbage collection, and nothing is collected in the block."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
