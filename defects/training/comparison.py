"""Compare a candidate with the champion on the same held-out rows, and decide whether it may take its place.

Paired throughout: both models answer the same rows, so what is hard for both cancels out. Differences have intervals by
the bootstrap; accuracy is tested exactly (McNemar 1947; exact as Fay 2010). A candidate passes where it is *shown* to
be no worse: undecided holds, and never promotes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from defects.scoring import Probabilities
from defects.training.bootstrap import Answers, Bootstrap, Floats, Labels, Sums, interval
from defects.training.evaluation import HeldOut

SIGNIFICANT = 0.05
FEW_ROWS, FEW_UNITS = 30, 10  # held-out rows of a class, or of all, below which nothing is shown; groups likewise


def compare(held: HeldOut, candidate: Probabilities, champion: Probabilities, margin: float) -> dict[str, Any]:
    """Return the card's `comparison`, but for whom it is with: figures, `passed` and the `reasons` against it.

    `margin` is how much worse a share may be (macro-F1, and a class's recall and F1); log loss may rise by `margin`
    times the log loss of a model that knows the classes' shares only, which is what there is to know about the labels.

    - Overall: log loss and macro-F1 each have to be shown to be no worse than that: the bad end of the interval of the
      difference is within the margin. Else the candidate is worse, or it is undecided; neither passes. Nor does one
      whose accuracy is worse by more than the margin, and by McNemar's test.
    - By class: it does not pass where recall or F1 is worse by more than the margin, and the interval of the
      difference lies below 0. Where only the interval reaches beyond the margin, or the class has fewer than 30 rows,
      it is `undecided`: that is said, and passes, because the few rows of a rare class could never decide it.
    """
    one, other = held.answers(candidate), held.answers(champion)
    allowed = margin * float(held.majority.losses.mean())
    totals = [held.total(model) for model in (one, other)]
    resampled = held.bootstrap.sums(one, other)
    found: dict[str, Any] = {"rows": len(held.labels), "margin": margin, "log_loss_margin": allowed}
    for metric in ("log_loss", "macro_f1"):
        found[metric] = _paired(*(sums.metrics()[metric] for sums in (*totals, *resampled)))
    found["mcnemar"] = mcnemar(held.labels, one, other)
    found["classes"] = {
        name: _class(i, totals, resampled, margin) for i, name in enumerate(held.names) if totals[0].true[i]
    }
    found["reasons"] = [
        *_too_few(held.bootstrap, found["rows"]),
        *_overall(found, allowed),
        *_by_class(found["classes"]),
    ]
    found["undecided"] = [name for name, scores in found["classes"].items() if scores["verdict"] == "undecided"]
    return found | {"passed": not found["reasons"]}


def _too_few(bootstrap: Bootstrap, rows: int) -> list[str]:
    if rows >= FEW_ROWS and bootstrap.units >= FEW_UNITS:
        return []
    groups = f" in {bootstrap.units} groups" if bootstrap.units < rows else ""
    expected = f"expected at least {FEW_ROWS} rows" + (f" in {FEW_UNITS} groups" if groups else "")
    return [f"undecided: {rows} held-out rows{groups} show nothing; {expected}"]


def _paired(candidate: Floats, champion: Floats, *resampled: Floats) -> dict[str, float]:
    """Return a metric of both, and the difference (the candidate's minus the champion's) with its interval."""
    one, other = (np.nan_to_num(value) for value in resampled)
    low, high = interval(one - other)
    first, second = float(np.nan_to_num(candidate)), float(np.nan_to_num(champion))
    return {"candidate": first, "champion": second, "difference": first - second, "low": low, "high": high}


def _class(index: int, totals: list[Sums], resampled: list[Sums], margin: float) -> dict[str, Any]:
    found: dict[str, Any] = {"rows": int(totals[0].true[index])}
    for name, of in (("recall", Sums.recall), ("f1", Sums.f1)):
        found[name] = _paired(*(of(sums)[..., index] for sums in (*totals, *resampled)))
    for name in ("recall", "f1"):
        found[name]["verdict"] = _verdict(found[name], margin)
    verdicts = {found[name]["verdict"] for name in ("recall", "f1")}
    undecided = "undecided" in verdicts or found["rows"] < FEW_ROWS
    return found | {"verdict": "worse" if "worse" in verdicts else "undecided" if undecided else "no worse"}


def _verdict(share: dict[str, float], margin: float) -> str:
    """Return `worse`, `undecided` or `no worse`, for a share of which more is better."""
    if share["difference"] < -margin and share["high"] < 0:
        return "worse"
    return "undecided" if share["low"] < -margin else "no worse"


def mcnemar(labels: Labels, candidate: Answers, champion: Answers) -> dict[str, Any]:
    """Return the rows that only one of both gets right, and the exact p value of as large a difference by chance."""
    one, other = candidate.predicted == labels, champion.predicted == labels
    ours, theirs = int((one & ~other).sum()), int((other & ~one).sum())
    p = binomtest(ours, ours + theirs).pvalue if ours + theirs else 1.0
    return {"only_candidate": ours, "only_champion": theirs, "p": float(p)}


def _overall(found: dict[str, Any], allowed: float) -> list[str]:
    margin, loss, test = found["margin"], found["log_loss"], found["mcnemar"]
    turned = {"difference": -loss["difference"], "low": -loss["high"], "high": -loss["low"]}
    judged = (
        ("log loss", loss, _verdict(turned, allowed), f"at most {allowed:+.4f}"),
        ("macro-F1", found["macro_f1"], _verdict(found["macro_f1"], margin), f"at least {-margin:+.4f}"),
    )
    reasons = [
        f"{verdict} in {name}: {_described(metric)}; expected {expected}"
        for name, metric, verdict, expected in judged
        if verdict != "no worse"
    ]
    more = test["only_champion"] - test["only_candidate"]
    if more > margin * found["rows"] and test["p"] < SIGNIFICANT:
        reasons.append(
            f"worse in accuracy: {test['only_champion']:,} held-out rows only the champion gets right, "
            f"{test['only_candidate']:,} only the candidate (McNemar's test: p = {test['p']:.2g})"
        )
    return reasons


def _described(metric: dict[str, Any]) -> str:
    return (
        f"{metric['candidate']:.4f} against {metric['champion']:.4f}, a difference between {metric['low']:+.4f} and "
        f"{metric['high']:+.4f}"
    )


def _by_class(classes: dict[str, Any]) -> list[str]:
    return [
        f"worse in class {name!r}: {label} {_described(scores[key])}, on {scores['rows']:,} rows"
        for name, scores in classes.items()
        for key, label in (("recall", "recall"), ("f1", "F1"))
        if scores[key]["verdict"] == "worse"
    ]
