"""The image that load tests run from, built by the real tools: a run in it leaves results that can be taken out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from test_image import HARDENED, base, podman

from conftest import ROOT, environment
from loadtests import results
from loadtests.load import stub_server
from manifests import take

__all__ = ["base"]
RESULTS = "type=tmpfs,destination=/results,tmpfs-mode=1777"
SECONDS = 90.0


@pytest.fixture(scope="module")
def image(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("load-image")
    command = (sys.executable, "-m", "loadtests.cluster.image", "--engine", "podman", "--base", base)
    done = subprocess.run(
        [*command, "--output", home / "reports"], cwd=ROOT, env=environment(home), capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    name = json.loads((home / "reports" / "image.json").read_text())["image"]
    yield name
    podman("rmi", "--force", name)


def test_a_run_in_it_leaves_results_that_are_taken_out(image: str, tmp_path: Path) -> None:
    scenario = tmp_path / "short.yaml"
    phases = [{"name": "baseline", "seconds": 2, "rate": 1}]
    payloads = [{"kind": "json"}, {"kind": "v2-binary", "rows": 4}]
    given = {"about": "x", "rate": 30, "spacing": "even", "payloads": payloads, "phases": phases}
    scenario.write_text(yaml.safe_dump(given | {"slo": {"p95_ms": 500}}))
    tmp_path.chmod(0o755)
    mounts = ("--mount", RESULTS, "--volume", f"{scenario}:/short.yaml:ro", "--network=host")
    with stub_server.running() as url:
        options = ("python", "-m", "loadtests.cluster.job", "--", f"--host={url}", "--scenario=/short.yaml")
        container = podman("run", "--detach", *HARDENED, *mounts, image, *options)
        try:
            command = take(f"podman exec {container}", Path("/results"), tmp_path / "load")
            subprocess.run(command, shell=True, timeout=SECONDS, check=True)  # noqa: S602 - our own
            code = int(podman("wait", container))
        finally:
            podman("rm", "--force", container)
    (directory,) = (tmp_path / "load").glob("*-*")
    summary = results.read_summary(directory)
    assert code == ["Passed", "Failed", "Invalid"].index(summary.verdict.outcome)
    assert sum(summary.kinds.values()) == 60


def test_it_has_no_server_and_no_model(image: str) -> None:
    seen = json.loads(podman("image", "inspect", image))[0]["Config"]
    assert seen["User"] == "1034:1034"
    assert seen["Labels"]["org.opencontainers.image.title"] == "defect-classifier-load"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    installed = podman("run", "--rm", "--network=none", image, "ls", f"/app/.venv/lib/{python}/site-packages")
    assert "locust" in installed
    assert not {"bentoml", "onnxruntime", "sklearn"} & set(installed.splitlines())
    what = "import pathlib; print(*pathlib.Path('/app/src').rglob('*.onnx'))"
    assert podman("run", "--rm", "--network=none", image, "python", "-c", what) == ""
