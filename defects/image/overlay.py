"""Put an image into an overlay's `images:`, as text: everything else in the file, its comments too, stays as it is.

What is written is read back: the file must say what it said before, but for this image. So a file in a style that is
not understood here is refused, not damaged.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from defects import files
from defects.settings import BadSetting

FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")  # what kustomize looks for
FIELDS = {"name", "newName", "newTag", "digest"}  # of an entry that is understood
MAX_BYTES = 1 << 20
NAME = r"[a-z0-9][\w./:-]*"
REFERENCE = re.compile(
    r"(?P<repository>[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+)(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)

Edit = tuple[int, int, str]  # from and to in the text, and what comes there


@dataclass(frozen=True)
class Reference:
    """An image in a registry: `version` is a digest, or a tag where there is no digest."""

    repository: str
    version: str

    @classmethod
    def parse(cls, image: str) -> Reference:
        """Read `registry/repository@digest` or `registry/repository:tag`; raises `BadSetting`."""
        found = REFERENCE.fullmatch(image)
        version = found and (found["digest"] or found["tag"])
        if not found or not version:
            raise BadSetting(f"IMAGE: is {image!r}; expected registry/repository@sha256:…, as make push prints it")
        return cls(found["repository"], version)

    @property
    def field(self) -> str:
        """The field of kustomize that holds the version."""
        return "digest" if self.version.startswith("sha256:") else "newTag"

    def __str__(self) -> str:
        return f"{self.repository}{'@' if self.field == 'digest' else ':'}{self.version}"


class NotUnderstood(Exception):
    """Why a kustomization can't be edited here."""


def find(overlay: Path) -> Path:
    """Return the kustomization of a folder, or the file itself; raises `BadSetting`."""
    if overlay.is_file():
        return overlay
    found = [overlay / name for name in FILES if (overlay / name).is_file()]
    if len(found) != 1:
        there = "has more than one kustomization" if found else "has no kustomization.yaml"
        raise BadSetting(f"--overlay: {overlay} {there}; expected a folder such as kserve/overlays/production")
    return found[0]


def set_image(overlay: Path, name: str, image: Reference) -> str:
    """Make the overlay's image `name` this one; return a line that says so. Raises `BadSetting`, or `OSError`.

    The file is replaced as a whole, or not at all where it says this already.
    """
    if not re.fullmatch(NAME, name):
        raise BadSetting(f"--name: is {name!r}; expected an image's name in images:, such as defect-classifier")
    file = find(overlay)
    try:
        text = files.read(file, MAX_BYTES).decode("utf-8")
        new = edited(text, name, image)
    except (files.Unreadable, yaml.YAMLError, ValueError, RecursionError, NotUnderstood) as problem:
        reason = " ".join(str(problem).split())
        raise BadSetting(f"{file}: can't be edited: {reason}; expected images: in YAML's block style") from None
    if new == text:
        return f"{file}: {name} is {image} already"
    replace(file.resolve(), new)  # a link stays one
    return f"{file}: {name} is now {image}"


