"""The BentoML model store: put artifacts into it, and find the one to serve.

All checkouts of the code share one store, so each model in it says which of them has trained it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from defects import artifact, directories, files
from defects.artifact import SLACK, BadArtifact, NoModel
from defects.settings import Fatal

CHECKOUT = "checkout"  # the label of a model in the store that says who trained it
CHAMPION = "champion"  # the label of one that passed a comparison; its value counts up, so that the last one is known
LATEST = f"{artifact.NAME}:latest"


def checkout() -> str:
    """Return an id of this checkout of the code, by where it lies: one model store can have models of several."""
    return hashlib.sha256(os.fsencode(Path(__file__).resolve().parents[1])).hexdigest()[:16]


def trained_here(tag: str) -> bool:
    """Whether the model of this tag in the BentoML model store was trained by this checkout."""
    import bentoml

    return bentoml.models.get(tag).info.labels.get(CHECKOUT) == checkout()


def newest_trained_here() -> str | None:
    """Return the tag of the newest model in the store that this checkout has trained; `None` where there is none."""
    import bentoml

    ours = [model for model in bentoml.models.list(artifact.NAME) if model.info.labels.get(CHECKOUT) == checkout()]
    return str(max(ours, key=lambda model: model.creation_time).tag) if ours else None


class BadStore(Fatal):
    """The BentoML model store can't be opened, or written to: BENTOML_HOME is wrong."""

    exit_code = 78


def check() -> None:
    """Raise `BadStore` or `OSError` where no model can be put into the store, `BadArtifact` where one is damaged."""
    models = _models()
    for folder in (models.parent, models):  # nothing is tried in them: who lists models would stumble over it
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise BadStore(f"{folder} can't be written to; expected a directory for models, or another BENTOML_HOME")
    tempfile.gettempdir()  # BentoML writes there first
    directories.check(directories.place_of(_scratch() / "model"))
    if damaged := _damaged_models():
        raise damaged


def _models() -> Path:
    """Return the directory of our models in the store; raises `BadStore`."""
    try:
        from bentoml._internal.configuration.containers import BentoMLContainer

        home = BentoMLContainer.bentoml_home.get()
        models = Path(BentoMLContainer.model_store_dir.get())
    except Exception as error:  # of the file system, or of BentoML's own configuration
        problem = error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)
        at = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        raise BadStore(f"the BentoML model store: {at}{problem}; expected BENTOML_HOME to be a directory") from None
    if not home:
        raise BadStore("BENTOML_HOME is empty; expected a directory, or no BENTOML_HOME")
    return models / artifact.NAME


def _scratch() -> Path:
    """Return a directory for unfinished models, on the same disk as the store and where nobody looks for models."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    models, scratch = _models().parent, Path(BentoMLContainer.tmp_bento_store_dir.get())
    return scratch if scratch.stat().st_dev == models.stat().st_dev else models


def put(contents: Mapping[str, bytes], card: Mapping[str, Any]) -> str:
    """Put an artifact into the BentoML model store and return its tag.

    Whoever looks finds the whole model or none of it. Raises `OSError`, `FileExistsError` where the store has this
    version, or `BadArtifact` where another model in the store is damaged.
    """
    import bentoml

    engine, metrics = card["engine"]["name"], card["metrics"]
    try:
        with bentoml.models.create(
            f"{artifact.NAME}:{card['version']}",
            _model_store=cast(Any, _Whole()),
            module=engine,  # the one column of `bentoml models list` that is ours to fill
            labels={"engine": engine, "estimator": card["estimator"]["name"], CHECKOUT: checkout()},
            metadata={
                "digest": artifact.digest_of(artifact.listing(contents)),
                "data": card["data"]["source"],
                **{name: metrics[name] for name in ("accuracy", "macro_f1", "log_loss")},
            },
        ) as model:
            artifact.write(Path(model.path), contents)
    except OSError:
        raise
    except Exception as error:
        if damaged := _damaged_models():  # it looks at the others to find the newest
            raise damaged from error
        raise
    return str(model.tag)


class _Whole:
    """Takes the place of BentoML's own way to fill its store, which leaves half a model where it is stopped."""

    @contextmanager
    def register(self, tag: Any) -> Iterator[str]:
        """Give a directory for a model's files, and move it into the store when they are all there."""
        import bentoml

        place, latest = _models() / tag.version, _models() / "latest"
        with directories.scratch(_scratch()) as scratch:
            yield str(scratch / "new")
            directories.sync(scratch / "new")
            place.parent.mkdir(exist_ok=True)
            directories.put_new(scratch / "new", place)
            newest = not latest.exists() or _created(bentoml.models.get(tag)) >= _created(bentoml.models.get(tag.name))
            if newest:
                directories.write(scratch, {"latest": tag.version.encode()})
                (scratch / "latest").replace(latest)


def _created(model: Any) -> datetime:
    created: datetime = model.creation_time
    return created


def locate(model_dir: Path | None, tag: str | None, bento: Path) -> tuple[Path, str | None]:
    """Return the directory of the artifact to serve, and its exact tag where it comes from a model store.

    In this order: `model_dir`; `tag` in the BentoML model store; the model that the Bento at `bento` was built with
    (a store holds newer ones too); the champion of the store; the newest in it. Raises `NoModel`, `BadStore`, or
    `BadArtifact` for a damaged one.
    """
    if model_dir is not None:
        return model_dir, None
    packed = _packed_tag(bento)
    if tag is None and packed is not None:
        directory = bento / "models" / packed.replace(":", "/")
        if directory.is_dir():  # in a container the model lies inside the Bento
            return directory, packed
    _models()
    import bentoml

    tag = tag or packed or champion() or LATEST
    try:
        model = bentoml.models.get(tag)
    except bentoml.exceptions.NotFound:
        raise NoModel(f"no model: {tag} is not in the BentoML model store; run train.py, or set MODEL_DIR") from None
    except Exception as error:  # it has many for a model that it can't read
        problem = f"{tag}: the BentoML model store can't give it: {_first_line(error)}; expected one model's tag"
        raise _damaged_models() or BadArtifact(problem) from None
    return Path(model.path), str(model.tag)


