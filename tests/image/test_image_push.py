"""A push to a registry without TLS says where it is allowed. (`test_image.py` pushes the real image.)"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_image import image_tool, podman, registry

from conftest import CI
from defects.image import containers

__all__ = ["registry"]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[str]:
    """An image with next to nothing in it."""
    if shutil.which("podman") is None:
        (pytest.fail if CI else pytest.skip)("podman is not installed; .ci/system-packages installs it")
    name = f"defects-tiny:{os.getpid()}"
    archive = tmp_path / "empty.tar"
    subprocess.run(["tar", "-cf", archive, "--files-from", "/dev/null"], check=True)
    podman("import", archive, name)
    yield name
    podman("rmi", "--force", name)


def test_a_push_to_a_registry_without_tls_says_where_it_is_allowed(tiny: str, registry: str, tmp_path: Path) -> None:
    (tmp_path / "image.json").write_text(json.dumps({"image": tiny, "engine": "podman"}))
    none = tmp_path / "registries.conf"
    none.write_text("")
    done = image_tool(tmp_path, tmp_path, "push", f"{registry}/defects", CONTAINERS_REGISTRIES_CONF=none)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{registry} answers in plain HTTP; podman expects a file in /etc/containers/registries.conf.d" in line
    none.write_text(f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n')
    done = image_tool(tmp_path, tmp_path, "push", f"{registry}/defects", CONTAINERS_REGISTRIES_CONF=none)
    assert done.returncode == 0, done.stderr
    assert f"--name {tiny.partition(':')[0]} {registry}/defects@sha256:" in done.stdout.splitlines()[-1]


def test_docker_is_told_its_own_place() -> None:
    hint = containers.insecure_hint("docker", "registry.example.com:5000/defects:1")
    assert '"insecure-registries": ["registry.example.com:5000"] in /etc/docker/daemon.json' in hint
