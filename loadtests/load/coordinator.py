"""One load test, from the order to the verdict.

The coordinator is Locust's master, or its only process. It asks the server what it serves, gives every worker its part
of the schedule, tells all of them when to begin, and puts together what they report. They talk through Locust's own
messages, which a single process sends to itself, so there is one way for all of Locust's modes.

Workers begin a fixed time after the order to begin, not at a time of day: their clocks need not agree, and their parts
are as exact as a message is fast.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import numpy as np
from gevent.event import Event
from locust.env import Environment

from defects.schema import ModelRows
from loadtests import results
from loadtests import scenario as scenarios
from loadtests.analysis import method
from loadtests.analysis import summary as summaries
from loadtests.analysis.measures import Run, Watched
from loadtests.cluster.process import BadCluster
from loadtests.load import run_directory
from loadtests.load.cluster_watch import LISTED_SECONDS, ClusterWatch
from loadtests.load.dispatcher import GRACE_SECONDS
from loadtests.load.messages import BEGIN_SECONDS, STOP_SECONDS, WorkerMessage
from loadtests.load.options import Options, rate, without_secrets
from loadtests.load.server_monitor import MonitorProcess
from loadtests.load.worker import CLOSED_SECONDS, PREPARE_SECONDS
from loadtests.load.workers import Workers
from loadtests.report import scale_target
from loadtests.report.page import PAGE
from loadtests.results import Summary
from loadtests.scenario import BadScenario, Plan, Scenario
from tools import computer, payloads
from tools.payloads import BadPayload
from tools.served import Served

REPORT_SECONDS = 30.0  # beyond the last request's time, for workers to report
LOOK_UP_SECONDS = 10.0  # beyond the time for an answer, to look the server's name up
POLL_SECONDS = 0.2  # at most, between two looks at what is waited for

logger = logging.getLogger("loadtests")


class BadRun(RuntimeError):
    """The run could not take place; one line says why."""


class Outcome(NamedTuple):
    """How a run ended, in one line, and why. `directory` is where its files are, if it took place.

    `found`: what a ramp found, and the patch that scales on it.
    """

    exit_code: int
    line: str
    reasons: tuple[str, ...] = ()
    directory: Path | None = None
    found: str = ""

    @property
    def text(self) -> str:
        """What the terminal shows: what was found, the reasons, a line each, then the verdict."""
        report = f"; report: {self.directory / PAGE}" if self.directory else ""
        last = f"{self.line} (exit code {self.exit_code}){report}\n"
        return (f"{self.found}\n" if self.found else "") + "".join(f"  {reason}\n" for reason in self.reasons) + last

    @classmethod
    def of_error(cls, text: str) -> Outcome:
        return cls(method.EXIT_CODES["Error"], f"error: {text}")

    @classmethod
    def of_summary(cls, summary: Summary, directory: Path) -> Outcome:
        verdict = summary.verdict
        line = f"{verdict.outcome}: {summary.scenario} against {summary.environment.host}"
        return cls(
            method.EXIT_CODES[verdict.outcome], line, tuple(verdict.reasons), directory, scale_target.text(summary)
        )


class Coordinator:
    """One run. `ended` is set once its `outcome` is known."""

    def __init__(self, environment: Environment):
        assert environment.runner is not None  # noqa: S101 - a run has begun
        self._environment = environment
        self._workers = Workers(environment.runner)
        self._changed, self._stopped = Event(), ""
        self._by_rule = False  # whether it was stopped because the steps of a ramp broke
        self._patience = 0.0  # how long requests in flight are waited for
        self._cluster: ClusterWatch | None = None
        self._directory: Path | None = None
        self.ended, self.outcome = Event(), Outcome.of_error("the run did not end")
        self._greenlet = gevent.spawn(self._run)

    # --- messages ---

    def receive(self, msg: Any, **_: Any) -> None:
        """Take a worker's report."""
        self._workers.receive(msg.node_id, msg.data)
        if msg.data["what"] == "step" and self._workers.broke_two_steps(msg.data["number"]):
            self._by_rule = self._by_rule or not self._stopped
            self._end("the SLO did not hold in two steps in a row")
        self._changed.set()

    def stop(self, why: str) -> None:
        """End the run early, unless it is over, and wait for its verdict."""
        if not self.ended.is_set():
            self._end(why, STOP_SECONDS)
            self.ended.wait(self._patience + REPORT_SECONDS)

    def _end(self, why: str, patience: float | None = None) -> None:
        self._stopped = self._stopped or why
        self._changed.set()
        self._workers.send({"what": "end", "patience": patience})
        if self._cluster:
            self._cluster.cancel_disruption()

    def _wait_for(self, true: Callable[[], bool], seconds: float, *, though_stopped: bool = False) -> bool:
        """Return whether it is true in time; not once a worker has a problem, or the run was stopped."""
        until = time.monotonic() + seconds
        while not self._workers.problem and (though_stopped or not self._stopped) and time.monotonic() < until:
            if true():
                return True
            self._changed.clear()
            self._changed.wait(POLL_SECONDS)
        return False

    def _wait_for_workers(self, true: Callable[[], bool], seconds: float, *, though_stopped: bool = False) -> bool:
        """Return whether it is true in time; not once the run is stopped, unless `though_stopped`. Raises `BadRun`."""
        is_true = self._wait_for(true, seconds, though_stopped=though_stopped)
        if self._workers.problem:
            raise BadRun(self._workers.problem)
        return is_true

    # --- the run ---

    def _run(self) -> None:
        try:
            self.outcome = Outcome.of_summary(*self._drive())
        except (BadRun, BadScenario, BadCluster, BadPayload, OSError) as error:
            self.outcome = Outcome.of_error(str(error))
        except Exception as error:
            logger.exception("the run failed")
            self.outcome = Outcome.of_error(f"{type(error).__name__}: {error}")
        finally:
            if self._cluster:
                self._cluster.kill()
            if self._directory:
                run_directory.discard(self._directory)
            self.ended.set()

    def _drive(self) -> tuple[Summary, Path]:
        if not len(self._workers):
            raise BadRun("no worker is connected; expected at least one")
        self._options = options = Options.of(self._environment)
        scenario, name = scenarios.load(options.scenario), Path(options.scenario).stem
        options.check(scenario)
        self._patience = scenario.timeout_seconds + GRACE_SECONDS
        directory = self._directory = run_directory.create(Path(options.out), name)
        cluster = self._watch_cluster(scenario, directory)
        scenario = cluster.fit(scenario)
        model_json = self._ask_model(scenario)
        seed = scenario.seed if options.seed is None else options.seed
        model = Served.from_json(model_json)
        rows = rows_to_send(model, options.payload, seed)
        order = {"host": options.host, "headers": options.headers, "model": model_json, "rows": rows.tobytes()}
        order["scenario"] = scenario.model_dump()
        plan = Plan(scenario, self._base(scenario, order), seed)
        self._prepare(plan, order)
        if not cluster.wait_for_zero_before() and not self._stopped:
            seconds = scenario.cluster and scenario.cluster.from_zero_seconds
            raise BadRun(f"there were still replicas after {seconds:g} s; expected a service that scales to zero")
        logger.info("%s: %d requests in %.0f s", name, len(plan.times), plan.seconds)
        run, started = self._watched(plan, directory, cluster)
        digest = scenario.digest(rows.tobytes())
        summary = summaries.summarise(run, name, self._described(model, started), digest)
        run_directory.write(directory, run, summary)
        return summary, directory

    def _watch_cluster(self, scenario: Scenario, directory: Path) -> ClusterWatch:
        """Begin to watch the cluster, where it is to be watched; raises `BadCluster`."""
        cluster = self._cluster = ClusterWatch(self._options, scenario, self._wait_for)
        longest = 2 * PREPARE_SECONDS + scenario.longest + 2 * self._patience + REPORT_SECONDS
        if not cluster.begin(directory, longest) and not self._stopped:
            raise BadCluster(
                f"--cluster: nothing was listed in {LISTED_SECONDS:g} s; expected an API server that answers"
            )
        return cluster

    def _ask_model(self, scenario: Scenario) -> dict[str, Any]:
        """Return what is served. Where nothing may be up yet, ask for as long as a replica may take to start."""
        patience = max(payloads.ASK_SECONDS, scenario.timeout_seconds)
        seconds, logged = (scenario.cluster and scenario.cluster.from_zero_seconds) or 0.0, False
        until = time.monotonic() + seconds
        while True:
            try:
                return self._ask_once(patience)
            except payloads.NotYet as error:
                if time.monotonic() >= until:
                    raise
                if not logged:
                    logger.info("%s; asking again for %g s, as it may have to start", error, seconds)
                logged = True
            self._wait_for(lambda: False, 1)

    def _ask_once(self, seconds: float) -> dict[str, Any]:
        """Return what is served; raises `BadPayload`, or `BadRun` as soon as the run is stopped."""

        def ask() -> dict[str, Any] | BadPayload:
            try:
                return payloads.ask_model(self._options.host, seconds, self._options.headers)
            except BadPayload as error:
                return error

        asking = gevent.spawn(ask)
        asking.link(lambda _: self._changed.set())
        self._wait_for(asking.ready, seconds + LOOK_UP_SECONDS)
        asking.kill(block=False)
        self._check_not_stopped()
        if isinstance(found := asking.value, dict):
            return found
        raise found or payloads.NotYet(f"{self._options.host} can't be looked up in {LOOK_UP_SECONDS:g} s")

    def _check_not_stopped(self) -> None:
        """Raise `BadRun` where nothing was sent yet, and nothing is to be sent any more."""
        if self._stopped:
            raise BadRun(f"the run was stopped before it began: {self._stopped}")

    def _base(self, scenario: Scenario, order: WorkerMessage) -> float:
        """Return the requests per second at a factor of 1."""
        if (given := rate(self._options.rate)) is not None:
            return given
        if isinstance(scenario.rate, float):
            return scenario.rate
        first = self._workers.first
        self._workers.send({"what": "measure", **order}, to=first)
        self._wait_for_workers(lambda: self._workers.capacity_of(first) is not None, PREPARE_SECONDS + CLOSED_SECONDS)
        self._check_not_stopped()
        if not (per_s := self._workers.capacity_of(first)):
            raise BadRun("the capacity could not be measured: nothing was answered")
        logger.info("capacity, closed loop of one worker: %.0f requests/s", per_s)
        return per_s

    def _prepare(self, plan: Plan, order: WorkerMessage) -> None:
        self._workers.send_parts({"what": "prepare", **order, "base": plan.base, "seed": plan.seed})
        is_ready = self._wait_for_workers(lambda: self._workers.all_are("ready"), PREPARE_SECONDS)
        self._check_not_stopped()
        if not is_ready:
            raise BadRun(f"a worker did not get ready in {PREPARE_SECONDS:g} s")

    def _watched(self, plan: Plan, directory: Path, cluster: ClusterWatch) -> tuple[Run, datetime]:
        """Let the workers send while the server is watched; return the run and the time of day of its begin."""
        longest = plan.seconds + self._patience + REPORT_SECONDS
        o, file = self._options, directory / "timeline.jsonl"
        # Looking at a cluster's service from outside would keep it from scaling to zero: its watcher looks inside.
        monitor = None if cluster.is_on else MonitorProcess(o.host, o.headers, longest, file)
        begin, started = time.monotonic() + BEGIN_SECONDS, datetime.now(UTC)
        watched, stopped = None, self._stopped
        try:
            if not self._stopped:
                cluster.order_disruption(plan, begin)
                self._workers.send({"what": "begin", "in": BEGIN_SECONDS})
                ends = BEGIN_SECONDS + longest
                self._wait_for_workers(lambda: self._workers.all_are("done"), ends, though_stopped=True)
                stopped = self._stopped  # by now: ending the wait for zero cuts nothing off
                cluster.wait_for_zero_after()
        finally:
            samples = monitor.stop(begin) if monitor else []
            watched = cluster.end(begin)
        return self._run_of(plan, samples, watched, stopped), started

    def _run_of(self, plan: Plan, samples: list[results.Sample], watched: Watched | None, stopped: str) -> Run:
        """Return everything that was reported, as one run."""
        requests, revisions = self._workers.requests()
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
            workers=len(self._workers),
            peak_in_flight=self._workers.peak_in_flight,
            cpu_share=self._workers.cpu_share,
            missing=self._workers.missing,
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


def rows_to_send(model: Served, file: str, seed: int) -> ModelRows:
    """Return the rows of the file, or, where none is given, rows for this model."""
    if file:
        return payloads.rows_from_file(Path(file), model.schema)
    return payloads.rows_for(model.schema, payloads.ROWS, seed)
