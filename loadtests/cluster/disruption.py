"""Do once to the cluster, at the time that is ordered, what a scenario asks for: delete a pod, or change the image."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from contextlib import closing

from kubernetes import client
from kubernetes.client import ApiException

from loadtests.cluster import observations
from loadtests.cluster.api import PATIENCE, UNANSWERED, reason
from loadtests.cluster.process import BadCluster
from loadtests.cluster.reporter import Reporter

DISRUPTIONS = ("delete-pod", "new-revision")
ORDER_BYTES = 4096  # read at once; an order is much shorter, and pipes pass it whole


class Disruptor:
    """Carries out `options.disruption` when a line on the standard input says so."""

    def __init__(self, api: client.ApiClient, namespace: str, options: argparse.Namespace, reporter: Reporter):
        self._api, self._namespace, self._options, self._reporter = api, namespace, options, reporter
        self._what: str = options.disruption

    def check_permission(self) -> None:
        """Ask whether this client may do what it would have to; raises `BadCluster` where it may not."""
        verb, group, resource = {
            "delete-pod": ("delete", "", "pods"),
            "new-revision": ("patch", "serving.kserve.io", "inferenceservices"),
        }[self._what]
        attributes = {"namespace": self._namespace, "verb": verb, "group": group, "resource": resource}
        if verb == "patch":  # a role may name it
            attributes["name"] = self._options.cluster.service
        if not self._is_allowed(attributes):
            where = f"{verb} {resource} in namespace {self._namespace!r}"
            raise BadCluster(f"--allow-disruption: not allowed to {where}; expected a role that may")

    def _is_allowed(self, attributes: dict[str, str]) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        ask = client.AuthorizationV1Api(self._api).create_self_subject_access_review
        try:
            with closing(ask(review, _preload_content=False, _request_timeout=PATIENCE)) as answer:
                return bool(json.loads(answer.data)["status"]["allowed"])
        except (ApiException, *UNANSWERED, ValueError, KeyError):
            return False

    def run(self) -> None:
        """Do what is ordered when its time has come; a line that comes until then replaces the order."""
        at: float | None = None
        while True:
            left = None if at is None else max(0.0, at - time.monotonic())
            if select.select([sys.stdin], [], [], left)[0]:
                at = self._read_order()
            else:
                self._disrupt()
                at = None

    def _read_order(self) -> float | None:
        """Return when to do it, by the last of the lines that have come; end the process with the input."""
        lines = os.read(sys.stdin.fileno(), ORDER_BYTES).splitlines()
        if not lines:
            self._reporter.end_process()
        at = json.loads(lines[-1])["at"]
        return None if at is None else float(at)

    def _disrupt(self) -> None:
        do = self._delete_pod if self._what == "delete-pod" else self._change_image
        text, problem = self._what, None
        try:
            text = do()
        except (ApiException, *UNANSWERED, LookupError) as error:
            problem = f"{self._what}: {reason(error)}"
        self._reporter.report(observations.Disrupted(at=time.monotonic(), text=text, problem=problem))

    def _delete_pod(self) -> str:
        """Delete a pod that answers requests: of the revision that most are for, the first by its name."""
        service = self._reporter.service
        shares = service.traffic if service else {}
        ready = [pod for pod in self._reporter.pods if pod.ready]
        if not ready:
            raise LookupError("no pod was ready")
        name = min(ready, key=lambda pod: (-shares.get(pod.revision or "", 0.0), pod.name)).name
        delete = client.CoreV1Api(self._api).delete_namespaced_pod
        delete(name, self._namespace, _preload_content=False, _request_timeout=PATIENCE).close()
        return f"pod {name} was deleted"

    def _change_image(self) -> str:
        image, service = self._options.image, self._options.cluster.service
        change = [{"op": "replace", "path": "/spec/predictor/containers/0/image", "value": image}]
        client.CustomObjectsApi(self._api).patch_namespaced_custom_object(
            "serving.kserve.io", "v1beta1", self._namespace, "inferenceservices", service, change,
            _content_type="application/json-patch+json", _request_timeout=PATIENCE,
        )  # fmt: skip
        return f"the image became {image}"
