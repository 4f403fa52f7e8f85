"""Write what `train.py` prints at its end: what to beware of, how good the model is, where it is, and what is next."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from defects import artifact
from defects.training.card_page import reading, tables
from defects.training.saving import Place
from defects.values import TURNING, one_line, shown

MAX_CLASSES, MAX_WARNINGS, MAX_NOTES = 30, 30, 30  # that are printed
MAX_NAME = 40  # columns of a class's name
MAX_ALIKE, MAX_NAMES = 2, 10  # warnings of one kind that have lines of their own; names in one line
MAX_LINE = 2_000  # characters of a warning or a note


def report(card: Mapping[str, Any], place: Place, digest: str) -> str:
    """Return the report: warnings first, then how good the model is, how it is served, and what is next."""
    return "\n".join(
        [
            *_warnings(card), "", *_metrics(card), *_more(card), "", *_classes(card), "", *_notes(card), *_engine(card),
            f"model   {_line(place.name)}",
            f"digest  {digest}",
            f"card    {_line(str(place.directory / artifact.CARD_PAGE))}",
            f"serve   {_line(place.serve)}",
        ]
    )  # fmt: skip


def write(text: str) -> None:
    """Print text, whatever the terminal can show; where nobody can read it, nothing happens."""
    try:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        sys.stdout.flush()
    except OSError:  # Python would try again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(text: str, most: int = MAX_LINE) -> str:
    """Return text as one line that no terminal takes for commands."""
    return TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", one_line(text, most))


def _warnings(card: Mapping[str, Any]) -> Iterator[str]:
    found = [
        (reading.text(item, "kind"), reading.text(item, "name"), text)
        for item in reading.items(card, "warnings")
        if (text := reading.text(item, "text"))
    ]
    if not found:
        return
    yield ""
    lines = [line for _, same in groupby(found, key=itemgetter(0)) for line in _of_one_kind([*same])]
    yield from (f"WARNING {_line(line)}" for line in lines[:MAX_WARNINGS])
    if len(lines) > MAX_WARNINGS:
        yield f"WARNING and {len(lines) - MAX_WARNINGS:,} more, which the card has"


def _of_one_kind(found: Sequence[tuple[str | None, str | None, str]]) -> Iterator[str]:
    """Yield the texts of warnings of one kind: of many, the first, and the names of the others."""
    if len(found) <= MAX_ALIKE or not all(name for _, name, _ in found):
        yield from (text for _, _, text in found)
        return
    names = [shown(str(name), MAX_NAME) for _, name, _ in found[1:]]
    more = f" and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else ""
    yield f"{found[0][2]} (likewise: {', '.join(names[:MAX_NAMES])}{more})"


def _metrics(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield each metric with its interval and what always saying the most frequent class reaches."""
    metrics = reading.mapping(card, "metrics")
    rows, always = reading.number(card, "split", "held_out_rows"), reading.text(metrics, "baseline", "class")
    yield f"on {rows or 0:,.0f} held-out rows" + (
        f"; the baseline always says {_line(repr(always), 2 * MAX_NAME)}" if always else ""
    )
    yield f"{'':17}     value   95 % interval      baseline"
    for key, name in tables.METRICS.items():
        value, base = reading.number(metrics, key), reading.number(metrics, "baseline", key)
        if value is not None:
            ends = reading.interval(metrics, "intervals", key)
            span = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "-"
            yield f"{name:17}  {value:8.4f}   {span:>16}   {_number(base):>9}"


def _more(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield what cross-validation, calibration and the comparison with the champion have found, where there is one."""
    validated = reading.mapping(card, "cross_validation")
    for key, name in tables.METRICS.items():
        mean, low, high = (reading.number(validated, "metrics", key, part) for part in ("mean", "low", "high"))
        if mean is not None:
            span = "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"
            yield f"{name:17}  {mean:8.4f}   {span:>16}   over {reading.number(validated, 'folds') or 0:.0f} folds"
    for key, name in {"log_loss": "log loss", "error": "calibration error"}.items():
        before, after = (reading.number(card, "calibration", when, key) for when in ("before", "after"))
        if before is not None and after is not None:
            method = reading.text(card, "calibration", "method")
            yield f"{name:17}  {after:8.4f}   before {method} calibration {before:.4f}"
    for key in ("log_loss", "macro_f1"):
        compared = reading.mapping(card, "comparison", key)
        candidate, champion, low, high = (
            reading.number(compared, part) for part in ("candidate", "champion", "low", "high")
        )
        if candidate is not None and champion is not None:
            yield (
                f"{tables.METRICS[key]:17}  {candidate:8.4f}   the champion {champion:.4f}, a difference between "
                f"{low or 0:+.4f} and {high or 0:+.4f}"
            )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _classes(card: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each class; of many, those that the model finds worst."""
    found = reading.mapping(card, "metrics", "classes")
    names = [*found]
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: reading.number(found, name, "f1") or 0.0)[:MAX_CLASSES]
    labels = [_name(name) for name in names]
    width = max(map(columns, [*labels, "class"]))
    yield f"{'class':{width}}  precision  recall      F1  log loss    rows"
    for name, label in zip(names, labels, strict=True):
        precision, recall, f1, loss = (
            _number(reading.number(found, name, key)) for key in ("precision", "recall", "f1", "log_loss")
        )
        rows = reading.number(found, name, "rows") or 0
        padding = " " * (width - columns(label))
        yield f"{label}{padding}  {precision:>9}  {recall:>6}  {f1:>6}  {loss:>8}  {rows:6,.0f}"
    if len(found) > len(names):
        yield f"the {len(names)} classes with the lowest F1; the card has all {len(found):,}"


def _name(name: str) -> str:
    """Return a name in at most `MAX_NAME` columns."""
    label = _line(name, 10 * MAX_NAME)
    if columns(label) <= MAX_NAME:
        return label
    start, end = _taken(label, MAX_NAME // 2), _taken(label[::-1], MAX_NAME // 2 - 3)
    return f"{start}...{end[::-1]}"


def _taken(label: Sequence[str], most: int) -> str:
    """Return the beginning of a text that takes at most so many columns."""
    end = 0
    while end < len(label) and columns(label[: end + 1]) <= most:
        end += 1
    return "".join(label[:end])


def columns(text: Sequence[str]) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _notes(card: Mapping[str, Any]) -> Iterator[str]:
    notes = [text for text in reading.items(card, "data", "notes") if isinstance(text, str)]
    yield from (f"note    {_line(text)}" for text in notes[:MAX_NOTES])
    if len(notes) > MAX_NOTES:
        yield f"note    and {len(notes) - MAX_NOTES:,} more, which the card has"


def _engine(card: Mapping[str, Any]) -> Iterator[str]:
    name, reason = reading.text(card, "engine", "name"), reading.text(card, "engine", "reason")
    yield f"engine  {name}: {_line(reason)}"
    difference = reading.number(card, "engine", "parity", "largest_difference")
    if difference is not None:
        yield f"        largest difference {difference:.1e}"
