"""Watch an InferenceService and everything that Kubernetes makes of it, and print an observation for each change."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from kubernetes import client
from kubernetes.client import ApiException

from loadtests.cluster import observations
from loadtests.cluster.api import ANSWER_SECONDS, CONNECT_SECONDS, PATIENCE, UNANSWERED, resources
from loadtests.cluster.clock import CLOCK_SECONDS, ClockReader
from loadtests.cluster.disruption import Disruptor
from loadtests.cluster.follower import Follower
from loadtests.cluster.process import BadCluster
from loadtests.cluster.reporter import Reporter
from loadtests.cluster.scraper import Scraper


class ClusterWatcher:
    """Everything that is followed, each in a thread of its own."""

    def __init__(self, api: client.ApiClient, namespace: str, options: argparse.Namespace):
        self._api, self._namespace, self._options = api, namespace, options
        self._reporter = Reporter()
        self._clock = ClockReader(api, self._reporter.report)

    def run(self) -> None:
        """Watch until the time is over; raises `BadCluster` where nothing can be watched."""
        until = time.monotonic() + self._options.seconds
        self._clock.probe()
        disruptor = None
        if self._options.disruption:
            disruptor = Disruptor(self._api, self._namespace, self._options, self._reporter)
            disruptor.check_permission()
        self._follow()
        self._check_service()
        self._scrape()
        if disruptor:
            self._reporter.start(self._options.disruption, disruptor.run)
        self._reporter.report(observations.Begun(at=time.monotonic()))
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, CLOCK_SECONDS))
            self._clock.ask()

    def _follow(self) -> None:
        """Follow every resource, and wait until all have been listed; raises `BadCluster`."""
        service, report = self._options.cluster.service, self._reporter.report
        found = [
            Follower(resource, report, self._clock.take) for resource in resources(self._api, self._namespace, service)
        ]
        for follower in found:
            self._reporter.start(follower.name, follower.run)
        for follower in found:
            if not follower.listed.wait(ANSWER_SECONDS + CONNECT_SECONDS):
                raise BadCluster(
                    "--cluster: not everything could be listed in time; expected an API server that answers"
                )
        self._check_permission(found)

    def _scrape(self) -> None:
        scraper, service = Scraper(self._api, self._namespace, self._options, self._reporter), self._reporter.service
        self._reporter.start(observations.POD_METRICS, scraper.scrape_pods)
        if self._options.autoscaler_metrics or (service and service.mode == "Knative"):
            self._reporter.start(observations.AUTOSCALER_METRICS, scraper.scrape_autoscaler)

    def _check_permission(self, followers: Sequence[Follower]) -> None:
        """Raise `BadCluster` without the service and without its pods: there would be nothing to report."""
        refused = {follower.name: follower.refused for follower in followers}
        status = refused["inferenceservices"]
        if status and refused["pods"]:
            where = f"inferenceservices or pods in namespace {self._namespace!r} (HTTP {status})"
            raise BadCluster(f"--cluster: not allowed to list and watch {where}; expected a login, or a role that may")

    def _check_service(self) -> None:
        """Raise `BadCluster` where the InferenceService is not there, if that can be seen."""
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
