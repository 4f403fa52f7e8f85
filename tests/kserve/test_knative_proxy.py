"""What Knative's own proxies, in front of the server, are told by a revision's annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests import only, overlay, render

FULL_DUPLEX = "features.knative.dev/http-full-duplex"


def annotations_of_revisions(folder: str | Path) -> dict[str, str]:
    """Return what KServe puts into Knative's template of revisions: its own annotations and its predictor's."""
    service = only(render(folder), "InferenceService")
    found: dict[str, str] = service["metadata"]["annotations"] | service["spec"]["predictor"]["annotations"]
    return found


@pytest.mark.parametrize("name", ["staging", "production"])
def test_queue_proxy_reads_requests_while_it_answers(name: str) -> None:
    """Otherwise it cuts large answers now and then."""
    assert annotations_of_revisions(f"overlays/{name}")[FULL_DUPLEX] == "Enabled"


def test_only_knative_is_told(tmp_path: Path) -> None:
    assert FULL_DUPLEX not in annotations_of_revisions(overlay(tmp_path, "standard"))
    assert FULL_DUPLEX in annotations_of_revisions(overlay(tmp_path, "knative"))
