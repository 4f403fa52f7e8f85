"""How a table is to be read: what kind its columns are of, which are no features, and how its cells are written."""

from __future__ import annotations

from dataclasses import dataclass


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
