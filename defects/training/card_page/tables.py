"""The tables of a card: scores by class, cross-validation, calibration, the champion, data, proof, libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from defects.pages.svg import fitted
from defects.pages.tables import Cell, Table, outside
from defects.training.card_page import reading, words
from defects.training.card_page.words import count, metric, signed, signed_span, span

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "log_loss": "log loss",
}
NAME = 300  # pixels of names
MOST_CLASSES, FOLDED_CLASSES = 40, 5_000  # that are listed openly, and that are listed at all


def name_of(name: str) -> Cell:
    """Return a name that came from outside, shortened."""
    return outside(fitted(name, NAME))


def _number(value: float | None, shown: str) -> Cell:
    return Cell(shown, value)


def classes(card: Any, names: list[str], caption: str) -> Table | None:
    """Return the scores of some classes; `None` where there are none."""
    found = {name: reading.mapping(card, "metrics", "classes", name) for name in names}
    rows = [
        [
            name_of(name),
            *(_number(value, metric(value)) for key in ("precision", "recall", "f1", "log_loss")
              for value in [reading.number(of, key)]),
            *(_number(value, count(value)) for key in ("rows", "predicted") for value in [reading.number(of, key)]),
        ]
        for name, of in found.items()
        if of
    ]  # fmt: skip
    heads = ("class", "precision", "recall", "F1", "log loss", "rows", "predicted")
    return Table("classes", caption, heads, rows) if rows else None


def cross_validation(card: Any) -> Table | None:
    """Return each metric's mean and interval over the folds, and the value of each fold."""
    found = reading.mapping(card, "cross_validation", "metrics")
    folds = max((len(reading.numbers(of, "values")) for of in found.values()), default=0)
    rows = []
    for key, of in found.items():
        mean, ends = reading.number(of, "mean"), _ends(of)
        values = [*reading.numbers(of, "values"), *[None] * folds][:folds]
        rows.append(
            [Cell(METRICS.get(key, key)), _number(mean, metric(mean)), Cell(span(ends) or words.DASH)]
            + [_number(value, metric(value)) for value in values]
        )
    heads = ("metric", "mean", "95 % interval", *(f"fold {index + 1}" for index in range(folds)))
    return Table("folds", "Cross-validation", heads, rows) if rows else None


def _ends(of: Any) -> tuple[float, float] | None:
    low, high = reading.number(of, "low"), reading.number(of, "high")
    return None if low is None or high is None else (low, high)


def calibration(card: Any) -> Table | None:
    """Return log loss and calibration error before and after."""
    found = reading.mapping(card, "calibration")
    rows = []
    for label, key in (("log loss", "log_loss"), ("calibration error", "error")):
        before, after = reading.number(found, "before", key), reading.number(found, "after", key)
        if before is not None or after is not None:
            rows.append([Cell(label), _number(before, metric(before)), _number(after, metric(after))])
    method = reading.text(found, "method")
    caption = f"Calibration ({method})" if method else "Calibration"
    return Table("calibration", caption, ("", "before", "after"), rows) if rows else None


def comparison(card: Any) -> Table | None:
    """Return how the model compares with the champion on the same held-out rows."""
    found = reading.mapping(card, "comparison")
    rows = []
    for key in ("log_loss", "macro_f1"):
        of = reading.mapping(found, key)
        if of:
            mine, other, difference = (reading.number(of, name) for name in ("candidate", "champion", "difference"))
            ends = _ends(of)
            rows.append([
                Cell(METRICS[key]), _number(mine, metric(mine)), _number(other, metric(other)),
                _number(difference, signed(difference)), Cell(signed_span(ends) or words.DASH),
            ])  # fmt: skip
    heads = ("metric", "this model", "champion", "difference", "95 % interval")
    return Table("comparison", "Against the champion, on the same rows", heads, rows) if rows else None


def compared_classes(card: Any) -> Table | None:
    """Return how each class compares with the champion's."""
    found = reading.mapping(card, "comparison", "classes")
    rows = [[name_of(name), *_compared(of)] for name, of in [*found.items()][:FOLDED_CLASSES]]
    heads = ("class", "rows", *(f"{key}{of}" for key in ("recall", "F1") for of in ("", ", champion", ", difference")))
    return Table("compared", "Against the champion, by class", (*heads, "verdict"), rows) if rows else None


