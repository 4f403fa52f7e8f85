"""Split a table into the rows that a model is fitted on, and those on which it is evaluated.

Rows of a table with groups are split by group, rows of one with times by time, and others by class (`folds.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from defects.training import folds
from defects.training.bootstrap import Labels
from defects.training.dataset import BadData, Table
from defects.training.folds import Numbers


@dataclass(frozen=True)
class Split:
    """The numbers of the fitted rows and of the held-out ones; `how` they were chosen, and by which column."""

    fitted: Numbers
    held: Numbers
    how: str
    column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as the card has it."""
        count = len(self.fitted) + len(self.held)
        return {
            "how": self.how,
            "fitted_rows": len(self.fitted),
            "held_out_rows": len(self.held),
            "held_out_share": len(self.held) / count,
        } | ({"column": self.column} if self.column else {})


def split(table: Table, share: float, seed: int) -> Split:
    """Hold out so large a share of the table's rows; raises `BadData` where a class is not in both parts, or a column
    has no value in the fitted one."""
    how, column = _how(table)
    try:
        fitted, held = _parts(table, share, seed)
    except folds.NotPossible as error:
        raise BadData(_not_possible(table, how, column, error)) from None
    found = Split(fitted, held, how, column)
    _check(table, found)
    return found


def splits(table: Table, count: int, seed: int) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the fitted and the tested rows of each fold of a cross-validation, in the way of `split`."""
    try:
        yield from folds.folds(table.labels, count, seed, groups=table.groups, times=table.times)
    except folds.NotPossible as error:
        raise BadData(f"{table.source['source']}: --cv {count}: {error}") from None


def _how(table: Table) -> tuple[str, str | None]:
    if table.groups is not None and table.times is not None:
        raise BadData(f"{table.source['source']}: --group and --time: expected one of them; each splits in its own way")
    if table.groups is not None:
        return "group", table.source.get("group", "")
    if table.times is not None:
        return "time", table.source.get("time", "")
    return "stratified", None


def _parts(table: Table, share: float, seed: int) -> tuple[Numbers, Numbers]:
    if table.groups is not None:
        _check_groups(table, table.groups)
        return folds.by_group(table.groups, table.labels, share, seed)
    if table.times is not None:
        return folds.by_time(table.times, share)
    return folds.stratified(table.labels, share, seed)


def _check_groups(table: Table, groups: Labels) -> None:
    for index, name in enumerate(table.schema.class_names):
        if len(np.unique(groups[table.labels == index])) < 2:
            raise folds.NotPossible(f"class {name!r} is in one group only; expected each class in two or more")


def _not_possible(table: Table, how: str, column: str | None, error: folds.NotPossible) -> str:
    source, count = table.source["source"], len(table.labels)
    if how != "stratified":
        return f"{source}: --{how} {column}: {error}"
    return (
        f"{source}: {count} rows can't be split into a fitted and a held-out part "
        f"with all {len(table.schema.classes)} classes in both ({error}); expected more rows, or another --test-share"
    )


def _check(table: Table, found: Split) -> None:
    source, names = table.source["source"], table.schema.class_names
    counts = np.bincount(table.labels[found.fitted], minlength=len(names))
    if not counts.all():
        rare = names[int(counts.argmin())]
        if found.how == "time":
            raise BadData(
                f"{source}: --time {found.column}: class {rare!r} is among the newest rows only, so there is none "
                "to fit on; expected a smaller --test-share, or rows without this class"
            )
        raise BadData(f"{source}: class {rare!r} has no row left to fit on; expected more of them")
    held = np.bincount(table.labels[found.held], minlength=len(names))
    if found.how == "time" and not held.all():
        raise BadData(
            f"{source}: --time {found.column}: class {names[int(held.argmin())]!r} is not among the newest rows, so "
            "nothing could be said of it; expected a larger --test-share, or rows without this class"
        )
    empty = np.isnan(table.features[found.fitted]).all(axis=0)
    if empty.any():
        name = table.schema.names[int(empty.argmax())]
        raise BadData(f"{source}: column {name!r} has too few values; expected more than a handful")
