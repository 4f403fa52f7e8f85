"""`/docs.json` and the server say the same: schemathesis tries the document out, as other people would."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest

from conftest import CI, ROOT, Serve, Server, quiet, until
from defects import artifact
from defects.training import dataset, pipeline

SCHEMATHESIS = ROOT / ".venv-clients" / "bin" / "schemathesis"
HOOKS = Path(__file__).with_name("openapi_hooks.py")
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
)
NAME = "defect-classifier"
V1, V2 = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
Document = dict[str, Any]


def try_out(document: str | Path, folder: Path, *options: object) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Run schemathesis on a document, the same cases each time; return how it ended, and its file of all requests."""
    if not SCHEMATHESIS.exists():
        (pytest.fail if CI else pytest.skip)("schemathesis is not installed; `make test` installs it")
    requests = folder / "requests.har"
    command = [
        SCHEMATHESIS, "run", document, "--no-color", "--mode", "all", "--checks", ",".join(CHECKS),
        "--generation-deterministic", "--continue-on-failure", "--no-shrink", "--request-timeout", "60",
        "--report", "har", "--report-har-path", requests, *options,
    ]  # fmt: skip
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done, requests


def answered(requests: Path) -> dict[str, set[tuple[int, str]]]:
    """Return, for each path that was asked with POST, the statuses and content types of its answers."""
    found = defaultdict(set)
    for entry in json.loads(requests.read_text("utf-8"))["log"]["entries"]:
        if entry["request"]["method"] == "POST":
            answer = entry["response"]
            found[httpx.URL(entry["request"]["url"]).path].add((answer["status"], answer["content"]["mimeType"]))
    return found


# --- the built-in model --------------------------------------------------------------------------------------------


def test_a_thousand_requests_made_from_the_document_are_answered_as_it_says(server: Server, tmp_path: Path) -> None:
    phases = ("--phases", "examples,coverage,fuzzing")
    done, requests = try_out(f"{server.url}/docs.json", tmp_path, *phases, "--max-examples", 10)
    assert done.returncode == 0, done.stdout + done.stderr
    generated, passed = re.findall(r"(\d+) generated, (\d+) passed", done.stdout)[0]
    assert int(generated) == int(passed) >= 1_000
    found = answered(requests)
    for path, methods in httpx.get(f"{server.url}/docs.json").json()["paths"].items():
        if "post" in methods:  # else it would only have been asked for nonsense
            assert {(200, "application/json"), (400, "application/json")} <= found[path], path
    assert (200, "application/octet-stream") in found[V2]
    assert "Traceback" not in server.log.read_text()


def test_a_document_that_is_wrong_is_found_out(server: Server, tmp_path: Path) -> None:
    document = httpx.get(f"{server.url}/docs.json").json()
    schemas = document["components"]["schemas"]
    schemas["Scan"]["properties"]["length_mm"]["maximum"] = 9_000
    schemas["Prediction"]["properties"]["confidence"]["type"] = "string"
    document["components"]["headers"]["x-request-id"]["schema"]["pattern"] = "^Q"
    file = tmp_path / "docs.json"
    file.write_text(json.dumps(document), "utf-8")
    options = ("--url", server.url, "--include-path", "/classify", "--phases", "examples,coverage", "--max-examples", 5)
    done, _ = try_out(file, tmp_path, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    for problem in ("Schema-valid request rejected", "Response violates schema", "Response header does not conform"):
        assert problem in done.stdout
    assert f"{server.url}/classify" in done.stdout.partition("Reproduce with")[2]
