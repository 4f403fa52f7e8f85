"""The CPUs that a process may use, as its cgroup says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
