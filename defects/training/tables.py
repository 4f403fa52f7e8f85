"""Read a user's table, CSV or Parquet: its columns by name as the file has them, or one line that says why not.

Training and the load tests both read tables here, so this needs neither pandas nor scikit-learn. Rows are counted from
1, the header not included; blank lines are no rows.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from defects.exported import Exported, exported
from defects.training import fast_csv, formats
from defects.training.bad_data import BadData, among, option, shown
from defects.training.dialects import NAMES, is_number
from defects.training.formats import PARQUET, TABLE, Format, is_table
from defects.training.reading import AS_WRITTEN, Reading

__all__ = ["BadData", "Choice", "Column", "Contents", "is_table", "read", "read_contents"]

ROWS_AT_ONCE = 10_000  # that a CSV's cells are Python objects
EXTENSION = b"ARROW:extension:name"  # in a field's metadata, for a type that only another library knows
NO_HEADER = (
    "the header seems to be missing: the first line, {}, looks like a row; expected a first line with the names of the "
    "columns"
)


@dataclass(frozen=True)
class Column:
    """One column's cells: a pyarrow chunked array `[rows]`; text is `large_string`.

    Cells of a CSV, which has no types, are all text and not `typed`. It is `categorical` where the file says that the
    values are categories, and `foreign` where only another library knows their type.
    """

    path: Path
    name: str
    cells: Any
    typed: bool
    reading: Reading = AS_WRITTEN
    categorical: bool = False
    foreign: bool = False

    def bad(self, row: int | None, problem: str, options: Sequence[str] | None = None) -> BadData:
        """Return the error to raise for the cell in `row`, counted from 0 as arrays are, or for the whole column.

        `options` are what the command needs in addition; by default, that the column is left out.
        """
        place = "" if row is None else f", row {row + 1}:"
        added = (option("--ignore", self.name),) if options is None else options
        return BadData(f"{self.path}: column {self.name!r}{place} {problem}", options=added)


@dataclass(frozen=True)
class Contents:
    """What was read of a file: all the names that it has, and the columns that were asked for, in the file's order.

    `notes` say in words what is unusual about the file and what was left out. `exported` is what a file of history's
    records says of its columns.
    """

    path: Path
    format: Format
    header: tuple[str, ...]
    columns: dict[str, Column]
    notes: tuple[str, ...]
    exported: Exported | None = None


@dataclass(frozen=True)
class Choice:
    """Which columns to read: those with these `names`, or all but those `without`.

    A data frame's index is read only where it is one of `names` or `kept`.
    """

    names: Sequence[str] | None = None
    without: Sequence[str] = ()
    kept: Sequence[str] = ()


def read(path: Path, names: Sequence[str] | None = None, reading: Reading = AS_WRITTEN) -> dict[str, Column]:
    """Read the columns with these names, or all of them, in the file's order; raises `BadData`.

    Other columns are left out, whatever is in them.
    """
    return read_contents(path, Choice(names), reading).columns


def read_contents(path: Path, choice: Choice, reading: Reading = AS_WRITTEN) -> Contents:
    """Read columns as `read` does, with what there is to say about the file."""
    try:
        _check_file(path)
        form = formats.recognise(path, reading)
        reader = _read_parquet if form.kind == PARQUET else _read_csv
        read = reader(path, form, choice, reading)
    except (pa.ArrowException, ValueError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadData(f"{path}: can't be read: {reason}; {TABLE}") from None
    named, notes = _named(path, read.header, read.columns)
    if choice.names is None and form.kind != PARQUET:
        _refuse_values_as_names(path, read.header, named)
    said = [note for note in (form.note(path), *read.notes, *notes) if note]
    return Contents(path, form, tuple(read.header), named, tuple(said), read.exported)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise BadData(f"{path}: is a directory; {TABLE}")
    if not path.exists():
        raise BadData(f"{path}: no such file; {TABLE}")
    if not path.is_file():
        raise BadData(f"{path}: is no regular file; {TABLE}")
    if path.stat().st_size == 0:
        raise BadData(f"{path}: is empty; expected a header and rows")


def _chosen(path: Path, header: Sequence[str], choice: Choice) -> list[int]:
    """Return the places of the columns to read."""
    there, wanted, without = {*header}, {*(choice.names or header)}, {*choice.without}
    for name in choice.names or ():
        if name not in there:
            raise BadData(f"{path}: column {name!r} is missing; expected it {among(name, header)}")
    chosen = [place for place, name in enumerate(header) if name in wanted and name not in without]
    names = [header[place] for place in chosen]
    twice = next((name for name, count in Counter(names).items() if count > 1 and name.strip()), None)
    if twice is not None:
        problem = f"{path}: column {twice!r} appears more than once; expected unique column names in the first line"
        raise BadData(f"{problem}, which is {_first_line(header)}")
    return chosen


def _first_line(header: Sequence[str]) -> str:
    return repr(shown(",".join(header)))


# --- names -----------------------------------------------------------------------------------------------------------


def _named(path: Path, header: Sequence[str], columns: Sequence[Column]) -> tuple[dict[str, Column], list[str]]:
    """Return the columns that have a name, and what to say of the others; raises `BadData` where they have values.

    A first column without a name is a data frame's index, if no two of its cells are the same.
    """
    notes = []
    nameless = [place for place, name in enumerate(header, 1) if not name.strip()]
    for number, column in zip(nameless, [column for column in columns if not column.name.strip()], strict=False):
        if not pc.any(pc.not_equal(column.cells.cast(pa.large_string()), "")).as_py():
            notes.append(f"column {number}, which has no name and no values, is left out")
        elif number == 1 and len(column.cells.unique()) == len(column.cells):
            notes.append("the first column, which has no name, is taken for a data frame's index and left out")
        else:
            raise BadData(
                f"{path}: column {number} has no name; expected a name for every column "
                "(a data frame's index is left out by to_csv(index=False))"
            )
    return {column.name: column for column in columns if column.name.strip()}, notes


def _refuse_numbers_as_names(path: Path, header: Sequence[str]) -> None:
    """Raise `BadData` where names are numbers, and not such as columns are called by: 0, 1, 2 or 2019, 2020."""
    numbers = [name for name in header if is_number(name)]
    counting = all(name.strip().isdigit() for name in numbers)
    values = [int(name) for name in numbers] if counting else []
    if numbers and not (counting and all(one < other for one, other in pairwise(values))):
        raise BadData(f"{path}: {NO_HEADER.format(_first_line(header))}")


def _refuse_values_as_names(path: Path, header: Sequence[str], columns: dict[str, Column]) -> None:
    """Raise `BadData` where most names that are words are also values of their own columns."""
    words = [column for column in columns.values() if not is_number(column.name)]
    if sum(pc.any(pc.equal(column.cells, column.name)).as_py() or False for column in words) * 2 > len(words):
        raise BadData(f"{path}: {NO_HEADER.format(_first_line(header))}")


# --- CSV -------------------------------------------------------------------------------------------------------------


class Read(NamedTuple):
    """What a reader returns: the header, the columns that were chosen, and notes."""

    header: list[str]
    columns: list[Column]
    notes: list[str]
    exported: Exported | None = None


def _read_csv(path: Path, form: Format, choice: Choice, reading: Reading) -> Read:
    with formats.lines(path, form) as lines:
        rows = _rows(path, form, lines)
        header = next(rows, [])
        if not header:
            raise BadData(f"{path}: is empty; expected a header and rows")
        if choice.names is None:
            _refuse_one_column(path, header)
            _refuse_numbers_as_names(path, header)
        places = _chosen(path, header, choice)
        cells = fast_csv.read(path, form, len(header), places)
        if cells is None:
            cells = _cells(rows, places)
    columns = [
        Column(path, header[place], column, typed=False, reading=reading)
        for place, column in zip(places, cells, strict=True)
    ]
    return Read(header, columns, [])


def _cells(rows: Iterator[list[str]], places: Sequence[int]) -> list[Any]:
    """Return the columns at these places as text."""
    chunks: list[list[Any]] = [[] for _ in places]
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        columns = list(zip(*batch, strict=True))
        for parts, place in zip(chunks, places, strict=True):
            parts.append(pa.array(columns[place], pa.large_string()))
    return [pa.chunked_array(parts, pa.large_string()) for parts in chunks]


def _refuse_one_column(path: Path, header: Sequence[str]) -> None:
    if len(header) == 1 and any(separator in header[0].strip() for separator in (*NAMES, *" :^~")):
        known = ", ".join([*list(NAMES.values())[:-1]]) + f" or {list(NAMES.values())[-1]}"
        raise BadData(f"{path}: the header has one column, {shown(header[0])!r}; expected {known} between columns")


def _rows(path: Path, form: Format, lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the header and the rows, all with as many cells."""
    count, width = 0, 0
    try:
        for row in form.dialect.rows(_checked(lines, form)):
            if not row:
                continue
            if count == 0:
                width = len(row)
                row[0] = row[0].removeprefix("\ufeff")
                row[:] = [name.strip() for name in row] if form.dialect.padded else row
            elif len(row) != width:
                raise BadData(f"{path}: row {count}: has {len(row)} cells; expected {width}, as in the header")
            yield row
            count += 1
    except (csv.Error, ValueError) as error:
        place = f"row {count}" if count else "the header"
        expected = f"expected CSV with {form.dialect.separator_name}, in {form.encoding_shown}"
        hint = ", or --encoding with what it is, such as cp1252" if isinstance(error, _NotInEncoding) else ""
        raise BadData(f"{path}: {place}: can't be read: {error}; {expected}{hint}") from None


