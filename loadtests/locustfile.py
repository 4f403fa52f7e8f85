"""Realistic scans against a running server.

locust -f loadtests/locustfile.py --host http://127.0.0.1:3000

Each user sends one scan after another, and now and then a batch. The scans come from the simulated tunnel where the
server's model has its features; otherwise the example in the server's own schema is sent.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from locust import FastHttpUser, constant, events, task

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from defects.schema import Schema
from defects.tunnel import SCHEMA, Tunnel

SCANS = 2_000
BATCH = 64
SEED = 1
JSON = {"content-type": "application/json"}

Scan = dict[str, float | None]


def scans(schema: Schema) -> list[Scan]:
    """Rows to send to a model with this schema, as objects by feature name."""
    if schema.names != SCHEMA.names:
        return [schema.example]
    rows = Tunnel(seed=SEED).scans(SCANS).features.tolist()
    return [{n: None if math.isnan(v) else v for n, v in zip(SCHEMA.names, row, strict=True)} for row in rows]


def bodies(rows: list[Scan]) -> tuple[Iterator[str], Iterator[str]]:
    """Endless bodies for `/classify` and `/classify_batch`, encoded once."""
    single = [json.dumps(row) for row in rows]
    batches = [json.dumps([rows[(i + j) % len(rows)] for j in range(BATCH)]) for i in range(0, len(rows), BATCH)]
    return itertools.cycle(single), itertools.cycle(batches)


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Ask the server what it expects. Runs once in every worker, before its users start."""
    if type(environment.runner).__name__ == "MasterRunner":
        return
    try:
        schema = described_by(environment.host)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"no model answers at {environment.host}/model ({error}); start one with `make serve`"
        ) from None
    Caller.scan, Caller.batch = bodies(scans(schema))


def described_by(host: str) -> Schema:
    """The schema of the model that is served at `host`."""
    with urlopen(f"{host.rstrip('/')}/model", timeout=10) as answer:  # noqa: S310 - the host that the user named
        return Schema.from_json(json.load(answer)["schema"])


class Caller(FastHttpUser):
    """A scan tunnel that waits for each answer before it sends the next scan."""

    wait_time = constant(0)
    scan: Iterator[str]
    batch: Iterator[str]

    @task(50)
    def classify(self) -> None:
        self._send("/classify", next(Caller.scan))

    @task(1)
    def classify_batch(self) -> None:
        self._send("/classify_batch", next(Caller.batch))

    def _send(self, path: str, body: str) -> None:
        with self.client.post(path, data=body, headers=JSON, catch_response=True) as answer:
            if answer.status_code == 200 and b'"defect"' not in answer.content:
                answer.failure("answered 200 without a prediction")
