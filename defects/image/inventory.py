"""Print what an image holds, how large it is, and what a server imports: `python -m defects.image.inventory`."""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

PARTS = {
    "packages": "/app/.venv",
    "byte code": "/app/bytecode",
    "code": "/home/bentoml/bento/src",
    "model": "/home/bentoml/bento/models",
}
OUTSIDE = ("/proc", "/sys", "/dev", "/tmp", "/run")  # noqa: S108 - not the image's
DPKG = Path("/var/lib/dpkg/status")


def size(top: str) -> int:
    """Return the bytes of the files below a folder, each counted once."""
    seen = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in OUTSIDE]  # noqa: PTH118 - many
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())


def packages(imported: set[str], paths: list[str]) -> list[dict[str, Any]]:
    """Return the distributions in these folders, and whether one of their files is among the imported ones."""
    found = []
    for package in metadata.distributions(path=paths):
        files = {str(Path(str(file.locate())).resolve()) for file in package.files or ()}
        found.append(
            {
                "name": package.metadata["Name"],
                "version": package.version,
                "bytes": sum(os.lstat(file).st_size for file in files if Path(file).is_file()),
                "used": bool(files & imported),
            }
        )
    return found


def imported() -> set[str]:
    """Return the files of what the entry point imports."""
    import onnxruntime
    import uvloop

    from defects.replica import Replica

    assert onnxruntime and uvloop  # noqa: S101, PT018 - imported to be counted
    Replica.from_environment()
    return {str(Path(m.__file__).resolve()) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}  # type: ignore[arg-type]


def debian() -> list[dict[str, str]]:
    """Return the installed Debian packages; none where the base image is not Debian's."""
    found = []
    for entry in DPKG.read_text("utf-8").split("\n\n") if DPKG.exists() else ():
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if "installed" in fields.get("Status", "").split():
            found.append({"name": fields["Package"], "version": fields["Version"]})
    return found


def main() -> None:
    version = ".".join(platform.python_version_tuple()[:2])
    base = [f"{sys.base_prefix}/lib/python{version}/site-packages", f"{sys.base_prefix}/lib/python3/dist-packages"]
    inventory = {
        "python": platform.python_version(),
        "packages": packages(imported(), [sysconfig.get_path("purelib")]),
        "base_packages": packages(set(), base),
        "system": debian(),
        "release": platform.freedesktop_os_release().get("ID", "") if DPKG.exists() else "",
        "parts": {name: size(path) for name, path in PARTS.items()},
        "total": size("/"),
    }
    sys.stdout.write(json.dumps(inventory))


if __name__ == "__main__":
    main()
