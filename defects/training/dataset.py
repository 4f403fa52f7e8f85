"""Make labelled tables to train on: of the built-in data, or of a user's CSV or Parquet file, which is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import simulator
from defects.exported import Exported
from defects.features import DefectClass, Feature
from defects.kinds import BOOLEAN, CATEGORY, MISSING, REFUSE
from defects.schema import ANSWER_FIELDS, ModelRows, Schema
from defects.training import left_out, roles, tables
from defects.training.bad_data import BadData, Problems, among, option, shown
from defects.training.inferring import Values, infer
from defects.training.labels import labels
from defects.training.precision import is_wide
from defects.training.reading import AS_WRITTEN, Reading
from defects.training.tables import Choice, Column, Contents
from defects.values import printable

__all__ = ["BadData", "Table", "builtin", "read"]

ROLES: dict[str, Callable[[Column], Any]] = {"groups": roles.groups, "times": roles.times, "weights": roles.weights}


@dataclass(frozen=True)
class Table:
    """Features `[rows, features]` as `Schema.held` has them, NaN where missing; labels as class indices `[rows]`.

    Rows of one group belong together, times tell which are later, and weights how much each counts: all `[rows]`.
    `notes` say what was left out, or taken for something.
    """

    features: ModelRows
    labels: NDArray[np.int64]
    schema: Schema
    source: dict[str, Any]
    groups: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()


def builtin(rows: int, seed: int) -> Table:
    """Return the simulated scan tunnel's first `rows` parcels."""
    scans = simulator.Tunnel(seed=seed).scans(rows)
    source = {"source": "simulated scan tunnel (defects/simulator.py)", "rows": rows, "seed": seed, "label": "defect"}
    return Table(scans.features, scans.labels, simulator.SCHEMA, source)


def read(path: Path, label: str, reading: Reading = AS_WRITTEN) -> Table:
    """Read a CSV or Parquet file: one row an example, with columns of features and one of labels.

    Kinds, ranges, missingness and classes are inferred, but for what `reading` says. Rows are counted from 1, the
    header not included. Raises `BadData`, which names all columns that can't be used.
    """
    return _table_of(_read_columns(path, label, reading), label)


def _read_columns(path: Path, label: str, reading: Reading) -> Contents:
    """Read the columns that are not ignored, with those left out that are no features; raises `BadData`."""
    said = reading.said(label)
    _refuse_twice(path, said)
    names = list(dict.fromkeys(name for name, _ in said))
    contents = tables.read_contents(path, Choice(without=reading.ignore, kept=names), reading)
    refuse_unknown(path, said, contents.header)
    if not len(contents.columns[label].cells):
        raise BadData(f"{path}: has no rows; expected at least two for each class")
    reasons = {name: left_out.reason(column) for name, column in contents.columns.items() if name not in names}
    kept = {name: column for name, column in contents.columns.items() if not reasons.get(name)}
    if kept.keys() <= {label, *reading.roles.values()}:
        what = "only the label column" if len(contents.header) == 1 else "no feature besides the label column"
        raise BadData(f"{path}: has {what} {label!r}; expected at least one feature column")
    return replace(contents, columns=kept, notes=(*contents.notes, *filter(None, reasons.values())))


def refuse_unknown(path: Path, said: Sequence[tuple[str, str]], header: Sequence[str]) -> None:
    """Raise `BadData` for a column that the command names, and the file does not have."""
    for name, role in said:
        if name not in header:
            what = "expected the label column" if role == "--label" else f"{role}: expected it"
            raise BadData(f"{path}: no column {name!r}; {what} {among(name, header)}")


def _refuse_twice(path: Path, said: Sequence[tuple[str, str]]) -> None:
    """Raise `BadData` where the command says two things of one column."""
    found: dict[str, str] = {}
    for name, role in said:
        if role == "--allow-unknown" and found.get(name) == "--category":
            continue
        if found.setdefault(name, role) != role:
            raise BadData(f"{path}: column {name!r} is given to {found[name]} and to {role}; expected one of them")


def _table_of(contents: Contents, label: str) -> Table:
    """Return the labelled table that the columns are; raises `BadData`, which names all that can't be used."""
    columns = dict(contents.columns)
    labelled = columns.pop(label)
    reading = labelled.reading
    problems = Problems(str(contents.path))
    with problems.collected(by_option=False):
        found = labels(labelled)
    made: dict[str, Any] = {}
    for role, name in reading.roles.items():
        with problems.collected(by_option=False):
            made[role] = ROLES[role](columns.pop(name))
    values: list[NDArray[np.float64]] = []
    features: list[Feature] = []
    for column in columns.values():
        with problems.collected():
            one = infer(column)
            features.append(_feature(column, one, contents.exported))
            values.append(one.values)
    problems.refuse()
    schema = Schema(
        tuple(features),
        tuple(_class(labelled, name, contents.exported) for name in found.classes),
        title=contents.exported.schema.title if contents.exported else title_of(contents.path),
        label_type=found.type,
        label_name=_label_name(labelled),
    )
    held = schema.held(np.column_stack(values))
    return Table(held, found.indices, schema, source_of(contents, label, len(held)), notes=contents.notes, **made)


def title_of(path: Path) -> str:
    """Return what a schema calls rows of a file."""
    return printable(Path(path.name.removesuffix(".gz")).stem).replace("_", " ")


def source_of(contents: Contents, label: str, rows: int) -> dict[str, Any]:
    """Return what the card says of the data's source."""
    with contents.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = printable(contents.path.name)
    reading = contents.columns[label].reading
    named = {"group": reading.group, "time": reading.time, "weight": reading.weight}
    return {
        "source": name,
        "rows": rows,
        "label": label,
        "sha256": digest,
        "format": contents.format.to_json(),
        **{role: column for role, column in named.items() if column is not None},
    }


def _label_name(column: Column) -> str:
    """Return what answers call the class; raises `BadData` for a name that another field of an answer has."""
    if column.name in ANSWER_FIELDS:
        raise column.bad(
            None, f"has the name of another field of every answer; rename it (not {', '.join(ANSWER_FIELDS)})"
        )
    return column.name


def _class(column: Column, name: str, exported: Exported | None) -> DefectClass:
    try:
        return DefectClass(name, "" if exported is None else exported.description_of(name))
    except ValueError as error:
        raise column.bad(None, f"has the class {shown(name)!r}: its {error}") from None


def _feature(column: Column, found: Values, exported: Exported | None) -> Feature:
    try:
        feature = _described(column, found)
        return feature if exported is None else exported.described(feature, found.values)
    except ValueError as error:
        raise BadData(f"{column.path}: column {shown(column.name)!r}: its {error}") from None


def _described(column: Column, found: Values) -> Feature:
    missing = np.isnan(found.values)
    if missing.all():
        raise column.bad(None, "is empty in every row; expected at least one value")
    unknown = column.name in column.reading.allow_unknown
    if unknown and found.kind != CATEGORY:
        problem = f"holds {found.kind}s; expected categories, as --allow-unknown is for them"
        raise column.bad(None, problem, [option("--category", column.name)])
    optional = bool(missing.any()) or unknown
    if found.kind == BOOLEAN:
        return Feature(column.name, low=0, high=1, optional=optional, kind=BOOLEAN)
    if found.kind == CATEGORY:
        handling = MISSING if unknown else REFUSE
        return Feature(column.name, optional=optional, kind=CATEGORY, categories=found.categories, unknown=handling)
    return Feature(column.name, optional=optional, wide=is_wide(found.values[~missing]))
