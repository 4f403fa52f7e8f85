"""Rules about images: does a name mean the same image tomorrow?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from defects.lint.fields import Field
from defects.lint.resources import Service
from defects.lint.rule import Problem, Rule

LOCAL = ("dev.local", "ko.local", "kind.local")  # Knative's registries-skipping-tag-resolving
PLACEHOLDERS = (".invalid", ".example")  # RFC 2606: no registry can have these names
VARIABLE = "{{"  # KServe fills it in


def _images(service: Service) -> Iterator[Field]:
    """Yield the images that an InferenceService itself names."""
    for component in service.components:
        fields = [component.framework, *component.field.at("containers").items]
        fields += component.field.at("initContainers").items
        yield from _pulled(fields)


def _pulled(containers: Iterable[Field]) -> Iterator[Field]:
    """Yield the images of containers that a node may pull."""
    for container in containers:
        if container.at("image").text and container.at("imagePullPolicy").text != "Never":
            yield container.at("image")


def _kind(image: str) -> str:
    """Return what kind of name an image has: fixed, placeholder, latest or tag."""
    registry, slash, _ = image.partition("/")
    if "@" in image or registry in LOCAL or VARIABLE in image:
        return "fixed"
    if slash and registry.partition(":")[0].endswith(PLACEHOLDERS):
        return "placeholder"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "tag" if tag and tag != "latest" else "latest"


def _of_kind(kind: str, images: Iterator[Field], message: str) -> Iterator[Problem]:
    for image in images:
        if image.text and _kind(image.text) == kind:
            yield Problem(image, message.format(image.text))


LATEST = "{} is whatever was pushed last"
TAG = "{} has a tag, which can be moved, and no digest"
PLACEHOLDER = "{} is a placeholder: no registry can have this name"

RULES = (
    Rule(
        "image-latest",
        "warning",
        "an image without a tag, or with the tag latest",
        "Replicas that start later, or on another node, can run another image than those that you tested; rolling "
        "back the manifest does not bring the old image back. Knative looks the tag up once for each revision, and "
        "makes no new revision when it moves.",
        "all versions; names in dev.local, ko.local and kind.local are images of the node, as Knative has it",
        "Name the image with its digest: registry/name@sha256:…",
        lambda service: _of_kind("latest", _images(service), LATEST),
        lambda runtime: _of_kind("latest", _pulled(runtime.containers), LATEST),
    ),
    Rule(
        "image-tag",
        "note",
        "an image with a tag and no digest",
        "Whoever can push can move a tag. In Standard mode replicas that start later then run another image.",
        "all versions; names in dev.local, ko.local and kind.local are images of the node, as Knative has it",
        "Name the image with its digest: registry/name@sha256:…",
        lambda service: _of_kind("tag", _images(service), TAG),
        lambda runtime: _of_kind("tag", _pulled(runtime.containers), TAG),
    ),
    Rule(
        "image-placeholder",
        "note",
        "an image in a registry that cannot exist",
        "Names that end in .invalid or .example belong to nobody (RFC 2606).",
        "all versions",
        "Put your own image there, with its digest; in a kustomization, under images:.",
        lambda service: _of_kind("placeholder", _images(service), PLACEHOLDER),
        lambda runtime: _of_kind("placeholder", _pulled(runtime.containers), PLACEHOLDER),
    ),
)
