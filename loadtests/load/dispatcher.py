"""Send each request at its time, whether or not earlier ones were answered, and record how it ended.

One greenlet a request. Records are rows of one array that is made beforehand, and garbage is not collected meanwhile: a
generator that stops to tidy up would measure itself.
"""

from __future__ import annotations

import gc
import logging
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
from loadtests.load.connections import Connections, ServerReply
from loadtests.results import NOT_SENT, REQUEST, UNANSWERED, WRONG, Requests
from loadtests.scenario import Plan
from tools.answers import IsRight
from tools.payloads import Prepared

logger = logging.getLogger("loadtests")
IN_FLIGHT, MARGIN = 4096, 1.25  # at least so many of one process may be, and so many times what a hung server needs
CPU_SECONDS = 1.0  # over which the use of CPU is measured
GRACE_SECONDS = 1.0  # beyond their timeout, for requests that are in flight at the end
BEHIND = 16  # requests that are started in a row where the dispatcher is late, before answers are read again
NAP_SECONDS = 0.2  # at most, so that an early end is noticed
TIMING = re.compile(r"(?:^|[\s,])(queue|score)\s*;\s*dur=([0-9]{1,9}(?:\.[0-9]{1,9})?)(?=\s*(?:[,;]|$))")
TIMING_CHARACTERS = 500  # of Server-Timing that are looked at
SLACK_MS = 1.0  # that clocks may differ by
REVISIONS, REVISION_CHARACTERS = 100, 100  # at most, that are told apart, and of a name

# Of one request: its payload's name, latency in ms, the answer's length, its status (0: none), the index of its error.
RequestListener = Callable[[str, float, int, int, int], None]


