"""Make the OCI image, with `bentoml containerize`; make it small, check, describe and push it; put it into an overlay.

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
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from defects import artifact
from defects.image import choice, overlay, sbom
from defects.image.containers import (
    ENGINES,
    MOUNTED,
    NAME,
    PLATFORMS,
    RECORD,
    ROOT,
    BuildFailed,
    bentoml,
    engine_here,
    finish,
    labels,
    parse_name,
    push_image,
    run,
    say,
    version,
)
from defects.image.wheels import requirements_of, wheels
from defects.settings import Fatal, Settings

MODELS = "/home/bentoml/bento/models"

BakedModel = tuple[artifact.Artifact, str] | tuple[None, None]  # with its tag; or none


def build_bento(requirements: Path, base: str | None, tag: str | None, scratch: Path) -> tuple[str, Path]:
    """Build the Bento with the model of that tag, or without one; return its own tag, and its directory.

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
    printed = bentoml("build", "--bentofile", file, "--output", "tag", ROOT, environment=clean)
    built = printed.splitlines()[-1].removeprefix("__tag__:")
    from bentoml.bentos import get

    return built, Path(get(built).path)


@contextmanager
def with_wheels(wheels_there: Path, bento_there: Path) -> Iterator[None]:
    """Keep the wheels in the Bento while its image is made: beside its scripts, which are copied before it installs."""
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


def take_inventory(engine: str, image: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the inventory of an image, which its own Python takes."""
    variables = [f"--env={key}={value}" for key, value in environment.items()]
    command = ("python", "-m", "defects.image.inventory")
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
    baked_in: BakedModel = (None, None) if options.without_model else choice.choose(Settings.from_environment())
    model, tag = baked_in
    if model and tag:
        say(f"packing {choice.named(model, tag)}")
    name = f"{NAME}:{version()}-{model.digest.removeprefix('sha256:')[:12] if model else 'no-model'}"
    if options.platform:
        name += f"-{options.platform.partition('/')[2]}"
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        base = make_image(engine, name, baked_in, options, scratch)
        inventory = take_inventory(engine, name, {} if model else {"MODEL_DIR": "", "DEFECTS_BUILD": "1"})
        output.mkdir(parents=True, exist_ok=True)
        (output / "sbom.cdx.json").write_text(sbom.cyclonedx(inventory, NAME, name.split(":")[1]), "utf-8")
        audited = sbom.audit(inventory, scratch, output / "audit.json")
    record = {"image": name, "engine": engine, "base": base, "model_digest": model.digest if model else None}
    (output / RECORD).write_text(json.dumps({**record, **inventory}, indent=1) + "\n", "utf-8")
    print(sbom.breakdown(inventory), f"audit: {audited}", "", advice(name, engine, mounted=not model), sep="\n")


def make_image(engine: str, name: str, baked_in: BakedModel, options: argparse.Namespace, scratch: Path) -> str:
    """Make the Bento and the image `name`; return the base image's name."""
    model, tag = baked_in
    requirements = requirements_of(model, sklearn=options.sklearn)
    say("building the Bento")
    built, bento_there = build_bento(requirements, options.base, tag, scratch)
    base = str(yaml.safe_load((bento_there / "bento.yaml").read_text("utf-8"))["image"]["base_image"])
    stage = f"{NAME}:bento-{built.partition(':')[2]}"
    baked = f"{MODELS}/{tag.replace(':', '/')}" if tag else ""
    arguments = {"BUILT": stage, "BASE": base, "BAKED": baked, "WITHOUT": str(int(not tag))}
    try:
        with with_wheels(wheels(requirements, options.platform, scratch), bento_there):
            say(f"building the image with {engine} on {base}")
            containerize(engine, built, stage, options.platform, options.opt)
        image_labels = labels(model, base)
        finish(engine, name, image_labels, {**arguments, "MODEL_DIR": baked or MOUNTED}, options.platform)
    finally:
        with suppress(BuildFailed):  # where it was never made
            run(engine, "rmi", stage)
    return base


def advice(name: str, engine: str, *, mounted: bool) -> str:
    """Say how to run the image, as hardened as the manifests do, and how to push it."""
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
    repository, tag = parse_name(options.image, built_tag)
    digest = push_image(built["engine"], built["image"], f"{repository}:{tag}")
    named = "" if name == NAME else f" --name {name}"
    into = f".venv/bin/python -m defects.image set --overlay kserve/overlays/staging{named} {repository}@{digest}"
    print(f"{repository}:{tag}\n{digest}\n{into}")


def set_in_overlay(options: argparse.Namespace) -> None:
    """Put an image of a registry into an overlay's `images:`."""
    print(overlay.set_image(options.overlay, options.name, overlay.Reference.parse(options.image)))


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
    setting = verbs.add_parser("set", help="put a pushed image into an overlay's images:")
    setting.add_argument("--overlay", type=Path, required=True, help="such as kserve/overlays/production")
    setting.add_argument("--name", default=NAME, help="which of the overlay's images (default: %(default)s)")
    setting.add_argument("image", help="registry/repository@sha256:…, as make push prints it")
    setting.set_defaults(run=set_in_overlay)
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