def replace(file: Path, text: str) -> None:
    """Replace a file's content, as one step, with its permissions."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as new:
        try:
            new.write(text.encode())
            new.flush()
            shutil.copymode(file, new.name)
            Path(new.name).replace(file)
        except BaseException:
            Path(new.name).unlink()
            raise


def edited(text: str, name: str, image: Reference) -> str:
    """Return the text of a kustomization with this image; raises `NotUnderstood` or `YAMLError`."""
    before = yaml.safe_load(text)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise NotUnderstood("it is no mapping in block style")
    newline = "\r\n" if "\r\n" in text else "\n"
    new = text
    for start, end, piece in sorted(edits(text, root, name, image), reverse=True):
        new = new[:start] + piece.replace("\n", newline) + new[end:]
    if yaml.safe_load(new) != expected(before, name, image):
        raise NotUnderstood("an edit would change more than this image")
    return new


def expected(before: dict[str, Any], name: str, image: Reference) -> dict[str, Any]:
    """Return what the kustomization says afterwards."""
    entry = {"name": name, "newName": image.repository, image.field: image.version}
    entries = list(before.get("images") or ())
    places = [index for index, each in enumerate(entries) if each.get("name") == name] or [len(entries)]
    entries[places[0] : places[0] + 1] = [entry]
    return before | {"images": entries}


def edits(text: str, root: yaml.MappingNode, name: str, image: Reference) -> list[Edit]:
    """Return the edits of the text; raises `NotUnderstood`."""
    found = [value for key, value in root.value if key.value == "images"]
    if not found:
        missing = "" if text.endswith("\n") else "\n"
        return [(len(text), len(text), f"{missing}images:\n{entry_lines(2, 4, name, image)}")]
    entries = found[0].value
    if len(found) > 1 or not isinstance(found[0], yaml.SequenceNode) or found[0].flow_style or not entries:
        raise NotUnderstood("images: is no list in block style, or stands there twice")
    ours = [entry for entry in entries if name_of(entry) == name]
    if len(ours) > 1:
        raise NotUnderstood(f"images: has {name} twice")
    if ours:
        return entry_edits(text, fields_of(ours[0]), image)
    dash, column = found[0].start_mark.column, entries[-1].start_mark.column
    return [added(text, entries[-1].value[-1][1], entry_lines(dash, column, name, image))]


def entry_lines(dash: int, column: int, name: str, image: Reference) -> str:
    """Return a new entry, with its dash and its fields in these columns."""
    before, between = " " * dash + "-" + " " * (column - dash - 1), "\n" + " " * column
    fields = {"name": name, "newName": image.repository, image.field: image.version}
    return before + between.join(f"{key}: {scalar(value)}" for key, value in fields.items()) + "\n"


def name_of(entry: yaml.Node) -> Any:
    """Return the name of an entry of `images:`; raises `NotUnderstood`."""
    if not isinstance(entry, yaml.MappingNode):
        raise NotUnderstood("an entry of images: is no mapping")
    return next((value.value for key, value in entry.value if key.value == "name"), None)


def fields_of(entry: yaml.MappingNode) -> dict[str, yaml.Node]:
    """Return the values of the image's entry, by their fields; raises `NotUnderstood`."""
    fields = {key.value: value for key, value in entry.value}
    if entry.flow_style or not fields.keys() <= FIELDS or len(fields) < len(entry.value):
        names = ", ".join(map(str, fields))
        raise NotUnderstood(f"the entry has {names}; expected each of {', '.join(sorted(FIELDS))} once, or not at all")
    if not all(isinstance(value, yaml.ScalarNode) for value in fields.values()):
        raise NotUnderstood("a field of images: is no text")
    return fields


def entry_edits(text: str, fields: dict[str, yaml.Node], image: Reference) -> list[Edit]:
    """Return the edits that make an entry of these fields say this image."""
    other = {"digest": "newTag", "newTag": "digest"}[image.field]
    column = text_column(text, fields)
    last = fields.get("newName", fields["name"])
    lines = ""
    found = []
    if "newName" in fields:
        found.append(valued(fields["newName"], image.repository))
    else:
        lines += f"{column}newName: {scalar(image.repository)}\n"
    if image.field in fields:
        found.append(valued(fields[image.field], image.version))
        found += [removed(text, other, fields[other])] if other in fields else []
    elif other in fields:
        value = fields[other]
        found.append((key_start(text, other, value), value.end_mark.index, pair(image)))
    else:
        lines += f"{column}{pair(image)}\n"
    return [*found, added(text, last, lines)] if lines else found


def pair(image: Reference) -> str:
    return f"{image.field}: {scalar(image.version)}"


def valued(node: yaml.Node, value: str) -> Edit:
    """Return the edit that replaces a value, unless that is it already, and a text: 1.0 is a number."""
    if node.value == value and node.tag == "tag:yaml.org,2002:str":
        return (node.start_mark.index, node.start_mark.index, "")
    return (node.start_mark.index, node.end_mark.index, scalar(value))


def key_start(text: str, key: str, value: yaml.Node) -> int:
    """Return where a key begins in the text, which stands before its value."""
    start = text.rfind(key, 0, value.start_mark.index)
    if start < 0 or not re.fullmatch(rf"{key}\s*:\s+", text[start : value.start_mark.index]):
        raise NotUnderstood(f"{key}: is written in a way that is not expected")
    return start


def removed(text: str, key: str, value: yaml.Node) -> Edit:
    """Return the edit that removes a field, and its line where no comment is left on it."""
    start, end = key_start(text, key, value), value.end_mark.index
    line, after = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    after = len(text) if after < 0 else after + 1
    alone = not text[line:start].strip() and not text[end:after].strip()
    return (line, after, "") if alone else (start, end, "")


def added(text: str, last: yaml.Node, lines: str) -> Edit:
    """Return the edit that puts lines after the one on which a value ends."""
    end = text.find("\n", last.end_mark.index)
    return (len(text), len(text), f"\n{lines}") if end < 0 else (end + 1, end + 1, lines)


def text_column(text: str, fields: dict[str, yaml.Node]) -> str:
    """Return the spaces before the fields of an entry."""
    start = key_start(text, "name", fields["name"])
    return " " * (start - text.rfind("\n", 0, start) - 1)


def scalar(value: str) -> str:
    """Return a text as YAML, quoted where another kind of value could be read."""
    plain = re.fullmatch(r"[a-zA-Z][\w./:-]*", value) and yaml.safe_load(value) == value
    return value if plain else f'"{value}"'
