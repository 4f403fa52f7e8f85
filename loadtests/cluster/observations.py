"""Observations of the cluster: what the watcher prints, one JSON object a line, read from Kubernetes objects.

`at` is when the observation came, on `time.monotonic` of this machine. `live` says whether it came by a watch, as it
happened. What came by a list, or by a watch that caught up after an interruption, may have happened long before.
Times called `…_stamp` are the object's own: seconds since 1970 by the clock of whoever wrote it (the API server for
creation and deletion, a kubelet for containers and conditions). They are mostly whole seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from loadtests.cluster.autoscaler import scaled_by
from loadtests.results import ScaledBy

OF_SERVICE = "serving.kserve.io/inferenceservice"  # label with the InferenceService's name
REVISION_LABELS = ("serving.knative.dev/revision", "pod-template-hash")
MODE = "serving.kserve.io/deploymentMode"
MODES = {"Knative": "Knative", "Serverless": "Knative", "Standard": "Standard", "RawDeployment": "Standard"}
CONTAINER = "kserve-container"
POD_METRICS, AUTOSCALER_METRICS = "the pods' own metrics", "the autoscaler's metrics"
MESSAGE_CHARS = 300  # of an event's message or a condition's, at most

KubernetesObject = Mapping[str, Any]
Stamp = float | None


class Observation(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    live: bool = True


class Pod(Observation):
    """A pod as it is; `gone`: as it was before it vanished."""

    what: Literal["pod"] = "pod"
    name: str
    revision: str | None
    created_stamp: Stamp
    scheduled_stamp: Stamp
    initialised_stamp: Stamp
    started_stamp: Stamp = Field(description="of the predictor's container, for the first time that is known")
    ready_stamp: Stamp
    deleted_stamp: Stamp = Field(description="when its deletion was asked for")
    ready: bool
    restarts: int = 0
    waiting: str | None = Field(default=None, description="why it does not run, such as ImagePullBackOff")
    ip: str | None = None
    port: int | None = None
    ended: bool = Field(default=False, description="its containers have ended for good, as those of an evicted pod")
    gone: bool = False

    @property
    def stays(self) -> bool:
        """Whether it is a replica, ready or on its way to it."""
        return not self.gone and not self.ended and self.deleted_stamp is None


class ReplicaCount(Observation):
    """An object that decides on the number of replicas; for Knative, one for each revision."""

    what: Literal["scale"] = "scale"
    kind: Literal["PodAutoscaler", "HorizontalPodAutoscaler", "Deployment"]
    name: str
    desired: int | None
    ready: int | None = Field(default=None, description="by its own account; pods say it better")
    gone: bool = False


class Service(Observation):
    """The InferenceService. `traffic`: revision -> share; `canaries`: Standard mode's, which name no revision."""

    what: Literal["service"] = "service"
    mode: Literal["Knative", "Standard"] | None
    conditions: dict[str, str]
    traffic: dict[str, float]
    canaries: tuple[str, ...] = ()
    scaled_by: ScaledBy | None = None


class Revision(Observation):
    what: Literal["revision"] = "revision"
    name: str
    conditions: dict[str, str]


class KubernetesEvent(Observation):
    what: Literal["event"] = "event"
    stamp: Stamp
    kind: str
    name: str
    reason: str
    message: str
    part: str = Field(default="", description="which container it is about")
    warning: bool = False


class Autoscaler(Observation):
    """What Knative's autoscaler says of a revision: averages over time of its metric, summed over its replicas."""

    what: Literal["autoscaler"] = "autoscaler"
    revision: str
    metric: Literal["concurrency", "rps"] = Field(
        default="concurrency", description="requests in flight, or in a second"
    )
    stable: float | None = None
    panic: float | None = None
    panicking: bool | None = None


class Inside(Observation):
    """What a pod says of itself: seconds of its start by phase, and its queue."""

    what: Literal["inside"] = "inside"
    name: str
    startup: dict[str, float]
    queue_rows: float | None
    queue_rows_max: float | None = Field(default=None, description="highest within the 15 s before; None: not exported")
    in_flight: float | None
    in_flight_max: float | None = Field(default=None, description="highest within the 15 s before; None: not exported")


class ClockReading(Observation):
    """The API server's clock is `time.monotonic` + `offset`, give or take `error`; `skew`: what it is ahead of ours."""

    what: Literal["clock"] = "clock"
    offset: float
    error: float
    skew: float
    answers: int