class Dispatcher:
    """Sends requests at `times` `[n]`, of the payloads `kinds` `[n]`; `run` once, and everything is in `requests`.

    At most `limit` are in flight together. `due` is how many requests of the schedule have had their time, `peak` the
    most that were in flight, `cpu_share` the share of a core that this process used in its busiest second. `problem` is
    an error of our own; where there is one, the run says nothing.
    """

    def __init__(
        self,
        times: Times,
        kinds: NDArray[np.int8],
        payloads: Sequence[Prepared],
        connections: Connections,
        report: RequestListener,
        *,
        limit: int = IN_FLIGHT,
    ):
        self.requests: Requests = np.zeros(len(times), REQUEST)
        for name in ("sent", "end", "queue_ms", "score_ms"):
            self.requests[name] = math.nan
        self.requests["intended"], self.requests["kind"] = times, kinds
        self.requests["revision"], self.requests["error"] = -1, UNANSWERED
        self._at = {name: self.requests[name] for name in REQUEST.fields or ()}  # its columns
        self.revisions: dict[str, int] = {}
        self.due = self.peak = 0
        self.cpu_share, self._limit, self.problem = 0.0, limit, ""
        self._times, self._kinds, self._payloads = times.tolist(), kinds.tolist(), payloads
        self._connections, self._report = connections, report
        self._begin, self._flying, self._over = 0.0, 0, False
        self._ending, self._landed = Event(), Event()

    def run(self, begin: float, patience: float) -> None:
        """Send everything, where 0 is `begin` on `time.perf_counter`; then wait for answers, at most `patience` s."""
        self._begin = begin
        with no_collection():  # what there is until now is collected before the begin, so that nothing is late for it
            gevent.sleep(max(0.0, begin - time.perf_counter()))
            with self._cpu_watched():
                self._send_all()
            self._ending.set()
            if self._flying:
                self._landed.wait(patience + GRACE_SECONDS)
        self._over = True
        never = ~np.isnan(self._at["sent"]) & np.isnan(self._at["end"])
        self._at["end"][never] = self._now()  # given up
        self._connections.close()

    def end(self, patience: float | None = None) -> None:
        """Send nothing more, and, where so many seconds are given, wait for answers only for these."""
        self._ending.set()
        if patience is not None:
            gevent.spawn_later(patience, self._landed.set)

    def _now(self) -> float:
        return time.perf_counter() - self._begin

    @contextmanager
    def _cpu_watched(self) -> Iterator[None]:
        """Measure `cpu_share` in the block."""

        def watch() -> None:
            while True:
                since = _clocks()
                gevent.sleep(CPU_SECONDS)
                self.cpu_share = max(self.cpu_share, _share_since(since))

        begin, watcher = _clocks(), gevent.spawn(watch)
        try:
            yield
        finally:
            watcher.kill()
            self.cpu_share = max(self.cpu_share, _share_since(begin))  # that may be all of a short one

    def _send_all(self) -> None:
        for number, intended in enumerate(self._times):
            if intended <= self._now() and number % BEHIND == 0:
                gevent.sleep(0)
            while (delay := intended - self._now()) > 0 and not self._ending.is_set():
                gevent.sleep(min(delay, NAP_SECONDS))
            if self._ending.is_set():
                return
            self.due = number + 1
            if self._flying >= self._limit:
                self.requests["error"][number] = NOT_SENT
                continue
            self._flying += 1
            self.peak = max(self.peak, self._flying)
            gevent.spawn_raw(self._send, number, intended)

    def _send(self, number: int, intended: float) -> None:
        payload = self._payloads[self._kinds[number]]
        try:
            self._at["sent"][number] = self._now()
            request = payload.requests[number % len(payload.requests)]
            reply = self._connections.exchange(request, payload.most_bytes)
            end = self._now()
            if not self._over:
                self._report(payload.name, 1e3 * (end - intended), *self._keep(number, end, reply, payload.is_right))
        except Exception as error:  # whatever it is: it must not be lost, and not be taken for an answer
            self._fail(number, error)
        finally:
            self._flying -= 1
            if not self._flying and self._ending.is_set():
                self._landed.set()

    def _fail(self, number: int, error: Exception) -> None:
        self.requests["status"][number], self.requests["error"][number] = 0, UNANSWERED
        if not self.problem:
            logger.error("a request could not be sent, or its answer not be kept", exc_info=error)
            self.problem = f"{type(error).__name__}: {error}"
        self._ending.set()

    def _keep(self, number: int, end: float, reply: ServerReply, is_right: IsRight) -> tuple[int, int, int]:
        """Record how a request ended; return the answer's length and status, and the index of the error."""
        at, response = self._at, reply.response
        at["end"][number], at["error"][number] = end, reply.error
        if reply.error == NOT_SENT:
            at["sent"][number] = math.nan
        if response is None:
            return 0, 0, reply.error
        status, body = response.status_code, reply.body
        error = WRONG if 200 <= status < 300 and not _is_prediction(response, body, is_right) else 0
        at["status"][number], at["bytes"][number], at["error"][number] = status, len(body), error
        at["retry_after"][number], at["revision"][number] = "retry-after" in response, self._revision(response)
        longest = 1e3 * (end - at["sent"][number]) + SLACK_MS
        for name, ms in TIMING.findall(_header(response, "server-timing")[:TIMING_CHARACTERS]):
            if float(ms) <= longest:  # else it is not true
                at[f"{name}_ms"][number] = float(ms)
        return len(body), status, error

    def _revision(self, response: HTTPResponse) -> int:
        name = _header(response, "x-revision")[:REVISION_CHARACTERS]
        if not name or (name not in self.revisions and len(self.revisions) >= REVISIONS):
            return -1
        return self.revisions.setdefault(name, len(self.revisions))


def is_answered(reply: ServerReply, is_right: IsRight) -> bool:
    """Return whether an answer is a right prediction."""
    response = reply.response
    return response is not None and response.status_code == 200 and _is_prediction(response, reply.body, is_right)


def _is_prediction(response: HTTPResponse, body: bytes, is_right: IsRight) -> bool:
    return is_right(body, _header(response, "inference-header-content-length"))


def most_in_flight(plan: Plan, workers: int) -> int:
    """Return how many requests one of the workers may have in flight: more than a server that hangs needs."""
    rate = max(max(segment.first, segment.last) for segment in plan.profile)
    return max(IN_FLIGHT, math.ceil(MARGIN * rate * plan.scenario.timeout_seconds / workers))


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _share_since(since: tuple[float, float]) -> float:
    cpu, wall = np.subtract(_clocks(), since).tolist()
    return float(cpu / max(1e-9, wall))


def _header(response: HTTPResponse, name: str) -> str:
    value = response.get(name)
    return value if isinstance(value, str) else ", ".join(value or ())


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now, and none in the block."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
