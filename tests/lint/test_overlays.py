"""This project's own manifests have no findings: every overlay, and the components of each mode, with one another."""

from __future__ import annotations

from pathlib import Path

import pytest

import manifests
from conftest import ROOT
from linted import failing, lint
from test_kserve import LOAD_TESTS, MODES, OVERLAYS

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
    for chosen in ((), MODES[mode], not_scaled, (*MODES[mode], LOAD_TESTS[-1])):
        assert findings(manifests.overlay(tmp_path, mode, *chosen, images=[IMAGE])) == [], chosen
