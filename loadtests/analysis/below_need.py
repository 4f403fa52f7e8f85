"""Measure how often, and for how long, fewer replicas were ready than needed again, after enough had been."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from loadtests import results
from loadtests.analysis.moments import step_times
from loadtests.analysis.replicas import ReplicaCounts
from loadtests.results import BelowNeed, Fall, PhaseName


class Piece(NamedTuple):
    """A part of a phase in which neither the number of ready replicas nor that of needed ones changes."""

    phase: PhaseName
    start: float
    end: float
    ready: int
    needed: int


def below_need(counts: ReplicaCounts) -> BelowNeed | None:
    """Return how often and for how long fewer were ready than needed again; `None` where one number is not known."""
    if counts.ready is None or counts.needed is None:
        return None
    found = list(falls(pieces_of(counts)))
    seconds, limit = math.fsum(fall.seconds for fall in found), counts.slo.below_need_seconds
    return BelowNeed(
        times=len(found),
        seconds=seconds,
        limit_seconds=limit,
        met=None if limit is None else seconds <= limit,
        falls=found,
    )


def pieces_of(counts: ReplicaCounts) -> Iterator[Piece]:
    """Yield the pieces of the phases that count, in order, until the run or the watch ended."""
    until = min(counts.run.seconds, counts.until)
    for span in counts.run.plan.spans:
        end = min(span.end, until)
        if span.phase.name == "warm-up" or span.start >= end:
            continue
        steps = (at for at in step_times(counts.ready, counts.needed) if span.start < at < end)
        for start, stop in pairwise([span.start, *steps, end]):
            yield Piece(span.phase.name, start, stop, counts.ready_at(start), counts.need(start) or 0)


def falls(pieces: Iterable[Piece]) -> Iterator[Fall]:
    """Yield each time in which fewer were ready than needed, after enough had been.

    Where the need rises, as at a burst's begin, the new one has to be reached first: that time is measured as `scale`.
    Until then, only what is below the need that was reached before is a fall.
    """
    below, reached = list[Piece](), 0
    for piece in pieces:
        reached = piece.needed if piece.ready >= piece.needed else min(reached, piece.needed)
        if piece.ready < reached:
            below.append(piece._replace(needed=reached))
        elif below:
            yield _fall(below)
            below = []
    if below:
        yield _fall(below)


def _fall(below: Sequence[Piece]) -> Fall:
    start, end = below[0].start, below[-1].end
    return results.Fall(
        phase=below[0].phase,
        from_at=start,
        to_at=end,
        seconds=end - start,
        ready=min(piece.ready for piece in below),
        needed=max(piece.needed for piece in below),
    )
