"""Look at values of a manifest without trusting their types: what is of another type is taken for missing."""

from __future__ import annotations

import re
from typing import NamedTuple

from defects.lint.documents import Node

WORD = re.compile(r"[A-Za-z_][\w-]*")
QUANTITY = re.compile(r"([-+]?[0-9.]+)([numkMGTPE]|[KMGTPE]i)?|([-+]?[0-9.]+[eE][-+]?[0-9]+)")
SUFFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SUFFIXES |= {f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGTPE")}


class Origin(NamedTuple):
    """The object that a field is of: where it stands, and what it is called."""

    file: str = ""
    document: int = 0
    kind: str = ""
    namespace: str = ""
    name: str = ""


class Field(NamedTuple):
    """A place in an object: its value, if there is one, its path and the line that it, or what it would be in, has."""

    node: Node | None
    path: str = ""
    line: int = 1
    origin: Origin = Origin()

    def at(self, *keys: str | int) -> Field:
        """Return the field below, by keys of mappings and indices of lists; it may be missing."""
        found = self
        for key in keys:
            found = found._below(key)
        return found

    def _below(self, key: str | int) -> Field:
        value = self.node.value if self.node else None
        if isinstance(key, int):
            path = f"{self.path}[{key}]"
            if isinstance(value, list) and key < len(value):
                return Field(value[key], path, value[key].line, self.origin)
            return Field(None, path, self.line, self.origin)
        path = f"{self.path}.{key}".lstrip(".") if WORD.fullmatch(key) else f"{self.path}[{key!r}]"
        if isinstance(value, dict) and key in value:
            return Field(value[key].node, path, value[key].line, self.origin)
        return Field(None, path, self.line, self.origin)

    @property
    def given(self) -> bool:
        """Whether there is a value other than null, of whatever type."""
        return self.node is not None and self.node.value is not None

    @property
    def text(self) -> str | None:
        """The value where it is text."""
        value = self.node.value if self.node else None
        return value if isinstance(value, str) else None

    @property
    def number(self) -> float | None:
        """The value where it is a number; true and false are none."""
        value = self.node.value if self.node else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def is_false(self) -> bool:
        """Whether the value is false."""
        return self.node is not None and self.node.value is False

    @property
    def quantity(self) -> float | None:
        """The value where it is a quantity of Kubernetes, such as 500m or 1Gi, as a number."""
        if self.number is not None:
            return float(self.number)
        found = QUANTITY.fullmatch(self.text or "")
        try:
            return float(found[3] or found[1]) * SUFFIXES[found[2] or ""] if found else None
        except ValueError:
            return None

    @property
    def items(self) -> list[Field]:
        """The items of a list."""
        value = self.node.value if self.node else None
        return [self.at(index) for index in range(len(value))] if isinstance(value, list) else []

    @property
    def members(self) -> dict[str, Field]:
        """The members of a mapping."""
        value = self.node.value if self.node else None
        return {key: self.at(key) for key in value} if isinstance(value, dict) else {}

    @property
    def texts(self) -> dict[str, str]:
        """The members of a mapping that are text."""
        return {key: member.text for key, member in self.members.items() if member.text is not None}

    @property
    def words(self) -> list[str]:
        """The items of a list that are text."""
        return [item.text for item in self.items if item.text is not None]
