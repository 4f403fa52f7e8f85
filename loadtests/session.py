"""One load test, from the order to the verdict: who coordinates it, and who sends.

The coordinator is Locust's master, or its only process. It asks the server what it serves, gives every worker its part
of the schedule, tells all of them when to begin, and puts together what they report. They talk through Locust's own
messages, which a single process sends to itself, so there is one way for all of Locust's modes.

Workers begin so and so long after they are told, not at a time of day: their clocks need not agree, and their parts are
as exact as a message is fast.
"""

from __future__ import annotations

import logging
import math
import re
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import numpy as np
from gevent.event import Event
from locust.env import Environment
from locust.runners import MasterRunner

from defects.schema import ModelRows
from loadtests import arrivals, machine, measures, payloads, results, scaling, scenarios, summaries, verdict, watch
from loadtests.dispatch import GRACE_SECONDS, Dispatcher, most_in_flight
from loadtests.measures import Run, Watched
from loadtests.payloads import BadPayload, Prepared, Served
from loadtests.report import PAGE
from loadtests.results import REQUEST, Requests, Summary
from loadtests.scenarios import BadScenario, Plan, Scenario
from loadtests.timeline import Timeline
from loadtests.watch import BadCluster, Watch
from loadtests.wire import Connections

ORDER, REPORT = "load-order", "load-report"  # names of messages, to workers and back
BEGIN_SECONDS = 0.5  # after it is told, so that all have been told by then
PREPARE_SECONDS = 60.0
LISTED_SECONDS = 30.0  # for the cluster watcher to have listed everything
REPORT_SECONDS = 30.0  # beyond the last request's time, for workers to report
CHUNK = 50_000  # requests in a message
OWN_HEADERS = ("connection", "content-length", "content-type", "inference-header-content-length", "transfer-encoding")
CLOSED_LOOP, CLOSED_SECONDS = 16, 3.0  # connections and time in which the capacity is measured
PATIENT_MS = 600_000

logger = logging.getLogger("loadtests")
Message = dict[str, Any]


class BadRun(RuntimeError):
    """The run could not take place; one line says why."""


class Options(NamedTuple):
    """What the command line, or Locust's page, asks for."""

    host: str
    scenario: str
    headers: dict[str, str]
    rate: str
    seed: int | None
    payload: str
    out: str
    cluster: watch.Target | None
    autoscaler_metrics: str
    allow_disruption: bool
    image: str

    @classmethod
    def of(cls, environment: Environment) -> Options:
        """Raises `BadScenario` or `BadCluster`."""
        o: Any = environment.parsed_options
        target = service(o.cluster)
        if target:
            target = target._replace(kubeconfig=o.kubeconfig, context=o.context)
        disrupt, headers = (o.autoscaler_metrics, o.allow_disruption, o.image), dict(map(header, o.header))
        return cls(
            environment.host or "", o.scenario, headers, o.rate, seed(o.seed), o.payload, o.out, target, *disrupt
        )

    def check(self, scenario: Scenario) -> None:
        """Raises `BadScenario` where the scenario needs other options."""
        if scenario.rate == "replica" and not self.rate:
            what = "what one replica holds, in requests/s, or the directory of a run of `ramp`"
            raise BadScenario(f"--rate: the rates of {self.scenario} are in replicas; expected {what}")
        if self.rate and Path(self.rate).is_dir():
            scaling.check_alike(Path(self.rate), scenario)
        if scenario.cluster and not self.cluster:
            raise BadScenario(f"--cluster: {self.scenario} watches one; expected NAMESPACE/NAME of an InferenceService")
        if self.disruption(scenario) and not self.allow_disruption:
            what = "deletes a pod" if self.disruption(scenario) == "delete-pod" else "changes the image"
            raise BadScenario(f"--allow-disruption: {self.scenario} {what}; expected this option where that is wanted")

    def disruption(self, scenario: Scenario) -> str | None:
        """What the run does to the cluster. Without an image, a new revision is somebody else's doing."""
        asked = scenario.cluster.disruption if scenario.cluster else None
        return None if asked == "new-revision" and not self.image else asked

    def watcher(self, scenario: Scenario) -> list[str]:
        """Options of the cluster watcher."""
        disruption, found = self.disruption(scenario), list[str]()
        found += ["--autoscaler-metrics", self.autoscaler_metrics] if self.autoscaler_metrics else []
        return found + (["--disruption", disruption, "--image", self.image] if disruption else [])


