"""What Kubernetes does with an InferenceService while it is under load, followed through the API.

python -m loadtests.cluster --cluster defects/defect-classifier --seconds 60

Runs in a process of its own, so that it neither disturbs the generator nor waits for it. Prints a JSON line for each
observation (`loadtests.cluster.observations`) until its time is over or it is told to end. It lists everything once and
watches from there: the InferenceService, Knative's Revisions and PodAutoscalers, HorizontalPodAutoscalers, Deployments,
Pods and Events. A watch that ends goes on where it was; one that is too old (410) starts again from a list. What may
not be read (403) is said, and the rest goes on. The pods' own metrics are read at their addresses where this runs in
the cluster, else through the API server, where that is allowed.

How the clocks are related comes from the `Date` of the API server's answers: whole seconds, but each answer gives an
interval in which the difference lies, and together they leave a narrow one.

It only reads, with two exceptions that are asked for: a line on its standard input, `{"at": t}`, makes it do once
at `t` what `--disruption` says, unless another line comes before (`{"at": null}`: never) or this input ends. Then
whoever ordered is no more, and it ends too.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time

from loadtests.cluster import observations, process
from loadtests.cluster.api import connect
from loadtests.cluster.disruption import DISRUPTIONS
from loadtests.cluster.watcher import ClusterWatcher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", type=process.service, required=True, help="NAME or NAMESPACE/NAME")
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
        ClusterWatcher(api, namespace, options).run()
    except process.BadCluster as error:
        sys.stdout.write(observations.WatchProblem(at=time.monotonic(), text=str(error)).model_dump_json() + "\n")
        sys.stdout.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
