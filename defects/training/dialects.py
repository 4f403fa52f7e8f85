"""Recognise how the rows of a CSV file are written: its separator, its quotes, and the lines before its header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars (|)"}
SAMPLE_ROWS = 200  # by which a file is recognised

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]+', re.IGNORECASE)  # Excel's, before the header
_PADDED = re.compile(r'\s+".*', re.DOTALL)  # a cell whose quote was not the first character
_COMMA_NUMBER = re.compile(r"\s*[+-]?\d+(,\d+)*\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Dialect:
    """How rows are written. `padded` where spaces stand before quotes, `escaped` where backslashes stand in front of
    those that are part of a cell.
    """

    separator: str = ","
    padded: bool = False
    escaped: bool = False

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Yield the rows of CSV lines; raises `csv.Error`."""
        escape = "\\" if self.escaped else None
        return csv.reader(lines, delimiter=self.separator, strict=True, skipinitialspace=self.padded, escapechar=escape)

    @property
    def separator_name(self) -> str:
        """The separators in words."""
        return NAMES.get(self.separator, repr(self.separator))


def recognise(text: str, is_tsv: bool) -> tuple[Dialect, int]:
    """Return how the rows are written in a file that begins with `text`, and how many lines stand before its header."""
    text = text.removeprefix("\ufeff")
    said = _SEPARATOR_LINE.match(text)
    lines = io.StringIO(text, newline="").readlines()
    skipped = 1 if said else 0
    first = next((n for n, line in enumerate(lines) if n >= skipped and not _is_aside(line)), len(lines))
    below = "".join(lines[first:])
    is_true = said and len((first_rows(below, Dialect(said[1]))[0] or [[]])[0]) > 1
    dialect = _with_quotes(said[1] if said and is_true else _separator(below, is_tsv), below)
    if first > skipped and _is_header(lines, first, dialect):
        first = max(n for n in range(first) if lines[n].startswith("#"))
    return dialect, first


def _is_aside(line: str) -> bool:
    return line.startswith("#") or not line.strip("\r\n")


def _is_header(lines: Sequence[str], first: int, dialect: Dialect) -> bool:
    """Whether the last of the lines that start with # is the header: as wide as the next, which has numbers."""
    last = next((line for line in reversed(lines[:first]) if line.startswith("#")), "")
    if first >= len(lines) or not last:
        return False
    names, cells = ([*first_rows(line, dialect)[0], []][0] for line in (last, lines[first]))
    return len(names) == len(cells) > 1 and any(map(is_number, cells))


def is_number(cell: str) -> bool:
    """Whether a cell is a number, perhaps with a decimal comma."""
    return bool(_NUMBER.fullmatch(cell))


def first_rows(text: str, dialect: Dialect) -> tuple[list[list[str]], bool]:
    """Return the first rows of CSV text, up to one that can't be read, and whether there is none."""
    rows: list[list[str]] = []
    try:
        for row in dialect.rows(io.StringIO(text, newline="")):
            if row:
                rows.append(row)
            if len(rows) == SAMPLE_ROWS:
                break
    except csv.Error:
        return rows, False
    return rows, True


def _separator(text: str, is_tsv: bool) -> str:
    """Return the separator by which most rows are as wide as the header, and more than one cell wide.

    Where several are, it is the one that leaves none of the others in cells: commas in numbers beside semicolons are
    decimal commas.
    """
    order = ("\t", ",", ";", "|") if is_tsv else SEPARATORS
    found = {separator: first_rows(text, Dialect(separator, padded=True))[0] for separator in order}
    possible = [separator for separator in order if found[separator] and len(found[separator][0]) > 1]

    def quality(separator: str) -> tuple[float, float]:
        rows = found[separator]
        others = [other for other in possible if other != separator]
        cells = [cell for row in rows for cell in row]
        clean = sum(not any(o in cell for o in others) or bool(_COMMA_NUMBER.fullmatch(cell)) for cell in cells)
        return sum(len(row) == len(rows[0]) for row in rows) / len(rows), clean / len(cells)

    return max(possible, key=quality, default=order[0])


def _with_quotes(separator: str, text: str) -> Dialect:
    """Return the dialect with this separator by which the text's quotes can be read."""
    plain = Dialect(separator)
    rows, _ = first_rows(text, plain)
    dialect = replace(plain, padded=any(_PADDED.fullmatch(cell) for row in rows for cell in row))
    escaped = replace(dialect, escaped=True)
    if '\\"' in text and not first_rows(text, dialect)[1] and first_rows(text, escaped)[1]:
        return escaped
    return dialect
