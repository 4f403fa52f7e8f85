"""Group the platform's events, so that a report has one row for what happened many times."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from defects.pages.axes import figure
from defects.pages.tables import Cell, Table, outside
from loadtests.analysis import probes
from loadtests.results import Cluster, PlatformEvent, ProbeFailures

COMBINED = "(combined from similar events): "  # how the message of an event begins that stands for many
_VARIES = re.compile(r"\S*\d\S*")  # a word with a digit: a number, an address, or a generated name


class EventGroup(NamedTuple):
    """Events of one kind of objects with the same reason, and messages that differ only in names and numbers."""

    events: list[PlatformEvent]

    @property
    def names(self) -> list[str]:
        """The objects, in the order in which they had their first."""
        return list(dict.fromkeys(event.name for event in self.events))


def listed(cluster: Cluster) -> tuple[list[PlatformEvent], ProbeFailures | None]:
    """Return the events without probes that failed as pods started or ended, and how many of these there were.

    Summaries of older runs have them among the events.
    """
    others, failures = probes.split(cluster.events, cluster.pods)
    return others, cluster.probe_failures or failures


def groups(events: Iterable[PlatformEvent]) -> list[EventGroup]:
    """Return the events in groups, in the order of each one's first."""
    found: dict[tuple[str, str, str, bool], EventGroup] = {}
    for event in events:
        key = (event.kind, event.reason, _shape(event), event.warning)
        found.setdefault(key, EventGroup([])).events.append(event)
    return list(found.values())


def _shape(event: PlatformEvent) -> str:
    """Return an event's message without what differs from object to object."""
    message = event.message.removeprefix(COMBINED)
    own = rf"(?<![\w.-]){re.escape(event.name)}(?![\w.-])"
    return _VARIES.sub("0", re.sub(own, "0", message) if event.name else message)


def table(cluster: Cluster) -> Table:
    """Return the events of the platform, a row for each group."""
    events, failures = listed(cluster)
    rows = [_row(group) for group in groups(events)]
    if failures:
        pods = Cell(f"{failures.pods} pod{'s' * (failures.pods > 1)}")
        said = Cell("Readiness and startup probes that failed while their pods started or ended, as they do.")
        times = _times(failures.first_at, failures.last_at, failures.count)
        rows.append([*times, Cell("Pod"), pods, Cell("Unhealthy"), said])
    heads = ("First, s", "Last, s", "Events", "Kind", "Name", "Reason", "Message")
    note = "Events whose messages differ only in names and numbers are in one row, which has the first of them."
    return Table("events", "Events of the platform", heads, rows, left=0, note=note)


def _row(group: EventGroup) -> list[Cell]:
    first, names = group.events[0], group.names
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [
        *_times(first.at, group.events[-1].at, len(group.events)), outside(first.kind), outside(f"{names[0]}{more}"),
        outside(first.reason)._replace(bad=first.warning), outside(first.message),
    ]  # fmt: skip


def _times(first: float, last: float, count: int) -> list[Cell]:
    return [Cell(figure(first), first), Cell(figure(last), last), Cell(figure(count), count)]
