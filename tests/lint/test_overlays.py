"""This project's own manifests have no findings: every overlay, and every component in each mode that it goes with."""

from __future__ import annotations

from pathlib import Path

import pytest

import manifests
from conftest import ROOT
from linted import failing, lint

MODES = ("knative", "standard")
IMAGE = {"name": "defect-classifier", "newName": "registry.example.com/defects", "digest": "sha256:" + "4" * 64}


def folders(name: str) -> list[str]:
    return sorted(folder.name for folder in (ROOT / "kserve" / name).iterdir())


def rendered(folder: Path) -> str | None:
    """Return what a folder renders; none where its components do not go together."""
    done = manifests.kustomize(folder)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize("name", folders("overlays"))
def test_overlays_have_no_findings(name: str) -> None:
    text = rendered(ROOT / "kserve" / "overlays" / name)
    assert text is not None
    assert failing(lint(text)) == []


@pytest.mark.parametrize("mode", MODES)
def test_components_have_no_findings(mode: str, tmp_path: Path) -> None:
    others = [name for name in folders("components") if name not in MODES]
    alone = {name: rendered(manifests.overlay(tmp_path, mode, name, images=[IMAGE])) for name in others}
    fitting = [name for name, text in alone.items() if text is not None]
    assert len(fitting) > len(others) / 2
    together = rendered(manifests.overlay(tmp_path, mode, *fitting, images=[IMAGE]))
    for text in (*alone.values(), together):
        assert text is None or failing(lint(text)) == []