# --- the champion ----------------------------------------------------------------------------------------------------


def champion() -> str | None:
    """Return the tag of the champion: the model that was compared with others last, and passed.

    All checkouts share the store. So it is this checkout's champion, or else that of whoever trained the newest model.
    """
    labels = _champions()
    if not labels:
        return None
    import bentoml

    found = _of_checkout(labels, checkout())
    if not found:
        with suppress(Exception):  # what is wrong with the newest is said where it is loaded
            found = _of_checkout(labels, bentoml.models.get(LATEST).info.labels.get(CHECKOUT))
    return max(found, key=lambda tag: _number(labels[tag])) if found else None


def make_champion(tag: str) -> None:
    """Give a model of the store the label of the champion; the earlier champion of its checkout loses it.

    The new one has it first: whoever looks in between takes the one with the higher number.
    """
    import bentoml

    labels = _champions()
    ours = bentoml.models.get(tag).info.labels.get(CHECKOUT)
    others = [other for other in _of_checkout(labels, ours) if other != tag]
    _label(tag, str(1 + max((_number(labels[other]) for other in labels), default=0)))
    for other in others:
        _label(other, None)


def _of_checkout(labels: Mapping[str, Mapping[str, str]], owner: str | None) -> list[str]:
    return [tag for tag, found in labels.items() if found.get(CHECKOUT) == owner]


def _number(labels: Mapping[str, str]) -> int:
    text = labels[CHAMPION]
    return int(text) if text.isascii() and text.isdigit() else 0


def _champions() -> dict[str, Mapping[str, str]]:
    """Return the labels of each model that has the champion's, by tag; damaged models are left out."""
    import bentoml

    found: dict[str, Mapping[str, str]] = {}
    for file in sorted(_models().glob("*/model.yaml")):
        with suppress(Exception):  # whatever makes a model unreadable
            if CHAMPION.encode() in files.read(file, artifact.MAX_DOCUMENT):  # YAML takes milliseconds for each model
                model = bentoml.models.get(f"{artifact.NAME}:{file.parent.name}")
                if CHAMPION in model.info.labels:
                    found[str(model.tag)] = model.info.labels
    return found


def _label(tag: str, value: str | None) -> None:
    """Set the champion's label of a stored model, or take it away; a reader sees the old file or the new one."""
    import bentoml

    model = bentoml.models.get(tag)
    model.info.labels.pop(CHAMPION, None)
    if value is not None:
        model.info.labels[CHAMPION] = value
    with directories.scratch(_scratch()) as scratch:
        directories.write(scratch, {"model.yaml": str(model.info.dump()).encode()})
        (scratch / "model.yaml").replace(Path(model.path) / "model.yaml")


def notes(tag: str, now: datetime) -> list[str]:
    """Say what a person should know of a model that was just put into the store: whether it is the one to be served."""
    found = [said] if (said := newest_is_ahead(now)) else []
    served = champion()
    if served == tag:
        found.append("it is the champion now, and served before newer models")
    elif served:
        found.append(f"the champion {served} is served before it; expected --champion {CHAMPION} to compare it")
    return found


def newest_is_ahead(now: datetime) -> str | None:
    """Say that the newest model of the store is of a time to come; `None` where it isn't."""
    import bentoml

    try:
        model = bentoml.models.get(LATEST)
    except Exception:  # there is none, or it is damaged, which is said elsewhere
        return None
    created = model.info.creation_time
    created = created if created.tzinfo else created.replace(tzinfo=UTC)
    if not (created > now + SLACK or artifact.is_ahead(model.tag.version or "", now)):
        return None
    return (
        f"the newest model of the store, {model.tag}, is of {created:%Y-%m-%d %H:%M} UTC, a time to come: a clock was "
        "wrong. Later models are not the newest while it is there; expected --champion, which decides what is served, "
        f"or bentoml models delete {model.tag}"
    )


def _damaged_models() -> BadArtifact | None:
    """Find a damaged model in the BentoML model store, and say what to do; `None` when all can be read."""
    import bentoml

    directory = _models()
    for version in sorted(directory.iterdir() if directory.is_dir() else ()):
        if version.is_dir():
            try:
                bentoml.models.get(f"{artifact.NAME}:{version.name}")
            except Exception as error:
                problem = f"half-written or damaged: {_first_line(error)}"
                tag = f"{artifact.NAME}:{version.name}"
                return BadArtifact(f"{tag} in the BentoML model store is {problem}; delete {version}")
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

    try:
        info = yaml.safe_load(files.read(description, artifact.MAX_DOCUMENT))
        tags = [m["tag"] for s in info.get("services", []) for m in s.get("models", [])]
        return next((tag for tag in tags if tag.startswith(f"{artifact.NAME}:")), None)
    except (files.Unreadable, yaml.YAMLError, AttributeError, KeyError, TypeError, RecursionError) as error:
        problem = f"{description}: can't be read: {_first_line(error)}; expected one that `bentoml build` has made"
        raise BadArtifact(problem) from None
