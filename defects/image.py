"""The OCI image: built by `bentoml containerize`, made small, checked, described and pushed.

`python -m defects.image build` makes a Bento, has BentoML make an image of it, and copies out of that image what
serving needs, in a layer each: packages, byte code, code, model. The server is started while the image
is built: one that can't answer its golden inputs isn't built, and what it imported is byte-compiled. Packages are
downloaded by the pip of this machine, with its own index and credentials; the build itself needs no network, and no
secret can get into a layer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from defects import artifact, bill
from defects.settings import BadSetting, Fatal, Settings

ROOT = Path(__file__).resolve().parent.parent
NAME = artifact.NAME.replace("_", "-")
ENGINES = ("docker", "podman", "buildah")
PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}  # and what wheels call them
GLIBC = range(5, 37)  # minor versions that a wheel may ask for; 2.36 is Debian 12's
SECONDS = 1800  # for one command of an engine, which may have to fetch the base image
MODELS = "/home/bentoml/bento/models"
RECORD = "image.json"  # in the output directory: which image was built last, and what is in it
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
    && MODEL_DIR=${BAKED} DEFECTS_BUILD=${WITHOUT} /app/.venv/bin/python -B -m defects.bytecode /app/bytecode
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


Model = tuple[artifact.Artifact, str] | tuple[None, None]  # with its tag; or none


class BuildFailed(Fatal):
    exit_code = 1


def run(*command: object, environment: Mapping[str, str] | None = None) -> str:
    """A command's standard output; raises `BuildFailed`, with the end of what it said, where it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(  # noqa: S603 - our own commands
        words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-30:])
        raise BuildFailed(f"{' '.join(words[:4])} … ended with {done.returncode}:\n{said}")
    return done.stdout.strip()


def bentoml(*arguments: object, environment: Mapping[str, str] | None = None) -> str:
    return run(Path(sys.executable).with_name("bentoml"), *arguments, environment=environment)


def say(text: str) -> None:
    print(f"image: {text}", file=sys.stderr, flush=True)


def engine_here(named: str | None) -> str:
    """The engine to build with: the one that is named, else the first that works here. Raises `BadSetting`."""
    for engine in (named,) if named else ENGINES:
        with suppress(OSError, subprocess.TimeoutExpired):
            if subprocess.run([engine, "info"], capture_output=True, timeout=30, check=False).returncode == 0:  # noqa: S603
                return engine
    raise BadSetting(f"ENGINE: {named or 'none of ' + ', '.join(ENGINES)} does not work here; expected one that does")


def chosen(settings: Settings) -> tuple[artifact.Artifact, str]:
    """The model to bake in, and its tag: `DEFECTS_MODEL`, else the newest of the store. Raises `NoModel`."""
    if settings.model_dir:
        raise BadSetting("MODEL_DIR: expected none: a model is baked in from the model store, or mounted (MODEL=none)")
    directory, tag = artifact.locate(None, settings.model, bento=ROOT.parent)
    assert tag is not None  # noqa: S101 - without a directory it is one of the store's
    return artifact.load(directory, settings.model_digest), tag


def requirements_of(model: artifact.Artifact | None, *, sklearn: bool) -> Path:
    """What is installed: for a model that scikit-learn scores, or where it is asked for, scikit-learn too."""
    extra = "-sklearn" if sklearn or (model and model.engine == "scikit-learn") else ""
    return ROOT / "requirements" / f"serve{extra}.txt"


def wheels(requirements: Path, platform: str | None, scratch: Path) -> Path:
    """A directory with the wheels of `requirements`, and of uv, which BentoML installs with; kept for the next time."""
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
    """pip's options for wheels that run on Linux on a machine; none for this one, which it knows."""
    if (sys.platform, os.uname().machine) == ("linux", machine):
        return []
    machine = {"arm64": "aarch64"}.get(machine, machine)  # as macOS says it
    tags = ["any", f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in GLIBC)]
    return [word for tag in tags for word in ("--platform", tag)]


def pinned(package: str, lock: Path) -> str:
    """The lines of a lock file that pin one package."""
    found = re.search(rf"^{package}==(?:.*\\\n)*.*$", lock.read_text("utf-8"), re.MULTILINE)
    if not found:
        raise BuildFailed(f"{lock.name} does not pin {package}; expected `make lock` to have put it there")
    return f"\n{found[0]}\n"


