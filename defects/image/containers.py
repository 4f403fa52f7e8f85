"""Run a container engine, and make, label, name and push images with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from defects import artifact
from defects.settings import BadSetting, Fatal

ROOT = Path(__file__).resolve().parents[2]
NAME = artifact.NAME.replace("_", "-")
ENGINES = ("docker", "podman", "buildah")
PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}  # and what wheels call them
SECONDS = 1800  # for one command of an engine, which may have to fetch the base image
RECORD = "image.json"  # in the output directory: which image was built last, and what is in it
PLAIN_HTTP = "server gave HTTP response to HTTPS client"  # what Go's HTTP client says, which all engines have
MOUNTED = "/mnt/models"  # where KServe's storage initializer puts a model

# The server runs once as it will in production, so that exactly what it imports is compiled, for the whole image, in
# one place. The hash is unchecked: what lies in an image doesn't change, and a copied file's time may.
CONTAINERFILE = """\
ARG BUILT
ARG BASE
FROM ${BUILT} AS built
ARG BAKED
ARG WITHOUT
USER root
WORKDIR /home/bentoml/bento/src
RUN find /app/.venv -type d \\( -name __pycache__ -o -name tests \\) -prune -exec rm -rf {} + \\
    && find /app/.venv -name uv_cache.json -delete && sed -i /uv_cache.json/d /app/.venv/lib/*/site-packages/*/RECORD \\
    && mkdir -p /home/bentoml/bento/models \\
    && chown -R 0:0 /app /home/bentoml && chmod -R a+rX,go-w /app /home/bentoml \\
    && MODEL_DIR=${BAKED} DEFECTS_BUILD=${WITHOUT} /app/.venv/bin/python -B -m defects.image.bytecode /app/bytecode
FROM ${BASE}
COPY --from=built /app/.venv /app/.venv
COPY --from=built /app/bytecode /app/bytecode
COPY --from=built /home/bentoml/bento/src /home/bentoml/bento/src
COPY --from=built /home/bentoml/bento/models /home/bentoml/bento/models
COPY --from=built /home/bentoml/bento/bento.yaml /home/bentoml/bento/bento.yaml
ARG MODEL_DIR
ENV PATH=/app/.venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 LANG=C.UTF-8 \\
    PYTHONPYCACHEPREFIX=/app/bytecode PYDANTIC_DISABLE_PLUGINS=__all__ \\
    BENTOML_HOME=/tmp/bentoml BENTOML_DO_NOT_TRACK=True BENTOML_CONTAINERIZED=true MODEL_DIR=${MODEL_DIR}
WORKDIR /home/bentoml/bento/src
EXPOSE 3000
USER 1034:1034
ENTRYPOINT []
CMD ["python", "-m", "defects.serve"]
"""


class BuildFailed(Fatal):
    exit_code = 1


def run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    """Run a command and return its standard output; raises `BuildFailed`, with its last lines, where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(  # noqa: S603 - our own commands
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        output = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise BuildFailed(f"{' '.join(words[:4])} … ended with {done.returncode}:\n{output}")
    return done.stdout.strip()


def bentoml(*arguments: object, environment: Mapping[str, str] | None = None) -> str:
    return run(Path(sys.executable).with_name("bentoml"), *arguments, environment=environment)


def say(text: str) -> None:
    print(f"image: {text}", file=sys.stderr, flush=True)


def engine_here(named: str | None) -> str:
    """Return the engine to build with: the named one, else the first that works here. Raises `BadSetting`."""
    for engine in (named,) if named else ENGINES:
        with suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False).returncode == 0:  # noqa: S603
                return engine
    raise BadSetting(f"ENGINE: {named or 'none of ' + ', '.join(ENGINES)} does not work here; expected one that does")


