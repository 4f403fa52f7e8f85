"""Say what a person must know before this model is served: warnings, each with the class or column that it is about."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from defects.scoring import Probabilities
from defects.training.bootstrap import Answers, interval
from defects.training.evaluation import HeldOut

FEW_ROWS = 30  # held-out rows of a class, below which its figures say little
NOTHING = 1.01  # times the majority's log loss: a model that has learnt nothing is as good, but for rounding
IMBALANCED = 0.9  # share of the most frequent class, from which on accuracy says little
FIRST = ("no_better", "leakage", "probabilities", "never_predicted")  # kinds, in the order of their weight
LAST = ("few_rows", "constant")  # those that many classes or columns may have


@dataclass(frozen=True)
class Finding:
    """A warning: its kind, the column's or class's name (empty where it is about the whole), and what to do."""

    kind: str
    name: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return it as the card has it."""
        return asdict(self)

    @property
    def rank(self) -> int:
        """Where it stands among others: first what makes a model useless, last what many classes or columns have."""
        return FIRST.index(self.kind) if self.kind in FIRST else len(FIRST) + (self.kind in LAST)


def of_model(
    held: HeldOut, probabilities: Probabilities, metrics: dict[str, Any], *, balanced: bool = False
) -> list[Finding]:
    """Return the warnings about a model's answers on held-out rows; the most important first.

    `metrics` are the card's. `balanced`: all classes had the same weight, so probabilities are not shares of the data.
    """
    found = no_better(held, held.answers(probabilities), metrics, balanced=balanced)
    for name, scores in metrics["classes"].items():
        if not scores["predicted"]:
            text = f"class {name!r} is never predicted: none of its {scores['rows']:,} held-out rows is found"
            found.append(Finding("never_predicted", name, text))
    found += _imbalance(float(held.shares.max()), metrics)
    for name, scores in metrics["classes"].items():
        if scores["rows"] < FEW_ROWS:
            text = f"class {name!r} has {scores['rows']} held-out {_rows(scores['rows'])}, fewer than {FEW_ROWS}: "
            found.append(Finding("few_rows", name, text + "its figures say little; expected more rows of it"))
    return found


def _rows(count: int) -> str:
    return "row" if count == 1 else "rows"


def no_better(held: HeldOut, model: Answers, metrics: dict[str, Any], *, balanced: bool = False) -> list[Finding]:
    """Return a warning where the model, or only its probabilities, is not shown to be better than the majority class.

    All is well where the 95 % interval of the difference in log loss is below 0, and that in accuracy is not. If not,
    the model still tells classes apart where accuracy or balanced accuracy is shown to be better, and accuracy is not
    shown to be worse.
    """
    one, other = (sums.metrics() for sums in held.bootstrap.sums(model, held.majority))
    loss, accuracy = (interval(one[name] - other[name]) for name in ("log_loss", "accuracy"))
    if loss[1] < 0 and not accuracy[1] < 0:
        return []
    baseline = metrics["baseline"]
    losses = (
        f"log loss {metrics['log_loss']:.4f} against {baseline['log_loss']:.4f} "
        f"(a difference between {loss[0]:+.4f} and {loss[1]:+.4f})"
    )
    apart = accuracy[0] > 0 or metrics["intervals"]["balanced_accuracy"][0] > baseline["balanced_accuracy"]
    if apart and (balanced or not accuracy[1] < 0):
        return [Finding("probabilities", "", _only_apart(metrics, losses, balanced=balanced))]
    worse = metrics["log_loss"] > NOTHING * baseline["log_loss"] or accuracy[1] < 0
    text = (
        f"the model is {'worse than' if worse else 'no better than'} always answering "
        f"{baseline['class']!r}, the majority, on the held-out rows: {losses}, "
        f"accuracy {metrics['accuracy']:.4f} against {baseline['accuracy']:.4f}"
    )
    return [Finding("no_better", baseline["class"], text)]


def _only_apart(metrics: dict[str, Any], losses: str, *, balanced: bool) -> str:
    """Say that a model finds classes, but not how probable they are."""
    way = (
        "--class-weight balanced makes rare classes more probable than they are, --calibrate corrects that"
        if balanced
        else "--calibrate may make them useful"
    )
    return (
        f"the model tells the classes apart (balanced accuracy {metrics['balanced_accuracy']:.4f} against "
        f"{metrics['baseline']['balanced_accuracy']:.4f}), but its probabilities are not shown to be better than the "
        f"classes' shares: {losses}; {way}"
    )


def _imbalance(share: float, metrics: dict[str, Any]) -> list[Finding]:
    if share < IMBALANCED:
        return []
    name = metrics["baseline"]["class"]
    text = (
        f"{share:.2%} of the rows are {name!r}, so accuracy says little; look at balanced accuracy "
        f"({metrics['balanced_accuracy']:.4f}; always answering {name!r} has "
        f"{metrics['baseline']['balanced_accuracy']:.4f})"
    )
    return [Finding("imbalance", name, text)]
