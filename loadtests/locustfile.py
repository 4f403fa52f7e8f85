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
from loadtests.load import coordinator, messages
from loadtests.load import options as read
from loadtests.load import worker as worker_

_coordinators: list[coordinator.Coordinator] = []  # the run that is on, if one is
_workers: list[worker_.Worker] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def options(parser: Any) -> None:
    """All are text, because that is what Locust's page gives; `session` reads it."""
    add = parser.add_argument
    add(
        "--scenario",
        default="steady",
        type=checked(scenario.load),
        help=f"{', '.join(scenario.names())}, or a .yaml file (steady)",
    )
    per_s = "requests/s, instead of the scenario's; or the directory of a run that found them"
    add("--rate", default="", type=checked(read.rate), help=per_s)
    add("--seed", default="", type=checked(read.seed), help="of schedule and rows, instead of the scenario's")
    file = "a .csv, .parquet or .json file with the rows to send"
    add("--payload", default="", help=file, include_in_web_ui=False)
    extra = "'NAME: VALUE', as an ingress or a gateway needs it; may be repeated"
    add("--header", default=[], action="append", type=checked(read.header), help=extra, include_in_web_ui=False)
    out = "where each run gets a directory (build/load)"
    add("--out", default="build/load", help=out, include_in_web_ui=False)
    cluster_options(add)


def cluster_options(add: Callable[..., Any]) -> None:
    """What is watched beside the server."""
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
    """Text that `read` can read; ends the process where it can't, before there are any others."""

    def check(text: str) -> str:
        try:
            read(text)
        except (scenario.BadScenario, process.BadCluster) as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(method.EXIT_CODES["Error"]) from None
        return text

    return check


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
    """Take part in the messages."""
    chosen: Any = environment.parsed_options
    # Locust goes through these backwards: only so does a worker report before its runner says that it is gone.
    environment.events.quitting.add_listener(leave)  # type: ignore[no-untyped-call]
    gevent.signal_handler(signal.SIGINT, interrupted)
    if not isinstance(runner, WorkerRunner):
        runner.register_message(messages.REPORT, hear)
        if chosen.headless:  # Locust listens to SIGTERM only once such a run is over
            gevent.signal_handler(signal.SIGTERM, terminated)
    if not isinstance(runner, MasterRunner):
        _workers.append(worker_.Worker(environment))
        runner.register_message(messages.ORDER, _workers[-1].obey)


def interrupted() -> None:
    """Ctrl-C ends what waits for the run's end, and not whichever request is just being sent."""
    gevent.get_hub().parent.throw(KeyboardInterrupt)


def terminated() -> None:
    if not _coordinators:
        raise SystemExit(method.EXIT_CODES["Error"])
    _coordinators[-1].stop("it was terminated")


def hear(msg: Any, **_: Any) -> None:
    if _coordinators:
        _coordinators[-1].hear(msg)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    if not isinstance(environment.runner, WorkerRunner):
        _coordinators.append(coordinator.Coordinator(environment))


@events.test_stopping.add_listener  # type: ignore[untyped-decorator]
def end(environment: Environment, **_: Any) -> None:
    """The schedule is over, or somebody ended the run."""
    for run in list(_coordinators):
        run.stop("somebody ended it")
        environment.process_exit_code = run.exit_code
        if run in _coordinators:  # of those that waited for it, the first says what came of it
            _coordinators.remove(run)
            say(environment, run.lines)


def say(environment: Environment, lines: list[str]) -> None:
    """At the very end where the process ends too, after Locust's own tables."""
    chosen: Any = environment.parsed_options
    text = "\n".join(lines) + "\n"
    if chosen.headless:
        events.quit.add_listener(lambda **_: sys.stderr.write(text))  # type: ignore[no-untyped-call]
    else:
        coordinator.logger.warning(text.rstrip())


def leave(environment: Environment, **_: Any) -> None:
    end(environment)
    for worker in _workers:
        worker.leave()