class Unseen(Observation):
    """Something that could not be watched; `resource`: of which nothing can be seen, such as `pods`."""

    what: Literal["unseen"] = "unseen"
    text: str
    resource: str | None = None
    lost: bool = Field(default=False, description="it was watched until now")


class Missed(Observation):
    """Metrics that could not be read this time."""

    what: Literal["missed"] = "missed"
    source: str = Field(description="`POD_METRICS` or `AUTOSCALER_METRICS`")
    why: str


class Gap(Observation):
    """For so long until `at`, a watch was interrupted; without `seconds`: since `at`, if no later gap has its end."""

    what: Literal["gap"] = "gap"
    resource: str
    seconds: float | None
    why: str


class Begun(Observation):
    """Everything has been listed once."""

    what: Literal["begun"] = "begun"


class Disrupted(Observation):
    """What was done to the cluster; `problem`: why it was not."""

    what: Literal["disrupted"] = "disrupted"
    text: str
    problem: str | None = None


class WatchProblem(Observation):
    """Nothing can be watched at all."""

    what: Literal["problem"] = "problem"
    text: str


AnyObservation = (
    Pod
    | ReplicaCount
    | Service
    | Revision
    | KubernetesEvent
    | Autoscaler
    | Inside
    | ClockReading
    | Unseen
    | Missed
    | Gap
    | Begun
    | Disrupted
    | WatchProblem
)
_ANY: TypeAdapter[AnyObservation] = TypeAdapter(Annotated[AnyObservation, Field(discriminator="what")])


def read(lines: Iterable[str]) -> Iterator[AnyObservation]:
    """Yield observations from their lines; one that was cut off is left out."""
    for line in lines:
        with suppress(ValidationError):
            yield _ANY.validate_json(line)


def shifted(observation: AnyObservation, begin: float) -> AnyObservation:
    """Return the same with times in seconds since `begin`; a clock's offset is what the API server's clock was then."""
    changes = {"at": observation.at - begin}
    if isinstance(observation, ClockReading):
        changes["offset"] = observation.offset + begin
    return observation.model_copy(update=changes)


# --- from Kubernetes objects -----------------------------------------------------------------------------------------


def seconds(text: str | None) -> Stamp:
    """Return the seconds since 1970 of an RFC 3339 time; the middle of the second where it has no fraction."""
    if not text:
        return None
    value = datetime.fromisoformat(text).timestamp()
    return value if "." in text else value + 0.5


def revision_of(labels: KubernetesObject) -> str | None:
    return next((str(labels[name]) for name in REVISION_LABELS if name in labels), None)


def conditions_of(thing: KubernetesObject) -> dict[str, str]:
    """Return an object's conditions, each as `True`, `False: reason` or `Unknown: reason`."""
    found = thing.get("status", {}).get("conditions") or []
    return {
        c["type"]: ": ".join(filter(None, (c["status"], c.get("reason") if c["status"] != "True" else None)))
        for c in found
    }


