"""A Kubernetes API over real HTTP whose objects a test moves: list and watch as the real one does them.

Every change has a resource version, and watches begin at one; those before `expire` are gone (410), as an event of the
stream or as the answer's status. Watches get bookmarks, can be cut off in the middle of a chunk, and resources can be
forbidden (403) or not installed (404). Its clock may be ahead. `KubernetesApi.when` has the time of each change.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from conftest import Pauses
from loadtests.cluster import observations

ScriptedObject = dict[str, Any]
NAMESPACE, SERVICE = "defects", "parcels"
OURS = {observations.OF_SERVICE: SERVICE}
BOOKMARK_SECONDS = 0.5
SAMPLE = 1.0  # seconds between two looks at what can't be watched
GRACE = 30  # seconds, which a pod may take to end
KINDS = (
    "pods",
    "events",
    "inferenceservices",
    "revisions",
    "podautoscalers",
    "deployments",
    "horizontalpodautoscalers",
)


class KubernetesApi:
    """The objects of one namespace. `ahead`: seconds that its clock is ahead."""

    def __init__(self, ahead: float = 0.0):
        self.ahead, self.url = ahead, ""
        self.forbidden: set[str] = set()
        self.absent: set[str] = set()
        self.refused: dict[str, int] = {}  # last part of the path -> status that is answered there for now
        self.may: set[tuple[str, str]] = set()  # verb and resource of what else is allowed
        self.metrics: dict[str, str] = {}  # of pods, by name
        self.autoscaler: str | None = ""  # its metrics; None: they may not be read through the API
        self.breaks_off = False  # in the middle of what is asked at the autoscaler's own address
        self.on_delete: Callable[[str], None] = lambda _: None
        self.on_patch: Callable[[Any], None] = lambda _: None
        self.gone_as_status: set[str] = set()  # kinds
        self.requests: list[str] = []
        self.pauses = Pauses()  # of this machine, since it serves
        self.when: dict[tuple[str, str], float] = {}  # name and what became of it -> time.monotonic
        self._objects: dict[str, dict[str, ScriptedObject]] = {kind: {} for kind in KINDS}
        self._version = 100
        self._log: list[tuple[int, str, str, ScriptedObject]] = []
        self._expired: dict[str, int] = {}
        self._cut = dict.fromkeys(KINDS, 0)
        self.changed = threading.Condition()

    @property
    def sample(self) -> float:
        """Seconds: how far what was seen may be from what was scripted, on a machine that stood still for so long."""
        return SAMPLE + self.pauses.longest

    # --- what a test does ---

    def now(self, later: float = 0.0) -> str:
        return datetime.fromtimestamp(time.time() + self.ahead + later, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def put(self, kind: str, thing: ScriptedObject, note: str = "") -> None:
        """Make an object, or replace it."""
        with self.changed:
            name = thing["metadata"]["name"]
            self._record(kind, "MODIFIED" if name in self._objects[kind] else "ADDED", thing)
            if note:
                self.when[name, note] = time.monotonic()

    def remove(self, kind: str, name: str) -> None:
        with self.changed:
            self._record(kind, "DELETED", self._objects[kind][name])
            del self._objects[kind][name]
            self.when[name, "gone"] = time.monotonic()

    def _record(self, kind: str, change: str, thing: ScriptedObject) -> None:
        self._version += 1
        thing = json.loads(json.dumps(thing))
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._objects[kind][thing["metadata"]["name"]] = thing
        self._log.append((self._version, kind, change, thing))
        self.changed.notify_all()

    def expire(self, kind: str) -> None:
        """Forget the versions so far: watches are cut off, and can't go on."""
        with self.changed:
            self._version += 1
            self._expired[kind] = self._version
        self.cut(kind)

    def cut(self, kind: str) -> None:
        """End the watches of a kind in the middle of a chunk."""
        with self.changed:
            self._cut[kind] += 1
            self.changed.notify_all()

    def refuse(self, **statuses: int) -> None:
        """Answer so where these kinds are listed or watched, and end their watches; without any, no more."""
        self.refused = statuses
        for kind in statuses:
            self.cut(kind)

    def event(self, pod: str, reason: str, message: str, number: int) -> None:
        about = {"kind": "Pod", "name": pod, "fieldPath": "spec.containers{kserve-container}"}
        meta, now = {"name": f"{pod}.{number}"}, self.now()
        self.put("events", {"metadata": meta, "involvedObject": about, "reason": reason, "message": message,
                            "firstTimestamp": now, "lastTimestamp": now})  # fmt: skip

    def desire(self, revision: str, replicas: int) -> None:
        """What Knative's autoscaler wants of a revision."""
        meta = {"name": revision, "labels": OURS}
        self.put("podautoscalers", {"metadata": meta, "status": {"desiredScale": replicas, "actualScale": 0}},
                 f"desired {replicas}")  # fmt: skip

    def serve_traffic(self, percent: dict[str, int], mode: str = "Knative", **status: Any) -> None:
        """The InferenceService, with these percentages of the requests for its revisions."""
        traffic = [{"revisionName": name, "percent": share} for name, share in percent.items()]
        condition = {"type": "Ready", "status": "True"}
        self.put("inferenceservices", {
            "metadata": {"name": SERVICE, "annotations": {observations.MODE: mode}},
            "status": {"conditions": [condition], "components": {"predictor": {"traffic": traffic}}, **status},
        }, "traffic")  # fmt: skip

    # --- what the server does ---

    def listed(self, kind: str, query: dict[str, str]) -> ScriptedObject:
        with self.changed:
            items = [thing for thing in self._objects[kind].values() if selected(thing, query)]
            return {"metadata": {"resourceVersion": str(self._version)}, "items": items}

    def expired(self, kind: str, version: int) -> bool:
        return version < self._expired.get(kind, 0)

    def watch(self, kind: str, query: dict[str, str]) -> Iterator[ScriptedObject | None]:
        """Changes since a version; None: the connection breaks."""
        version, cut = int(query["resourceVersion"]), self._cut[kind]
        until = time.monotonic() + int(query["timeoutSeconds"])
        if self.expired(kind, version):
            yield {"type": "ERROR", "object": gone()}
            return
        while time.monotonic() < until:
            with self.changed:
                news = [entry for entry in self._log if entry[0] > version and entry[1] == kind]
                if not news and self._cut[kind] == cut:
                    self.changed.wait(BOOKMARK_SECONDS)
                    news = [entry for entry in self._log if entry[0] > version and entry[1] == kind]
                latest = self._version
            if self._cut[kind] != cut:
                yield None
                return
            for number, _, change, thing in news:
                version = number
                if selected(thing, query):
                    yield {"type": change, "object": thing}
            if not news and query.get("allowWatchBookmarks") == "true":
                version = latest
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(latest)}}}

    def proxied(self, name: str) -> str | None:
        return self.metrics.get(name.partition(":")[0])


