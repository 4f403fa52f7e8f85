"""Say what of the cluster could not be watched, or not all of the time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from loadtests.analysis.method import SAME_SECONDS
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation

PODS, AUTOSCALER = observations.POD_METRICS, observations.AUTOSCALER_METRICS  # that are read once a second


def not_seen(found: Sequence[AnyObservation]) -> Iterator[str]:
    """Yield a sentence for what could not be watched at all, and then for what was missed some of the time."""
    unseen = [observed for observed in found if isinstance(observed, observations.Unseen)]
    yield from (_unseen(observed) for observed in unseen if not any(_is_of(observed, s) for s in (PODS, AUTOSCALER)))
    for source in (PODS, AUTOSCALER):
        yield from _metrics(found, source)
    over: list[_Outage] = []
    ongoing: dict[str, _Outage] = {}
    for observed in found:
        if isinstance(observed, observations.Gap) and observed.seconds is None:
            ongoing[observed.resource] = _Outage.of(observed, observed.at, math.inf)
        elif isinstance(observed, observations.Gap):
            ongoing.pop(observed.resource, None)
            over.append(_Outage.of(observed, observed.at - (observed.seconds or 0.0), observed.at))
    for outages in (over, list(ongoing.values())):
        yield from (str(outage) for outage in _merged(outages))


def _unseen(observed: observations.Unseen) -> str:
    return f"{observed.text}, from {observed.at:.1f} s on" if observed.lost else observed.text


# --- metrics, which are read again and again -------------------------------------------------------------------------


def _is_of(observed: observations.Unseen, source: str) -> bool:
    """Return whether it says that these metrics could not be read, at least once."""
    return observed.text.startswith((f"{source}: ", f"{source}, ")) and not observed.lost


def _metrics(found: Sequence[AnyObservation], source: str) -> Iterator[str]:
    """Yield why metrics were never read, or how many of the reads failed, when, and why."""
    said = [o for o in found if isinstance(o, observations.Unseen) and _is_of(o, source)]
    missed = [o for o in found if isinstance(o, observations.Missed) and o.source == source]
    reads = _reads(found, source)
    if not reads:
        never = {o.why: f"{source}: {o.why}" for o in missed}
        yield from (o.text for o in said) if said else never.values()
    elif missed:
        times, why = [o.at for o in missed], ", ".join(dict.fromkeys(o.why for o in missed))
        failed = f"{len(missed)} of {len(missed) + len(reads)} reads failed"
        yield f"{source}, not always: {failed}, from {times[0]:.1f} s to {times[-1]:.1f} s ({why})"
    elif said:  # of a run from before each failed read was kept
        first = said[0]
        end = next((at for at in reads if at > first.at), None)
        until = "to the end" if end is None else f"to {end:.1f} s"
        why = first.text.removeprefix(source).lstrip(":, ").removeprefix("not always: ")
        yield f"{source}, not always: missed from {first.at:.1f} s {until} ({why})"


def _reads(found: Sequence[AnyObservation], source: str) -> list[float]:
    """Return when these metrics were read, in order."""
    if source == PODS:
        return [o.at for o in found if isinstance(o, observations.Inside)]
    seen = [o for o in found if isinstance(o, observations.Autoscaler)]
    counts = Counter(o.revision for o in seen)  # one read says something of several revisions
    return [o.at for o in seen if o.revision == max(counts, key=counts.__getitem__)]


# --- watches ---------------------------------------------------------------------------------------------------------


class _Outage(NamedTuple):
    """Watches that were interrupted, from `start` to `end`, and why."""

    start: float
    end: float
    resources: tuple[str, ...]
    why: tuple[str, ...]

    @classmethod
    def of(cls, gap: observations.Gap, start: float, end: float) -> _Outage:
        return cls(start, end, (gap.resource,), tuple(gap.why.split(", ")))

    def like(self, other: _Outage) -> bool:
        """Return whether both began and ended at about the same time."""
        ends = self.end == other.end or abs(self.end - other.end) <= SAME_SECONDS
        return ends and abs(self.start - other.start) <= SAME_SECONDS

    def __str__(self) -> str:
        when = f"from {self.start:.1f} s to the end"
        if self.end < math.inf:
            when = f"for {self.end - self.start:.1f} s until {self.end:.1f} s"
        return f"{', '.join(self.resources)}: the watch was interrupted {when} ({', '.join(self.why)})"


def _merged(outages: Iterable[_Outage]) -> list[_Outage]:
    """Return the outages, those of about the same time as one: mostly it was one, of the API server."""
    found: list[_Outage] = []
    for one in sorted(outages, key=lambda outage: outage.start):
        if found and one.like(found[-1]):
            last = found.pop()
            resources = tuple(dict.fromkeys((*last.resources, *one.resources)))
            why = tuple(dict.fromkeys((*last.why, *one.why)))
            found.append(_Outage(last.start, max(last.end, one.end), resources, why))
        else:
            found.append(one)
    return found
