"""Load that does not wait: requests leave on a schedule, whether or not earlier ones were answered.

locust -f loadtests/locustfile.py --host http://127.0.0.1:3000                                     Locust's page
locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --headless --scenario burst

With `--processes`, or workers on other machines, each sends its part of the same schedule. The run ends by itself when
the schedule does. Locust's users are not what makes the load: there is one for each process, and it does nothing.
Exit codes: 0 Passed, 1 Failed, 2 Invalid (the generator could not do what the schedule says), 3 error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import scenarios, session, verdict

_coordinators: list[session.Coordinator] = []  # the run that is on, if one is
_workers: list[session.Worker] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def options(parser: Any) -> None:
    add = parser.add_argument_group("Open-loop load").add_argument
    add("--scenario", default="steady", help=f"{', '.join(scenarios.names())}, or a .yaml file (steady)")
    add("--rate", type=float, help="requests/s, instead of the scenario's")
    add("--seed", type=int, help="of the schedule and the rows, instead of the scenario's")
    add("--payload", default="", help="a .json or .csv file with the rows to send")
    add("--out", default="build/load", help="where each run gets a directory (build/load)")


class Schedule(LoadTestShape):
    """Tells Locust when the run is over."""

    def tick(self) -> tuple[int, float] | None:
        if _coordinators and _coordinators[-1].over.is_set():
            return None
        workers = self.runner.worker_count if isinstance(self.runner, MasterRunner) else 1
        return max(1, workers), 100.0


class Arrivals(User):
    """Stands for a process that sends."""

    @task
    def idle(self) -> None:
        gevent.sleep(1)


@events.init.add_listener  # type: ignore[untyped-decorator]
def connect(environment: Environment, runner: Any, **_: Any) -> None:
    """Check what can be checked, and take part in the messages."""
    if not isinstance(runner, WorkerRunner):
        check(environment)
        runner.register_message(session.REPORT, hear)
    if not isinstance(runner, MasterRunner):
        _workers.append(session.Worker(environment))
        runner.register_message(session.ORDER, _workers[-1].obey)


def check(environment: Environment) -> None:
    """End the process where the options can't be used."""
    chosen: Any = environment.parsed_options
    try:
        scenarios.load(chosen.scenario)
        if chosen.rate is not None and not 0 < chosen.rate <= 1e6:
            raise scenarios.BadScenario(f"--rate: {chosen.rate:g}; expected requests/s, from above 0 to 1000000")
        if chosen.seed is not None and not 0 <= chosen.seed < 2**31:
            raise scenarios.BadScenario(f"--seed: {chosen.seed}; expected a number from 0 to 2147483647")
    except scenarios.BadScenario as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(verdict.EXIT_CODES["Error"]) from None


def hear(msg: Any, **_: Any) -> None:
    if _coordinators:
        _coordinators[-1].hear(msg)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        _coordinators.append(session.Coordinator(environment))


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def end(environment: Environment, **_: Any) -> None:
    """The schedule is over, or somebody ended the run."""
    while _coordinators:
        run = _coordinators[-1]
        run.stop("somebody ended it")
        environment.process_exit_code = run.exit_code
        _coordinators.remove(run)
        say(environment, run.lines)


def say(environment: Environment, lines: list[str]) -> None:
    """At the very end where the process ends too, after Locust's own tables."""
    chosen: Any = environment.parsed_options
    text = "\n".join(lines) + "\n"
    if chosen.headless:
        events.quit.add_listener(lambda **_: sys.stderr.write(text))  # type: ignore[no-untyped-call]
    else:
        session.logger.warning(text.rstrip())


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def leave(environment: Environment, **_: Any) -> None:
    end(environment)
    for worker in _workers:
        worker.leave()
