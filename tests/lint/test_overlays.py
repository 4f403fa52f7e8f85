"""This project's own manifests have no findings: overlays, runtimes, and the components of each mode, together."""

from __future__ import annotations

from pathlib import Path

import pytest

import manifests
from conftest import ROOT
from linted import failing, ids, lint
from test_kserve import HISTORY, LOAD_TESTS, MODES, OVERLAYS

IMAGE = {"name": "defect-classifier", "newName": "registry.example.com/defects", "digest": "sha256:" + "4" * 64}


def findings(folder: Path) -> list[str]:
    """Return what would fail a pipeline in what a folder renders."""
    done = manifests.kustomize(folder)
    assert done.returncode == 0, done.stderr
    return failing(lint(done.stdout))


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_have_no_findings(name: str) -> None:
    assert findings(ROOT / "kserve" / "overlays" / name) == []


@pytest.mark.parametrize("mode", MODES)
def test_components_have_no_findings(mode: str, tmp_path: Path) -> None:
    not_scaled = [name for name in MODES[mode] if not name.startswith("autoscale-")]
    assert len(not_scaled) < len(MODES[mode])
    for chosen in ((), MODES[mode], not_scaled, (*MODES[mode], LOAD_TESTS[-1]), (*MODES[mode], *HISTORY)):
        assert findings(manifests.overlay(tmp_path, mode, *chosen, images=[IMAGE])) == [], chosen


@pytest.mark.parametrize("mode", MODES)
def test_a_history_that_no_policy_lets_out_is_found(mode: str, tmp_path: Path) -> None:
    (found,) = findings(manifests.overlay(tmp_path, mode, "network-policy", "history", images=[IMAGE]))
    assert found == "policy-blocks-egress: no egress, but DEFECTS_DATABASE_URL is a database elsewhere"


@pytest.mark.parametrize("kind", ["namespaced", "cluster"])
def test_runtimes_and_their_examples_have_no_findings_but_how_they_scale(kind: str) -> None:
    runtime, *examples = (
        manifests.kustomize(ROOT / "kserve" / "runtime" / name).stdout
        for name in (kind, "examples/standard", "examples/knative")
    )
    assert failing(lint(runtime)) == []
    standard, knative = (lint(f"{runtime}\n---\n{example}") for example in examples)
    assert failing(standard) == []
    # Nobody knows what a replica of another model holds: docs/mounted-models.md says what to set.
    assert ids(finding for finding in knative if finding.rule.level != "note") == {"kpa-concurrency"}
    assert "memory-too-small" in ids(lint(runtime.replace("memory: 1Gi", "memory: 200Mi"))), "its settings are read"
