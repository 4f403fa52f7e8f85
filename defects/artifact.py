"""Read and write a trained model as files: a directory that lists what it holds, with digests.

`schema.json`, `card.json`, `card.html` (the same for people), `reference.json` (the training distribution),
`golden.json` (inputs with expected probabilities), `model.onnx` or `model.skops`, and `digests.json` with the SHA-256
of each of them. The artifact's own digest is the SHA-256 of `digests.json`: digests inside the directory prove that it
is whole, the one pinned outside proves that it is the one meant.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from defects import directories, files, values
from defects.features import LARGEST
from defects.schema import ModelRows, Schema
from defects.settings import DIGEST, SANE, Fatal

NAME = "defect_classifier"
MAX_GOLDEN = 1024  # rows
MAX_TOLERANCE = 1e-6  # of a golden probability; training writes this one
MAX_FILES = 100
SLACK = timedelta(minutes=5)  # that clocks may differ
MAX_DIGESTS, MAX_DOCUMENT, MAX_MODEL = 1 << 20, 64 << 20, 2 << 30  # bytes of a file; ONNX holds no more than 2 GiB
MAX_ALL = MAX_MODEL + 4 * MAX_DOCUMENT  # bytes of all files together
DIGESTS = "digests.json"
ONNX, SKOPS = "model.onnx", "model.skops"
CARD_PAGE = "card.html"  # the card for people; an artifact without it is a valid one
# What KServe's servers for scikit-learn, XGBoost and LightGBM find in a model's directory.
PICKLES = (".joblib", ".pkl", ".pickle")
SERVED_ELSEWHERE = (
    "model.joblib", "model.pkl", "model.pickle", "model.skops", "model.bst", "model.json", "model.ubj", "model.txt",
)  # fmt: skip
REQUIRED = ("schema.json", "card.json", "reference.json", "golden.json")


class NoModel(Fatal):
    exit_code = 66


class BadArtifact(Fatal):
    exit_code = 65


class Incomplete(BadArtifact):
    """A file that `digests.json` lists is not there, or can't be read: it may still come."""


class Truncated(BadArtifact):
    """A file is not the one that is meant: damaged for good, or still being written."""


@dataclass(frozen=True)
class Golden:
    """Inputs `[n, features]` with their probabilities `[n, classes]`, how far an answer may be off, and their classes
    `[n]`, by number, where these are to be compared too."""

    rows: ModelRows
    probabilities: NDArray[np.float64]
    tolerance: float
    classes: NDArray[np.int64] | None = None

    @classmethod
    def from_json(cls, data: Any, schema: Schema) -> Golden:
        """Read golden inputs; raises `ValueError` where they are not of this schema."""
        values.mapping(data, "the document")
        given = {name: values.member(data, name) for name in ("rows", "probabilities", "tolerance", "classes")}
        rows = _matrix(given["rows"], "rows", len(schema.names), missing=True)
        probabilities = _matrix(given["probabilities"], "probabilities", len(schema.classes))
        classes = values.items(given["classes"], "classes", MAX_GOLDEN)
        if not 1 <= len(rows) == len(probabilities) == len(classes):
            raise ValueError(
                f"golden rows, probabilities and classes have lengths {len(rows)}, {len(probabilities)}, "
                f"{len(classes)}; expected the same, at least 1"
            )
        if any(type(index) is not int or not 0 <= index < len(schema.classes) for index in classes):
            raise ValueError(f"classes: expected numbers of classes, from 0 to {len(schema.classes) - 1}")
        if not (np.abs(probabilities.sum(axis=1) - 1) <= 1e-3).all() or (probabilities < 0).any():
            raise ValueError("probabilities: expected numbers from 0 to 1 that sum to 1 in each row")
        tolerance = values.number(given["tolerance"], "tolerance")
        if not 0 < tolerance <= MAX_TOLERANCE:
            raise ValueError(f"tolerance is {tolerance:g}; expected a number above 0, at most {MAX_TOLERANCE:g}")
        return cls(schema.held(rows), probabilities, tolerance, np.array(classes, np.int64))


def _matrix(value: Any, place: str, width: int, *, missing: bool = False) -> NDArray[np.float64]:
    """Return lists of numbers as an array `[n, width]`, with NaN for null where a number may be missing."""
    rows = values.items(value, place, MAX_GOLDEN)
    types = {int, float, type(None)} if missing else {int, float}
    for index, row in enumerate(rows):
        if type(row) is not list or len(row) != width or not types.issuperset(map(type, row)):
            raise ValueError(f"{place}[{index}]: expected a list of {width} numbers")
    matrix = np.array(rows, np.float64).reshape(-1, width)
    if (np.abs(matrix) > LARGEST).any():
        raise ValueError(f"{place}: expected 32-bit numbers")
    return matrix


@dataclass(frozen=True)
class Artifact:
    """A verified artifact. `files` are the bytes whose digests were checked: nothing is read twice."""

    schema: Schema
    card: dict[str, Any]
    golden: Golden
    digest: str
    files: Mapping[str, bytes]

    @property
    def version(self) -> str:
        return str(self.card["version"])

    @property
    def engine(self) -> str:
        """`onnxruntime` or `scikit-learn`."""
        return str(self.card["engine"]["name"])


