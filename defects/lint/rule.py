"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from defects.lint.fields import Field, Origin
from defects.lint.resources import Resource, Runtime, Service

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Problem(NamedTuple):
    """What is wrong, and where."""

    field: Field
    message: str


Check = Callable[[Service], Iterator[Problem]]
RuntimeCheck = Callable[[Runtime], Iterator[Problem]]


def nothing(_: object) -> Iterator[Problem]:
    """Find nothing."""
    return iter(())


@dataclass(frozen=True)
class Rule:
    """A rule: its stable id, how bad it is, why, for which versions that is true, and what to do.

    `check` looks at an InferenceService, with all that it can see in the stream; `check_runtime` at a ServingRuntime.
    """

    id: str
    level: Level
    summary: str
    reason: str
    versions: str
    fix: str
    check: Check = nothing
    check_runtime: RuntimeCheck = nothing


class Finding(NamedTuple):
    """What a rule found, for a resource; the field may be another's, such as a network policy's."""

    rule: Rule
    resource: Resource
    field: Field
    message: str

    @property
    def origin(self) -> Origin:
        """The object that the field is of."""
        return self.field.origin if self.field.origin.file else self.resource.origin
