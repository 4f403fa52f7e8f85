"""Download the packages of an image as wheels of its platform, with the hashes of the lock file."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

from defects import artifact
from defects.image.containers import PLATFORMS, ROOT, BuildFailed, run, say

GLIBC = range(5, 37)  # minor versions that a wheel may ask for; 2.36 is Debian 12's


def requirements_of(model: artifact.Artifact | None, *, sklearn: bool) -> Path:
    """Return the lock file to install: with scikit-learn where the model needs it, or where it is asked for."""
    extra = "-sklearn" if sklearn or (model and model.engine == "scikit-learn") else ""
    return ROOT / "requirements" / f"serve{extra}.txt"


def wheels(requirements: Path, platform: str | None, scratch: Path) -> Path:
    """Return a directory with the wheels of `requirements` and of uv, with which BentoML installs; it is kept."""
    text = requirements.read_text("utf-8") + pinned("uv", ROOT / "requirements" / "dev.txt")
    machine = PLATFORMS.get(platform or "", os.uname().machine)
    kept = ROOT / "build" / "wheels"
    directory = kept / f"{sys.implementation.cache_tag}-{machine}-{sha256(text.encode()).hexdigest()[:12]}"
    if directory.is_dir():
        return directory
    say(f"downloading packages into {directory.relative_to(ROOT)}")
    lock = scratch / "lock.txt"
    lock.write_text(text, "utf-8")
    kept.mkdir(parents=True, exist_ok=True)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes")
    with tempfile.TemporaryDirectory(dir=kept) as new:
        run(*pip, "--no-deps", "--only-binary", ":all:", *_tags(machine), "--requirement", lock, "--dest", f"{new}/all")
        Path(new, "all").rename(directory)  # whole, or not there
    return directory


def _tags(machine: str) -> list[str]:
    """Return pip's options for wheels that run on Linux on a machine; none for this one, which pip knows."""
    if (sys.platform, os.uname().machine) == ("linux", machine):
        return []
    machine = {"arm64": "aarch64"}.get(machine, machine)  # as macOS says it
    tags = ["any", f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in GLIBC)]
    return [word for tag in tags for word in ("--platform", tag)]


def pinned(package: str, lock: Path) -> str:
    """Return the lines of a lock file that pin one package."""
    found = re.search(rf"^{package}==(?:.*\\\n)*.*$", lock.read_text("utf-8"), re.MULTILINE)
    if not found:
        raise BuildFailed(f"{lock.name} does not pin {package}; expected `make lock` to have put it there")
    return f"\n{found[0]}\n"
