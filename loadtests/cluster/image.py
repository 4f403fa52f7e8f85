"""The image that load tests run from in a cluster: Locust, `loadtests/` and what it needs of the library; no model.

`make image LOAD=1` makes it the way `defects.image` makes the service's: packages are downloaded here, with the hashes
of `requirements/load.txt`, and the build itself needs no network. `make push LOAD=1` pushes it, for `images:` in an
overlay with `components/load-test`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from defects.image.containers import (
    ENGINES,
    NAME,
    PLATFORMS,
    RECORD,
    ROOT,
    BuildFailed,
    engine_here,
    finish,
    labels,
    say,
)
from defects.image.containers import version as version_here
from defects.image.wheels import wheels
from defects.settings import Fatal

FOLDERS = ("defects", "loadtests", "tools")
# Byte code is compiled here, because a container can't write. Its hash is unchecked: files in an image don't change.
CONTAINERFILE = """\
ARG BASE
FROM ${BASE} AS built
COPY . /app/
WORKDIR /app/src
RUN python3 -m venv --without-pip /app/.venv \\
    && python3 -m pip --python /app/.venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir \\
        --no-index --no-deps --require-hashes --find-links /app/wheels --requirement /app/load.txt \\
    && chmod -R a+rX,go-w /app \\
    && /app/.venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /app/.venv /app/src \\
    && /app/.venv/bin/locust -f loadtests/locustfile.py --list \\
    && /app/.venv/bin/python -c "import loadtests.cluster.watcher, loadtests.cluster.job, loadtests.report.page"
FROM ${BASE}
COPY --from=built /app/.venv /app/.venv
COPY --from=built /app/src /app/src
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 LANG=C.UTF-8 HOME=/tmp
WORKDIR /app/src
USER 1034:1034
ENTRYPOINT []
CMD ["python", "-m", "loadtests.cluster.job"]
"""


def context(platform: str | None, scratch: Path) -> Path:
    """Return a directory with all that goes into the build."""
    lock, made = ROOT / "requirements" / "load.txt", scratch / "context"
    shutil.copytree(wheels(lock, platform, scratch), made / "wheels")
    shutil.copy(lock, made)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, made / "src" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return made


def build(options: argparse.Namespace) -> str:
    """Build the image, record that it was built last, and return its name; raises `BadSetting` or `BuildFailed`."""
    output: Path = options.output
    (output / RECORD).unlink(missing_ok=True)
    engine, base = engine_here(options.engine), options.base
    name = f"{NAME}-load:{version_here()}"
    if options.platform:
        name += f"-{options.platform.partition('/')[2]}"
    image_labels = {key: value for key, value in labels(None, base).items() if "model" not in key}
    image_labels["org.opencontainers.image.title"] = f"{NAME}-load"
    with tempfile.TemporaryDirectory() as directory:
        there = context(options.platform, Path(directory))
        say(f"building the load test's image with {engine} on {base}")
        finish(engine, name, image_labels, {"BASE": base}, options.platform, containerfile=CONTAINERFILE, context=there)
    output.mkdir(parents=True, exist_ok=True)
    (output / RECORD).write_text(json.dumps({"image": name, "engine": engine, "base": base}, indent=1) + "\n", "utf-8")
    return name


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    python = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
    parser.add_argument("--output", type=Path, default=Path("build/load-image"), help="(default: %(default)s)")
    parser.add_argument("--engine", choices=ENGINES, help="(default: the first of them that works)")
    parser.add_argument("--base", default=python, help="base image with Python, venv and pip (default: %(default)s)")
    parser.add_argument("--platform", choices=PLATFORMS, help="(default: this machine's)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    try:
        name = build(parse(arguments))
    except Fatal as fatal:
        fatal.exit()
    except (OSError, subprocess.TimeoutExpired) as problem:
        BuildFailed(f"build failed: {problem}").exit()
    sys.stdout.write(f"built {name}\npush it: make push LOAD=1 IMAGE=registry.example.com/{NAME}-load\n")


if __name__ == "__main__":
    main()