def dump(value: Any) -> bytes:
    """Return a value as JSON in the artifact's form: readable, and the same bytes for the same value."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes, as `sha256:…`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def listing(contents: Mapping[str, bytes]) -> bytes:
    """Return the content of `digests.json`; its digest is the artifact's."""
    return dump({name: digest_of(content) for name, content in sorted(contents.items())})


def write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files and their digests into an existing directory."""
    directories.write(directory, {**contents, DIGESTS: listing(contents)})


def replace(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write an artifact at `directory`, in place of one that may be there; a reader never sees half of it.

    Raises `FileExistsError` where something other than an artifact stands there, and `OSError` where there is no place
    to write to.
    """
    check_replaceable(directory)
    place = directories.place_of(directory)
    place.parent.mkdir(parents=True, exist_ok=True)
    with directories.scratch(place.parent) as scratch:
        new = scratch / "new"
        new.mkdir()
        write(new, contents)
        directories.put(new, place)


def check_replaceable(directory: Path) -> None:
    """Raise `FileExistsError` where an artifact at `directory` would take the place of anything but an artifact."""
    place = directories.place_of(directory)
    if outer := next((folder for folder in place.parents if _is_artifact(folder)), None):
        raise FileExistsError(f"{directory} is inside the model artifact {outer}; expected a place outside of it")
    if not place.exists():
        return
    if not place.is_dir() or not (_is_artifact(place) or not any(place.iterdir())):
        raise FileExistsError(f"{directory} exists and is not a model artifact; expected a new or empty directory")
    if other := sorted({entry.name for entry in place.iterdir()} - _own_names(place)):
        raise FileExistsError(
            f"{directory} has files besides a model artifact's, such as {other[0]!r}; expected a new or empty directory"
        )
    if Path.cwd().is_relative_to(place):
        raise FileExistsError(f"{directory} is the directory that this runs in; expected another one")


def _own_names(directory: Path) -> set[str]:
    """Return the names of the files that an artifact may have: what it lists, and what any artifact has."""
    try:
        listed = _listed(files.read_json(files.read(directory / DIGESTS, MAX_DIGESTS)))
    except (files.Unreadable, ValueError):
        listed = {}
    return {DIGESTS, ONNX, SKOPS, CARD_PAGE, *REQUIRED, *listed}


def _is_artifact(directory: Path) -> bool:
    return (directory / DIGESTS).is_file()


class Source(Protocol):
    """Where the files of an artifact are: a directory, or a place in object storage."""

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most `most` bytes; raises `files.Unreadable`."""

    def full_name(self, name: str) -> str:
        """Return a file's name with its place, for messages."""

    def absence(self) -> str:
        """Say that there is no artifact, and what to do, for a message."""

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Return the names of files in the order to read them, so that one that is missing is noticed early."""


@dataclass(frozen=True)
class _Directory:
    path: Path

    def read(self, name: str, most: int) -> bytes:
        return files.read(self.path / name, most)

    def full_name(self, name: str) -> str:
        return str(self.path / name)

    def absence(self) -> str:
        """Say what is there instead of an artifact, and how one is made of it."""
        problem = f"{self.path} " + (f"has no {DIGESTS}" if self.path.is_dir() else "is not a directory")
        for name in SERVED_ELSEWHERE:
            if (found := self.path / name).is_file():
                trust = " --trust-pickle" if name.endswith(PICKLES) else ""
                command = f"python train.py --model {found}{trust} --data FILE --label COLUMN --output DIRECTORY"
                return f"{problem}, but {name}, as KServe's own servers have it; make an artifact of it: {command}"
        return f"{problem}; expected a model artifact (train.py makes one)"

    def ordered(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: os.path.exists(self.path / name))  # noqa: PTH110 - it never raises


def load(directory: Path, expected_digest: str | None = None) -> Artifact:
    """Read and verify the artifact in `directory`; raises `NoModel` or `BadArtifact`, which names the file."""
    return read(_Directory(directory), expected_digest)


def read(source: Source, expected_digest: str | None = None) -> Artifact:
    """Read and verify the artifact at `source`; raises `NoModel`, `BadArtifact`, or what is the source's own."""
    try:
        content = source.read(DIGESTS, MAX_DIGESTS)
    except files.Missing:
        raise NoModel(f"no model: {source.absence()}") from None
    except files.Unreadable as problem:
        raise _unreadable(source.full_name(DIGESTS), problem) from None
    with _reading(source.full_name(DIGESTS), Truncated):
        document = files.read_json(content)
    digest = digest_of(content)
    if expected_digest is not None and digest != expected_digest:
        place = source.full_name("").rstrip("/")
        raise BadArtifact(f"{place}: the artifact's digest is {digest}; DEFECTS_MODEL_DIGEST asks {expected_digest}")
    with _reading(source.full_name(DIGESTS)):
        listed = _listed(document)
    contents: dict[str, bytes] = {}
    left = MAX_ALL
    for name in source.ordered(listed):
        contents[name] = _verified(source, name, listed[name], min(_most_bytes(name), left))
        left -= len(contents[name])
    return parse(contents, digest, source.full_name)


