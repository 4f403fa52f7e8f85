"""Compare the traffic that revisions got with what was wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from loadtests import results
from loadtests.analysis.measures import Run
from loadtests.analysis.method import AHEAD_SECONDS, SETTLE_SECONDS, Z_99
from loadtests.cluster import observations
from loadtests.cluster.observations import AnyObservation


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return Wilson's score interval of a binomial share, 99 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    share, z2 = count / total, Z_99**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_99 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return centre - half if count else 0.0, centre + half if count < total else 1.0


def traffic_of(found: Sequence[AnyObservation]) -> list[results.Traffic]:
    """Return the wanted shares, each time that they changed."""
    changes: list[results.Traffic] = []
    for observed in found:
        if (
            isinstance(observed, observations.Service)
            and observed.traffic
            and not (changes and changes[-1].shares == observed.traffic)
        ):
            changes.append(results.Traffic(at=observed.at, shares=observed.traffic))
    return changes


def splits(run: Run, traffic: Sequence[results.Traffic]) -> Iterator[results.Split]:
    """Yield what each revision had of the answers that name one, for as long as the wanted shares stayed the same.

    By intended time, from `SETTLE_SECONDS` after a change until `AHEAD_SECONDS` before the next. The interval takes
    each request as routed by itself; where connections are (a Service without a gateway), it is too narrow.
    """
    ends = [*(change.at - AHEAD_SECONDS for change in traffic), run.seconds][1:]
    for change, end in zip(traffic, ends, strict=True):
        start = max(0.0, change.at + SETTLE_SECONDS if change.at > 0 else 0.0)
        where = (run.intended >= start) & (run.intended < end) & (run.requests["revision"] >= 0)
        counts = np.bincount(run.requests["revision"][where], minlength=len(run.revisions)).tolist()
        by_name, total = dict(zip(run.revisions, counts, strict=True)), int(where.sum())
        names = dict.fromkeys([*change.shares, *(name for name, count in by_name.items() if count)])
        for name in names if total else ():
            wanted, count = change.shares.get(name, 0.0), by_name.get(name, 0)
            low, high = wilson(count, total)
            yield results.Split(
                start=start, end=end, revision=name, wanted_share=wanted, answers=count, total=total,
                share=count / total, low=low, high=high, within=low <= wanted <= high,
            )  # fmt: skip