def pod(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> Pod:
    meta, status, labels = thing["metadata"], thing.get("status", {}), thing["metadata"].get("labels") or {}
    since = {
        c["type"]: seconds(c.get("lastTransitionTime")) for c in status.get("conditions") or [] if c["status"] == "True"
    }
    containers = status.get("containerStatuses") or []
    ours = next((c for c in containers if c["name"] == CONTAINER), containers[0] if containers else {})
    return Pod(
        at=at,
        live=live,
        name=meta["name"],
        revision=revision_of(labels),
        created_stamp=seconds(meta.get("creationTimestamp")),
        scheduled_stamp=since.get("PodScheduled"),
        initialised_stamp=since.get("Initialized"),
        started_stamp=_started(ours),
        ready_stamp=since.get("Ready"),
        deleted_stamp=_deleted(meta),
        ready="Ready" in since and "deletionTimestamp" not in meta and not gone,
        restarts=sum(c.get("restartCount", 0) for c in containers),
        waiting=_unschedulable(status) or _waiting([*(status.get("initContainerStatuses") or []), *containers]),
        ip=status.get("podIP"),
        port=_port(thing),
        ended=status.get("phase") in ("Failed", "Succeeded"),
        gone=gone,
    )


def _started(container: KubernetesObject) -> Stamp:
    """Return when a container began to run, or did so last."""
    state, last = container.get("state") or {}, container.get("lastState") or {}
    found = state.get("running") or state.get("terminated") or last.get("terminated") or {}
    return seconds(found.get("startedAt"))


def _deleted(meta: KubernetesObject) -> Stamp:
    """Return when an object was deleted; it says itself when its grace period ends."""
    end = seconds(meta.get("deletionTimestamp"))
    return None if end is None else end - (meta.get("deletionGracePeriodSeconds") or 0)


def _unschedulable(status: KubernetesObject) -> str | None:
    for c in status.get("conditions") or []:
        if c["type"] == "PodScheduled" and c["status"] == "False":
            return _reason(c)
    return None


def _waiting(containers: Sequence[KubernetesObject]) -> str | None:
    """Return why a container does not run, or last ended, where that is no usual step of a start."""
    for container in containers:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return _reason(waiting)
    ended = ((container.get("lastState") or {}).get("terminated") or {} for container in containers)
    return next((f"{last.get('reason')}, exit code {last.get('exitCode')}" for last in ended if last), None)


def _reason(said: KubernetesObject) -> str:
    return ": ".join(filter(None, (said.get("reason"), said.get("message"))))[:MESSAGE_CHARS]


def _port(thing: KubernetesObject) -> int | None:
    """Return the port that the predictor listens on."""
    containers = thing.get("spec", {}).get("containers") or []
    ours = next((c for c in containers if c["name"] == CONTAINER), containers[0] if containers else {})
    ports = ours.get("ports") or []
    return ports[0].get("containerPort") if ports else None


def pod_autoscaler(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> ReplicaCount:
    status, name = thing.get("status", {}), thing["metadata"]["name"]
    desired, ready = (
        number if number is None or number >= 0 else None  # -1: not decided, or not known yet
        for number in (status.get("desiredScale"), status.get("actualScale"))
    )
    return ReplicaCount(at=at, live=live, gone=gone, kind="PodAutoscaler", name=name, desired=desired, ready=ready)


def horizontal_autoscaler(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> ReplicaCount:
    name, desired = thing["metadata"]["name"], thing.get("status", {}).get("desiredReplicas")
    return ReplicaCount(at=at, live=live, gone=gone, kind="HorizontalPodAutoscaler", name=name, desired=desired)


def deployment(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> ReplicaCount:
    name, desired = thing["metadata"]["name"], thing.get("spec", {}).get("replicas", 1)
    ready = thing.get("status", {}).get("readyReplicas", 0)
    return ReplicaCount(at=at, live=live, gone=gone, kind="Deployment", name=name, desired=desired, ready=ready)


def revision(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> Revision:
    conditions = {} if gone else conditions_of(thing)
    return Revision(at=at, live=live, name=thing["metadata"]["name"], conditions=conditions)


def service(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> Service:
    annotations, status = thing["metadata"].get("annotations") or {}, thing.get("status", {})
    mode: Any = MODES.get(status.get("deploymentMode") or annotations.get(MODE, ""))
    traffic: dict[str, float] = {}
    for target in status.get("components", {}).get("predictor", {}).get("traffic") or []:
        name, share = target.get("revisionName"), (target.get("percent") or 0) / 100
        if name and share:  # a revision with a URL of its own is there twice
            traffic[name] = traffic.get(name, 0.0) + share
    conditions = {} if gone else conditions_of(thing)
    canaries = tuple(f"{c.get('name')} {c.get('trafficPercent')} %" for c in status.get("canaryStatuses") or [])
    return Service(
        at=at,
        live=live,
        mode=mode,
        conditions=conditions,
        traffic=traffic,
        canaries=canaries,
        scaled_by=scaled_by(thing, mode),
    )


def event(thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> KubernetesEvent | None:
    if gone:  # forgotten, not taken back
        return None
    about = thing.get("involvedObject") or {}
    stamp = thing.get("eventTime") or thing.get("lastTimestamp") or thing.get("firstTimestamp")
    return KubernetesEvent(
        at=at,
        live=live,
        stamp=seconds(stamp),
        kind=about.get("kind", ""),
        name=about.get("name", ""),
        reason=thing.get("reason") or "",
        message=(thing.get("message") or "")[:MESSAGE_CHARS],
        part=about.get("fieldPath") or "",
        warning=thing.get("type") == "Warning",
    )
