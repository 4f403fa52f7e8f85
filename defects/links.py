"""Make probabilities of a model's scores as its library does, and decide ties as that does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import FLOAT32_MAX

Scores = NDArray[np.float64]  # [n, classes], or [n, 1] of the second one of two
Probabilities = NDArray[np.float64]  # [n, classes]

CLOSE = 1e-14  # scores nearer to the highest may have its probability, once rounded


def _identity(scores: Scores) -> tuple[Probabilities, bool]:
    return scores, False


def _sigmoid(scores: Scores) -> tuple[Probabilities, bool]:
    second = 1 / (1 + np.exp(-np.maximum(scores, -700.0)))  # the exponential of more overflows
    return np.concatenate([1 - second, second], axis=1), bool(np.minimum.reduce(np.abs(scores), axis=None) < CLOSE)


def _softmax(scores: Scores) -> tuple[Probabilities, bool]:
    powers = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
    close = bool(np.count_nonzero(powers > 1 - CLOSE) > len(powers))
    powers /= np.add.accumulate(powers, axis=1)[:, -1:]  # added in this order, however many rows there are
    return powers, close


def _sigmoid_float64(scores: Scores) -> tuple[Probabilities, bool]:
    return _sigmoid(scores)[0], False


def _softmax_float64(scores: Scores) -> tuple[Probabilities, bool]:
    return _softmax(scores)[0], False


def _sigmoid_float32(scores: Scores) -> tuple[Probabilities, bool]:
    one = np.float32(1)
    second = one / (one + np.exp(np.minimum(-scores.astype(np.float32), np.float32(88.7))))
    return np.concatenate([one - second, second], axis=1).astype(np.float64), False


def _softmax_float32(scores: Scores) -> tuple[Probabilities, bool]:
    narrow = scores.astype(np.float32)
    powers = np.exp(narrow - np.maximum.reduce(narrow, axis=1, keepdims=True))
    total = np.add.accumulate(powers, axis=1, dtype=np.float64)[:, -1:]
    return (powers / total.astype(np.float32)).astype(np.float64), False


def _sigmoids(scores: Scores) -> tuple[Probabilities, bool]:
    """Each class against the rest: the first highest probability wins, as in scikit-learn's calibration."""
    each = 1 / (1 + np.exp(-np.maximum(scores, -700.0)))
    each /= np.add.accumulate(each, axis=1)[:, -1:]
    return each, False


# Each gives the probabilities, and whether two classes may have got the same one though their scores differ: for those
# of scikit-learn the scores decide; for LightGBM, in 64 bits, and XGBoost, in 32, the first highest probability does.
LINKS: dict[str, Callable[[Scores], tuple[Probabilities, bool]]] = {
    "identity": _identity, "sigmoid": _sigmoid, "softmax": _softmax,
    "sigmoid_float64": _sigmoid_float64, "softmax_float64": _softmax_float64,
    "sigmoid_float32": _sigmoid_float32, "softmax_float32": _softmax_float32, "sigmoids": _sigmoids,
}  # fmt: skip


def apply_link(scores: Scores, link: str) -> Probabilities:
    """Return the probabilities of scores; the highest is that of the class that scikit-learn predicts.

    That is the class with the highest score, or the first of them: where two scores are so near that their
    probabilities are the same float64, the winner's is raised by its last bit. Scores beyond 32 bits give NaN: they say
    that one value outweighs all others, not how probable a class is.
    """
    if not np.vdot(scores, scores) <= FLOAT32_MAX:  # one look at all of them; most are below a hundred
        finite = (np.abs(scores) <= FLOAT32_MAX).all(axis=1)
        if not finite.all():
            probabilities = np.full((len(scores), max(2, scores.shape[1])), np.nan)
            if finite.any():
                probabilities[finite] = apply_link(scores[finite], link)
            return probabilities
    probabilities, close = LINKS[link](scores)
    if not close:
        return probabilities
    return raise_winners(probabilities, scores[:, 0] > 0 if link == "sigmoid" else scores.argmax(axis=1))


def raise_winners(probabilities: Probabilities, winners: NDArray[Any]) -> Probabilities:
    """Raise the probabilities at `winners` until they are the first highest; they are at most one bit too low."""
    for row in np.flatnonzero(probabilities.argmax(axis=1) != winners):
        probabilities[row, int(winners[row])] = np.nextafter(probabilities[row].max(), 2.0)
    return probabilities
