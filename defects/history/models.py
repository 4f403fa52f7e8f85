"""The models that wrote records: each record is decoded by its own one's schema, never by the newest."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from defects.history.database import Rejected, Row, Transaction
from defects.history.sql import marks
from defects.kinds import INTEGER, NUMBER, Label
from defects.schema import Schema

SELECT = "SELECT no, version, digest FROM models"


@dataclass(frozen=True)
class RecordedModel:
    """A model as the database has it."""

    version: str
    digest: str
    schema: Schema

    @cached_property
    def _names(self) -> Mapping[tuple[bool, Any], str]:
        """The name of each class, by what may stand for it: true is not 1."""
        names = self.schema.class_names
        labels = zip(self.schema.labels, names, strict=True)
        return {(False, name): name for name in names} | {(type(label) is bool, label): name for label, name in labels}

    def class_name(self, given: Label) -> str | None:
        """Return the name of the class that is given by its label, as an answer has it, or by its name."""
        found = self._names.get((type(given) is bool, given))
        if found is None and type(given) is str and self.schema.label_type in (INTEGER, NUMBER):
            try:
                return self._names.get((False, float(given)))
            except ValueError:
                return None
        return found

    def label(self, name: str) -> Label:
        """Return a class as an answer has it; the name itself where the model doesn't have it."""
        return self._labels.get(name, name)

    @cached_property
    def _labels(self) -> Mapping[str, Label]:
        return dict(zip(self.schema.class_names, self.schema.labels, strict=True))


class Models:
    """The models of a database. Schemas are kept, by digest: numbers may change where the database is another one."""

    def __init__(self) -> None:
        self._known: dict[str, RecordedModel] = {}

    async def of(self, transaction: Transaction, numbers: Collection[int]) -> dict[int, RecordedModel]:
        """Return the models with these numbers."""
        if not numbers:
            return {}
        where = f"WHERE no IN ({marks(len(numbers))})"
        return await self._read(transaction, await transaction.fetch(f"{SELECT} {where}", *numbers))

    async def all(self, transaction: Transaction) -> dict[int, RecordedModel]:
        """Return every model, the newest first."""
        return await self._read(transaction, await transaction.fetch(f"{SELECT} ORDER BY no DESC"))

    async def one(self, transaction: Transaction, row: Row) -> RecordedModel:
        """Return the model of a row with its `version` and `digest`."""
        version, digest = row["version"], row["digest"]
        if digest not in self._known:
            schema = await transaction.fetch("SELECT schema FROM models WHERE digest = $1", digest)
            self._known[digest] = _model(version, digest, schema[0]["schema"])
        return self._known[digest]

    async def _read(self, transaction: Transaction, rows: Sequence[Row]) -> dict[int, RecordedModel]:
        return {row["no"]: await self.one(transaction, row) for row in rows}


def _model(version: str, digest: str, schema: str) -> RecordedModel:
    try:
        return RecordedModel(version, digest, Schema.from_json(json.loads(schema)))
    except ValueError as problem:
        raise Rejected(f"the schema of model {version} in the database can't be read: {problem}") from None
