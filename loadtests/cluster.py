"""What Kubernetes does with an InferenceService while it is under load, followed through the API.

python -m loadtests.cluster --cluster defects/defect-classifier --seconds 60

Runs in a process of its own, so that it neither disturbs the generator nor waits for it. Prints a JSON line for each
fact (`loadtests.facts`) until its time is over or it is told to end. It lists everything once and watches from there:
the InferenceService, Knative's Revisions and PodAutoscalers, HorizontalPodAutoscalers, Deployments, Pods and Events.
A watch that ends goes on where it was; one that is too old (410) starts again from a list. What may not be read (403)
is said, and the rest goes on. The pods' own metrics are read at their addresses where this runs in the cluster, else
through the API server, where that is allowed.

How the clocks are related comes from the `Date` of the API server's answers: whole seconds, but each answer gives an
interval in which the difference lies, and together they leave a narrow one.

It only reads, with two exceptions that are asked for: a line on its standard input, `{"at": t}`, makes it do once
at `t` what `--disruption` says, unless another line comes before (`{"at": null}`: never) or this input ends. Then
whoever ordered is no more, and it ends too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import yaml
from kubernetes import client, config
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from kubernetes.watch.watch import iter_resp_lines
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as SilentError

from loadtests import facts, watch
from loadtests.facts import Fact, Object
from loadtests.timeline import plain, series
from loadtests.watch import BadCluster, Target

CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 10.0
PATIENCE = (CONNECT_SECONDS, ANSWER_SECONDS)
WATCH_SECONDS = 20  # after which a watch is begun anew, so that one whose network is silently gone is noticed
SILENT_SECONDS = WATCH_SECONDS + 5.0
RETRY_SECONDS = 0.05, 5.0  # first and longest wait after a failure
BRIEF_SECONDS = 1.0  # a watch that ends so soon is not begun anew at once
CATCH_UP_SECONDS = 0.3  # after an interruption, in which events may be old
PROBES, PROBE_SECONDS = 10, 0.1037  # answers for the clock at the begin: their phases cover a second
CLOCK_SECONDS = 5.0
SCRAPE_SECONDS, SCRAPE_TIMEOUT = 1.0, 0.8
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CONCURRENCY = {  # of Knative's autoscaler, by the names it gave them up to 1.18 and since
    "stable": ("autoscaler_stable_request_concurrency", "kn_revision_concurrency_stable"),
    "panic": ("autoscaler_panic_request_concurrency", "kn_revision_concurrency_panic"),
    "panicking": ("autoscaler_panic_mode", "kn_revision_panic_mode"),
}
AUTOSCALER = ("autoscaler:http-metrics", "knative-serving", "metrics")  # Knative's Service, its namespace, the path
DISRUPTIONS = ("delete-pod", "new-revision")
ORDER_BYTES = 4096  # read at once; an order is much shorter, and pipes pass it whole

UNANSWERED = (HTTPError, HTTPException, ConfigException, OSError)  # or not wholly, or there is no login to ask with

Tell = Callable[[Fact], None]
Lister = Callable[..., Any]
Selector = Mapping[str, str]


class Resource(NamedTuple):
    """One kind of objects, and how facts are read from them."""

    name: str
    list: Lister
    read: Callable[..., Fact | None]
    selector: Selector


# --- clocks ----------------------------------------------------------------------------------------------------------


class Clock:
    """What must be added to `time.monotonic` to have the API server's clock, from the `Date` of its answers.

    A server that says `d` for an answer between `asked` and `came` had a time in [d, d + 1) then, so that the offset
    lies between d - came and d + 1 - asked. All answers together leave what these intervals have in common. Where
    they have nothing in common, a clock was set (or several servers answer), and it begins anew.
    """

    def __init__(self) -> None:
        self._low, self._high, self._answers = -float("inf"), float("inf"), 0

    def hear(self, date: float, asked: float, came: float) -> bool:
        """Take an answer; whether the offset is better known now."""
        before, self._answers = self._high - self._low, self._answers + 1
        low, high = max(self._low, date - came), min(self._high, date + 1 - asked)
        self._low, self._high = (low, high) if low < high else (date - came, date + 1 - asked)
        return self._high - self._low != before

    def fact(self) -> facts.Clock:
        now, offset = time.monotonic(), (self._low + self._high) / 2
        return facts.Clock(
            at=now,
            offset=offset,
            error=(self._high - self._low) / 2,
            skew=now + offset - time.time(),
            answers=self._answers,
        )


# --- the API ---------------------------------------------------------------------------------------------------------


def connect(target: Target) -> tuple[client.ApiClient, str]:
    """A client, and the namespace; raises `BadCluster`."""
    settings = client.Configuration()
    settings.retries, settings.connection_pool_maxsize = False, 32
    here = not target.kubeconfig and not target.context and (TOKEN / "token").exists()
    try:
        if here:
            config.load_incluster_config(client_configuration=settings)
            namespace = (TOKEN / "namespace").read_text("utf-8")
        else:
            file, context = target.kubeconfig or None, target.context or None
            config.load_kube_config(config_file=file, context=context, client_configuration=settings)
            contexts, active = config.list_kube_config_contexts(file)
            chosen = next((c for c in contexts if c["name"] == context), active)
            namespace = chosen["context"].get("namespace") or "default"
    except (ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        option = "--context" if target.context and "context" in str(error) else "--kubeconfig"
        raise BadCluster(f"{option}: {' '.join(str(error).split())}; expected one that kubectl can use") from None
    return client.ApiClient(settings), target.namespace or namespace


def resources(api: client.ApiClient, namespace: str, service: str) -> list[Resource]:
    """Everything that is followed."""
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    ours = {"label_selector": f"{facts.OF_SERVICE}={service},component notin (transformer,explainer)"}
    it = {"field_selector": f"metadata.name={service}"}

    def of(group: str, version: str, plural: str, read: Callable[..., Fact], selector: Selector = ours) -> Resource:
        lister = partial(custom.list_namespaced_custom_object, group, version, namespace, plural)
        return Resource(plural, lister, read, selector)

    return [
        Resource("pods", partial(core.list_namespaced_pod, namespace), facts.pod, ours),
        Resource("events", partial(core.list_namespaced_event, namespace), partial(_event_of, service), {}),
        of("serving.kserve.io", "v1beta1", "inferenceservices", facts.service, it),
        of("serving.knative.dev", "v1", "revisions", facts.revision),
        of("autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", facts.pod_autoscaler),
        of("apps", "v1", "deployments", facts.deployment),
        of("autoscaling", "v2", "horizontalpodautoscalers", facts.horizontal_autoscaler),
    ]


def _event_of(service: str, thing: Object, at: float, live: bool, gone: bool = False) -> Fact | None:
    """Events have no labels: the service's are those about things that are called as what KServe makes for it."""
    found = facts.event(thing, at, live, gone)
    return found if found and (found.name == service or found.name.startswith(f"{service}-predictor")) else None