class _NotInEncoding(ValueError):
    """A byte that is none of the encoding."""


def _checked(lines: Iterable[str], form: Format) -> Iterator[str]:
    """Yield the lines; raises `ValueError` for bytes that are not in the encoding, which were read as surrogates."""
    for line in lines:
        if not line.isascii():
            try:
                line.encode()
            except UnicodeEncodeError as error:
                byte = ord(line[error.start]) - 0xDC00
                raise _NotInEncoding(f"the byte 0x{byte:02x} is not {form.encoding_shown}") from None
        if "\0" in line:
            raise ValueError("a NUL character")
        yield line


# --- Parquet ---------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path, _: Format, choice: Choice, reading: Reading) -> Read:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        about, made = schema.pandas_metadata or {}, exported(schema.metadata)
        wanted = {*(choice.names or ()), *choice.kept}
        index = {name for name in about.get("index_columns", ()) if isinstance(name, str) and name not in wanted}
        header = [name for name in schema.names if name not in index]
        if not header:
            raise BadData(f"{path}: has no columns; expected some")
        details = () if made is None else tuple(name for name in made.details if name not in wanted)
        without = replace(choice, without=(*choice.without, *details))
        chosen = [header[place] for place in _chosen(path, header, without)]
        table = file.read(columns=chosen)
    categorical = {c.get("field_name") for c in about.get("columns", ()) if c.get("pandas_type") == "categorical"}
    reading = reading if made is None else reading.of_exported(made.schema)
    columns = [
        _plain(Column(path, name, table.column(name), True, reading, name in categorical), table.schema.field(name))
        for name in chosen
    ]
    given = [name for name in schema.names if name in index and not name.startswith("__index_level_")]
    notes = [f"column {name!r} is the data frame's index and is left out" for name in given]
    if made is not None:
        notes.append("units, limits and what may be missing are those of the model whose records were exported")
    if details:
        notes.append(f"columns that are no features are left out: {', '.join(details)}")
    return Read(header, columns, notes, made)


def _plain(column: Column, field: Any) -> Column:
    """Return the column with dictionaries as their values, and text as one type that is proved to be UTF-8."""
    cells, categorical = column.cells, column.categorical
    if pa.types.is_dictionary(cells.type):
        cells = pa.chunked_array([chunk.dictionary_decode() for chunk in cells.chunks], cells.type.value_type)
        categorical = categorical or is_text(cells.type)
    if is_text(cells.type):
        cells = _text(column, cells)
    foreign = EXTENSION in (field.metadata or {}) or isinstance(cells.type, pa.BaseExtensionType)
    return Column(column.path, column.name, cells, True, column.reading, categorical, foreign)


def is_text(kind: Any) -> bool:
    """Whether a pyarrow type is text."""
    return bool(pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_string_view(kind))


def _text(column: Column, cells: Any) -> Any:
    """Return the cells, proved to be UTF-8, which a Parquet file only claims."""
    try:
        cells = cells.cast(pa.large_string())
        cells.validate(full=True)
    except (pa.ArrowException, ValueError):
        raise column.bad(None, "has text that is not UTF-8; expected UTF-8") from None
    return cells
