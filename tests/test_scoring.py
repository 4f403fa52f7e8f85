"""The engine tells nobody, and the CPUs that a process may use, as its cgroup says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from defects.scoring import cpus

HERE = len(os.sched_getaffinity(0))


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1 = "4:memory:/x\n3:cpu,cpuacct:/kubepods/pod1\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, HERE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, HERE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "6400000 100000\n"}, HERE),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/not/mounted/here\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": V1, "sys/fs/cgroup/cpu/kubepods/cpu.cfs_quota_us": "-1\n"}, HERE),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_quota_us": "150000\n",
                "sys/fs/cgroup/cpu/kubepods/pod1/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
    ],
)
def test_cpus_follow_the_quota(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert cpus(tree(tmp_path, files)) == expected


def test_the_engine_reports_to_nobody(model_dir: Path, tmp_path: Path) -> None:
    """ONNX Runtime's own telemetry keeps a device id and a queue of events in the home directory."""
    code = "import pathlib; from defects import artifact, scoring; scoring.load(artifact.load(pathlib.Path('.')))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=model_dir, env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
