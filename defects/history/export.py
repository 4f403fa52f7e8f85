"""Export records as a table to train on: the features as the model took them, and what turned out to be true.

Each record is read by its own model's schema. Records of several models go into one file where these have the same
columns: features of the same names and kinds, and the same label. Memory holds at most 50,000 records at a time.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from defects import directories, files
from defects.history.columns import Columns, Decoder, columns_of
from defects.history.database import Database, Row, Transaction
from defects.history.record import SERVED
from defects.identifiers import first_id
from defects.schema import Schema
from defects.values import shown

SUFFIX = ".parquet"
PROGRESS_SECONDS = 2.0
VALUES_AT_ONCE, MOST_AT_ONCE = 1 << 18, 1_000  # features, and records, that the database gives at a time
MOST_NAMED = 10  # in a message
LAST_ID = UUID(int=2**128 - 1)

Say = Callable[[str], None]


class CannotExport(Exception):
    """There is nothing to export, or no place for it; the message is one line that says what to do."""


@dataclass(frozen=True)
class Selection:
    """Which records: of predictions made in `[since, until)`, only those with an outcome if `labelled`.

    `models` are versions or digests, and `source` is what `x-source` said; without them, of every model and source.
    """

    since: datetime
    until: datetime | None = None
    labelled: bool = False
    models: tuple[str, ...] = ()
    source: str | None = None

    @property
    def ids(self) -> tuple[UUID, UUID]:
        """The first id that is meant, and the first one beyond."""
        return first_id(self.since), LAST_ID if self.until is None else first_id(self.until)


@dataclass(frozen=True)
class Result:
    """What was exported: how many records, by how many models, and the options that `train.py` needs."""

    path: Path
    records: int
    models: int
    columns: Columns
    notes: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that trains on the file."""
        label = shlex.quote(self.columns.schema.label_name)
        return f"python train.py --data {shlex.quote(str(self.path))} --label {label}"


@dataclass(frozen=True)
class _Model:
    """A model with records in the selection: its number, and how many have values of features."""

    number: int
    version: str
    schema: Schema
    records: int
    with_features: int


async def export(
    database: Database, selection: Selection, path: Path, say: Say, *, details: bool = False, force: bool = False
) -> Result:
    """Write the records as a Parquet file, whole or not at all, and return what was written.

    `details` adds columns that are no features: ids, times, answers. An existing file is replaced only with `force`.
    Raises `CannotExport` and what the database raises.
    """
    place = _place(path, force)
    table_file = _library()
    async with database.transaction(reading=True) as transaction:
        chosen = await _chosen(transaction, selection)
        models = chosen.models
        columns = _columns(models, details)
        labels = {model.number: model.schema.labels for model in models}
        with _written(path), directories.scratch(place.parent) as folder:
            with table_file.TableFile(folder / path.name, columns, labels) as file:
                await _copy(transaction, chosen, columns, file, say)
            left_out = sum(model.records - model.with_features for model in models)
            if not file.records:
                raise CannotExport(_nothing(selection, left_out))
            table_file.sync(folder / path.name)
            _place(path, force)
            (folder / path.name).replace(place)
    return Result(path, file.records, len(models), columns, _notes(columns, file, left_out))


# --- where it goes -----------------------------------------------------------------------------------------------


def _place(path: Path, force: bool) -> Path:
    """Return the absolute path; raises `CannotExport` where no file can be put."""
    if path.suffix != SUFFIX:
        raise CannotExport(f"{path}: expected a name that ends with {SUFFIX}")
    try:
        place = directories.place_of(path)
    except OSError as error:
        raise CannotExport(f"{path}: {error.strerror or error}; expected a name of a file") from None
    if place.exists() and not place.is_file():
        raise CannotExport(f"{path}: is no regular file; expected a file, or a name that is not taken")
    if place.exists() and not force:
        raise CannotExport(f"{path}: exists; expected a name that is not taken, or --force to replace it")
    if not place.parent.is_dir():
        raise CannotExport(f"{path}: there is no directory {path.parent}; expected an existing one")
    return place


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Raise `CannotExport` where the operating system does not let the file be written."""
    try:
        yield
    except OSError as error:
        raise CannotExport(f"{path}: {error.strerror or error}; expected a place to write to") from None


def _library() -> Any:
    try:
        from defects.history import table_file
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pyarrow":
            raise
        raise CannotExport(
            "pyarrow is not installed here, nor is it in the image; expected the environment of training: make setup"
        ) from None
    return table_file


# --- which records -----------------------------------------------------------------------------------------------

_MODELS = """
SELECT m.no, m.version, m.digest, m.schema, count(*) AS records,
       count(p.features) + count(p.wide_features) AS with_features