def bento(requirements: Path, base: str | None, tag: str | None, scratch: Path) -> tuple[str, Path]:
    """Build the Bento with the model of that tag, or without one; its own tag, and its directory.

    `base` replaces the base image that `service.py` names.
    """
    description = yaml.safe_load((ROOT / "bentofile.yaml").read_text("utf-8"))
    description["python"]["requirements_txt"] = str(requirements.relative_to(ROOT))
    if base:
        description["docker"] = {"base_image": base}
    file = scratch / "bentofile.yaml"
    file.write_text(yaml.safe_dump(description), "utf-8")
    clean = {name: value for name, value in os.environ.items() if name != "DEFECTS_MODEL_FILE"}
    clean |= {"DEFECTS_MODEL": tag} if tag else {"DEFECTS_BUILD": "1"}
    said = bentoml("build", "--bentofile", file, "--output", "tag", ROOT, environment=clean)
    built = said.splitlines()[-1].removeprefix("__tag__:")
    from bentoml.bentos import get

    return built, Path(get(built).path)


@contextmanager
def packed(wheels_there: Path, bento_there: Path) -> Iterator[None]:
    """Have the wheels in the Bento while its image is made: beside its scripts, which are copied before it installs."""
    inside = bento_there / "env" / "docker" / "wheels"
    try:
        shutil.copytree(wheels_there, inside)
        yield
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def containerize(engine: str, bento_tag: str, stage: str, platform: str | None, options: list[str]) -> None:
    """Have BentoML make the image `stage`; `options` are `bentoml containerize --opt`'s."""
    given = [f"platform={platform}"] * bool(platform) + options
    opts = [word for option in given for word in ("--opt", option)]
    bentoml("containerize", bento_tag, "--backend", engine, "--image-tag", stage, *opts)


def finish(
    engine: str,
    name: str,
    facts: Mapping[str, str],
    arguments: Mapping[str, str],
    platform: str | None,
    *,
    containerfile: str = CONTAINERFILE,
    context: Path | None = None,
) -> None:
    """Make the image `name`, labelled with `facts`, of BentoML's, or of a `context`; `arguments` are the file's."""
    command = [engine, "build", "--network=none", "--tag", name]
    command += [f"--build-arg={key}={value}" for key, value in arguments.items()]
    command += [f"--label={key}={value}" for key, value in facts.items()]
    command += [f"--platform={platform}"] * bool(platform)
    if engine != "docker":  # the same files give the same layers
        command += ["--format=oci", "--timestamp=0"]
    with tempfile.TemporaryDirectory() as empty:
        file = Path(empty, "Containerfile")
        file.write_text(containerfile, "utf-8")
        run(*command, "--file", file, context or empty)


def labels(model: artifact.Artifact | None, base: str) -> dict[str, str]:
    """What the image says of itself: OCI's own keys, and the model's version and digest."""
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
    """The revision that the image is built from, and where it is kept; a remote may also be a path of this machine."""
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


