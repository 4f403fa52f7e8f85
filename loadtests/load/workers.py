"""The workers as the coordinator knows them: what each was sent, and what it has reported."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from locust.runners import MasterRunner, Runner

from loadtests.analysis import measures
from loadtests.load.messages import ORDER, WorkerMessage
from loadtests.results import REQUEST, Requests

LATE_SHARE = 0.01  # of a step's requests; where more left late, the generator broke it


@dataclass
class Reported:
    """What one worker has reported so far."""

    ready: bool = False
    done: bool = False
    per_s: float | None = None
    chunks: list[bytes] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)
    peak: int = 0
    cpu: float = 0.0

    def requests(self, revisions: list[str]) -> Requests:
        """Return its requests, with revisions numbered as in `revisions`, to which new ones are added."""
        rows = np.frombuffer(b"".join(self.chunks), REQUEST).copy()
        revisions += [name for name in self.revisions if name not in revisions]
        numbers = np.array([revisions.index(name) for name in self.revisions] + [-1], np.int16)
        rows["revision"] = numbers[rows["revision"]]
        return rows


class Workers:
    """All workers of a run; `problem` is what one of them could not do, if there is such a thing."""

    def __init__(self, runner: Runner):
        self._runner, self.problem = runner, ""
        names = list(runner.clients) if isinstance(runner, MasterRunner) else ["local"]
        self._reported = {name: Reported() for name in names if not self._is_lost(name)}
        self._steps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)

    def __len__(self) -> int:
        return len(self._reported)

    @property
    def first(self) -> str:
        return str(next(iter(self._reported)))

    @property
    def missing(self) -> list[str]:
        """The names of those whose last report never came."""
        return [name for name, reported in self._reported.items() if not reported.done]

    @property
    def peak_in_flight(self) -> int:
        return max(reported.peak for reported in self._reported.values())

    @property
    def cpu_share(self) -> float:
        return max(reported.cpu for reported in self._reported.values())

    def capacity_of(self, name: str) -> float | None:
        """Return the requests per second that a worker measured, closed loop; `None`: not yet."""
        return self._reported[name].per_s

    def send(self, order: WorkerMessage, to: str | None = None) -> None:
        """Send an order to one worker, or to all."""
        for name in [to] if to else self._reported:
            self._runner.send_message(ORDER, order, client_id=name)

    def send_parts(self, order: WorkerMessage) -> None:
        """Send an order to all workers, each with the number of its part."""
        for index, name in enumerate(self._reported):
            self.send({**order, "index": index, "of": len(self)}, to=name)

    def receive(self, name: str, report: WorkerMessage) -> None:
        """Take a worker's report; that of a worker which is no part of the run is dropped."""
        reported = self._reported.get(name)
        if reported is None:
            return
        match report["what"]:
            case "ready":
                reported.ready = True
            case "measured":
                reported.per_s = report["per_s"]
            case "requests":
                reported.chunks.append(report["rows"])
            case "step":
                self._steps[report["number"]].append((report["total"], report["good"], report["late"]))
            case "done":
                reported.revisions, reported.peak, reported.cpu = report["revisions"], report["peak"], report["cpu"]
                reported.done = True
            case "problem":
                self.problem = f"worker {name}: {report['text']}"

    def all_are(self, state: Literal["ready", "done"]) -> bool:
        """Return whether every worker that is still there has reported this."""
        return all(getattr(r, state) for name, r in self._reported.items() if not self._is_lost(name))

    def requests(self) -> tuple[Requests, list[str]]:
        """Return all requests, ordered by their intended times, and the names of the revisions in them."""
        revisions = list[str]()
        found = np.concatenate([reported.requests(revisions) for reported in self._reported.values()])
        return found[np.argsort(found["intended"], kind="stable")], revisions

    def broke_two_steps(self, number: int) -> bool:
        """Return whether the SLO held neither in this step of the staircase nor in the one before."""
        return self._is_broken(number) and self._is_broken(number - 1)

    def _is_broken(self, number: int) -> bool:
        reports = self._steps.get(number, [])
        if len(reports) < len(self):
            return False
        total, good, late = np.sum(reports, axis=0).tolist()
        return bool(measures.over(np.array([total - good]), np.array([total]))[0]) or late > LATE_SHARE * total

    def _is_lost(self, name: str) -> bool:
        clients: Any = getattr(self._runner, "clients", {"local": None})
        return name not in clients or getattr(clients[name], "state", "") == "missing"
