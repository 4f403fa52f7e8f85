"""Read the rows of a plain CSV file with pyarrow, far faster than with Python's `csv`.

Plain is a file in UTF-8 without quotes: in it every separator and every line end is one. Anything else, and anything
that is wrong, is left to `csv`, whose refusals name the row.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from defects.training.formats import Format

BLOCK_BYTES = 2**24  # in which the file is parsed; a longer line is left to `csv`


def read(path: Path, form: Format, width: int, places: Sequence[int]) -> list[Any] | None:
    """Return the cells of the columns at these places, of `width`, as text; `None` where the file is not plain."""
    if form.encoding != "utf-8-sig" or form.compressed or form.dialect.padded or not _is_plain(path):
        return None
    names = [str(place) for place in range(width)]
    chosen = [names[place] for place in places]
    try:
        with path.open("rb") as file:
            table = pa.csv.read_csv(
                file,
                pa.csv.ReadOptions(column_names=names, skip_rows=form.skipped + 1, block_size=BLOCK_BYTES),
                pa.csv.ParseOptions(delimiter=form.dialect.separator, quote_char=False, escape_char=False),
                pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.large_string()),
                    include_columns=chosen,
                    strings_can_be_null=False,
                ),
            )
    except pa.ArrowInvalid:
        return None
    cells = [table.column(name) for name in chosen]
    longest = max((pc.max(pc.binary_length(column)).as_py() or 0 for column in cells), default=0)
    return None if longest > csv.field_size_limit() else cells


def _is_plain(path: Path) -> bool:
    """Whether a file is UTF-8, in all columns, and has no quotes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while part := file.read(BLOCK_BYTES):
                decoder.decode(part)
                if b'"' in part or b"\0" in part:
                    return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
