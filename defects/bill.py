"""What is in an image: sizes by package, a bill of materials (CycloneDX), and known vulnerabilities (pip-audit)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

AUDIT_SECONDS = 300

# Runs in the image, with its Python: what is installed, how large it is, and what a server imports of it.
LOOK = """
import json, os, platform, sys
from importlib import metadata
from pathlib import Path

def size(top):
    seen = {}
    for folder, folders, names in os.walk(top):
        folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/proc", "/sys", "/dev", "/tmp", "/run")]
        for name in names:
            facts = os.lstat(os.path.join(folder, name))
            seen[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(seen.values())

from defects import application
import uvloop
used = {str(Path(m.__file__).resolve()) for m in list(sys.modules.values()) if getattr(m, "__file__", None)}
packages = []
for found in metadata.distributions():
    files = {str(Path(f.locate()).resolve()) for f in found.files or ()}
    packages.append({
        "name": found.metadata["Name"], "version": found.version,
        "license": found.metadata["License-Expression"] or (found.metadata["License"] or "")[:80].split("\\n")[0],
        "bytes": sum(os.lstat(f).st_size for f in files if os.path.isfile(f)), "used": bool(files & used),
    })
system, release = [], {}
if os.path.exists("/var/lib/dpkg/status"):
    for entry in Path("/var/lib/dpkg/status").read_text().split("\\n\\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if "installed" in fields.get("Status", ""):
            system.append({"name": fields["Package"], "version": fields["Version"]})
    release = platform.freedesktop_os_release()
parts = {"packages": "/app/.venv", "byte code": "/app/bytecode", "code": "/home/bentoml/bento/src",
         "model": "/home/bentoml/bento/models"}
print(json.dumps({
    "python": platform.python_version(), "packages": packages, "system": system, "release": release.get("ID", ""),
    "parts": {name: size(path) for name, path in parts.items()}, "total": size("/"),
}))
"""


def breakdown(contents: dict[str, Any]) -> str:
    """Where an image's bytes are, as text: what lies above the base image, by part and by package; and the floor."""
    parts, packages = contents["parts"], sorted(contents["packages"], key=lambda p: -int(p["bytes"]))
    above, megabytes = sum(parts.values()), 1e6
    used = sum(p["bytes"] for p in packages if p["used"])
    floor = used + parts["byte code"] + parts["code"] + parts["model"]
    lines = [
        f"{contents['total'] / megabytes:8.1f} MB in all, not packed",
        f"{(contents['total'] - above) / megabytes:8.1f} MB the base image",
        f"{above / megabytes:8.1f} MB above it, of which:",
        *(f"{count / megabytes:8.1f} MB   {name}" for name, count in parts.items()),
        f"{floor / megabytes:8.1f} MB would do without BentoML's SDK, which `bentoml serve` and the page at / need",
        "the largest packages (* imported by the entry point):",
        *(f"{p['bytes'] / megabytes:8.1f} MB   {p['name']} {p['version']}{' *' * p['used']}" for p in packages[:15]),
        f"{sum(p['bytes'] for p in packages[15:]) / megabytes:8.1f} MB   {len(packages[15:])} others",
    ]
    return "\n".join(lines)


def cyclonedx(contents: dict[str, Any], image: str, version: str) -> str:
    """The image's Python and system packages as CycloneDX 1.6 JSON."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    root = Component(name=image, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    bom = Bom(metadata=None)
    bom.metadata.component = root
    bom.metadata.supplier = OrganizationalEntity(name=image)
    kinds = [("pypi", None, p) for p in contents["packages"]]
    kinds += [("deb", contents["release"], p) for p in contents["system"]]
    components = []
    for kind, namespace, package in kinds:
        name = package["name"].lower().replace("_", "-")
        purl = PackageURL(kind, namespace, name, package["version"])
        components.append(
            Component(
                name=package["name"],
                version=package["version"],
                type=ComponentType.LIBRARY,
                purl=purl,
                bom_ref=purl.to_string(),
            )
        )
    bom.components.update(components)
    bom.register_dependency(root, components)
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def audit(contents: dict[str, Any], scratch: Path, output: Path) -> str:
    """Known vulnerabilities of the image's Python packages, written to `output`; one line of what came of it.

    Where the database can't be reached, the file says so too: no finding is not the same as no look.
    """
    pins = scratch / "installed.txt"
    pins.write_text("".join(f"{p['name']}=={p['version']}\n" for p in contents["packages"]), "utf-8")
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--requirement", str(pins)]
    options = ["--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, *options], capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
        )
        report, said = json.loads(done.stdout), "".join(done.stderr.strip().splitlines()[-1:])
    except (ValueError, subprocess.TimeoutExpired) as problem:
        report, said = {"dependencies": []}, str(problem)
    looked_up = [d for d in report["dependencies"] if "vulns" in d]
    found = [f"{d['name']} {d['version']} ({', '.join(v['id'] for v in d['vulns'])})" for d in looked_up if d["vulns"]]
    missing = len(contents["packages"]) - len(looked_up)
    if not looked_up:
        report = {"skipped": f"pip-audit's database can't be reached here, or knows none of the packages: {said[:200]}"}
    output.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    if not looked_up:
        return f"skipped: {report['skipped']}"
    verdict = f"known vulnerabilities in {len(found)}: {'; '.join(found)}" if found else "no known vulnerability"
    return f"{len(looked_up)} packages looked up, {verdict}" + f"; {missing} not found there" * bool(missing)
