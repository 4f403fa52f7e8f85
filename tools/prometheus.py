"""Read series from an exposition in Prometheus's text format."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Series(NamedTuple):
    """One line of an exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


def series(exposition: str, names: Collection[str]) -> Iterator[Series]:
    """Yield the series that have one of these names and a finite value; raise `ValueError` where one is malformed.

    Other lines are not parsed: an exposition may be long, and is read every second.
    """
    wanted = tuple(names)
    for line in exposition.split("\n"):
        if line.lstrip().startswith(wanted):
            found = _parsed(line)
            if found.name in names and math.isfinite(found.value):
                yield found


def _parsed(line: str) -> Series:
    """Parse one line alone: after a comment with its type, the parser would rename a counter."""
    try:
        ((sample,),) = (family.samples for family in text_string_to_metric_families(line))
        return Series(sample.name, sample.labels, float(sample.value))
    except (
        ValueError,
        LookupError,
        TypeError,
        OverflowError,
    ) as error:  # the parser takes well-formed lines for granted
        raise ValueError(f"malformed exposition: {line.strip()[:100]!r}") from error


def values(exposition: str, names: Collection[str]) -> dict[str, float]:
    """Return the values of the series with these names that have no labels, by name; raises `ValueError`."""
    return {found.name: found.value for found in series(exposition, names) if not found.labels}
