"""Load that does not wait: requests leave on a schedule, whether or not earlier ones were answered.

locust -f loadtests/locustfile.py --host http://127.0.0.1:3000                                     Locust's page
locust -f loadtests/locustfile.py --host http://127.0.0.1:3000 --headless --scenario burst
locust -f loadtests/locustfile.py --host http://… --headless --scenario scale-up --rate 90 --cluster namespace/name

With `--cluster`, what Kubernetes does with the InferenceService is followed too, and joined to the requests.
With `--processes`, or workers on other machines, each sends its part of the same schedule. The run ends by itself when
the schedule does. Locust's users are not what makes the load: there is one for each process, and it does nothing.
Exit codes: 0 Passed, 1 Failed, 2 Invalid (the run was not what the scenario asks for), 3 error.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import scenario
from loadtests.analysis import method
from loadtests.cluster import process
from loadtests.load import messages, web_page
from loadtests.load import options as read
from loadtests.load.coordinator import Coordinator, Outcome, logger
from loadtests.load.worker import Worker
from tools.payloads import BadPayload

_coordinators: list[Coordinator] = []  # the run that is on, if one is
_workers: list[Worker] = []
_outcomes: list[Outcome] = []  # of runs that have ended


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def options(parser: Any) -> None:
    """Add our options. All are text, because that is what Locust's page gives; `loadtests.load.options` reads it."""
    add = parser.add_argument
    offered = scenario.names()  # on Locust's page; on the command line, a file is added

    def chosen(name: str) -> str:
        checked(scenario.load)(name)
        offered.extend({name}.difference(offered))
        return name

    text = f"{', '.join(offered)}, or a .yaml file (steady)"
    add("--scenario", default="steady", type=chosen, choices=offered, metavar="NAME", help=text)
    per_s = "requests/s, instead of the scenario's; or the directory of a run that found them"
    add("--rate", default="", type=checked(read.rate), help=per_s)
    add("--seed", default="", type=checked(read.seed), help="of schedule and rows, instead of the scenario's")
    file = "a .csv, .parquet or .json file with the rows to send"
    add("--payload", default="", type=checked(read.payload), help=file, include_in_web_ui=False)
    extra = "'NAME: VALUE', as an ingress or a gateway needs it; may be repeated"
    add("--header", default=[], action="append", type=checked(read.header), help=extra, include_in_web_ui=False)
    out = "where each run gets a directory (build/load)"
    add("--out", default="build/load", help=out, include_in_web_ui=False)
    cluster_options(add)


def cluster_options(add: Callable[..., Any]) -> None:
    """Add the options of the cluster that is watched beside the server."""
    name = "watch this InferenceService: NAME or NAMESPACE/NAME"
    add("--cluster", default="", type=checked(read.service), help=name, include_in_web_ui=False)
    for option, text in {
        "--kubeconfig": "to reach the cluster with (as kubectl would, or the pod's service account)",
        "--context": "of the kubeconfig (its current one)",
        "--autoscaler-metrics": "URL of the metrics of Knative's autoscaler",
        "--image": "of the new revision, where the scenario rolls one out (somebody else does)",
    }.items():
        add(option, default="", help=text, include_in_web_ui=False)
    disruption = "let a scenario delete pods, or change the image"
    add("--allow-disruption", action="store_true", default=False, help=disruption, include_in_web_ui=False)


def checked(read: Callable[[str], object]) -> Callable[[str], str]:
    """Return a function for text that `read` can read; where it can't, that ends the process, before there are more."""

    def check(text: str) -> str:
        try:
            read(text)
        except (scenario.BadScenario, process.BadCluster, BadPayload) as error:
            outcome = Outcome.of_error(str(error))
            sys.stderr.write(outcome.text)
            raise SystemExit(outcome.exit_code) from None
        return text

    return check


class Schedule(LoadTestShape):
    """Tells Locust when the run is over."""

    def tick(self) -> tuple[int, float] | None:
        if _coordinators and _coordinators[-1].ended.is_set():
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
    """Take part in the messages, and in Locust's page."""
    chosen: Any = environment.parsed_options
    # Locust goes through these backwards: only so does a worker report before its runner says that it is gone.
    environment.events.quitting.add_listener(leave)  # type: ignore[no-untyped-call]
    gevent.signal_handler(signal.SIGINT, interrupted)
    if not isinstance(runner, WorkerRunner):
        runner.register_message(messages.REPORT, receive)
        if chosen.headless:  # Locust listens to SIGTERM only once such a run is over
            gevent.signal_handler(signal.SIGTERM, terminated)
    if not isinstance(runner, MasterRunner):
        _workers.append(Worker(environment))
        runner.register_message(messages.ORDER, _workers[-1].receive)
    if environment.web_ui:
        web_page.extend(environment.web_ui, Path(chosen.out), shown)


def interrupted() -> None:
    """Let Ctrl-C end what waits for the run's end, and not whichever request is just being sent."""
    gevent.get_hub().parent.throw(KeyboardInterrupt)


def terminated() -> None:
    """End the run, or, before there is one, the process."""
    if not _coordinators:
        raise SystemExit(method.EXIT_CODES["Error"])
    _coordinators[-1].stop("it was terminated")


def receive(msg: Any, **_: Any) -> None:
    """Give a worker's report to the run that is on."""
    if _coordinators:
        _coordinators[-1].receive(msg)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    """Begin a run."""
    if not isinstance(environment.runner, WorkerRunner):
        _coordinators.append(Coordinator(environment))


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def end(environment: Environment, **_: Any) -> None:
    """End the run: the schedule is over, or somebody stops it."""
    for run in list(_coordinators):
        run.stop("somebody ended it")
        environment.process_exit_code = run.outcome.exit_code
        if run in _coordinators:  # of those that waited for it, the first says what came of it
            _coordinators.remove(run)
            _outcomes.append(run.outcome)
            say(environment, run.outcome)


def say(environment: Environment, outcome: Outcome) -> None:
    """Write the verdict; where the process ends too, at the very end, after Locust's own tables."""
    chosen: Any = environment.parsed_options
    if not chosen.headless:
        logger.warning(outcome.text.rstrip())
        return
    if outcome.directory is None:  # there was no run, so that the tables are empty
        logging.getLogger("locust.stats_logger").disabled = True
    events.quit.add_listener(lambda **_: sys.stderr.write(outcome.text))  # type: ignore[no-untyped-call]


def shown() -> web_page.Shown:
    """Return what Locust's page shows of the last run."""
    if _coordinators:
        return web_page.Shown(is_on=True, line="A run is on.")
    if not _outcomes:
        return web_page.Shown(is_on=False)
    last = _outcomes[-1]
    directory = last.directory.name if last.directory else ""
    return web_page.Shown(is_on=False, line=last.line, reasons=last.reasons, directory=directory)


def leave(environment: Environment, **_: Any) -> None:
    """End the run, and report what there is, because this process ends."""
    end(environment)
    for worker in _workers:
        worker.finish()
