"""Read and write a trained model as files: a directory that lists what it holds, with digests.

`schema.json`, `card.json`, `reference.json` (the training distribution), `golden.json` (inputs with expected
probabilities), `model.onnx` or `model.skops`, and `digests.json` with the SHA-256 of each of them. The artifact's own
digest is the SHA-256 of `digests.json`: digests inside the directory prove that it is whole, the one pinned outside
proves that it is the one meant.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.schema import ModelRows, Schema
from defects.settings import SANE, Fatal

NAME = "defect_classifier"
MAX_GOLDEN = 1024  # rows
DIGESTS = "digests.json"
ONNX, SKOPS = "model.onnx", "model.skops"
REQUIRED = ("schema.json", "card.json", "reference.json", "golden.json")


class NoModel(Fatal):
    exit_code = 66


class BadArtifact(Fatal):
    exit_code = 65


@dataclass(frozen=True)
class Golden:
    """Inputs `[n, features]` with their probabilities `[n, classes]`, how far an answer may be off, and their classes
    `[n]`, by number, where these are to be compared too."""

    rows: ModelRows
    probabilities: NDArray[np.float64]
    tolerance: float
    classes: NDArray[np.int64] | None = None

    @classmethod
    def from_json(cls, data: dict[str, Any], schema: Schema) -> Golden:
        """Read golden inputs; raises `ValueError`, `TypeError` or `KeyError` where they are not of this schema."""
        rows, probabilities = np.array(data["rows"], np.float64), np.array(data["probabilities"], np.float64)
        classes, count = np.array(data["classes"], np.int64), len(rows)
        if not 1 <= count <= MAX_GOLDEN or rows.shape != (count, len(schema.names)):
            raise ValueError(f"golden rows of shape {rows.shape} for {len(schema.names)} features")
        if probabilities.shape != (count, len(schema.classes)):
            raise ValueError(f"golden probabilities of shape {probabilities.shape} for {len(schema.classes)} classes")
        if classes.shape != (count,):
            raise ValueError(f"golden classes of shape {classes.shape} for {count} rows")
        return cls(schema.held(rows), probabilities, float(data["tolerance"]), classes)


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


def listing(files: Mapping[str, bytes]) -> bytes:
    """Return the content of `digests.json`; its digest is the artifact's."""
    return dump({name: digest_of(content) for name, content in sorted(files.items())})


