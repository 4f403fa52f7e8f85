"""One load test, from the order to the verdict: who coordinates it, and who sends.

The coordinator is Locust's master, or its only process. It asks the server what it serves, gives every worker its part
of the schedule, tells all of them when to begin, and puts together what they report. They talk through Locust's own
messages, which a single process sends to itself, so there is one way for all of Locust's modes.

Workers begin so and so long after they are told, not at a time of day: their clocks need not agree, and their parts are
as exact as a message is fast.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from gevent.event import Event
from locust.env import Environment
from locust.runners import MasterRunner

from defects.schema import ModelRows
from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis import measures, method
from loadtests.analysis import summary as summaries
from loadtests.analysis.measures import Run, Watched
from loadtests.cluster import process
from loadtests.cluster.process import BadCluster, Watch
from loadtests.load.dispatcher import GRACE_SECONDS
from loadtests.load.messages import BEGIN_SECONDS, ORDER, Message
from loadtests.load.options import Options, rate, without_secrets
from loadtests.load.server_monitor import Timeline
from loadtests.load.worker import CLOSED_SECONDS, PREPARE_SECONDS
from loadtests.report.page import PAGE
from loadtests.results import REQUEST, Requests, Summary
from loadtests.scenario import BadScenario, Plan, Scenario
from tools import computer, payloads
from tools.payloads import BadPayload, Served

LISTED_SECONDS = 30.0  # for the cluster watcher to have listed everything
REPORT_SECONDS = 30.0  # beyond the last request's time, for workers to report

logger = logging.getLogger("loadtests")


class BadRun(RuntimeError):
    """The run could not take place; one line says why."""


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
        self.exit_code, self.lines = method.EXIT_CODES["Error"], ["error: the run did not end"]
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
            self.exit_code = method.EXIT_CODES[summary.verdict.outcome]
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
                (self._directory / process.OBSERVATIONS).unlink(missing_ok=True)
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
            machine={**computer.computer(), **versions},
            model=results.ServedModel(name=model.name, version=model.version, digest=model.digest, engine=model.engine),
        )


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