def look(engine: str, image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What is in the image, told by its own Python."""
    variables = [f"--env={key}={value}" for key, value in environment.items()]
    command = ("python", "-m", "defects.contents")
    if engine != "buildah":
        return dict(json.loads(run(engine, "run", "--rm", "--network=none", *variables, image, *command)))
    container = run(engine, "from", image)
    try:
        return dict(json.loads(run(engine, "run", *variables, container, *command)))
    finally:
        run(engine, "rm", container)


def build(options: argparse.Namespace) -> None:
    """Build, describe and check the image. Raises `BadSetting`, `NoModel`, `BadArtifact` or `BuildFailed`."""
    output: Path = options.output
    (output / RECORD).unlink(missing_ok=True)  # what is pushed is what was built last
    engine = engine_here(options.engine)
    baked_in = (None, None) if options.without_model else chosen(Settings.from_environment())
    model = baked_in[0]
    name = f"{NAME}:{version()}-{model.digest.removeprefix('sha256:')[:12] if model else 'no-model'}"
    if options.platform:
        name += f"-{options.platform.partition('/')[2]}"
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        base = made(engine, name, baked_in, options, scratch)
        contents = look(engine, name, {} if model else {"MODEL_DIR": "", "DEFECTS_BUILD": "1"})
        output.mkdir(parents=True, exist_ok=True)
        (output / "sbom.cdx.json").write_text(bill.cyclonedx(contents, NAME, name.split(":")[1]), "utf-8")
        audited = bill.audit(contents, scratch, output / "audit.json")
    record = {"image": name, "engine": engine, "base": base, "model_digest": model.digest if model else None}
    (output / RECORD).write_text(json.dumps({**record, **contents}, indent=1) + "\n", "utf-8")
    print(bill.breakdown(contents), f"audit: {audited}", "", advice(name, engine, mounted=not model), sep="\n")


def made(engine: str, name: str, baked_in: Model, options: argparse.Namespace, scratch: Path) -> str:
    """Make the Bento and the image `name`; the base image's name."""
    model, tag = baked_in
    requirements = requirements_of(model, sklearn=options.sklearn)
    say("building the Bento")
    built, bento_there = bento(requirements, options.base, tag, scratch)
    base = str(yaml.safe_load((bento_there / "bento.yaml").read_text("utf-8"))["image"]["base_image"])
    stage = f"{NAME}:bento-{built.partition(':')[2]}"
    baked = f"{MODELS}/{tag.replace(':', '/')}" if tag else ""
    arguments = {"BUILT": stage, "BASE": base, "BAKED": baked, "WITHOUT": str(int(not tag))}
    try:
        with packed(wheels(requirements, options.platform, scratch), bento_there):
            say(f"building the image with {engine} on {base}")
            containerize(engine, built, stage, options.platform, options.opt)
        facts = labels(model, base)
        finish(engine, name, facts, {**arguments, "MODEL_DIR": baked or MOUNTED}, options.platform)
    finally:
        with suppress(BuildFailed):  # where it was never made
            run(engine, "rmi", stage)
    return base


def version() -> str:
    """This project's."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


def advice(name: str, engine: str, *, mounted: bool) -> str:
    """How to run the image, as hardened as the manifests do."""
    runner = "podman" if engine == "buildah" else engine
    mount = f" -v DIR:{MOUNTED}:ro" * mounted
    return (
        f"built {name}\nrun it:  {runner} run --rm --read-only --tmpfs /tmp --cap-drop all -p 3000:3000{mount} {name}\n"
        f"push it: make push IMAGE=registry.example.com/{NAME}"
    )


def push(options: argparse.Namespace) -> None:
    """Push the image that was built last; print its digest, and what puts it into the manifests."""
    try:
        built = json.loads((options.output / RECORD).read_text("utf-8"))
    except OSError:
        raise BuildFailed(
            f"nothing to push: there is no {options.output}/image.json; run make image (LOAD=1)"
        ) from None
    name, built_tag = built["image"].split(":")
    repository, tag = named(options.image, built_tag)
    digest = pushed(built["engine"], built["image"], f"{repository}:{tag}")
    print(f"{repository}:{tag}\n{digest}\nkustomize edit set image {name}={repository}@{digest}")


def named(image: str, tag: str) -> tuple[str, str]:
    """Repository and tag of an image's name; `tag` where it has none. Raises `BadSetting`."""
    found = re.fullmatch(r"([a-z0-9.-]+(?::\d+)?(?:/[a-z0-9._-]+)+)(?::([\w.-]{1,128}))?", image)
    if not found:
        raise BadSetting(f"IMAGE: is {image!r}; expected registry/repository[:tag], such as ghcr.io/acme/{NAME}")
    return found[1], found[2] or tag


def pushed(engine: str, image: str, destination: str) -> str:
    """The digest of the image in its registry, once it is there."""
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


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/image"), help="reports (default: %(default)s)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("build", help="build the Bento and the image")
    making.add_argument("--engine", choices=ENGINES, help="(default: the first of them that works)")
    making.add_argument("--base", help="base image with Python and pip (default: python:X.Y-slim, as here)")
    making.add_argument("--platform", choices=PLATFORMS, help="(default: this machine's)")
    making.add_argument("--without-model", action="store_true", help=f"for one that is mounted at {MOUNTED}")
    making.add_argument("--sklearn", action="store_true", help="with scikit-learn, for mounted models that need it")
    making.add_argument("--opt", action="append", default=[], help="an option for bentoml containerize --opt")
    making.set_defaults(run=build)
    pushing = verbs.add_parser("push", help="push the image that was built last")
    pushing.add_argument("image", help="registry/repository[:tag]")
    pushing.set_defaults(run=push)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        options.run(options)
    except Fatal as fatal:
        fatal.exit()
    except (OSError, ValueError, subprocess.TimeoutExpired) as problem:  # a full disk, a broken file, a hanging engine
        BuildFailed(f"{options.verb} failed: {problem}").exit()


if __name__ == "__main__":
    main()
