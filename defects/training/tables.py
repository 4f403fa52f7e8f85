"""Read a user's table, CSV or Parquet: its columns by name as the file has them, or one line that says why not.

Training and the load tests both read tables here, so this needs neither pandas nor scikit-learn. Rows are counted from
1, the header not included; blank lines are no rows.
"""

from __future__ import annotations

import csv
import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

CSV, PARQUET = (".csv", ".txt", ""), (".parquet", ".pq")  # how files of each kind are named
ROWS_AT_ONCE = 10_000  # that a CSV's cells are Python objects
MOST_SHOWN = 60  # characters of a cell in a message

USABLE = "a number, or true or false; for the label, also text"
EXTENSION = b"ARROW:extension:name"  # in a field's metadata, for a type that only another library knows


class BadData(Exception):
    """The data can't be used; the message names file, column, row and what was expected."""


@dataclass(frozen=True)
class Column:
    """One column's cells: a pyarrow chunked array `[rows]` of numbers, booleans, or text as `large_string`.

    Cells of a CSV, which has no types, are all text and not `typed`.
    """

    path: Path
    name: str
    cells: Any
    typed: bool

    def bad(self, row: int | None, problem: str) -> BadData:
        """Return the error to raise for the cell in `row`, counted from 0 as arrays are, or for the whole column."""
        place = "" if row is None else f", row {row + 1}:"
        return BadData(f"{self.path}: column {self.name!r}{place} {problem}")


def shown(cell: str) -> str:
    """Return a cell as messages have it: its beginning, where it is long."""
    return cell if len(cell) <= MOST_SHOWN else f"{cell[:MOST_SHOWN]}…"


def among(name: str, known: Sequence[str]) -> str:
    """Return the names that there are, and which of them `name` may have been meant to be."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"among {', '.join(map(repr, known))}{f'; did you mean {close[0]!r}?' if close else ''}"


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a CSV or Parquet file."""
    return path.suffix.lower() in CSV + PARQUET


def read(path: Path, names: Sequence[str] | None = None) -> dict[str, Column]:
    """Read the columns with these names, or all of them, in the file's order; raises `BadData`.

    Other columns are left out, whatever is in them.
    """
    try:
        if path.is_dir() or not is_table(path):
            raise BadData(f"{path}: is no CSV or Parquet file, by its name; expected one, such as x.csv or x.parquet")
        if not path.is_file():
            raise BadData(f"{path}: no such file; expected a CSV or Parquet file")
        if path.stat().st_size == 0:
            raise BadData(f"{path}: is empty; expected a header and rows")
        return (_read_parquet if path.suffix.lower() in PARQUET else _read_csv)(path, names)
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadData(f"{path}: can't be read: {reason}; expected a CSV or Parquet file") from None


def _check_names(path: Path, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice and twice[0]:
        raise BadData(f"{path}: column {twice[0]!r} appears more than once; expected unique column names")
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise BadData(
                f"{path}: column {number} has no name; expected a name for every column "
                "(a data frame's index is left out by to_csv(index=False))"
            )


def _chosen(path: Path, header: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Return the names of the columns to read, in the file's order."""
    _check_names(path, header)
    for name in names or ():
        if name not in header:
            raise BadData(f"{path}: column {name!r} is missing; expected it {among(name, header)}")
    return [name for name in header if names is None or name in names]


# --- CSV -------------------------------------------------------------------------------------------------------------


def _read_csv(path: Path, names: Sequence[str] | None) -> dict[str, Column]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        rows = _rows(path, file)
        header = next(rows, [])
        if not header:
            raise BadData(f"{path}: is empty; expected a header and rows")
        if len(header) == 1 and any(separator in header[0] for separator in ";\t|"):
            raise BadData(f"{path}: the header has one column, {shown(header[0])!r}; expected commas between columns")
        chosen = _chosen(path, header, names)
        places = [header.index(name) for name in chosen]
        chunks: list[list[Any]] = [[] for _ in chosen]
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            columns = list(zip(*batch, strict=True))
            for parts, place in zip(chunks, places, strict=True):
                parts.append(pa.array(columns[place], pa.large_string()))
    return {
        name: Column(path, name, pa.chunked_array(parts, pa.large_string()), typed=False)
        for name, parts in zip(chosen, chunks, strict=True)
    }


def _rows(path: Path, file: Iterable[str]) -> Iterator[list[str]]:
    """Yield the header and the rows, all with as many cells."""
    count, width = 0, 0
    try:
        for row in csv.reader(_lines(file), strict=True):
            if not row:
                continue
            if count == 0:
                width = len(row)
            elif len(row) != width:
                raise BadData(f"{path}: row {count}: has {len(row)} cells; expected {width}, as in the header")
            yield row
            count += 1
    except (csv.Error, ValueError) as error:
        place = f"row {count}" if count else "the header"
        raise BadData(f"{path}: {place}: can't be read: {error}; expected CSV with commas, in UTF-8") from None


def _lines(file: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a file; raises `ValueError` for bytes that are not UTF-8, which were read as surrogates."""
    for line in file:
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the byte 0x{ord(line[error.start]) - 0xDC00:02x} is not UTF-8") from None
        if "\0" in line:
            raise ValueError("a NUL character")
        yield line


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, names: Sequence[str] | None) -> dict[str, Column]:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        index = (schema.pandas_metadata or {}).get("index_columns", ())
        header = [name for name in schema.names if name not in index]
        if not header:
            raise BadData(f"{path}: has no columns; expected some")
        chosen = _chosen(path, header, names)
        table = file.read(columns=chosen)
    return {name: _plain(path, table.schema.field(name), table.column(name)) for name in chosen}


def _plain(path: Path, field: Any, cells: Any) -> Column:
    """Return the column as numbers, booleans or text; raises `BadData` for one that is none of them."""
    if pa.types.is_dictionary(cells.type):
        cells = pa.chunked_array([chunk.dictionary_decode() for chunk in cells.chunks], cells.type.value_type)
    kind, types = cells.type, pa.types
    column = Column(path, field.name, cells, typed=True)
    if types.is_temporal(kind):
        raise column.bad(0, f"is a date or a duration; expected {USABLE}")
    if types.is_large_string(kind) or types.is_string(kind) or types.is_string_view(kind):
        return Column(path, field.name, _text(column), typed=True)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if EXTENSION in (field.metadata or {}) or not (number or types.is_boolean(kind) or types.is_null(kind)):
        raise column.bad(0, f"is of type {shown(str(kind))}; expected {USABLE}")
    return column


def _text(column: Column) -> Any:
    """Return the cells, proved to be UTF-8, which a Parquet file only claims."""
    try:
        cells = column.cells.cast(pa.large_string())
        cells.validate(full=True)
    except (pa.ArrowException, ValueError):
        raise column.bad(None, "has text that is not UTF-8; expected UTF-8") from None
    return cells