class Follower:
    """Follows one resource; `listed` is set once it has been listed, or can't be."""

    def __init__(self, resource: Resource, tell: Tell, heard: Callable[[Any, float, float], None]):
        self._resource, self._tell, self._heard = resource, tell, heard
        self._known: dict[str, Object] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._gap_since: float | None = None
        self._gap_why, self._live_from = list[str](), 0.0
        self._version, self._wait, self._expired = "", RETRY_SECONDS[0], -math.inf
        self._asked = self._last = time.monotonic()  # when the API server was last asked, and last heard
        self.listed, self.name = threading.Event(), resource.name
        self.refused: int | None = None  # with this status, from the begin on

    def run(self) -> None:
        """Until the process ends, or the resource can't be read from the begin on."""
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
        """A kind of objects that is not installed (404) is not missed."""
        if error.status != 404:
            self.refused = error.status
            text = f"{self.name}: not allowed to list and watch them (HTTP {error.status})"
            self._tell(facts.Unseen(at=time.monotonic(), text=text, resource=self.name))
        self.listed.set()

    def _interrupted(self, error: Exception) -> None:
        """Told at once, as it may last to the end; and again where there is another reason."""
        if self._gap_since is None:
            self._gap_since = self._last if isinstance(error, SilentError) else time.monotonic()
            self._gap_why = []
        if (why := _why(error)) not in self._gap_why:
            self._gap_why.append(why)
            self._tell_gap(self._gap_since, None)

    def _tell_gap(self, at: float, seconds: float | None) -> None:
        self._tell(facts.Gap(at=at, resource=self.name, seconds=seconds, why=", ".join(self._gap_why)))

    def _ask(self, read_seconds: float, **options: Any) -> Any:
        """The answer, once its headers have come: from here on the resource is seen again."""
        self._asked = asked = time.monotonic()
        answer = self._resource.list(
            **self._resource.selector,
            **options,
            _preload_content=False,
            _request_timeout=(CONNECT_SECONDS, read_seconds),
        )
        self._last = came = time.monotonic()
        self._heard(answer, asked, came)
        if self._gap_since is not None:
            seconds, self._gap_since = came - self._gap_since, None
            self._live_from = came + CATCH_UP_SECONDS
            self._tell_gap(came, seconds)
        return answer

    def _list(self) -> str:
        """Tell everything that there is and what is there no more; the version from which to watch."""
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

    def _take(self, thing: Object, live: bool, gone: bool = False) -> None:
        """Tell an object's fact, unless it says nothing new."""
        name, fact = thing["metadata"]["name"], self._read(thing, live, gone)
        if gone:
            self._known.pop(name, None)
        else:
            self._known[name] = thing
        content = fact.model_dump(exclude={"at", "live"}) if fact else {}
        if fact and self._told.get(name) != content:
            self._told[name] = content
            self._tell(fact)

    def _read(self, thing: Object, live: bool, gone: bool) -> Fact | None:
        """One that is not as expected (of another version of its API?) must not end the others' watch."""
        try:
            return self._resource.read(thing, time.monotonic(), live, gone)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            text = f"{self.name}: {thing['metadata']['name']} could not be read ({_line(error)})"
            return facts.Unseen(at=time.monotonic(), text=text)


