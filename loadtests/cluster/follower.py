"""Follow one kind of resource by list and watch, through interruptions."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from kubernetes.client import ApiException
from kubernetes.watch.watch import iter_resp_lines
from urllib3.exceptions import TimeoutError as SilentError

from loadtests.cluster import observations
from loadtests.cluster.api import ANSWER_SECONDS, CONNECT_SECONDS, UNANSWERED, Resource, one_line, reason
from loadtests.cluster.observations import KubernetesObject, Observation

WATCH_SECONDS = 20  # after which a watch is begun anew, so that one whose network is silently gone is noticed
SILENT_SECONDS = WATCH_SECONDS + 5.0
RETRY_SECONDS = 0.05, 5.0  # first and longest wait after a failure
BRIEF_SECONDS = 1.0  # a watch that ends so soon is not begun anew at once
CATCH_UP_SECONDS = 0.3  # after an interruption, in which events may be old

Report = Callable[[Observation], None]


class Follower:
    """Follows one resource; `listed` is set once it has been listed, or can't be."""

    def __init__(self, resource: Resource, report: Report, take_clock: Callable[[Any, float, float], None]):
        self._resource, self._report, self._take_clock = resource, report, take_clock
        self._known: dict[str, KubernetesObject] = {}
        self._reported: dict[str, dict[str, Any]] = {}
        self._gap_since: float | None = None
        self._gap_why, self._live_from = list[str](), 0.0
        self._version, self._wait, self._expired = "", RETRY_SECONDS[0], -math.inf
        self._asked = self._last = time.monotonic()  # when the API server was last asked, and last heard
        self.listed, self.name = threading.Event(), resource.name
        self.refused: int | None = None  # with this status, from the begin on

    def run(self) -> None:
        """Follow until the process ends; return where the resource can't be read from the begin on."""
        while True:
            try:
                self._version = self._version or self._list()
                self._watch()
                if time.monotonic() - self._asked > BRIEF_SECONDS:
                    self._wait = RETRY_SECONDS[0]
                    continue
            except ApiException as error:
                if error.status in (401, 403, 404) and not self.listed.is_set():
                    self._leave(error)
                    return
                if error.status == 410:
                    self._expire()
                self._interrupted(error)
            except (*UNANSWERED, ValueError, KeyError, TypeError, AttributeError) as error:
                self._interrupted(error)
            time.sleep(self._wait)
            self._wait = min(2 * self._wait, RETRY_SECONDS[1])

    def _expire(self) -> None:
        """Begin again from a list; at once, though an outage may have come before, unless this happens all the time."""
        self._version, before, self._expired = "", self._expired, time.monotonic()
        if self._expired - before > RETRY_SECONDS[1]:
            self._wait = RETRY_SECONDS[0]

    def _leave(self, error: ApiException) -> None:
        """Give the resource up. A kind of objects that is not installed (404) is not missed."""
        if error.status != 404:
            self.refused = error.status
            text = f"{self.name}: not allowed to list and watch them (HTTP {error.status})"
            self._report(observations.Unseen(at=time.monotonic(), text=text, resource=self.name))
        self.listed.set()

    def _interrupted(self, error: Exception) -> None:
        """Report it at once, as it may last to the end; and again where there is another reason."""
        if self._gap_since is None:
            self._gap_since = self._last if isinstance(error, SilentError) else time.monotonic()
            self._gap_why = []
        if (why := reason(error)) not in self._gap_why:
            self._gap_why.append(why)
            self._report_gap(self._gap_since, None)

    def _report_gap(self, at: float, seconds: float | None) -> None:
        self._report(observations.Gap(at=at, resource=self.name, seconds=seconds, why=", ".join(self._gap_why)))

    def _ask(self, read_seconds: float, **options: Any) -> Any:
        """Return the answer, once its headers have come: from here on the resource is seen again."""
        self._asked = asked = time.monotonic()
        answer = self._resource.list(
            **self._resource.selector,
            **options,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, read_seconds),
        )
        self._last = came = time.monotonic()
        self._take_clock(answer, asked, came)
        if self._gap_since is not None:
            seconds, self._gap_since = came - self._gap_since, None
            self._live_from = came + CATCH_UP_SECONDS
            self._report_gap(came, seconds)
        return answer

    def _list(self) -> str:
        """Report everything that there is, and what is there no more; return the version from which to watch."""
        with closing(self._ask(ANSWER_SECONDS)) as answer:
            content = json.loads(answer.data)
        found = {thing["metadata"]["name"]: thing for thing in content["items"]}
        for name in self._known.keys() - found.keys():
            self._take(self._known[name], live=False, gone=True)
        for thing in found.values():
            self._take(thing, live=False)
        self.listed.set()
        return str(content["metadata"]["resourceVersion"])

    def _watch(self) -> None:
        """Follow what changes, until the API server ends this; then `_version` is the one from which to go on."""
        options = {"watch": True, "allow_watch_bookmarks": True, "timeout_seconds": WATCH_SECONDS}
        with closing(self._ask(SILENT_SECONDS, **options, resource_version=self._version)) as answer:
            for line in iter_resp_lines(answer):
                self._last = time.monotonic()
                change = json.loads(line)
                thing = change["object"]
                if change["type"] == "ERROR":
                    raise ApiException(status=thing.get("code", 500), reason=thing.get("reason"))
                self._version = thing["metadata"]["resourceVersion"]
                self._wait = RETRY_SECONDS[0]
                if change["type"] != "BOOKMARK":
                    live = self._last >= self._live_from
                    self._take(thing, live=live, gone=change["type"] == "DELETED")

    def _take(self, thing: KubernetesObject, live: bool, gone: bool = False) -> None:
        """Report what an object says, unless that is nothing new."""
        name, observation = thing["metadata"]["name"], self._read(thing, live, gone)
        if gone:
            self._known.pop(name, None)
        else:
            self._known[name] = thing
        content = observation.model_dump(exclude={"at", "live"}) if observation else {}
        if observation and self._reported.get(name) != content:
            self._reported[name] = content
            self._report(observation)

    def _read(self, thing: KubernetesObject, live: bool, gone: bool) -> Observation | None:
        """Read an object. One that is not as expected (by another version of its API?) must not end the watch."""
        try:
            return self._resource.read(thing, time.monotonic(), live, gone)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{self.name}: {thing['metadata']['name']} could not be read ({one_line(error)})"
            return observations.Unseen(at=time.monotonic(), text=text)
