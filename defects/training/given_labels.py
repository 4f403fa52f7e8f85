"""Read labels as the classes that a fitted model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import DefectClass
from defects.kinds import BOOLEAN, INTEGER, NUMBER, TEXT
from defects.training.bad_data import among, shown
from defects.training.columns import TRUTHS
from defects.training.importing import Loaded
from defects.training.labels import distinct_labels
from defects.training.tables import Column


@dataclass(frozen=True)
class GivenLabels:
    """The class of each row `[rows]`, by number, the model's classes in its order, and their type."""

    indices: NDArray[np.int64]
    classes: tuple[DefectClass, ...]
    type: str
    notes: tuple[str, ...] = ()


def given_labels(loaded: Loaded, column: Column) -> GivenLabels:
    """Return the labels as a model's classes; raises `BadData` for one that is none of them."""
    found, codes, kind = distinct_labels(column)
    missing = codes < 0
    if missing.any():
        raise column.bad(int(missing.argmax()), "has no label; expected one for every row", [])
    classes: list[Any] = [value.item() if hasattr(value, "item") else value for value in loaded.model.classes_]
    notes: tuple[str, ...] = ()
    if _are_numbers_of(classes) and not {str(label) for label in found} <= {str(name) for name in classes}:
        if len(found) != len(classes):
            problem = f"has {len(found)} classes, and the model numbers {len(classes)}, without their names"
            raise column.bad(None, f"{problem}; expected rows of each class, to sort their labels", [])
        classes = sorted(found)
        names = ", ".join(shown(str(name)) for name in classes)
        notes = (f"{loaded.path}: has no names of classes; 0, 1, … are taken for the sorted labels: {names}",)
    else:
        kind = _kind(classes)
    places = np.array([_place(column, codes, place, label, classes) for place, label in enumerate(found)], np.int64)
    without = [str(classes[i]) for i in range(len(classes)) if i not in places]
    if without:
        notes = (*notes, f"{column.path}: has no row of {', '.join(map(repr, without))}, which the model knows")
    named = tuple(map(DefectClass, _names(classes)))
    return GivenLabels(places[codes], named, kind, notes)


def _names(classes: Sequence[Any]) -> list[str]:
    """Return the classes as text, without spaces around it, as labels are read; with them where only these differ."""
    names = [str(value) for value in classes]
    stripped = [name.strip() for name in names]
    return stripped if len(set(stripped)) == len(names) and all(stripped) else names


def _are_numbers_of(classes: Sequence[Any]) -> bool:
    """Whether classes may be the numbers of sorted labels. False and true are not: who compares sorts nothing."""
    return classes == [*range(len(classes))] and not any(type(value) is bool for value in classes)


def _kind(classes: Sequence[Any]) -> str:
    types = {type(value) for value in classes}
    return {frozenset({bool}): BOOLEAN, frozenset({int}): INTEGER, frozenset({float}): NUMBER}.get(
        frozenset(types), TEXT
    )


def _place(column: Column, codes: NDArray[np.int64], place: int, label: Any, classes: Sequence[Any]) -> int:
    """Return the number of a label's class; raises `BadData`."""
    texts = _names(classes)
    for text in (str(label), str(TRUTHS.get(str(label), label))):
        if text in texts:
            return texts.index(text)
    if isinstance(label, int | float) and label in classes:
        return classes.index(label)
    row = int((codes == place).argmax())
    problem = f"{shown(str(label))!r} is no class of the model"
    raise column.bad(row, f"{problem}; expected one {among(str(label), texts)}", [])