def rate(text: str) -> float | None:
    """Requests per second, given or as a run found it, or nothing; raises `BadScenario`."""
    if text and Path(text).is_dir():
        return scaling.replica_capacity(Path(text))
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 < value <= scenarios.MAX_RATE:
        what = f"requests/s, above 0 and at most {scenarios.MAX_RATE:,}, or the directory of a run that found them"
        raise BadScenario(f"--rate: {text}; expected {what}")
    return value


def seed(text: str) -> int | None:
    """A seed, or nothing; raises `BadScenario`."""
    if text and not (text.isdecimal() and int(text) < 2**31):
        raise BadScenario(f"--seed: {text}; expected a whole number from 0 to 2147483647")
    return int(text) if text else None


def header(text: str) -> tuple[str, str]:
    """Name and value; raises `BadScenario`."""
    name, _, value = (part.strip() for part in text.partition(":"))
    whole = re.fullmatch(r"[A-Za-z0-9-]+", name) and re.fullmatch(r"[\x20-\x7e]+", value)
    if not whole or name.lower() in OWN_HEADERS:
        what = f"NAME: VALUE, and none of {', '.join(OWN_HEADERS)}"
        raise BadScenario(f"--header: {name!r}; expected {what}")
    return name, value


def service(text: str) -> watch.Target | None:
    """An InferenceService, or nothing; raises `BadCluster`."""
    return watch.service(text) if text else None


# --- the worker ----------------------------------------------------------------------------------------------------


class Worker:
    """Sends its part of the schedule, and reports it."""

    def __init__(self, environment: Environment):
        self._environment = environment
        self._dispatcher: Dispatcher | None = None
        self._reported = Event()
        self._failures: dict[str, Exception] = {}
        self._fire: Callable[..., None] = environment.events.request.fire

    def obey(self, msg: Any, **_: Any) -> None:
        """Do what the coordinator says, without making it wait."""
        gevent.spawn(self._obey, msg.data)

    def _obey(self, order: Message) -> None:
        try:
            getattr(self, f"_{order['what']}")(order)
        except (OSError, BadPayload, BadScenario) as error:
            self._report("problem", text=str(error))

    def _report(self, what: str, **content: Any) -> None:
        assert self._environment.runner is not None  # noqa: S101 - messages come from there
        self._environment.runner.send_message(REPORT, {"what": what, **content})

    def _payloads(self, order: Message, deadline_ms: int | None) -> list[Prepared]:
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

    def _measure(self, order: Message) -> None:
        """Say how many requests this worker alone gets answered in a second, closed loop."""
        scenario = Scenario.model_validate(order["scenario"])
        prepared = self._payloads(order, PATIENT_MS)[0]
        connections = Connections(order["host"], scenario.timeout_seconds)
        closed_loop(connections, prepared, 1.0)  # warm-up
        self._report("measured", per_s=closed_loop(connections, prepared, CLOSED_SECONDS))
        connections.close()

    def _prepare(self, order: Message) -> None:
        scenario = Scenario.model_validate(order["scenario"])
        self._plan, self._index = Plan(scenario, order["base"], order["seed"]), order["index"]
        mine = arrivals.part(order["index"], order["of"])
        self._dispatcher = Dispatcher(
            self._plan.times[mine],
            self._plan.kinds[mine],
            self._payloads(order, scenario.deadline_ms),
            Connections(order["host"], scenario.timeout_seconds, scenario.connection_seconds),
            self._tell,
            limit=most_in_flight(self._plan, order["of"]),
        )
        self._reported.clear()
        self._report("ready")

    def _begin(self, order: Message) -> None:
        begin = time.perf_counter() + order["in"]
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        watcher = gevent.spawn(self._watch, dispatcher, begin) if self._plan.scenario.stop_at_slo else None
        try:
            dispatcher.run(begin, self._plan.scenario.timeout_seconds)
        finally:
            if watcher:
                watcher.kill()
        self._report_all(dispatcher)
        self._dispatcher = None
        self._reported.set()

    def _end(self, _: Message) -> None:
        if self._dispatcher:
            self._dispatcher.end()

    def leave(self) -> None:
        """Report what there is, because this process ends."""
        if self._dispatcher and self._dispatcher.due:
            self._dispatcher.end()
            self._reported.wait(self._plan.scenario.timeout_seconds + 2 * GRACE_SECONDS)

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

    def _watch(self, dispatcher: Dispatcher, begin: float) -> None:
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

    def _tell(self, name: str, latency_ms: float, length: int, status: int, error: int) -> None:
        """Let Locust's own statistics have it, with the latency from the intended time."""
        problem = None if 200 <= status < 300 and not error else self._failure(status, error)
        told: Message = {"response_time": latency_ms, "response_length": length, "exception": problem, "context": {}}
        self._fire(request_type="POST", name=name, **told)

    def _failure(self, status: int, error: int) -> Exception:
        text = results.ERRORS[error] or ("refused: " if status in (429, 503) else "") + f"HTTP {status}"
        return self._failures.setdefault(text, RuntimeError(text))