FROM predictions p JOIN models m ON m.no = p.model
WHERE {where}
GROUP BY m.no, m.version, m.digest, m.schema ORDER BY m.no
"""


class _Chosen(NamedTuple):
    """The records that are meant: what SQL says of them, its values, and their models, the newest last."""

    condition: str
    values: list[Any]
    models: list[_Model]
    labelled: bool


async def _chosen(transaction: Transaction, selection: Selection) -> _Chosen:
    """Choose the records; raises `CannotExport` where there are none, or of models with different columns."""
    condition, values = await _condition(transaction, selection)
    found = await transaction.fetch(_MODELS.format(where=condition), *values)
    if not found:
        raise CannotExport(_nothing(selection, 0))
    if selection.models:
        _refuse_unknown_models(selection, found)
        found = [row for row in found if {row["version"], row["digest"]} & {*selection.models}]
    models = [_model(row) for row in found]
    _refuse_other_columns(models)
    return _Chosen(condition, values, models, selection.labelled)


def _model(row: Row) -> _Model:
    try:
        schema = Schema.from_json(files.read_json(row["schema"].encode()))
    except ValueError as error:
        raise CannotExport(f"model {row['version']}: its schema in the database can't be read: {error}") from None
    return _Model(row["no"], row["version"], schema, row["records"], row["with_features"])


async def _condition(transaction: Transaction, selection: Selection) -> tuple[str, list[Any]]:
    """Return the condition for the records, and its values."""
    values: list[Any] = [*selection.ids]
    where = f"p.id >= $1 AND p.id < $2 AND p.kind = {SERVED}"
    if selection.source is not None:
        found = await transaction.fetch("SELECT no FROM sources WHERE name = $1", selection.source)
        if not found:
            raise CannotExport(f"--source: no prediction came from {selection.source!r}; expected a source of some")
        values.append(found[0]["no"])
        where += " AND p.source = $3"
    return where, values


def _refuse_unknown_models(selection: Selection, found: Sequence[Row]) -> None:
    known = {name for row in found for name in (row["version"], row["digest"])}
    for name in selection.models:
        if name not in known:
            versions = ", ".join(row["version"] for row in found)
            raise CannotExport(f"--model: no selected record is of the model {name!r}; expected {versions}")


def _refuse_other_columns(models: Sequence[_Model]) -> None:
    """Raise `CannotExport` where not all models have the same columns, with the options for those that do."""
    groups: dict[Any, list[_Model]] = {}
    for model in models:
        groups.setdefault(_columns_key(model.schema), []).append(model)
    if len(groups) == 1:
        return
    choices = "; ".join(
        f"{' '.join(f'--model {model.version}' for model in group)} ({sum(m.records for m in group):,} records)"
        for group in groups.values()
    )
    newest, other = models[-1], next(m for m in models if m not in groups[_columns_key(models[-1].schema)])
    difference = _difference(other.schema, newest.schema)
    raise CannotExport(
        f"the records are of models with different columns ({newest.version} {difference}, unlike {other.version}); "
        f"expected those of one kind: {choices}"
    )


def _columns_key(schema: Schema) -> Any:
    return frozenset((f.name, f.kind) for f in schema.features), schema.label_name, schema.label_type


def _difference(old: Schema, new: Schema) -> str:
    """Say what is different in the new one's columns."""
    before, after = ({f.name: f.kind for f in schema.features} for schema in (old, new))
    for name, kind in after.items():
        if name not in before:
            return f"has a feature {name!r}"
        if kind != before[name]:
            return f"has {name!r} as a {kind}"
    for name in before:
        if name not in after:
            return f"has no feature {name!r}"
    if old.label_name != new.label_name:
        return f"has the label {new.label_name!r}"
    return f"has labels of the type {new.label_type}"