# --- the process -----------------------------------------------------------------------------------------------------


class Watcher:
    """Everything that is followed, told to `output` as lines."""

    def __init__(self, api: client.ApiClient, namespace: str, options: argparse.Namespace):
        self._api, self._namespace, self._options = api, namespace, options
        self._lock, self._clock = threading.Lock(), Clock()
        self._pods: dict[str, facts.Pod] = {}
        self._service: facts.Service | None = None
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
        self.tell(facts.Begun(at=time.monotonic()))
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

    def tell(self, fact: Fact) -> None:
        with self._lock:
            if isinstance(fact, facts.Pod):
                self._pods[fact.name] = fact
            elif isinstance(fact, facts.Service):
                self._service = fact
            sys.stdout.write(fact.model_dump_json(exclude_defaults=False) + "\n")
            sys.stdout.flush()
        if isinstance(fact, facts.Service) and fact.canaries:
            names = ", ".join(fact.canaries)
            self._miss(f"the wanted shares of the traffic: which pods are the canary's ({names}) is not known")

    # --- clock ---

    def _heard(self, answer: Any, asked: float, came: float) -> None:
        with suppress(TypeError, ValueError, AttributeError):  # without a Date, or without an answer
            date = parsedate_to_datetime(answer.headers.get("date")).timestamp()
            with self._lock:
                better = self._clock.hear(date, asked, came)
                fact = self._clock.fact()
            if better:
                self.tell(fact)

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
        self.tell(facts.Disrupted(at=time.monotonic(), text=text or self._options.disruption, problem=problem))

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
                    self._tell_inside(pod.name, _at(metrics_url(pod)) if inside else self._by_proxy(pod))
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
            self.tell(facts.Unseen(at=time.monotonic(), text=text))

    def _by_proxy(self, pod: facts.Pod) -> str:
        get = client.CoreV1Api(self._api).connect_get_namespaced_pod_proxy_with_path
        return _text(get, f"{pod.name}:{pod.port}", self._namespace, "metrics")

    def _tell_inside(self, name: str, exposition: str) -> None:
        values, every = plain(exposition), series(exposition)
        startup = {labels["phase"]: value for metric, labels, value in every if metric == "defects_startup_seconds"}
        self.tell(
            facts.Inside(
                at=time.monotonic(),
                name=name,
                startup={} if name in self._started_up else startup,
                queue_rows=values.get("defects_queue_rows"),
                in_flight=values.get("defects_requests_in_flight"),
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
            return _at(url)
        return _text(client.CoreV1Api(self._api).connect_get_namespaced_service_proxy_with_path, *AUTOSCALER)

    def _tell_autoscaler(self, exposition: str) -> None:
        by_revision: dict[str, dict[str, Any]] = {}
        for metric, labels, value in series(exposition):
            revision = labels.get("kn_revision_name") or labels.get("revision_name") or ""
            namespace = labels.get("k8s_namespace_name") or labels.get("namespace_name")
            kind = next((kind for kind, names in CONCURRENCY.items() if metric in names), None)
            mine = revision.startswith(f"{self._options.cluster.service}-predictor")
            if kind and mine and namespace in (None, self._namespace):
                by_revision.setdefault(revision, {})[kind] = value > 0 if kind == "panicking" else value
        for revision, values in by_revision.items():
            self.tell(facts.Autoscaler(at=time.monotonic(), revision=revision, **values))


def metrics_url(pod: facts.Pod) -> str:
    """Where a pod says how it is, for whoever is in the cluster."""
    host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
    return f"http://{host}:{pod.port}/metrics"


def _at(url: str) -> str:
    """What is answered there."""
    with urlopen(url, timeout=SCRAPE_TIMEOUT) as answer:  # noqa: S310 - a pod's, or named by the user
        return str(answer.read().decode())


def _text(get: Lister, *where: str) -> str:
    """What is answered there, through the API server."""
    with closing(get(*where, _preload_content=False, _request_timeout=(CONNECT_SECONDS, SCRAPE_TIMEOUT))) as answer:
        return str(answer.data.decode())


def _why(error: Exception) -> str:
    if isinstance(error, ApiException) and error.status:
        return f"HTTP {error.status}"
    if isinstance(error, ApiException):  # no answer: TLS
        return _line(error.reason)
    return _line(error) if isinstance(error, LookupError | ConfigException) else type(error).__name__


def _line(text: object) -> str:
    return " ".join(str(text).split())[: facts.MESSAGE_CHARS]


def every(seconds: float) -> Iterator[int]:
    """So often, for as long as the process is there."""
    started = time.monotonic()
    for number in range(10**9):
        time.sleep(max(0.0, started + number * seconds - time.monotonic()))
        yield number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=watch.service, required=True, help="NAME or NAMESPACE/NAME")
    parser.add_argument("--seconds", type=float, default=60, help="(default: %(default)s)")
    parser.add_argument("--kubeconfig", default="", help="(default: as kubectl would, or the pod's service account)")
    parser.add_argument("--context", default="", help="of the kubeconfig (default: its current one)")
    parser.add_argument("--autoscaler-metrics", default="", help="URL of the metrics of Knative's autoscaler")
    parser.add_argument("--disruption", choices=DISRUPTIONS, help="what a line on the standard input makes it do")
    parser.add_argument("--image", default="", help="for new-revision")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # every line has been written
    if not sys.stdin.isatty():  # Ctrl-C is for the run, which ends this when it has its report
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)  # the generator comes first
    target = options.cluster._replace(kubeconfig=options.kubeconfig, context=options.context)
    try:
        api, namespace = connect(target)
        Watcher(api, namespace, options).run()
    except watch.BadCluster as error:
        sys.stdout.write(facts.Problem(at=time.monotonic(), text=str(error)).model_dump_json() + "\n")
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