def _compared(of: Any) -> Iterator[Cell]:
    rows = reading.number(of, "rows")
    yield _number(rows, count(rows))
    for key in ("recall", "f1"):
        mine, other, difference = (reading.number(of, key, part) for part in ("candidate", "champion", "difference"))
        yield from (_number(mine, metric(mine)), _number(other, metric(other)), _number(difference, signed(difference)))
    yield Cell(reading.text(of, "verdict") or words.DASH)


def data(card: Any) -> Table:
    """Return where the rows came from, and how they were split."""
    split, source = reading.mapping(card, "split"), reading.mapping(card, "data")
    found = (*_source(source), *_split(split), *_brought(reading.mapping(card, "estimator")))
    rows = [[Cell(label), outside(value)] for label, value in found if value]
    return Table("data", "Data and split", ("", ""), rows, left=2)


def _source(source: Any) -> Iterator[tuple[str, str]]:
    yield "source", reading.text(source, "source")
    yield "rows", _count(source, "rows")
    yield "label", fitted(reading.text(source, "label"), 2 * NAME)
    yield "seed", _count(source, "seed")
    yield "SHA-256", reading.text(source, "sha256")
    for key, value in reading.mapping(source, "format").items():  # separator, encoding and the like
        yield key.replace("_", " "), "" if value is None else str(value)


def _count(value: Any, key: str) -> str:
    found = reading.number(value, key)
    return "" if found is None else count(found)


def _brought(estimator: Any) -> Iterator[tuple[str, str]]:
    """Yield where the model itself comes from, where it was not fitted here."""
    yield "pipeline", reading.text(estimator, "pipeline")
    yield "model file", reading.text(estimator, "file")
    yield "its SHA-256", reading.text(estimator, "sha256")


HOW = {
    "stratified": "by chance, with the same share of every class in both parts",
    "group": "by chance, with all rows of a group in the same part",
    "time": "by time: the latest rows are held out",
    "given": "none: the model was fitted elsewhere; all rows are held out",
}


def _split(split: Any) -> Iterator[tuple[str, str]]:
    how = reading.text(split, "how")
    yield "split", HOW.get(how, how)
    yield "split by column", fitted(reading.text(split, "column"), 2 * NAME)
    yield "fitted on", f"{rows} rows" if (rows := _count(split, "fitted_rows")) else ""
    share = reading.number(split, "held_out_share")
    of = "" if share is None else f" ({share:.0%})"
    yield "held out", f"{rows} rows{of}" if (rows := _count(split, "held_out_rows")) else ""


ENGINES = {"onnxruntime": "ONNX Runtime", "scikit-learn": "scikit-learn"}


def proof(card: Any) -> Table | None:
    """Return how the engine that serves the model was compared with the fitted model; `None` where it was not."""
    parity = reading.mapping(card, "engine", "parity")
    columns = [of for of in (parity, reading.mapping(parity, "probes")) if of]
    rows = []
    for label, key, show in (
        ("rows compared", "rows", count),
        ("largest difference of a probability", "largest_difference", _difference),
        ("rows with another class", "different_class_rows", count),
    ):
        values = [reading.number(of, key) for of in columns]
        if any(value is not None for value in values):
            rows.append([Cell(label), *(_number(value, show(value)) for value in values)])
    heads = ("", "held-out rows", "probes")[: len(columns) + 1]
    return Table("proof", "Proof that it is served as it was fitted", heads, rows) if rows else None


def _difference(value: float | None) -> str:
    return words.DASH if value is None else f"{value:.1e}" if value else "0"


def libraries(card: Any) -> Table | None:
    """Return the versions of the libraries that made the model."""
    rows = [[Cell(name), outside(str(version))] for name, version in reading.mapping(card, "libraries").items()]
    return Table("libraries", "Libraries", ("", ""), rows, left=2) if rows else None


def parameters(card: Any) -> Table | None:
    """Return the parameters of the estimator."""
    found = reading.mapping(card, "estimator", "parameters")
    rows = [[outside(fitted(name, NAME)), outside(str(value))] for name, value in found.items()]
    return Table("parameters", "Parameters of the estimator", ("", ""), rows, left=2) if rows else None
