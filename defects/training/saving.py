"""Save a trained model in a directory or in the BentoML model store; whether that is possible is known before."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from defects import artifact, directories, store

STORE = "the BentoML model store"


class BadPlace(Exception):
    """A model can't be saved there; the message is one line that says why."""


class Place(NamedTuple):
    """Where a model was saved: what it is called, its directory, and the command that serves it."""

    name: str
    directory: Path
    serve: str


def check(output: Path | None) -> None:
    """Raise `BadPlace` where no model can be saved, or `BadArtifact` where one in the store is damaged.

    It is tried, so that it need not be found out after hours of fitting.
    """
    with _naming(output):
        if output is None:
            store.check()
            return
        artifact.check_replaceable(output)
        directories.check(directories.place_of(output))


def save(files: Mapping[str, bytes], card: Mapping[str, Any], output: Path | None) -> Place:
    """Save the files of an artifact; raises `BadPlace`, and leaves what was there before, where that fails."""
    with _naming(output):
        if output is None:
            tag = store.put(files, card)
            directory, _ = store.locate(None, tag, Path())
            return Place(tag, directory, f"DEFECTS_MODEL={shlex.quote(tag)} make serve")
        artifact.replace(output, files)
        return Place(str(output), output, f"MODEL_DIR={shlex.quote(str(output))} make serve")


@contextmanager
def _naming(output: Path | None) -> Iterator[None]:
    """Raise `BadPlace`, which names the place, where the operating system refuses something."""
    try:
        yield
    except store.BadStore as problem:
        raise BadPlace(str(problem)) from None
    except OSError as error:
        raise BadPlace(_problem(error, output)) from None


def _problem(error: OSError, output: Path | None) -> str:
    if error.strerror is None:  # our own, of what stands at this place
        return str(error)
    at = str(error.filename or "")
    if output is not None and (not at or directories.SCRATCH in at):
        at = str(output)
    where = f"{STORE}: {at}" if output is None and at else at or STORE
    return f"{where}: {error.strerror}; expected a place to write to"