def closed_loop(connections: Connections, prepared: Prepared, seconds: float) -> float:
    """Requests answered per second, while as many as there are connections are always in flight."""
    started, answered = time.perf_counter(), [0] * CLOSED_LOOP

    def client(number: int) -> None:
        while time.perf_counter() - started < seconds:
            request = prepared.requests[(number + answered[number]) % len(prepared.requests)]
            reply = connections.exchange(request)
            if reply.response is None or reply.response.status_code != 200:
                gevent.sleep(0.01)
                continue
            answered[number] += 1

    gevent.joinall([gevent.spawn(client, number) for number in range(CLOSED_LOOP)])
    return sum(answered) / (time.perf_counter() - started)


# --- the coordinator -----------------------------------------------------------------------------------------------


class Part:
    """What one worker has reported so far."""

    def __init__(self) -> None:
        self.ready = self.done = False
        self.per_s: float | None = None
        self.chunks: list[bytes] = []
        self.revisions: list[str] = []
        self.peak, self.cpu = 0, 0.0

    def requests(self, revisions: list[str]) -> Requests:
        """Its requests, with its revisions numbered as in `revisions`, which gets those that are new."""
        rows = np.frombuffer(b"".join(self.chunks), REQUEST).copy()
        revisions += [name for name in self.revisions if name not in revisions]
        numbers = np.array([revisions.index(name) for name in self.revisions] + [-1], np.int16)
        rows["revision"] = numbers[rows["revision"]]
        return rows