def gone() -> ScriptedObject:
    return {"kind": "Status", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410}


def selected(thing: ScriptedObject, query: dict[str, str]) -> bool:
    label, _, value = query.get("labelSelector", "").partition(",")[0].partition("=")
    field = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = thing["metadata"].get("labels", {})
    others = (
        ["transformer", "explainer"]
        if "component notin (transformer,explainer)" in query.get("labelSelector", "")
        else []
    )
    chosen = not label or (labels.get(label) == value and labels.get("component") not in others)
    return chosen and field in ("", thing["metadata"]["name"])


class ApiHandler(BaseHTTPRequestHandler):
    """Speaks for `api`."""

    protocol_version = "HTTP/1.1"
    api: KubernetesApi

    def log_message(self, *_: Any) -> None:
        pass

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate((timestamp or time.time()) + self.api.ahead, usegmt=True)

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        query, parts = {k: v[0] for k, v in parse_qs(split.query).items()}, unquote(split.path).strip("/").split("/")
        self.api.requests.append(self.path)
        if parts[-1] in self.api.refused:
            self.refuse(self.api.refused[parts[-1]])
        elif parts == ["version"]:
            self.answer(200, {"gitVersion": "v1.35.0"})
        elif parts == ["autoscaler", "metrics"]:
            self.text(self.api.autoscaler or "", self.api.breaks_off)
        elif "/".join(parts[-5:]) == "knative-serving/services/autoscaler:http-metrics/proxy/metrics":
            self.refuse(403) if self.api.autoscaler is None else self.text(self.api.autoscaler)
        elif "proxy" in parts:
            self.proxy(parts[parts.index("proxy") - 1])
        elif parts[-1] in KINDS and NAMESPACE in parts:
            self.resource(parts[-1], query)
        elif parts[-2] == "inferenceservices":
            found = self.api.listed("inferenceservices", {"fieldSelector": f"metadata.name={parts[-1]}"})["items"]
            self.answer(200, found[0]) if found else self.refuse(404)
        else:
            self.refuse(404)

    def resource(self, kind: str, query: dict[str, str]) -> None:
        api = self.api
        if kind in api.forbidden or kind in api.absent:
            self.refuse(403 if kind in api.forbidden else 404)
        elif query.get("watch") != "true":
            self.answer(200, api.listed(kind, query))
        elif kind in api.gone_as_status and api.expired(kind, int(query["resourceVersion"])):
            self.answer(410, gone())
        else:
            self.stream(api.watch(kind, query))

    def stream(self, changes: Iterator[ScriptedObject | None]) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        with suppress(OSError):
            for change in changes:
                if change is None:
                    self.wfile.write(b'ff\r\n{"type": "MODI')
                    self.wfile.flush()
                    self.close_connection = True
                    return
                line = json.dumps(change).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def proxy(self, name: str) -> None:
        found = self.api.proxied(name)
        if ("get", "pods/proxy") not in self.api.may:
            self.refuse(403)
        elif found is None:
            self.refuse(503)
        else:
            self.text(found)

    def do_POST(self) -> None:
        asked = self.body()["spec"]["resourceAttributes"]
        self.answer(201, {"status": {"allowed": (asked["verb"], asked["resource"]) in self.api.may}})

    def do_DELETE(self) -> None:
        self.body()
        if ("delete", "pods") not in self.api.may:
            self.refuse(403)
            return
        self.answer(200, {"kind": "Status", "status": "Success"})
        self.api.on_delete(self.path.rpartition("/")[2])

    def do_PATCH(self) -> None:
        change = self.body()
        if self.headers["content-type"] != "application/json-patch+json":
            self.refuse(415)
            return
        self.answer(200, {"metadata": {"name": SERVICE}})
        self.api.on_patch(change)

    def body(self) -> Any:
        length = int(self.headers.get("content-length") or 0)
        return json.loads(self.rfile.read(length) or b"null")

    def refuse(self, status: int) -> None:
        self.answer(status, {"kind": "Status", "status": "Failure", "code": status})

    def answer(self, status: int, content: ScriptedObject) -> None:
        self.send(status, json.dumps(content).encode(), "application/json")

    def text(self, content: str, breaks_off: bool = False) -> None:
        self.send(200, content.encode(), "text/plain", breaks_off)

    def send(self, status: int, body: bytes, kind: str, breaks_off: bool = False) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if breaks_off else body)
        self.close_connection |= breaks_off


class ApiServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away."""


@contextmanager
def serving(api: KubernetesApi) -> Iterator[KubernetesApi]:
    """Let it serve on loopback."""
    server = ApiServer(("127.0.0.1", 0), type("Bound", (ApiHandler,), {"api": api}))
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        with api.pauses:
            yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def kubeconfig(api: KubernetesApi, path: Path) -> Path:
    """A file that leads to it, whose namespace is the service's."""
    file = path / "kubeconfig"
    context = {"cluster": "scripted", "user": "tester", "namespace": NAMESPACE}
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "scripted",
                "clusters": [{"name": "scripted", "cluster": {"server": api.url}}],
                "users": [{"name": "tester", "user": {"token": "none"}}],
                "contexts": [{"name": "scripted", "context": context}],
            }
        )
    )
    return file


class ScriptedPod:
    """A pod of a revision, moved from moment to moment."""

    def __init__(self, api: KubernetesApi, name: str, revision: str):
        self.api, self.name = api, name
        self.conditions: list[ScriptedObject] = []
        self.thing: ScriptedObject = {
            "metadata": {
                "name": name,
                "labels": {**OURS, "serving.knative.dev/revision": revision},
                "creationTimestamp": api.now(),
            },
            "spec": {"containers": [{"name": "kserve-container", "ports": [{"containerPort": 3000}]}]},
            "status": {"conditions": self.conditions},
        }
        self.put("created")

    def put(self, note: str) -> None:
        self.api.put("pods", self.thing, note)

    def holds(self, condition: str, note: str) -> None:
        found = {"type": condition, "status": "True", "lastTransitionTime": self.api.now()}
        self.conditions.append(found)
        self.put(note)

    def scheduled(self) -> None:
        self.holds("PodScheduled", "scheduled")

    def initialised(self) -> None:
        self.holds("Initialized", "initialised")

    def pulled(self) -> None:
        self.api.event(self.name, "Pulled", "Successfully pulled image", 1)
        self.api.when[self.name, "pulled"] = time.monotonic()

    def container(self, state: ScriptedObject, restarts: int = 0, last: ScriptedObject | None = None) -> None:
        self.thing["status"]["containerStatuses"] = [
            {"name": "kserve-container", "state": state, "lastState": last or {}, "restartCount": restarts}
        ]

    def started(self) -> None:
        self.container({"running": {"startedAt": self.api.now()}})
        self.put("started")

    def ready(self) -> None:
        self.holds("Ready", "ready")

    def stuck(self, reason: str, message: str, restarts: int = 0) -> None:
        last = {"terminated": {"startedAt": self.api.now(), "exitCode": 1}} if restarts else None
        self.container({"waiting": {"reason": reason, "message": message}}, restarts, last)
        self.put(reason)

    def terminating(self) -> None:
        self.thing["metadata"] |= {"deletionTimestamp": self.api.now(GRACE), "deletionGracePeriodSeconds": GRACE}
        self.put("terminating")

    def gone(self) -> None:
        self.api.remove("pods", self.name)

    def up(self) -> ScriptedPod:
        """All at once."""
        for step in (self.scheduled, self.initialised, self.started, self.ready):
            step()
        return self


ScriptedStep = tuple[float, Callable[[], object]]


def play(begin: float, *steps: ScriptedStep) -> None:
    """Take each step at its time after `begin` on `time.monotonic`."""
    for at, step in sorted(steps, key=lambda one: one[0]):
        time.sleep(max(0.0, begin + at - time.monotonic()))
        step()