def write(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write `files` and their digests into an existing directory."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
    (directory / DIGESTS).write_bytes(listing(files))


def replace(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write an artifact at `directory`, in place of one that may be there; a reader never sees half of it.

    Raises `FileExistsError` where something other than an artifact stands there.
    """
    check_replaceable(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        write(new, files)
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise


def check_replaceable(directory: Path) -> None:
    """Raise `FileExistsError` where something other than an artifact stands at `directory`."""
    if directory.exists() and not (directory.is_dir() and (_is_artifact(directory) or not any(directory.iterdir()))):
        raise FileExistsError(f"{directory} exists and is not a model artifact; expected a new or empty directory")


def _is_artifact(directory: Path) -> bool:
    return (directory / DIGESTS).is_file()


def load(directory: Path, expected_digest: str | None = None) -> Artifact:
    """Read and verify the artifact in `directory`; raises `NoModel` or `BadArtifact`, which names the file."""
    try:
        there, complete = directory.is_dir(), _is_artifact(directory)
    except OSError as error:  # a directory that this user may not enter
        raise BadArtifact(f"{directory}: can't be read: {error.strerror}") from None
    if not there:
        raise NoModel(f"no model: {directory} is not a directory; expected a model artifact (train.py makes one)")
    if not complete:
        raise NoModel(f"no model: {directory} has no {DIGESTS}; expected a model artifact (train.py makes one)")
    content = _read(directory, DIGESTS)
    digest = digest_of(content)
    if expected_digest is not None and digest != expected_digest:
        raise BadArtifact(
            f"{directory}: the artifact's digest is {digest}; DEFECTS_MODEL_DIGEST asks {expected_digest}"
        )
    files = {name: _verified(directory, name, expected) for name, expected in _listed(content).items()}
    for name in REQUIRED:
        if name not in files:
            raise BadArtifact(f"{directory / DIGESTS}: {name} is not listed; expected a complete artifact")
    try:
        schema, card = Schema.from_json(json.loads(files["schema.json"])), json.loads(files["card.json"])
        golden = Golden.from_json(json.loads(files["golden.json"]), schema)
        artifact = Artifact(schema, card, golden, digest, files)
        if not re.fullmatch(SANE, artifact.version) or not artifact.engine:
            raise ValueError("the version is not letters, digits, dots and dashes")
    except (ValueError, TypeError, KeyError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadArtifact(
            f"{directory}: schema.json, card.json or golden.json is not one that this version reads: {problem}; "
            "expected an artifact of this version's train.py"
        ) from None
    return artifact


def _listed(content: bytes) -> dict[str, str]:
    try:
        digests = json.loads(content)
    except ValueError:
        digests = None
    if not isinstance(digests, dict) or any("/" in name or name in ("", ".", "..") for name in digests):
        raise BadArtifact(f"{DIGESTS}: not readable; expected a JSON object of file names and SHA-256 digests")
    return digests


def _verified(directory: Path, name: str, expected: str) -> bytes:
    content = _read(directory, name)
    if digest_of(content) != expected:
        raise BadArtifact(f"{directory / name}: changed or truncated; its SHA-256 is not the one in {DIGESTS}")
    return content


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise BadArtifact(f"{directory / name}: can't be read: {error.strerror}") from None


def store(files: Mapping[str, bytes], card: Mapping[str, Any]) -> str:
    """Put an artifact into the BentoML model store and return its tag.

    Raises `BadArtifact` where another model in the store is damaged.
    """
    import bentoml

    engine, metrics = card["engine"]["name"], card["metrics"]
    try:
        with bentoml.models.create(
            f"{NAME}:{card['version']}",
            module=engine,  # the one column of `bentoml models list` that is ours to fill
            labels={"engine": engine, "estimator": card["estimator"]["name"]},
            metadata={
                "digest": digest_of(listing(files)),
                "data": card["data"]["source"],
                **{name: metrics[name] for name in ("accuracy", "macro_f1", "log_loss")},
            },
        ) as model:
            write(Path(model.path), files)
    except Exception as error:
        if damaged := _damaged_models():  # it looks at the others to find the newest
            raise damaged from error
        raise
    return str(model.tag)


def locate(model_dir: Path | None, tag: str | None, bento: Path) -> tuple[Path, str | None]:
    """Return the directory of the artifact to serve, and its exact tag where it comes from a model store.

    In this order: `model_dir`; `tag` in the BentoML model store; the model that the Bento at `bento` was built with
    (a store holds newer ones too); the newest in the store. Raises `NoModel`, or `BadArtifact` for a damaged one.
    """
    if model_dir is not None:
        return model_dir, None
    packed = _packed_tag(bento)
    if tag is None and packed is not None:
        directory = bento / "models" / packed.replace(":", "/")
        if directory.is_dir():  # in a container the model lies inside the Bento
            return directory, packed
    import bentoml

    tag = tag or packed or f"{NAME}:latest"
    try:
        model = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        raise NoModel(f"no model: {tag} is not in the BentoML model store; run train.py, or set MODEL_DIR") from None
    except Exception as error:  # it has many for a model that it can't read
        problem = f"{tag}: the BentoML model store can't give it: {_first_line(error)}; expected one model's tag"
        raise _damaged_models() or BadArtifact(problem) from None
    return Path(model.path), str(model.tag)


def _damaged_models() -> BadArtifact | None:
    """Find a damaged model in the BentoML model store, and say what to do; `None` when all can be read."""
    import bentoml
    from bentoml._internal.configuration.containers import BentoMLContainer

    directory = Path(BentoMLContainer.model_store_dir.get()) / NAME
    for version in sorted(directory.iterdir() if directory.is_dir() else ()):
        if version.is_dir():
            try:
                bentoml.models.get(f"{NAME}:{version.name}")
            except Exception as error:
                problem = f"half-written or damaged: {_first_line(error)}"
                return BadArtifact(f"{NAME}:{version.name} in the BentoML model store is {problem}; delete {version}")
    return None


def _first_line(error: Exception) -> str:
    text = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return text.splitlines()[0] if text else type(error).__name__


def _packed_tag(bento: Path) -> str | None:
    """Return the tag of the model that a built Bento names; `None` outside a Bento, or in one without a model."""
    description = bento / "bento.yaml"
    if not description.is_file():
        return None
    import yaml

    info = yaml.safe_load(description.read_text("utf-8"))
    tags = [m["tag"] for s in info.get("services", []) for m in s.get("models", [])]
    return next((tag for tag in tags if tag.startswith(f"{NAME}:")), None)