class Coordinator:
    """One run. `over` is set once its verdict is known; `exit_code` and `lines` say it."""

    def __init__(self, environment: Environment):
        assert environment.runner is not None  # noqa: S101 - a run has begun
        self._environment, self._runner = environment, environment.runner
        names = list(self._runner.clients) if isinstance(self._runner, MasterRunner) else ["local"]
        self._parts = {name: Part() for name in names if not self._lost(name)}
        self._steps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self._news, self._stopped, self._problem = Event(), "", ""
        self._by_rule = False  # whether it was stopped because the steps of a ramp broke
        self.over = Event()
        self._patience = 0.0  # how long requests in flight are waited for
        self._watch: Watch | None = None
        self._directory: Path | None = None
        self.exit_code, self.lines = verdict.EXIT_CODES["Error"], ["error: the run did not end"]
        self._greenlet = gevent.spawn(self._run)

    def stop(self, why: str) -> None:
        """End the run early, unless it is over, and wait for its verdict."""
        if not self.over.is_set():
            self._end(why)
            self.over.wait(self._patience + REPORT_SECONDS)

    def _end(self, why: str) -> None:
        self._stopped = self._stopped or why
        self._news.set()
        self._tell({"what": "end"})
        if self._watch:
            self._watch.cancel()

    def _run(self) -> None:
        try:
            summary, directory = self._drive()
            self.exit_code = verdict.EXIT_CODES[summary.verdict.outcome]
            self.lines = [f"{summary.verdict.outcome}: {summary.scenario} against {summary.environment.host}"]
            self.lines += [f"  {reason}" for reason in summary.verdict.reasons] + [f"report: {directory / PAGE}"]
        except (BadRun, BadScenario, BadCluster, BadPayload, OSError) as error:
            self.lines = [f"error: {error}"]
        except Exception as error:
            logger.exception("the run failed")
            self.lines = [f"error: {type(error).__name__}: {error}"]
        finally:
            if self._watch:
                self._watch.kill()
            self._discard()
            self.over.set()

    def _discard(self) -> None:
        """The directory of a run that did not take place."""
        if self._directory and not (self._directory / results.SUMMARY).exists():
            with suppress(OSError):  # something else is in it
                (self._directory / watch.FACTS).unlink(missing_ok=True)
                self._directory.rmdir()

    # --- messages ---

    def hear(self, msg: Any, **_: Any) -> None:
        """Take a worker's report."""
        part, report = self._parts.get(msg.node_id), msg.data
        if part is None:
            return
        match report["what"]:
            case "ready":
                part.ready = True
            case "measured":
                part.per_s = report["per_s"]
            case "requests":
                part.chunks.append(report["rows"])
            case "step":
                self._judge_step(report)
            case "done":
                part.revisions, part.peak, part.cpu = report["revisions"], report["peak"], report["cpu"]
                part.done = True
            case "problem":
                self._problem = f"worker {msg.node_id}: {report['text']}"
        self._news.set()

    def _tell(self, order: Message, to: str | None = None) -> None:
        for name in [to] if to else self._parts:
            self._runner.send_message(ORDER, order, client_id=name)

    def _wait(self, seconds: float, *, for_all: str) -> bool:
        """Whether every worker that is there said so in time, or the run was stopped; raises `BadRun`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._problem:
                raise BadRun(self._problem)
            if all(getattr(part, for_all) for name, part in self._parts.items() if not self._lost(name)):
                return True
            self._news.clear()
            self._news.wait(0.2)
        return False

    def _lost(self, name: str) -> bool:
        """Whether a worker went missing."""
        clients = getattr(self._runner, "clients", {"local": None})
        return name not in clients or getattr(clients[name], "state", "") == "missing"

    def _judge_step(self, report: Message) -> None:
        """End the run when two steps in a row did not hold."""
        self._steps[report["number"]].append((report["total"], report["good"], report["late"]))
        if self._broken(report["number"]) and self._broken(report["number"] - 1):
            self._by_rule = self._by_rule or not self._stopped
            self._end("the SLO did not hold in two steps in a row")

    def _broken(self, number: int) -> bool:
        told = self._steps.get(number, [])
        if len(told) < len(self._parts):
            return False
        total, good, late = np.sum(told, axis=0).tolist()
        return bool(measures.over(np.array([total - good]), np.array([total]))[0]) or late > 0.01 * total

    # --- the run ---

    def _drive(self) -> tuple[Summary, Path]:
        if not self._parts:
            raise BadRun("no worker is connected; expected at least one")
        self._options = options = Options.of(self._environment)
        scenario, name = scenarios.load(options.scenario), Path(options.scenario).stem
        options.check(scenario)
        self._patience = scenario.timeout_seconds + GRACE_SECONDS
        directory = self._directory = new_directory(Path(options.out), name)
        self._watch_cluster(scenario, directory)
        said = self._ask_model(scenario)
        chosen = scenario.seed if options.seed is None else options.seed
        model = Served.from_json(said)
        rows = rows_to_send(model, options.payload, chosen)
        order = {"host": options.host, "headers": options.headers, "model": said, "rows": rows.tobytes()}
        order["scenario"] = scenario.model_dump()
        plan = Plan(scenario, self._base(scenario, order), chosen)
        self._prepare(plan, order)
        seconds = scenario.cluster and scenario.cluster.from_zero_seconds
        if seconds and not self._wait_for_zero(seconds) and not self._stopped:
            raise BadRun(f"there were still replicas after {seconds:g} s; expected a service that scales to zero")
        logger.info("%s: %d requests in %.0f s", name, len(plan.times), plan.seconds)
        run, started = self._watched(plan, directory)
        digest = scenario.digest(rows.tobytes())
        summary = summaries.summarise(run, name, self._described(model, started), digest)
        summaries.write(directory, run, summary)
        return summary, directory

    def _ask_model(self, scenario: Scenario) -> dict[str, Any]:
        """What is served. Where that may be nothing yet, it is asked for as long as a replica may take to come."""
        options, patience = self._options, max(payloads.ASK_SECONDS, scenario.timeout_seconds)
        seconds, said = (scenario.cluster and scenario.cluster.from_zero_seconds) or 0.0, False
        until = time.monotonic() + seconds
        while True:
            try:
                return payloads.ask_model(options.host, patience, options.headers)
            except payloads.NotYet as error:
                if self._stopped or time.monotonic() >= until:
                    raise
                if not said:
                    logger.info("%s; asking again for %g s, as it may have to start", error, seconds)
                said = True
            gevent.sleep(1)

    def _base(self, scenario: Scenario, order: Message) -> float:
        """Requests per second at a factor of 1."""
        if (given := rate(self._options.rate)) is not None:
            return given
        if isinstance(scenario.rate, float):
            return scenario.rate
        first = next(iter(self._parts))
        self._tell({"what": "measure", **order}, to=first)
        until = time.monotonic() + PREPARE_SECONDS + CLOSED_SECONDS
        while self._parts[first].per_s is None and time.monotonic() < until and not self._problem:
            self._news.clear()
            self._news.wait(0.2)
        if not (per_s := self._parts[first].per_s):
            raise BadRun(self._problem or "the capacity could not be measured: nothing was answered")
        logger.info("capacity, closed loop of one worker: %.0f requests/s", per_s)
        return per_s

    def _prepare(self, plan: Plan, order: Message) -> None:
        for index, name in enumerate(self._parts):
            part = {"index": index, "of": len(self._parts), "base": plan.base, "seed": plan.seed}
            self._tell({"what": "prepare", **order, **part}, to=name)
        if not self._wait(PREPARE_SECONDS, for_all="ready"):
            raise BadRun(f"a worker did not get ready in {PREPARE_SECONDS:g} s")

    # --- the cluster ---

    def _watch_cluster(self, scenario: Scenario, directory: Path) -> None:
        """Begin to watch it, where it is to be watched; raises `BadCluster`."""
        options, platform = self._options, scenario.cluster
        if options.cluster is None:
            return
        longest = LISTED_SECONDS + 2 * PREPARE_SECONDS + scenario.seconds + 2 * self._patience + REPORT_SECONDS
        if platform:
            longest += 2 * (platform.from_zero_seconds or 0) + (platform.to_zero_seconds or 0)
        self._watch = Watch(options.cluster, longest, directory, options.watcher(scenario))
        if not self._until(self._watch.begun, LISTED_SECONDS) and not self._stopped:
            raise BadCluster(
                f"--cluster: nothing was listed in {LISTED_SECONDS:g} s; expected an API server that answers"
            )

    def _until(self, true: Callable[[], bool], seconds: float) -> bool:
        """Whether it became true in time, unless the run was stopped."""
        until = time.monotonic() + seconds
        while not self._stopped and not self._problem and time.monotonic() < until:
            if true():
                return True
            self._news.clear()
            self._news.wait(0.2)
        return False

    def _none_left(self) -> bool:
        return self._watch is not None and self._watch.replicas() == 0

    def _wait_for_zero(self, seconds: float) -> bool:
        """Whether there is no replica any more, in time; raises `BadCluster` where that can't be seen."""
        logger.info("waiting for no replica, at most %g s", seconds)
        return self._until(self._none_left, seconds)

    def _order_disruption(self, plan: Plan, begin: float) -> None:
        """What is to happen to the cluster happens as the burst begins."""
        burst = plan.burst
        if burst is None or self._watch is None or plan.scenario.cluster is None:
            return
        if self._options.disruption(plan.scenario):
            self._watch.order(begin + burst.start)
        elif plan.scenario.cluster.disruption:
            logger.info("from %.0f s to %.0f s: roll a new revision out", burst.start, burst.end)

    # --- everything together ---

    def _watched(self, plan: Plan, directory: Path) -> tuple[Run, datetime]:
        """The run itself, while the server is watched; and the time of day of its begin."""
        longest = plan.seconds + self._patience + REPORT_SECONDS
        # Looking at a cluster's service from outside would keep it from scaling to zero: its watcher looks inside.
        o, file = self._options, directory / "timeline.jsonl"
        timeline = None if self._watch else Timeline(o.host, o.headers, longest, file)
        begin, started = time.monotonic() + BEGIN_SECONDS, datetime.now(UTC)
        watched, stopped = None, self._stopped
        try:
            if not self._stopped:
                self._order_disruption(plan, begin)
                self._tell({"what": "begin", "in": BEGIN_SECONDS})
                self._wait(BEGIN_SECONDS + longest, for_all="done")
                stopped = self._stopped  # by now: ending the wait for zero cuts nothing off
                if plan.scenario.cluster and plan.scenario.cluster.to_zero_seconds:
                    with suppress(BadCluster):  # then it is just not known
                        self._wait_for_zero(plan.scenario.cluster.to_zero_seconds)
        finally:
            samples = timeline.stop(begin) if timeline else []
            if self._watch and self._options.cluster:
                until = time.monotonic() - begin
                watched = Watched(self._options.cluster.name, self._watch.stop(begin), until)
        return self._run_of(plan, samples, watched, stopped), started

    def _run_of(self, plan: Plan, samples: list[results.Sample], watched: Watched | None, stopped: str) -> Run:
        """Everything that was reported, as one run."""
        parts, revisions = self._parts.values(), list[str]()
        requests = np.concatenate([part.requests(revisions) for part in parts])
        requests = requests[np.argsort(requests["intended"], kind="stable")]
        seconds = plan.seconds
        if stopped:  # just after the last request whose time had come
            seconds = float(np.nextafter(requests["intended"][-1], np.inf)) if len(requests) else 1e-3
        return Run(
            plan=plan,
            requests=requests,
            revisions=revisions,
            seconds=seconds,
            stopped=stopped or None,
            by_rule=self._by_rule,
            workers=len(self._parts),
            peak_in_flight=max(part.peak for part in parts),
            cpu_share=max(part.cpu for part in parts),
            missing=[name for name, part in self._parts.items() if not part.done],
            timeline=samples,
            watched=watched,
        )

    def _described(self, model: Served, started: datetime) -> results.Environment:
        versions = {name: version(name) for name in ("locust", "gevent", "geventhttpclient", "numpy")}
        return results.Environment(
            host=self._options.host,
            command=shlex.join(without_secrets([Path(sys.argv[0]).name, *sys.argv[1:]])),
            started=started.isoformat(timespec="seconds"),
            machine={**machine.computer(), **versions},
            model=results.Model(name=model.name, version=model.version, digest=model.digest, engine=model.engine),
        )


def without_secrets(command: Sequence[str]) -> list[str]:
    """A command line without the values of headers: some are credentials."""
    found: list[str] = []
    for word in command:
        option, _, given = word.partition("=")
        name = word if found and _is_header(found[-1]) else given if _is_header(option) else ""
        found.append(word.replace(name, f"{name.partition(':')[0]}: …") if name else word)
    return found


def _is_header(option: str) -> bool:
    """The option, or as few of its letters as argparse takes for it."""
    return len(option) > len("--h") and "--header".startswith(option)


def rows_to_send(model: Served, file: str, chosen_seed: int) -> ModelRows:
    """From the file, where there is one."""
    if file:
        return payloads.rows_from_file(Path(file), model.schema)
    return payloads.rows_for(model.schema, payloads.ROWS, chosen_seed)


def new_directory(parent: Path, name: str) -> Path:
    """A new directory for a run."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ["", *(f"-{number}" for number in range(2, 100))]:
        path = parent / f"{name}-{stamp}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            return path
    raise BadRun(f"--out: {parent} has a hundred runs of this second; expected fewer")
