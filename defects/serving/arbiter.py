"""Make the arbiter of `bentoml serve` end as a person expects, where circus, which it is made of, does not.

Imports BentoML, so only the arbiter's process imports this.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import click
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus

from defects.serving import listener
from defects.settings import BadSetting, Fatal, Settings


class WorkerEnded(Fatal):
    exit_code = 70


class Arbiter(circus.Arbiter):
    """BentoML's arbiter, which passes a second Ctrl-C on, and ends with one line when its worker has ended.

    Its worker has a session of its own, so a terminal's Ctrl-C reaches the arbiter only. That answers the first one
    with a SIGTERM for the worker, and ignores the second.
    """

    def start(self, cb: Callable[[Any], Any] | None = None) -> None:
        """Run until the worker has ended; `cb` is called once that has been started."""

        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # as `nohup` has it

        def started(future: Any) -> None:
            # circus has installed its handlers by now.
            self._first_interrupt = signal.signal(signal.SIGINT, self._on_interrupt)
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else self._on_hangup)
            if cb is not None:
                cb(future)

        try:
            super().start(started)
        except RuntimeError as error:
            if "No active process" not in str(error):
                raise
            self.exit_stack.close()
            WorkerEnded("the worker process has ended, killed or for a reason that it logged; so this one ends").exit()

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._on_second_interrupt)
        if callable(self._first_interrupt):
            self._first_interrupt(number, frame)

    @staticmethod
    def _on_hangup(_: int, frame: FrameType | None) -> None:
        """End as with a SIGTERM; circus would start other workers instead."""
        terminate = signal.getsignal(signal.SIGTERM)
        if callable(terminate):
            terminate(signal.SIGTERM, frame)

    def _on_second_interrupt(self, number: int, _: FrameType | None) -> None:
        for watcher in self.iter_watchers():
            for process in list(watcher.processes.values()):
                process.send_signal(number)


def install() -> None:
    """Have BentoML make this `Arbiter` instead of its own."""
    circus.Arbiter = Arbiter  # type: ignore[misc]


def check_health_port(settings: Settings) -> None:
    """End the process where the second port can't be listened on."""
    command = click.get_current_context(silent=True)
    given = command.params.get("port") if command else None
    try:
        listener.check_health_port(settings, given or BentoMLContainer.http.port.get())
    except BadSetting as problem:
        problem.exit()


def check_workers(service: str) -> None:
    """End the process where more than one worker is asked for, by the configuration or on the command line."""
    command = click.get_current_context(silent=True)
    given = command.params.get("api_workers") if command else None
    configured = BentoMLContainer.config.services[service].workers.get()
    for name, workers in (("--api-workers", 1 if given is None else given), ("workers", configured)):
        if workers != 1:
            BadSetting(
                f"{name}: is {workers}; expected 1: scale by replicas, for each worker has its own batches"
            ).exit()
