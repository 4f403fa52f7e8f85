"""Read a load test's options."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from locust.env import Environment

from loadtests import scenario as scenarios
from loadtests.cluster import process
from loadtests.load import capacity
from loadtests.scenario import BadScenario, Scenario
from tools import payloads, urls

OWN_HEADERS = ("connection", "content-length", "content-type", "inference-header-content-length", "transfer-encoding")


class Options(NamedTuple):
    """What the command line, or Locust's page, asks for."""

    host: str
    scenario: str
    headers: dict[str, str]
    rate: str
    seed: int | None
    payload: str
    out: str
    cluster: process.ClusterTarget | None
    autoscaler_metrics: str
    allow_disruption: bool
    image: str

    @classmethod
    def of(cls, environment: Environment) -> Options:
        """Read Locust's options; raises `BadScenario` or `BadCluster`."""
        o: Any = environment.parsed_options
        target = service(o.cluster)
        if target:
            target = target._replace(kubeconfig=o.kubeconfig, context=o.context)
        disrupt, headers = (o.autoscaler_metrics, o.allow_disruption, o.image), dict(map(header, o.header))
        return cls(
            environment.host or "", o.scenario, headers, o.rate, seed(o.seed), o.payload, o.out, target, *disrupt
        )

    def check(self, scenario: Scenario) -> None:
        """Raise `BadScenario` where the scenario needs other options."""
        if scenario.rate == "replica" and not self.rate:
            what = "what one replica holds, in requests/s, or the directory of a run of `ramp`"
            raise BadScenario(f"--rate: the rates of {self.scenario} are in replicas; expected {what}")
        if self.rate and Path(self.rate).is_dir():
            capacity.check_alike(Path(self.rate), scenario)
        if scenario.cluster and not self.cluster:
            raise BadScenario(f"--cluster: {self.scenario} watches one; expected NAMESPACE/NAME of an InferenceService")
        if self.disruption(scenario) and not self.allow_disruption:
            what = "deletes a pod" if self.disruption(scenario) == "delete-pod" else "changes the image"
            raise BadScenario(f"--allow-disruption: {self.scenario} {what}; expected this option where that is wanted")

    def disruption(self, scenario: Scenario) -> str | None:
        """Return what the run does to the cluster. Without an image, somebody else rolls a new revision out."""
        asked = scenario.cluster.disruption if scenario.cluster else None
        return None if asked == "new-revision" and not self.image else asked

    def watcher(self, scenario: Scenario) -> list[str]:
        """Return the options of the cluster watcher's process."""
        disruption, found = self.disruption(scenario), list[str]()
        found += ["--autoscaler-metrics", self.autoscaler_metrics] if self.autoscaler_metrics else []
        return found + (["--disruption", disruption, "--image", self.image] if disruption else [])


def rate(text: str) -> float | None:
    """Return the requests per second, given or as a run found them; `None` for an empty text. Raises `BadScenario`."""
    if text and Path(text).is_dir():
        return capacity.replica_capacity(Path(text))
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 < value <= scenarios.MAX_RATE:
        what = f"requests/s, above 0 and at most {scenarios.MAX_RATE:,}, or the directory of a run that found them"
        raise BadScenario(f"--rate: {text}; expected {what}")
    return value


def seed(text: str) -> int | None:
    """Return a seed; `None` for an empty text. Raises `BadScenario`."""
    if text and not (text.isdecimal() and int(text) < 2**31):
        raise BadScenario(f"--seed: {text}; expected a whole number from 0 to 2147483647")
    return int(text) if text else None


def header(text: str) -> tuple[str, str]:
    """Return a header's name and value; raises `BadScenario`."""
    name, _, value = (part.strip() for part in text.partition(":"))
    whole = re.fullmatch(r"[A-Za-z0-9-]+", name) and re.fullmatch(r"[\x20-\x7e]+", value)
    if not whole or name.lower() in OWN_HEADERS:
        what = f"NAME: VALUE, and none of {', '.join(OWN_HEADERS)}"
        raise BadScenario(f"--header: {name!r}; expected {what}")
    return name, value


def payload(text: str) -> Path | None:
    """Return the file with the rows; `None` for an empty text. Raises `BadPayload` where its format is not known."""
    return payloads.check_format(Path(text)) if text else None


def service(text: str) -> process.ClusterTarget | None:
    """Return the InferenceService; `None` for an empty text. Raises `BadCluster`."""
    return process.service(text) if text else None


def without_secrets(command: Sequence[str]) -> list[str]:
    """Return a command line without values of headers, users and passwords in URLs, and values of their queries."""
    found: list[str] = []
    for word in command:
        option, _, given = word.partition("=")
        name = word if found and _is_header(found[-1]) else given if _is_header(option) else ""
        found.append(word.replace(name, f"{name.partition(':')[0]}: …") if name else urls.without_secrets(word))
    return found


def _is_header(option: str) -> bool:
    """Return whether argparse takes this for the option: it takes a few of its letters too."""
    return len(option) > len("--h") and "--header".startswith(option)
