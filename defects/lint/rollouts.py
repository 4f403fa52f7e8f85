"""Rules about deployment modes and splits of traffic: does KServe do what is written?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from defects.lint.resources import MODE, MODES, Service
from defects.lint.rule import Problem, Rule

ROLLOUT = "serving.knative.dev/rollout-duration"
TAGS = "serving.kserve.io/enable-tag-routing"
NO_DURATION = ("", "0", "0s", "0m", "0h")


def no_mode(service: Service) -> Iterator[Problem]:
    """Find InferenceServices that leave the mode to how KServe was installed."""
    mode = service.root.at("metadata", "annotations", MODE)
    if not mode.given and service.mode is None:
        yield Problem(mode, "no deploymentMode: it depends on how KServe was installed")


def unknown_mode(service: Service) -> Iterator[Problem]:
    """Find modes that KServe does not know."""
    mode = service.root.at("metadata", "annotations", MODE)
    if mode.given and mode.text not in (*MODES, "ModelMesh"):
        yield Problem(mode, f"deploymentMode {mode.text!r} is none; KServe takes its default")


def old_mode(service: Service) -> Iterator[Problem]:
    """Find the names that modes had before KServe 0.16."""
    mode = service.root.at("metadata", "annotations", MODE)
    if mode.text in MODES and mode.text != MODES[mode.text]:
        yield Problem(mode, f"deploymentMode {mode.text} is called {MODES[mode.text]} now")


def percent_in_standard(service: Service) -> Iterator[Problem]:
    """Find Knative's canary in Standard mode."""
    for component in service.components:
        percent = component.field.at("canaryTrafficPercent")
        if service.mode == "Standard" and percent.given:
            yield Problem(
                percent, "canaryTrafficPercent does nothing in Standard mode: all requests go to the new pods"
            )


def canary_splits_nothing(service: Service) -> Iterator[Problem]:
    """Find Standard mode's canary, which one version takes and does not split by."""
    canary = service.root.at("spec", "canary")
    if canary.items and service.mode == "Standard":
        yield Problem(canary, "KServe 0.20.0 takes spec.canary, becomes ready, and sends it no request")


def canary_refused(service: Service) -> Iterator[Problem]:
    """Find canaries that the webhook refuses when they are applied."""
    canary = service.root.at("spec", "canary")
    if not canary.items:
        return
    container = service.predictor.custom
    if service.mode == "Knative":
        yield Problem(canary, "spec.canary in Knative mode; it is only for Standard mode")
    elif container is not None and container.variable("STORAGE_URI").node is None:
        yield Problem(canary, "spec.canary beside a container without a model or STORAGE_URI")


def canary_rounding(service: Service) -> Iterator[Problem]:
    """Find canaries whose replicas are a larger share than their percentage."""
    least = service.predictor.field.at("minReplicas").number
    stable = 1.0 if least is None else least
    for canary in service.root.at("spec", "canary").items:
        percent = canary.at("trafficPercent").number
        own = canary.at("predictor", "minReplicas").given
        if service.mode != "Standard" or own or percent is None or not (0 < percent < 100 and 0 < stable <= 1e6):
            continue
        replicas = math.ceil(stable * percent / 100)
        if replicas >= 2 * stable * percent / 100:
            yield Problem(
                canary.at("trafficPercent"),
                f"{percent:g} % of {stable:g} replicas is rounded up to {replicas}, which are not scaled",
            )


def rollout_beside_tags(service: Service) -> Iterator[Problem]:
    """Find gradual rollouts beside tags."""
    duration = service.annotation(ROLLOUT)
    tags = service.mode == "Knative" and service.annotation(TAGS).text == "true"
    if tags and duration.text is not None and duration.text not in NO_DURATION:
        yield Problem(duration, f"rollout-duration {duration.text} beside enable-tag-routing")


RULES = (
    Rule(
        "mode-missing",
        "warning",
        "no deploymentMode",
        "The default is in KServe's configuration, and has changed between versions. The mode of a live object "
        "cannot be changed. Rules about one mode are not checked.",
        "KServe 0.16 to 0.20",
        f"Set the annotation {MODE}: Knative or Standard; or tell the linter --default-mode.",
        no_mode,
    ),
    Rule(
        "mode-unknown",
        "error",
        "a deploymentMode that KServe does not know",
        "KServe ignores it without a word, and takes its default.",
        "KServe 0.20.0",
        f"Set the annotation {MODE}: Knative or Standard.",
        unknown_mode,
    ),
    Rule(
        "mode-old-name",
        "note",
        "the old name of a deploymentMode",
        "KServe still takes the old names, but its webhook compares with the new ones: it checks an autoscaler in "
        "RawDeployment as if it were Knative's.",
        "KServe 0.16 to 0.20",
        "Write Knative for Serverless, and Standard for RawDeployment.",
        old_mode,
    ),
    Rule(
        "canary-percent-standard",
        "error",
        "canaryTrafficPercent in Standard mode",
        "Only Knative's traffic has percentages. In Standard mode the new pods replace the old ones, and get "
        "everything.",
        "KServe 0.16 to 0.20",
        "Use Knative mode for a canary, or roll out replica by replica and be ready to apply the old image.",
        percent_in_standard,
    ),
    Rule(
        "canary-splits-nothing",
        "warning",
        "spec.canary in Standard mode",
        "In 0.20.0 the canary's Deployment is made and becomes ready, but no route has a weight for it: 0 of 100 "
        "requests reached it on a real cluster.",
        "KServe 0.20.0 (recorded)",
        "Use Knative mode with canaryTrafficPercent, or a later KServe, with --ignore canary-splits-nothing.",
        canary_splits_nothing,
    ),
    Rule(
        "canary-refused",
        "error",
        "spec.canary where KServe refuses it",
        "It needs Standard mode, and a stable predictor with a model or a STORAGE_URI.",
        "KServe 0.20.0",
        "Give the predictor a model; or use Knative mode with canaryTrafficPercent.",
        canary_refused,
    ),
    Rule(
        "canary-rounding",
        "note",
        "a canary with a larger share of the replicas than of the traffic",
        "A canary has minReplicas × percent replicas, rounded up, and is not scaled. The stable replicas become "
        "fewer by as many, but at least 1. Fixed replicas that get a small share of the traffic are idle, and after "
        "a promotion too few.",
        "KServe 0.20.0; its main of August 2026",
        "Raise the predictor's minReplicas, or set the canary's own.",
        canary_rounding,
    ),
    Rule(
        "rollout-beside-tags",
        "warning",
        "a rollout-duration beside tag routing",
        "While a rollout lasts, Knative lists a revision twice, once with the tag's percentage. KServe takes that "
        "for the service's: a canary of 10 % may get everything for a while.",
        "KServe 0.20.0, Knative Serving 1.21 to 1.23",
        f"Remove one of {ROLLOUT} and {TAGS}.",
        rollout_beside_tags,
    ),
)