def finish(
    engine: str,
    name: str,
    image_labels: Mapping[str, str],
    arguments: Mapping[str, str],
    platform: str | None,
    *,
    containerfile: str = CONTAINERFILE,
    context: Path | None = None,
) -> None:
    """Make the image `name` of BentoML's, or of a `context`; `arguments` are the build arguments of the file."""
    command = [engine, "build", "--network=none", "--tag", name]
    command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
    command += [f"--label={key}={value}" for key, value in image_labels.items()]
    command += [f"--platform={platform}"] * bool(platform)
    if engine != "docker":  # the same files give the same layers
        command += ["--format=oci", "--timestamp=0", "--layers"]
    with tempfile.TemporaryDirectory() as empty:
        file = Path(empty, "Containerfile")
        file.write_text(containerfile, "utf-8")
        run(*command, "--file", file, context or empty)


def labels(model: artifact.Artifact | None, base: str) -> dict[str, str]:
    """Return the image's labels: OCI's own keys, and the model's version and digest."""
    return {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.base.name": base,
        "defects.model.version": model.version if model else "none",
        "defects.model.digest": model.digest if model else "none",
        **origin(ROOT),
    }


def origin(root: Path) -> dict[str, str]:
    """Return labels: the revision that the image is built from, and its public address, where it has one."""
    git = ("git", "-C", root)
    try:
        revision = run(*git, "rev-parse", "HEAD")
        changed = run(*git, "status", "--porcelain")
        source = run(*git, "remote", "get-url", "origin") if run(*git, "remote") else ""
    except (BuildFailed, OSError):
        return {}  # no git, or no repository
    found = {"org.opencontainers.image.revision": revision + "-changed" * bool(changed)}
    ssh = re.fullmatch(r"(?:ssh://)?(?:[^@/]+@)?([\w.-]+\.[\w.-]+)[:/]([\w./~-]+)", source)
    if ssh:
        source = f"https://{ssh[1]}/{ssh[2]}"
    if source.startswith("https://"):
        found["org.opencontainers.image.source"] = re.sub(r"//[^/@]*@", "//", source)  # without credentials
    return found


def version() -> str:
    """Return this project's version."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def parse_name(image: str, tag: str) -> tuple[str, str]:
    """Return repository and tag of an image's name; `tag` where it has none. Raises `BadSetting`."""
    found = re.fullmatch(r"([a-z0-9.-]+(?::\d+)?(?:/[a-z0-9._-]+)+)(?::([\w.-]{1,128}))?", image)
    if not found:
        raise BadSetting(f"IMAGE: is {image!r}; expected registry/repository[:tag], such as ghcr.io/acme/{NAME}")
    return found[1], found[2] or tag


def push_image(engine: str, image: str, destination: str) -> str:
    """Push an image to a registry; return its digest there. Raises `BuildFailed`."""
    try:
        return _pushed(engine, image, destination)
    except BuildFailed as failed:
        if PLAIN_HTTP in str(failed):
            raise BuildFailed(f"{failed}; {insecure_hint(engine, destination)}") from None
        raise


def insecure_hint(engine: str, destination: str) -> str:
    """Say how an engine is allowed to push to a registry without TLS."""
    registry = destination.partition("/")[0]
    if engine == "docker":
        where = f'"insecure-registries": ["{registry}"] in /etc/docker/daemon.json, and a restart of docker'
    else:
        lines = f'[[registry]], location = "{registry}" and insecure = true, each on a line of its own'
        where = f"a file in /etc/containers/registries.conf.d that ends in .conf and says {lines}"
    return f"{registry} answers in plain HTTP; {engine} expects {where}"


def _pushed(engine: str, image: str, destination: str) -> str:
    if engine == "docker":
        run(engine, "tag", image, destination)
        run(engine, "push", destination)
        digests = json.loads(run(engine, "image", "inspect", "--format", "{{json .RepoDigests}}", destination))
        repository = destination.rpartition(":")[0]
        return next(str(d) for d in digests if d.startswith(f"{repository}@")).partition("@")[2]
    with tempfile.TemporaryDirectory() as directory:
        digest = Path(directory, "digest")
        run(engine, "push", "--digestfile", digest, image, f"docker://{destination}")
        return digest.read_text("utf-8").strip()
