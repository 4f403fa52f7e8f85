"""Watch an InferenceService and everything that Kubernetes makes of it, and print an observation for each change."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

from loadtests.cluster import observations
from loadtests.cluster.api import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    PATIENCE,
    SCRAPE_SECONDS,
    TOKEN,
    UNANSWERED,
    _line,
    _text,
    _why,
    get_text,
    resources,
)
from loadtests.cluster.clock import CLOCK_SECONDS, Clock
from loadtests.cluster.follower import Follower
from loadtests.cluster.observations import Observation
from loadtests.cluster.process import BadCluster
from tools import prometheus

PROBES, PROBE_SECONDS = 10, 0.1037  # answers for the clock at the begin: their phases cover a second
CONCURRENCY = {  # of Knative's autoscaler, by the names it gave them up to 1.18 and since
    "stable": ("autoscaler_stable_request_concurrency", "kn_revision_concurrency_stable"),
    "panic": ("autoscaler_panic_request_concurrency", "kn_revision_concurrency_panic"),
    "panicking": ("autoscaler_panic_mode", "kn_revision_panic_mode"),
}
AUTOSCALER_METRICS = {name for names in CONCURRENCY.values() for name in names}
GAUGES = {"defects_queue_rows": "queue_rows", "defects_requests_in_flight": "in_flight"}
STARTUP = "defects_startup_seconds"
AUTOSCALER = ("autoscaler:http-metrics", "knative-serving", "metrics")  # Knative's Service, its namespace, the path
DISRUPTIONS = ("delete-pod", "new-revision")
ORDER_BYTES = 4096  # read at once; an order is much shorter, and pipes pass it whole


# --- the process -----------------------------------------------------------------------------------------------------


class ClusterWatcher:
    """Everything that is followed, told to `output` as lines."""

    def __init__(self, api: client.ApiClient, namespace: str, options: argparse.Namespace):
        self._api, self._namespace, self._options = api, namespace, options
        self._lock, self._clock = threading.Lock(), Clock()
        self._pods: dict[str, observations.Pod] = {}
        self._service: observations.Service | None = None
        self._started_up: set[str] = set()
        self._missed: set[str] = set()

    def run(self) -> None:
        """Until the time is over; raises `BadCluster` where nothing can be watched."""
        until = time.monotonic() + self._options.seconds
        self._probe_clock()
        if self._options.disruption:
            self._check_permission()
        service = self._options.cluster.service
        followers = [
            Follower(resource, self.tell, self._heard) for resource in resources(self._api, self._namespace, service)
        ]
        for follower in followers:
            self._start(follower.name, follower.run)
        for follower in followers:
            if not follower.listed.wait(ANSWER_SECONDS + CONNECT_SECONDS):
                raise BadCluster(
                    "--cluster: not everything could be listed in time; expected an API server that answers"
                )
        self._check_seen(followers)
        self._check_service()
        self._start("the pods' own metrics", self._scrape_pods)
        if self._options.autoscaler_metrics or (self._service and self._service.mode == "Knative"):
            self._start("the autoscaler's metrics", self._scrape_autoscaler)
        if self._options.disruption:
            self._start(self._options.disruption, self._obey)
        self.tell(observations.Begun(at=time.monotonic()))
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, CLOCK_SECONDS))
            self._ask_clock()

    def _start(self, what: str, run: Callable[[], None]) -> None:
        """Run it in the background; if it fails, that is not silent."""

        def guarded() -> None:
            try:
                run()
            except Exception as error:  # what was not thought of
                self._miss(f"{what}: watched no longer ({type(error).__name__}: {_line(error)})")

        threading.Thread(target=guarded, daemon=True).start()

    def tell(self, observation: Observation) -> None:
        with self._lock:
            if isinstance(observation, observations.Pod):
                self._pods[observation.name] = observation
            elif isinstance(observation, observations.Service):
                self._service = observation
            sys.stdout.write(observation.model_dump_json(exclude_defaults=False) + "\n")
            sys.stdout.flush()
        if isinstance(observation, observations.Service) and observation.canaries:
            names = ", ".join(observation.canaries)
            self._miss(f"the wanted shares of the traffic: which pods are the canary's ({names}) is not known")

    # --- clock ---

    def _heard(self, answer: Any, asked: float, came: float) -> None:
        with suppress(TypeError, ValueError, AttributeError):  # without a Date, or without an answer
            date = parsedate_to_datetime(answer.headers.get("date")).timestamp()
            with self._lock:
                better = self._clock.hear(date, asked, came)
                observation = self._clock.observation()
            if better:
                self.tell(observation)

    def _ask_clock(self) -> None:
        with suppress(ApiException, *UNANSWERED):
            self._ask_version()

    def _ask_version(self) -> None:
        asked = time.monotonic()
        try:
            answer = client.VersionApi(self._api).get_code(_preload_content=False, _request_timeout=PATIENCE)
        except ApiException as error:  # has a Date too
            self._heard(error, asked, time.monotonic())
            raise
        self._heard(answer, asked, time.monotonic())
        answer.close()

    def _probe_clock(self) -> None:
        """Without a login, or without an answer, there is nothing to watch. The version itself is not needed."""
        for _ in range(PROBES):
            try:
                self._ask_version()
            except ApiException as error:
                if error.status == 401:
                    raise BadCluster("--cluster: the API server answered HTTP 401; expected a login") from None
                if not error.status:
                    raise self._unreached(error) from None
            except UNANSWERED as error:
                raise self._unreached(error) from None
            time.sleep(PROBE_SECONDS)

    def _unreached(self, error: Exception) -> BadCluster:
        text = f"the API server at {self._api.configuration.host} can't be reached ({_why(error)})"
        return BadCluster(f"--cluster: {text}; expected one that answers")

    # --- what must be there ---

    def _check_seen(self, followers: Sequence[Follower]) -> None:
        """Without the service and without its pods there is nothing to report; raises `BadCluster`."""
        refused = {follower.name: follower.refused for follower in followers}
        status = refused["inferenceservices"]
        if status and refused["pods"]:
            where = f"inferenceservices or pods in namespace {self._namespace!r} (HTTP {status})"
            raise BadCluster(f"--cluster: not allowed to list and watch {where}; expected a login, or a role that may")

    def _check_service(self) -> None:
        """The InferenceService must be there, if that can be seen."""
        custom, service = client.CustomObjectsApi(self._api), self._options.cluster.service
        group = ("serving.kserve.io", "v1beta1", self._namespace, "inferenceservices")
        try:
            custom.get_namespaced_custom_object(*group, service, _request_timeout=PATIENCE)
        except ApiException as error:
            if error.status == 404:
                where = f"namespace {self._namespace!r} has no InferenceService {service!r}"
                raise BadCluster(f"--cluster: {where}; expected one that is there") from None
        except UNANSWERED:
            pass

    def _check_permission(self) -> None:
        """Ask whether this client may do what it would have to; raises `BadCluster` where it may not."""
        verb, group, resource = {
            "delete-pod": ("delete", "", "pods"),
            "new-revision": ("patch", "serving.kserve.io", "inferenceservices"),
        }[self._options.disruption]
        attributes = {"namespace": self._namespace, "verb": verb, "group": group, "resource": resource}
        if verb == "patch":  # a role may name it
            attributes["name"] = self._options.cluster.service
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        try:
            with closing(
                client.AuthorizationV1Api(self._api).create_self_subject_access_review(
                    review, _preload_content=False, _request_timeout=PATIENCE
                )
            ) as answer:
                allowed = bool(json.loads(answer.data)["status"]["allowed"])
        except (ApiException, *UNANSWERED, ValueError, KeyError):
            allowed = False
        if not allowed:
            where = f"{verb} {resource} in namespace {self._namespace!r}"
            raise BadCluster(f"--allow-disruption: not allowed to {where}; expected a role that may")

    # --- what is done to the cluster ---

    def _obey(self) -> None:
        """Do what is ordered when its time has come; what comes on the standard input until then goes first."""
        at: float | None = None
        while True:
            left = None if at is None else max(0.0, at - time.monotonic())
            if select.select([sys.stdin], [], [], left)[0]:
                at = self._order()
            else:
                self._disrupt()
                at = None

    def _order(self) -> float | None:
        """When to do it, by the last of the lines that have come."""
        lines = os.read(sys.stdin.fileno(), ORDER_BYTES).splitlines()
        if not lines:
            with self._lock:  # every line has been written
                os._exit(0)
        at = json.loads(lines[-1])["at"]
        return None if at is None else float(at)

    def _disrupt(self) -> None:
        do = self._delete_pod if self._options.disruption == "delete-pod" else self._change_image
        text, problem = "", None
        try:
            text = do()
        except (ApiException, *UNANSWERED, LookupError) as error:
            problem = f"{self._options.disruption}: {_why(error)}"
        self.tell(observations.Disrupted(at=time.monotonic(), text=text or self._options.disruption, problem=problem))

    def _delete_pod(self) -> str:
        """One that answers requests: of the revision that most are for, the first by its name."""
        with self._lock:
            shares = self._service.traffic if self._service else {}
            ready = [pod for pod in self._pods.values() if pod.ready]
        if not ready:
            raise LookupError("no pod was ready")
        name = min(ready, key=lambda pod: (-shares.get(pod.revision or "", 0.0), pod.name)).name
        client.CoreV1Api(self._api).delete_namespaced_pod(
            name, self._namespace, _preload_content=False, _request_timeout=PATIENCE
        ).close()
        return f"pod {name} was deleted"

    def _change_image(self) -> str:
        image, service = self._options.image, self._options.cluster.service
        change = [{"op": "replace", "path": "/spec/predictor/containers/0/image", "value": image}]
        client.CustomObjectsApi(self._api).patch_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", self._namespace, "inferenceservices", service, change,
            _content_type="application/json-patch+json", _request_timeout=PATIENCE,
        )  # fmt: skip
        return f"the image became {image}"

    # --- what pods and the autoscaler say themselves ---

    def _scrape_pods(self) -> None:
        inside = (TOKEN / "token").exists()
        for _ in every(SCRAPE_SECONDS):
            with self._lock:
                pods = [pod for pod in self._pods.values() if pod.started_stamp and pod.port and not pod.gone]
            for pod in pods:
                try:
                    self._tell_inside(pod.name, get_text(metrics_url(pod)) if inside else self._by_proxy(pod))
                except (ApiException, *UNANSWERED, ValueError) as error:
                    if isinstance(error, ApiException) and error.status == 403:
                        self._miss("the pods' own metrics: not allowed to get pods/proxy (HTTP 403)")
                        break
                    if pod.ready:  # others are not up yet
                        self._miss(f"the pods' own metrics, not always: {_why(error)}")

    def _miss(self, text: str) -> None:
        """Said once."""
        if text not in self._missed:
            self._missed.add(text)
            self.tell(observations.Unseen(at=time.monotonic(), text=text))

    def _by_proxy(self, pod: observations.Pod) -> str:
        get = client.CoreV1Api(self._api).connect_get_namespaced_pod_proxy_with_path
        return _text(get, f"{pod.name}:{pod.port}", self._namespace, "metrics")

    def _tell_inside(self, name: str, exposition: str) -> None:
        values = prometheus.values(exposition, GAUGES)
        startup = {s.labels.get("phase", ""): s.value for s in prometheus.series(exposition, {STARTUP})}
        self.tell(
            observations.Inside(
                at=time.monotonic(),
                name=name,
                startup={} if name in self._started_up else startup,
                **{ours: values.get(theirs) for theirs, ours in GAUGES.items()},
            )
        )
        if "ready" in startup:
            self._started_up.add(name)

    def _scrape_autoscaler(self) -> None:
        for _ in every(SCRAPE_SECONDS):
            try:
                self._tell_autoscaler(self._autoscaler())
            except ApiException as error:
                way = "through the API server; --autoscaler-metrics names another way"
                self._miss(f"the autoscaler's metrics: {_why(error)} {way}")
            except (*UNANSWERED, ValueError) as error:
                self._miss(f"the autoscaler's metrics, not always: {_why(error)}")

    def _autoscaler(self) -> str:
        """What Knative's autoscaler exports, where its `metrics-protocol` is prometheus."""
        if url := self._options.autoscaler_metrics:
            return get_text(url, by_proxy=True)
        return _text(client.CoreV1Api(self._api).connect_get_namespaced_service_proxy_with_path, *AUTOSCALER)

    def _tell_autoscaler(self, exposition: str) -> None:
        by_revision: dict[str, dict[str, Any]] = {}
        for metric, labels, value in prometheus.series(exposition, AUTOSCALER_METRICS):
            revision = labels.get("kn_revision_name") or labels.get("revision_name") or ""
            namespace = labels.get("k8s_namespace_name") or labels.get("namespace_name")
            kind = next((kind for kind, names in CONCURRENCY.items() if metric in names), None)
            mine = revision.startswith(f"{self._options.cluster.service}-predictor")
            if kind and mine and namespace in (None, self._namespace):
                by_revision.setdefault(revision, {})[kind] = value > 0 if kind == "panicking" else value
        for revision, values in by_revision.items():
            self.tell(observations.Autoscaler(at=time.monotonic(), revision=revision, **values))


def metrics_url(pod: observations.Pod) -> str:
    """Where a pod says how it is, for whoever is in the cluster."""
    host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
    return f"http://{host}:{pod.port}/metrics"


def every(seconds: float) -> Iterator[int]:
    """So often, for as long as the process is there."""
    started = time.monotonic()
    for number in range(10**9):
        time.sleep(max(0.0, started + number * seconds - time.monotonic()))
        yield number