def parse(contents: Mapping[str, bytes], digest: str, full_name: Callable[[str], str] = str) -> Artifact:
    """Make an artifact of its files' contents; raises `BadArtifact`, which names the file, as `full_name` does."""
    for name, content in contents.items():
        if len(content) > _most_bytes(name):
            raise BadArtifact(f"{full_name(name)}: has {len(content):,} bytes; expected at most {_most_bytes(name):,}")
    documents: dict[str, Any] = {}
    for name in REQUIRED:
        if name not in contents:
            raise BadArtifact(f"{full_name(DIGESTS)}: {name} is not listed; expected a complete artifact")
        with _reading(full_name(name)):
            documents[name] = values.mapping(files.read_json(contents[name]), "the document")
    with _reading(full_name("schema.json")):
        schema = Schema.from_json(documents["schema.json"])
    with _reading(full_name("card.json")):
        _check_card(documents["card.json"])
    with _reading(full_name("golden.json")):
        golden = Golden.from_json(documents["golden.json"], schema)
    return Artifact(schema, documents["card.json"], golden, digest, contents)


@contextmanager
def _reading(file: str, kind: type[BadArtifact] = BadArtifact) -> Iterator[None]:
    """Raise a `BadArtifact` of this kind, which names the file, where its content raises `ValueError`."""
    try:
        yield
    except ValueError as error:
        raise kind(
            f"{file} is not one that this version reads: {error}; an artifact of this version's train.py has a good one"
        ) from None


def _check_card(card: dict[str, Any]) -> None:
    """Raise `ValueError` where the card lacks what a replica reads of it."""
    version = values.label(values.member(card, "version"), "version")
    if not re.fullmatch(SANE, version):
        raise ValueError(f"version is {values.shown(version)}; expected letters, digits, dots, dashes or underscores")
    for part, name in (("engine", "name"), ("data", "source")):
        values.label(values.mapping(values.member(card, part), part).get(name), f"{part}.{name}")


def _listed(document: Any) -> dict[str, str]:
    """Return the digest of each file that `digests.json` lists; raises `ValueError`."""
    digests = values.mapping(document, "the document")
    if len(digests) > MAX_FILES:
        raise ValueError(f"it lists {len(digests):,} files; expected at most {MAX_FILES}")
    for name, digest in digests.items():
        if not re.fullmatch(SANE, name) or name in (".", "..", DIGESTS):
            raise ValueError(f"{values.shown(name)} is not the name of a file; expected letters, digits, dots, dashes")
        if type(digest) is not str or not re.fullmatch(DIGEST, digest):
            raise ValueError(f"the digest of {name} is not valid; expected sha256: and 64 hexadecimal digits")
    return digests


def _most_bytes(name: str) -> int:
    return MAX_MODEL if name in (ONNX, SKOPS) else MAX_DOCUMENT


def _verified(source: Source, name: str, expected: str, most: int) -> bytes:
    try:
        content = source.read(name, most)
    except files.Unreadable as problem:
        raise _unreadable(source.full_name(name), problem) from None
    if digest_of(content) != expected:
        raise Truncated(f"{source.full_name(name)}: changed or truncated; its SHA-256 is not the one in {DIGESTS}")
    return content


def _unreadable(file: str, problem: files.Unreadable) -> BadArtifact:
    kind = Incomplete if isinstance(problem, files.Missing | files.Refused) else BadArtifact
    return kind(f"{file}: can't be read: {problem}")


def described(card: Mapping[str, Any]) -> str:
    """Say in a line what a model was trained on, when, and how good it is, as far as its card says so."""
    data, metrics = card["data"], card.get("metrics")
    parts = [data["source"]]
    if type(rows := data.get("rows")) is int:
        parts.append(f"{rows:,} rows")
    if type(seed := data.get("seed")) is int:
        parts.append(f"seed {seed}")
    if type(digest := data.get("sha256")) is str:
        parts.append(f"sha256:{digest[:12]}")
    if type(created := card.get("created")) is str:
        parts.append(f"trained {created}")
    if isinstance(metrics, dict) and type(accuracy := metrics.get("accuracy")) is float:
        parts.append(f"accuracy {accuracy:.4f}")
    return values.one_line(", ".join(parts))


def is_ahead(text: str, now: datetime) -> bool:
    """Whether a version, or the `created` of a card, is of a time to come: a clock was wrong when it was trained."""
    for pattern in ("%Y%m%d-%H%M%S", "%Y-%m-%dT%H:%M:%SZ"):
        with suppress(ValueError):
            length = len(now.strftime(pattern))
            return datetime.strptime(text[:length], pattern).replace(tzinfo=UTC) > now + SLACK
    return False


if __name__ == "__main__":
    from defects.pushing import main

    main(load, read)  # they are given to it, because it can't import this module: that would be a circle
