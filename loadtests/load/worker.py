"""Send a worker's share of the schedule, and report how each request ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
import numpy as np
from gevent.event import Event
from locust.env import Environment

from loadtests import arrivals, results
from loadtests.analysis import measures
from loadtests.load.connections import Connections
from loadtests.load.dispatcher import GRACE_SECONDS, Dispatcher, is_answered, most_in_flight
from loadtests.load.messages import CHUNK, REPORT, STOP_SECONDS, WorkerMessage
from loadtests.scenario import BadScenario, Plan, Scenario
from tools import payloads
from tools.payloads import BadPayload, Prepared
from tools.served import Served

logger = logging.getLogger("loadtests")
PREPARE_SECONDS = 60.0
CLOSED_LOOP, CLOSED_SECONDS = 16, 3.0  # connections and time in which the capacity is measured
PATIENT_MS = 600_000


class Worker:
    """Sends its part of the schedule, and reports it."""

    def __init__(self, environment: Environment):
        self._environment = environment
        self._dispatcher: Dispatcher | None = None
        self._reported = Event()
        self._failures: dict[str, Exception] = {}
        self._fire: Callable[..., None] = environment.events.request.fire

    def receive(self, msg: Any, **_: Any) -> None:
        """Carry out an order of the coordinator, without making it wait."""
        gevent.spawn(self._obey, msg.data)

    def _obey(self, order: WorkerMessage) -> None:
        try:
            getattr(self, f"_{order['what']}")(order)
        except (OSError, BadPayload, BadScenario) as error:
            self._report("problem", text=str(error))
        except Exception as error:  # nobody else would hear of it, and the coordinator would wait
            logger.exception("a worker failed")
            self._report("problem", text=f"{type(error).__name__}: {error}")

    def _report(self, what: str, **content: Any) -> None:
        assert self._environment.runner is not None  # noqa: S101 - messages come from there
        self._environment.runner.send_message(REPORT, {"what": what, **content})

    def _payloads(self, order: WorkerMessage, deadline_ms: int | None) -> list[Prepared]:
        model, scenario = Served.from_json(order["model"]), Scenario.model_validate(order["scenario"])
        rows = payloads.rows_from_bytes(model.schema, order["rows"])
        prepared = [
            payloads.prepare(
                p.kind, p.rows, order["host"], model, rows, deadline_ms=deadline_ms, headers=order["headers"]
            )
            for p in scenario.payloads
        ]
        for payload in prepared:
            if payload.rows < len(rows) and not order.get("index"):  # one worker says it
                logger.warning("%s: the first %d of %d rows are sent", payload.name, payload.rows, len(rows))
        return prepared

    def _measure(self, order: WorkerMessage) -> None:
        """Report how many requests this worker alone gets answered in a second, closed loop."""
        scenario = Scenario.model_validate(order["scenario"])
        prepared = self._payloads(order, PATIENT_MS)[0]
        connections = Connections(order["host"], scenario.timeout_seconds)
        closed_loop(connections, prepared, 1.0)  # warm-up
        self._report("measured", per_s=closed_loop(connections, prepared, CLOSED_SECONDS))
        connections.close()

    def _prepare(self, order: WorkerMessage) -> None:
        scenario = Scenario.model_validate(order["scenario"])
        self._plan, self._index = Plan(scenario, order["base"], order["seed"]), order["index"]
        mine = arrivals.part(order["index"], order["of"])
        self._dispatcher = Dispatcher(
            self._plan.times[mine],
            self._plan.kinds[mine],
            self._payloads(order, scenario.deadline_ms),
            Connections(order["host"], scenario.timeout_seconds, scenario.connection_seconds),
            self._count,
            limit=most_in_flight(self._plan, order["of"]),
        )
        self._reported.clear()
        self._report("ready")

    def _begin(self, order: WorkerMessage) -> None:
        begin = time.perf_counter() + order["in"]
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        watcher = gevent.spawn(self._report_steps, dispatcher, begin) if self._plan.scenario.stop_at_slo else None
        try:
            dispatcher.run(begin, self._plan.scenario.timeout_seconds)
        finally:
            if watcher:
                watcher.kill()
        if dispatcher.problem:  # what was recorded does not say what the server did
            self._report("problem", text=dispatcher.problem)
        else:
            self._report_all(dispatcher)
        self._dispatcher = None
        self._reported.set()

    def _end(self, order: WorkerMessage) -> None:
        if self._dispatcher:
            self._dispatcher.end(order["patience"])

    def finish(self) -> None:
        """Report what there is, because this process ends."""
        if self._dispatcher and self._dispatcher.due:
            self._dispatcher.end(STOP_SECONDS)
            self._reported.wait(STOP_SECONDS + 2 * GRACE_SECONDS)

    def _report_all(self, dispatcher: Dispatcher) -> None:
        requests = dispatcher.requests[: dispatcher.due]
        requests["worker"] = self._index
        for start in range(0, len(requests), CHUNK):
            self._report("requests", rows=requests[start : start + CHUNK].tobytes())
        self._report(
            "done",
            revisions=list(dispatcher.revisions),
            peak=dispatcher.peak,
            cpu=dispatcher.cpu_share,
        )

    def _report_steps(self, dispatcher: Dispatcher, begin: float) -> None:
        """Report each step of the staircase once its answers must have come."""
        plan = self._plan
        for number, (start, end, limit_ms) in enumerate(measures.staircase(plan)):
            settled = end + limit_ms / 1e3
            gevent.sleep(max(0.0, begin + settled - time.perf_counter()))
            first, last = np.searchsorted(dispatcher.requests["intended"], [start, end])
            requests = dispatcher.requests[first:last]
            latency, delay = requests["end"] - requests["intended"], requests["sent"] - requests["intended"]
            good = (results.outcomes(requests) == results.ANSWERED) & (latency <= limit_ms / 1e3)
            late = int((delay > measures.delay_limit_ms(plan.scenario) / 1e3).sum())
            self._report("step", number=number, total=len(requests), good=int(good.sum()), late=late)

    def _count(self, name: str, latency_ms: float, length: int, status: int, error: int) -> None:
        """Report a request to Locust's own statistics, with the latency from the intended time."""
        problem = None if 200 <= status < 300 and not error else self._failure(status, error)
        measured: WorkerMessage = {"response_time": latency_ms, "response_length": length, "exception": problem}
        self._fire(request_type="POST", name=name, context={}, **measured)

    def _failure(self, status: int, error: int) -> Exception:
        text = results.ERRORS[error] or ("refused: " if status in (429, 503) else "") + f"HTTP {status}"
        return self._failures.setdefault(text, RuntimeError(text))


def closed_loop(connections: Connections, prepared: Prepared, seconds: float) -> float:
    """Return the requests answered per second while `CLOSED_LOOP` of them are always in flight."""
    started, answered = time.perf_counter(), [0] * CLOSED_LOOP

    def client(number: int) -> None:
        while time.perf_counter() - started < seconds:
            request = prepared.requests[(number + answered[number]) % len(prepared.requests)]
            if not is_answered(connections.exchange(request, prepared.most_bytes), prepared.is_right):
                gevent.sleep(0.01)
                continue
            answered[number] += 1

    gevent.joinall([gevent.spawn(client, number) for number in range(CLOSED_LOOP)], raise_error=True)
    return sum(answered) / (time.perf_counter() - started)