def _nothing(selection: Selection, left_out: int) -> str:
    until = "now" if selection.until is None else f"{selection.until:%Y-%m-%dT%H:%M:%SZ}"
    when = f"from {selection.since:%Y-%m-%dT%H:%M:%SZ} to {until}"
    if left_out:
        return f"the {left_out:,} records {when} have no values of features; expected DEFECTS_HISTORY_FEATURES=1"
    what = "with an outcome " if selection.labelled else ""
    return f"there are no records {what}{when}; expected some, nothing is written"


def _columns(models: Sequence[_Model], details: bool) -> Columns:
    try:
        return columns_of([model.schema for model in models], details=details)
    except ValueError as error:  # such as too many categories
        raise CannotExport(f"the records of these models can't be one table: {error}; expected --model") from None


# --- what is written ---------------------------------------------------------------------------------------------

_RECORDS = """
SELECT p.id, p.model, p.features, p.wide_features, o.class AS outcome{details}
FROM predictions p {join} (
    SELECT prediction_id, class, origin, occurred_at, received_at,
           row_number() OVER (PARTITION BY prediction_id ORDER BY received_at DESC, origin) AS nth
    FROM outcomes WHERE prediction_id >= $1 AND prediction_id < $2 AND replaced_at IS NULL
) o ON o.prediction_id = p.id AND o.nth = 1{names}
WHERE {where} AND p.model IN ({models}) AND (p.features IS NOT NULL OR p.wide_features IS NOT NULL)
ORDER BY p.id
"""
_DETAILS = """, p.request_id, p.row, p.class, p.probabilities, m.version, r.name AS revision, s.name AS source,
       o.origin, o.occurred_at, o.received_at"""
_NAMES = """
JOIN models m ON m.no = p.model JOIN revisions r ON r.no = p.revision JOIN sources s ON s.no = p.source"""


async def _copy(transaction: Transaction, chosen: _Chosen, columns: Columns, file: Any, say: Say) -> None:
    """Write the records into a file, in the order of their ids."""
    models = chosen.models
    sql = _RECORDS.format(
        details=_DETAILS if columns.details else "",
        names=_NAMES if columns.details else "",
        join="JOIN" if chosen.labelled else "LEFT JOIN",
        where=chosen.condition,
        models=", ".join(str(model.number) for model in models),
    )
    decoders = {model.number: Decoder(model.schema, columns) for model in models}
    at_once = max(1, min(MOST_AT_ONCE, VALUES_AT_ONCE // len(columns.schema.features)))
    total = "" if chosen.labelled else f" of {sum(model.with_features for model in models):,}"
    due = time.monotonic() + PROGRESS_SECONDS
    async for rows in transaction.stream(sql, *chosen.values, rows=at_once):
        file.write(_decoded(decoders, rows), rows)
        if time.monotonic() >= due:
            say(f"{file.records:,}{total} records")
            due = time.monotonic() + PROGRESS_SECONDS


def _decoded(decoders: Mapping[int, Decoder], rows: Sequence[Row]) -> Any:
    """Return the values `[rows, columns]`, each record's read by its own model's decoder."""
    models = np.array([row["model"] for row in rows])
    made = np.empty((len(rows), next(iter(decoders.values())).width))
    for number in np.unique(models).tolist():
        places = np.flatnonzero(models == number)
        made[places] = decoders[number].values([rows[place] for place in places.tolist()])
    return made


def _notes(columns: Columns, file: Any, left_out: int) -> tuple[str, ...]:
    """Return what whoever trains on the file should know."""
    names = columns.schema.names
    empty = [names[column] for column in np.flatnonzero(file.filled == 0).tolist()]
    absent = [name for name in columns.schema.class_names if name not in file.classes] if file.classes else []
    notes = []
    if left_out:
        notes.append(f"{left_out:,} records without values of features are left out")
    if file.unreadable:
        notes.append(f"{file.unreadable:,} outcomes are no labels of the type {columns.schema.label_type}: left out")
    if empty:
        notes.append(f"no record has a value of {_some(empty)}: training leaves that out, and its model refuses it")
    if absent:
        notes.append(
            f"no record has the outcome {_some(absent)}: a model that is trained on this file alone never says it"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    """Return the first few names, for a message."""
    listed = ", ".join(shown(name) for name in names[:MOST_NAMED])
    return listed if len(names) <= MOST_NAMED else f"{listed} and {len(names) - MOST_NAMED:,} more"
