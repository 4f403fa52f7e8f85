"""Split the rows of a table into a fitted and a held-out part, once or several times.

Stratified: with the classes' shares in both. By groups: rows of a group (of one machine, one patient) are on one side,
because a model that has seen a group knows more of it than of the next one. By time: what is held out is newer than
all that was fitted, as in production.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from defects.training.bootstrap import Labels

Numbers = NDArray[np.int64]  # of rows
TRIES = 64  # orders of groups, of which the one is taken that comes nearest to the shares that are meant


class NotPossible(Exception):
    """The rows can't be split in this way; the message says why, and what would help."""


def stratified(labels: Labels, share: float, seed: int) -> tuple[Numbers, Numbers]:
    """Return the fitted and the held-out rows; raises `NotPossible`."""
    try:
        fitted, held = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        raise NotPossible(str(error)) from None
    return fitted, held


def by_time(times: NDArray[Any], share: float) -> tuple[Numbers, Numbers]:
    """Return the older rows and the newest ones, in the table's order; rows of one time are on one side.

    The newest part is the one whose share is nearest to `share`. Raises `NotPossible` where all rows have one time.
    """
    distinct, places = np.unique(times, return_inverse=True)
    if len(distinct) < 2:
        raise NotPossible("has one time for all rows; expected at least two")
    older = np.cumsum(np.bincount(places))[:-1]  # rows before each cut
    cut = int(np.abs(older - (1 - share) * len(times)).argmin()) + 1
    return np.flatnonzero(places < cut), np.flatnonzero(places >= cut)


def by_group(groups: NDArray[Any], labels: Labels, share: float, seed: int) -> tuple[Numbers, Numbers]:
    """Return the fitted and the held-out rows, in the table's order; each group is on one side, and each class on both.

    Of some random choices of groups, the one is taken whose classes' shares are nearest to those of all rows. Raises
    `NotPossible` where a class is in one group only, or no choice was found.
    """
    places = np.unique(groups, return_inverse=True)[1]
    counts = np.zeros((int(places.max()) + 1, int(labels.max()) + 1), np.int64)  # rows, by group and class
    np.add.at(counts, (places, labels), 1)
    if len(counts) < 2:
        raise NotPossible("has one group for all rows; expected at least two")
    random = np.random.default_rng(seed)
    target = share * counts.sum(axis=0)
    best, least = None, np.inf
    for _ in range(TRIES):
        chosen = _completed(_nearest(random.permutation(len(counts)), counts, share), counts)
        if chosen is None:
            continue
        off = np.abs(counts[chosen].sum(axis=0) - target).sum()
        if off < least:
            best, least = chosen, off
    if best is None:
        raise NotPossible("found no choice of whole groups with every class on both sides; expected more groups")
    held = np.isin(places, best)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _nearest(order: Numbers, counts: NDArray[np.int64], share: float) -> Numbers:
    """Return the first groups in this order whose rows are nearest to `share` of all; at least one, and not all."""
    rows = np.cumsum(counts[order].sum(axis=1))[:-1]
    return order[: int(np.abs(rows - share * counts.sum()).argmin()) + 1]


def _completed(chosen: Numbers, counts: NDArray[np.int64]) -> Numbers | None:
    """Exchange groups until every class is in the chosen ones and in the others; `None` where that does not work."""
    held = np.zeros(len(counts), bool)
    held[chosen] = True
    for index in np.argsort((counts > 0).sum(axis=0)).tolist():  # the class in the fewest groups first
        for side in (True, False):
            inside = held == side
            if counts[inside, index].any():
                continue
            others = np.flatnonzero(~inside & (counts[:, index] > 0))
            held[others[counts[others].sum(axis=1).argmin()]] = side
    complete = counts[held].any(axis=0).all() and counts[~held].any(axis=0).all()
    return np.flatnonzero(held) if complete else None


def folds(
    labels: Labels, count: int, seed: int, *, groups: NDArray[Any] | None = None, times: NDArray[Any] | None = None
) -> Iterator[tuple[Numbers, Numbers]]:
    """Yield the fitted and the tested rows of each fold, for cross-validation.

    By time, each fold tests the rows that follow those it was fitted on: there is one block of rows more than folds.
    Raises `NotPossible`.
    """
    if times is not None:
        yield from _following(times, count)
        return
    if np.bincount(labels).min() < count and groups is None:
        raise NotPossible(
            f"the rarest class has fewer rows than there are folds ({count}); expected more rows of it, or fewer folds"
        )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    try:
        yield from kind(count, shuffle=True, random_state=seed).split(np.zeros(len(labels)), labels, groups)
    except ValueError as error:
        raise NotPossible(str(error)) from None


def _following(times: NDArray[Any], count: int) -> Iterator[tuple[Numbers, Numbers]]:
    distinct, places = np.unique(times, return_inverse=True)
    if len(distinct) <= count:
        raise NotPossible(f"has {len(distinct)} different times; expected more than there are folds ({count})")
    rows = np.cumsum(np.bincount(places))
    ends = np.searchsorted(rows, np.arange(1, count + 1) * len(times) / (count + 1))
    cuts = [*np.minimum(ends, len(distinct) - 2).tolist(), len(distinct) - 1]
    if len(set(cuts)) != len(cuts):
        raise NotPossible(f"has times that so many rows share that there are fewer than {count} folds; expected fewer")
    for before, after in pairwise(cuts):
        yield np.flatnonzero(places <= before), np.flatnonzero((places > before) & (places <= after))
