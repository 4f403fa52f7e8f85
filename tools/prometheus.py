"""Read Prometheus's text format."""

from __future__ import annotations

import re
from collections.abc import Iterator

SERIES = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def series(exposition: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of everything in a Prometheus exposition; raises `ValueError`."""
    for line in exposition.splitlines():
        if found := SERIES.match(line):
            yield found[1], dict(LABEL.findall(found[2] or "")), float(found[3])


def plain(exposition: str) -> dict[str, float]:
    """Series without labels, by name; raises `ValueError`."""
    return {name: value for name, labels, value in series(exposition) if not labels}
