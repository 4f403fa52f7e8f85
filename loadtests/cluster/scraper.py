"""Read, once a second, the metrics of the pods and of Knative's autoscaler."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from kubernetes import client
from kubernetes.client import ApiException

from loadtests.cluster import observations
from loadtests.cluster.api import SCRAPE_SECONDS, TOKEN, UNANSWERED, get_text, get_through_api, reason
from loadtests.cluster.observations import AUTOSCALER_METRICS, POD_METRICS
from loadtests.cluster.reporter import Reporter
from loadtests.results import GAUGES
from tools import prometheus

# Of Knative's autoscaler, which exports what it scales on: the field that keeps it, and the metric that it is of. The
# names up to Knative 1.18, and since; of a rate, also without the unit.
AUTOSCALER_SERIES = {
    "autoscaler_stable_request_concurrency": ("stable", "concurrency"),
    "kn_revision_concurrency_stable": ("stable", "concurrency"),
    "autoscaler_stable_requests_per_second": ("stable", "rps"),
    "kn_revision_rps_stable": ("stable", "rps"),
    "kn_revision_rps_stable_per_second": ("stable", "rps"),
    "autoscaler_panic_request_concurrency": ("panic", "concurrency"),
    "kn_revision_concurrency_panic": ("panic", "concurrency"),
    "autoscaler_panic_requests_per_second": ("panic", "rps"),
    "kn_revision_rps_panic": ("panic", "rps"),
    "kn_revision_rps_panic_per_second": ("panic", "rps"),
    "autoscaler_panic_mode": ("panicking", None),
    "kn_revision_panic_mode": ("panicking", None),
}
AUTOSCALER = ("autoscaler:http-metrics", "knative-serving", "metrics")  # Knative's Service, its namespace, the path
STARTUP = "defects_startup_seconds"


class Scraper:
    """Reads metrics directly or through the API server, and reports what they say."""

    def __init__(self, api: client.ApiClient, namespace: str, options: argparse.Namespace, reporter: Reporter):
        self._core, self._namespace, self._options, self._reporter = client.CoreV1Api(api), namespace, options, reporter
        self._started_up: set[str] = set()  # pods whose start has been reported whole

    # --- pods ---

    def scrape_pods(self) -> None:
        """Read the metrics of every pod that has started, for as long as the process is there."""
        inside = (TOKEN / "token").exists()
        for _ in every(SCRAPE_SECONDS):
            for pod in self._reporter.pods:
                if pod.started_stamp and pod.port and not pod.gone and not self._scrape_pod(pod, inside):
                    break

    def _scrape_pod(self, pod: observations.Pod, inside: bool) -> bool:
        """Read the metrics of one pod; return whether it makes sense to go on with others."""
        try:
            self._report_inside(pod.name, get_text(metrics_url(pod)) if inside else self._by_proxy(pod))
        except (ApiException, *UNANSWERED, ValueError) as error:
            if isinstance(error, ApiException) and error.status == 403:
                why = "not allowed to get pods/proxy (HTTP 403)"
                self._reporter.report_missed(POD_METRICS, why, f"{POD_METRICS}: {why}")
                return False
            if pod.ready:  # others are not up yet
                why = reason(error)
                self._reporter.report_missed(POD_METRICS, why, f"{POD_METRICS}, not always: {why}")
        return True

    def _by_proxy(self, pod: observations.Pod) -> str:
        get = self._core.connect_get_namespaced_pod_proxy_with_path
        return get_through_api(get, f"{pod.name}:{pod.port}", self._namespace, "metrics")

    def _report_inside(self, name: str, exposition: str) -> None:
        values = prometheus.values(exposition, GAUGES)
        startup = {s.labels.get("phase", ""): s.value for s in prometheus.series(exposition, {STARTUP})}
        self._reporter.report(
            observations.Inside(
                at=time.monotonic(),
                name=name,
                startup={} if name in self._started_up else startup,
                **{ours: values.get(theirs) for theirs, ours in GAUGES.items()},
            )
        )
        if "ready" in startup:
            self._started_up.add(name)

    # --- the autoscaler ---

    def scrape_autoscaler(self) -> None:
        """Read the autoscaler's metrics, for as long as the process is there."""
        for _ in every(SCRAPE_SECONDS):
            try:
                self._report_autoscaler(self._autoscaler())
            except ApiException as error:
                why = f"{reason(error)} through the API server"
                text = f"{AUTOSCALER_METRICS}: {why}; --autoscaler-metrics names another way"
                self._reporter.report_missed(AUTOSCALER_METRICS, why, text)
            except (*UNANSWERED, ValueError) as error:
                why = reason(error)
                self._reporter.report_missed(AUTOSCALER_METRICS, why, f"{AUTOSCALER_METRICS}, not always: {why}")

    def _autoscaler(self) -> str:
        """Return what Knative's autoscaler exports, where its `metrics-protocol` is prometheus."""
        if url := self._options.autoscaler_metrics:
            return get_text(url, by_proxy=True)
        return get_through_api(self._core.connect_get_namespaced_service_proxy_with_path, *AUTOSCALER)

    def _report_autoscaler(self, exposition: str) -> None:
        by_revision: dict[str, dict[str, Any]] = {}
        for name, labels, value in prometheus.series(exposition, set(AUTOSCALER_SERIES)):
            revision = labels.get("kn_revision_name") or labels.get("revision_name") or ""
            namespace = labels.get("k8s_namespace_name") or labels.get("namespace_name")
            field, metric = AUTOSCALER_SERIES[name]
            is_ours = revision.startswith(f"{self._options.cluster.service}-predictor")
            if is_ours and namespace in (None, self._namespace):
                values = by_revision.setdefault(revision, {})
                values[field] = value > 0 if field == "panicking" else value
                values |= {"metric": metric} if metric else {}
        for revision, values in by_revision.items():
            self._reporter.report(observations.Autoscaler(at=time.monotonic(), revision=revision, **values))


def metrics_url(pod: observations.Pod) -> str:
    """Return where a pod's metrics are, for whoever is in the cluster."""
    host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
    return f"http://{host}:{pod.port}/metrics"


def every(seconds: float) -> Iterator[int]:
    """Yield numbers from 0, one each `seconds`, for as long as the process is there."""
    started = time.monotonic()
    for number in range(10**9):
        time.sleep(max(0.0, started + number * seconds - time.monotonic()))
        yield number
