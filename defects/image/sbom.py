"""Report on an image's inventory: sizes by package, an SBOM (CycloneDX), and known vulnerabilities (pip-audit)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

AUDIT_SECONDS = 300


def breakdown(inventory: dict[str, Any]) -> str:
    """Say where an image's bytes are: the base image, each part and each large package; and how small it could be."""
    parts, packages = inventory["parts"], sorted(inventory["packages"], key=lambda p: -int(p["bytes"]))
    above, megabytes = sum(parts.values()), 1e6
    used = sum(p["bytes"] for p in packages if p["used"])
    floor = used + parts["byte code"] + parts["code"] + parts["model"]
    lines = [
        f"{inventory['total'] / megabytes:8.1f} MB in all, not packed",
        f"{(inventory['total'] - above) / megabytes:8.1f} MB the base image",
        f"{above / megabytes:8.1f} MB above it, of which:",
        *(f"{count / megabytes:8.1f} MB   {name}" for name, count in parts.items()),
        f"{floor / megabytes:8.1f} MB would do without BentoML's SDK, which `bentoml serve` and the page at / need",
        "the largest packages (* imported by the entry point):",
        *(f"{p['bytes'] / megabytes:8.1f} MB   {p['name']} {p['version']}{' *' * p['used']}" for p in packages[:15]),
        f"{sum(p['bytes'] for p in packages[15:]) / megabytes:8.1f} MB   {len(packages[15:])} others",
    ]
    return "\n".join(lines)


def cyclonedx(inventory: dict[str, Any], image: str, version: str) -> str:
    """Return the image's Python and system packages as an SBOM, CycloneDX 1.6 JSON."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.contact import OrganizationalEntity
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    root = Component(name=image, version=version, type=ComponentType.CONTAINER, bom_ref="image")
    bom = Bom(metadata=None)
    bom.metadata.component = root
    bom.metadata.supplier = OrganizationalEntity(name=image)
    kinds = [("generic", None, {"name": "python", "version": inventory["python"]})]
    kinds += [("pypi", None, p) for p in inventory["packages"] + inventory["base_packages"]]
    kinds += [("deb", inventory["release"], p) for p in inventory["system"]]
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


def audit(inventory: dict[str, Any], scratch: Path, output: Path) -> str:
    """Write the known vulnerabilities of the image's Python packages to `output`; return the result in one line.

    Where the database can't be reached, the file says so too: no finding is not the same as no look.
    """
    installed = {(p["name"], p["version"]) for p in inventory["packages"] + inventory["base_packages"]}
    pins = scratch / "installed.txt"
    pins.write_text("".join(f"{name}=={version}\n" for name, version in sorted(installed)), "utf-8")
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--requirement", str(pins)]
    options = ["--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, *options], capture_output=True, text=True, timeout=AUDIT_SECONDS, check=False
        )
        report, reason = _report(done)
    except subprocess.TimeoutExpired as problem:
        report, reason = {}, str(problem)
    looked_up = [d for d in report.get("dependencies", ()) if "vulns" in d]
    output.write_text(json.dumps(report if looked_up else {"skipped": reason}, indent=1) + "\n", "utf-8")
    if not looked_up:
        return f"skipped: {reason}"
    found = [f"{d['name']} {d['version']} ({', '.join(v['id'] for v in d['vulns'])})" for d in looked_up if d["vulns"]]
    verdict = f"known vulnerabilities in {len(found)}: {'; '.join(found)}" if found else "no known vulnerability"
    missing = len(installed) - len(looked_up)
    return f"{len(looked_up)} packages looked up, {verdict}" + f"; {missing} not found there" * bool(missing)


def _report(done: subprocess.CompletedProcess[str]) -> tuple[dict[str, Any], str]:
    """Return pip-audit's report, and the reason to give where it says nothing about any package."""
    try:
        return dict(json.loads(done.stdout)), "pip-audit's database has none of the packages, or can't be reached here"
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {}, f"pip-audit failed: {last[:200]}"
