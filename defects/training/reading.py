"""How a table is to be read: what kind its columns are of, which are no features, and how its cells are written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from defects.kinds import CATEGORY, MISSING
from defects.schema import Schema


@dataclass(frozen=True)
class Reading:
    """How to read a table: what kind columns are of, which are no features, and how its cells are written."""

    category: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_unknown: tuple[str, ...] = ()
    group: str | None = None
    time: str | None = None
    weight: str | None = None
    encoding: str | None = None
    decimal: str = "."
    na: tuple[str, ...] = ()

    @property
    def roles(self) -> dict[str, str]:
        """The columns that are no features, by what a table has of them."""
        found = {"groups": self.group, "times": self.time, "weights": self.weight}
        return {role: name for role, name in found.items() if name is not None}

    def of_exported(self, schema: Schema) -> Reading:
        """Return how to read a file of exported records: with the categories of the schema of their model."""
        features = [feature for feature in schema.features if feature.kind == CATEGORY]
        categories = [f.name for f in features if f.name not in self.number]
        unknown = [f.name for f in features if f.name not in self.number and f.unknown == MISSING]
        return replace(self, category=(*self.category, *categories), allow_unknown=(*self.allow_unknown, *unknown))

    def said(self, label: str) -> list[tuple[str, str]]:
        """Return each column that the command names, and the option that names it."""
        lists = {"category": self.category, "number": self.number, "ignore": self.ignore}
        return [
            (label, "--label"),
            *((name, f"--{role[:-1]}") for role, name in self.roles.items()),
            *((name, f"--{kind}") for kind, names in lists.items() for name in names),
            *((name, "--allow-unknown") for name in self.allow_unknown),
        ]


AS_WRITTEN = Reading()  # everything is inferred
