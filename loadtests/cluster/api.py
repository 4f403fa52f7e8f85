"""Ask the Kubernetes API for the resources of one InferenceService."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from kubernetes import client, config
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from loadtests.cluster import observations
from loadtests.cluster.observations import KubernetesObject, Observation
from loadtests.cluster.process import BadCluster, ClusterTarget
from tools.fetching import PIECE, Budget, fetch
from tools.urls import is_loopback

CONNECT_SECONDS, ANSWER_SECONDS = 3.0, 10.0
PATIENCE = (CONNECT_SECONDS, ANSWER_SECONDS)
SCRAPE_SECONDS, SCRAPE_TIMEOUT = 1.0, 0.8
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount")

UNANSWERED = (HTTPError, HTTPException, ConfigException, OSError)  # or not wholly, or there is no login to ask with
Lister = Callable[..., Any]
Selector = Mapping[str, str]


class Resource(NamedTuple):
    """One kind of objects, and how observations are read from them."""

    name: str
    list: Lister
    read: Callable[..., Observation | None]
    selector: Selector


def connect(target: ClusterTarget) -> tuple[client.ApiClient, str]:
    """Return a client, and the namespace; raises `BadCluster`."""
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
    if is_loopback(settings.host):  # as kubectl does
        settings.proxy = None
    return client.ApiClient(settings), target.namespace or namespace


def resources(api: client.ApiClient, namespace: str, service: str) -> list[Resource]:
    """Return every kind of objects that is followed."""
    core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
    ours = {"label_selector": f"{observations.OF_SERVICE}={service},component notin (transformer,explainer)"}
    it = {"field_selector": f"metadata.name={service}"}

    def of(
        group: str, version: str, plural: str, read: Callable[..., Observation], selector: Selector = ours
    ) -> Resource:
        lister = partial(custom.list_namespaced_custom_object, group, version, namespace, plural)
        return Resource(plural, lister, read, selector)

    return [
        Resource("pods", partial(core.list_namespaced_pod, namespace), observations.pod, ours),
        Resource("events", partial(core.list_namespaced_event, namespace), partial(_event_of, service), {}),
        of("serving.kserve.io", "v1beta1", "inferenceservices", observations.service, it),
        of("serving.knative.dev", "v1", "revisions", observations.revision),
        of("autoscaling.internal.knative.dev", "v1alpha1", "podautoscalers", observations.pod_autoscaler),
        of("apps", "v1", "deployments", observations.deployment),
        of("autoscaling", "v2", "horizontalpodautoscalers", observations.horizontal_autoscaler),
    ]


def _event_of(service: str, thing: KubernetesObject, at: float, live: bool, gone: bool = False) -> Observation | None:
    """Read an event. They have no labels: the service's are about objects with the names that KServe gives."""
    found = observations.event(thing, at, live, gone)
    return found if found and (found.name == service or found.name.startswith(f"{service}-predictor")) else None


def get_text(url: str, *, by_proxy: bool = False) -> str:
    """Return what is answered at a URL; `by_proxy`: see `tools.fetching.fetch`."""
    return fetch(url, SCRAPE_TIMEOUT, by_proxy=by_proxy).decode()


def get_through_api(get: Lister, *where: str) -> str:
    """Return what is answered there, through the API server; a body is bounded in time and size."""
    with closing(get(*where, _preload_content=False, _request_timeout=(CONNECT_SECONDS, SCRAPE_TIMEOUT))) as answer:
        budget, body = Budget(SCRAPE_TIMEOUT), bytearray()
        while piece := answer.read1(PIECE):  # as much as has come, so that none waits for many bytes
            budget.spend(len(piece))
            body += piece
        return body.decode()


def reason(error: Exception) -> str:
    """Return in a few words why the API server, or what lies behind it, did not answer."""
    if isinstance(error, ApiException) and error.status:
        return f"HTTP {error.status}"
    if isinstance(error, ApiException):  # no answer: TLS
        return one_line(error.reason)
    return one_line(error) if isinstance(error, LookupError | ConfigException) else type(error).__name__


def one_line(text: object) -> str:
    """Return a text in one line, cut where it is too long."""
    return " ".join(str(text).split())[: observations.MESSAGE_CHARS]
