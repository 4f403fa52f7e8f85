"""Recognise how a table's file is written: Parquet or CSV, its encoding, compression, separator, and lines to skip.

What a file contains decides, not its name. Raises `BadData` for what is no table, with what it is instead.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from defects.training import dialects
from defects.training.bad_data import BadData, shown
from defects.training.dialects import Dialect
from defects.training.reading import Reading

CSV, PARQUET = "csv", "parquet"
PLAIN = Dialect()
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"

SAMPLE_BYTES = 2**18  # of a file's beginning, by which it is recognised
MOST_LINE = 2**24  # characters of one line, so that a file without line ends does not fill the memory
MOST_UNPACKED = 2**30  # characters that a small compressed file may become,
MOST_RATIO = 200  # and how many times its size beyond that

# The first bytes of a file by its encoding; those of UTF-32 begin as those of UTF-16 do.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
TABLE = "expected a CSV or Parquet file"
# What files of other kinds begin with, and what to do with them.
OTHERS = (
    (b"PARE", f"is an encrypted Parquet file; {TABLE} that is not encrypted"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"is an old Excel file; {TABLE}: save the sheet as CSV (UTF-8)"),
    (b"ARROW1", f"is an Arrow (Feather) file; {TABLE}: write it with to_parquet"),
    (b"FEA1", f"is a Feather file; {TABLE}: write it with to_parquet"),
    (b"SQLite format 3\0", f"is an SQLite database; {TABLE}: export the table as CSV"),
    (b"\x89HDF", f"is an HDF5 file; {TABLE}: write it with to_parquet"),
    (b"Obj\x01", f"is an Avro file; {TABLE}"),
    (b"BZh91AY&SY", f"is compressed with bzip2; {TABLE}: unpack it, or compress it with gzip"),
    (b"\xfd7zXZ\0", f"is compressed with xz; {TABLE}: unpack it, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", f"is compressed with zstd; {TABLE}: unpack it, or compress it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", f"is a 7z archive; {TABLE}: unpack it first"),
    (b"%PDF-", f"is a PDF file; {TABLE}"),
    (b"version https://git-lfs", f"is only a pointer to a file in Git LFS; {TABLE}: git lfs pull fetches it"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05].*\.", re.DOTALL)
_MARKUP = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_JSON = re.compile(rb"\s*(\[\s*[\[{]|\{\s*\")")


@dataclass(frozen=True)
class Format:
    """How a file is written. `skipped` lines stand before the header."""

    kind: str
    dialect: Dialect = PLAIN
    encoding: str = "utf-8-sig"
    compressed: bool = False
    decimal: str = "."
    skipped: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the format as the card has it."""
        if self.kind == PARQUET:
            return {"kind": self.kind}
        return {
            "kind": self.kind,
            "separator": self.dialect.separator,
            "encoding": self.encoding_shown.lower(),
            "compression": "gzip" if self.compressed else None,
            "decimal": self.decimal,
            "skipped_lines": self.skipped,
        }

    @property
    def encoding_shown(self) -> str:
        """The encoding's name as messages have it."""
        return self.encoding.removesuffix("-sig").upper()

    def note(self, path: Path) -> str:
        """Return what is unusual about the format, in words; empty where nothing is."""
        if self.kind == PARQUET:
            usual = path.suffix.lower() in PARQUET_NAMES
            return "" if usual else "the file is read as Parquet, which it is by its content"
        unusual = [
            *([f"with {self.dialect.separator_name} between columns"] * (self.dialect.separator != ",")),
            *(["with backslashes before quotes in cells"] * self.dialect.escaped),
            *([f"in {self.encoding_shown}"] * (self.encoding != "utf-8-sig")),
            *(["compressed with gzip"] * self.compressed),
            *(["with a decimal comma"] * (self.decimal == ",")),
            *([f"from line {self.skipped + 1} on"] * (self.skipped > 0)),
        ]
        return f"the file is read as CSV {', '.join(unusual)}" if unusual else ""


PARQUET_NAMES = (".parquet", ".pq")
CSV_NAMES = (".csv", ".tsv", ".tab", ".txt", "")


def is_table(path: Path) -> bool:
    """Whether a file's name is that of a CSV or Parquet file, perhaps compressed with gzip."""
    inner = Path(path.stem) if path.suffix.lower() == ".gz" else path
    return inner.suffix.lower() in CSV_NAMES or path.suffix.lower() in PARQUET_NAMES


def recognise(path: Path, reading: Reading) -> Format:
    """Return how the file is written; raises `BadData` for what is no table, and `OSError`."""
    with path.open("rb") as file:
        start = file.read(len(GZIP))
    compressed = start == GZIP
    with unpacked(path, compressed) as file:
        head = file.read(SAMPLE_BYTES)
    if head.startswith(b"PAR1") and not compressed:
        if reading.encoding is not None:
            raise BadData(f"{path}: is a Parquet file; expected no --encoding, which is for CSV")
        return Format(PARQUET)
    _refuse_others(path, head)
    encoding = _encoding(path, head, reading.encoding)
    text = head.decode(encoding, errors="replace")
    if len(head) == SAMPLE_BYTES:  # its last line is not whole
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1] or text
    dialect, skipped = dialects.recognise(text, is_tsv=".tsv" in path.name.lower())
    return Format(CSV, dialect, encoding, compressed, reading.decimal, skipped)


def _refuse_others(path: Path, head: bytes) -> None:
    """Raise `BadData` for a file that is of another kind, by its first bytes."""
    problem = next((problem for start, problem in OTHERS if head.startswith(start)), _other(path, head))
    if problem:
        raise BadData(f"{path}: {problem}")


def _other(path: Path, head: bytes) -> str | None:
    """Return what a file is that more than its first bytes tell, and what to do with it."""
    unpack = f"{TABLE}: unpack it first"
    is_excel = b"xl/" in head or path.suffix.lower().startswith(".xls")
    page = f"is an HTML or XML page; {TABLE}: if it was downloaded, its address is that of a page about the file"
    cases = (
        (is_excel and head.startswith(ZIP), f"is an Excel file; {TABLE}: save the sheet as CSV (UTF-8)"),
        (head.startswith(ZIP), f"is a zip file; {unpack}"),
        (head[257:262] == b"ustar", f"is a tar archive; {unpack}"),
        (head.startswith(b"PAR1"), f"is a Parquet file compressed with gzip; {unpack}"),
        (_PICKLE.match(head), f"is a pickle; {TABLE}: write the data frame with to_parquet"),
        (_MARKUP.match(head), page),
        (_JSON.match(head), f"is JSON; {TABLE}: write it with to_csv or to_parquet"),
        (path.suffix.lower() in PARQUET_NAMES, f"is no Parquet file; {TABLE}, or the name of a CSV file if it is one"),
    )
    return next((problem for is_so, problem in cases if is_so), None)


# --- encoding and compression ----------------------------------------------------------------------------------------


def _encoding(path: Path, head: bytes, asked: str | None) -> str:
    """Return the encoding that the command says, or that the first bytes do, or UTF-8."""
    marked = next((encoding for mark, encoding in MARKS if head.startswith(mark)), None)
    if asked is None:
        if marked is None and b"\0" in head[:200]:
            _refuse_unmarked(path, head)
        return marked or "utf-8-sig"
    name = encoding_name(asked)
    family = "-".join((marked or "").split("-")[:2])
    if marked and not name.startswith(family):
        raise BadData(f"{path}: begins with the mark of {family.upper()}; expected no --encoding, or this one")
    return marked or ("utf-8-sig" if name == "utf-8" else name)


def encoding_name(asked: str) -> str:
    """Return an encoding's usual name; raises `ValueError` where there is none for text."""
    try:
        name = codecs.lookup(asked).name
        "a".encode(name)  # refuses those that are not for text, such as base64
    except (LookupError, ValueError):
        raise ValueError(
            f"{shown(asked)!r} is no encoding; expected one such as utf-8, latin-1, cp1252 or utf-16"
        ) from None
    return name


def _refuse_unmarked(path: Path, head: bytes) -> None:
    """Raise `BadData` for UTF-16 without a mark, by which every other byte of English text is zero."""
    for name, zeros in (("utf-16-le", head[1:200:2]), ("utf-16-be", head[0:200:2])):
        if zeros.count(0) > 0.8 * len(zeros):
            raise BadData(
                f"{path}: looks like UTF-16 without a mark at its beginning; expected UTF-8, or --encoding {name}"
            )


@contextmanager
def unpacked(path: Path, compressed: bool) -> Iterator[BinaryIO]:
    """Open a file to read its bytes, unpacked where it is compressed; raises `BadData` where that is damaged."""
    try:
        if compressed:
            with gzip.open(path) as packed:
                yield cast(BinaryIO, packed)
        else:
            with path.open("rb") as file:
                yield file
    except EOFError:
        raise BadData(f"{path}: ends too early; expected a whole gzip file: its download or copy was cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadData(f"{path}: is damaged: {error}; expected a gzip file") from None


@contextmanager
def lines(path: Path, form: Format) -> Iterator[Iterator[str]]:
    """Open a CSV file to read its lines with their line ends, from the header on; bytes that are not in the encoding
    are halves of surrogate pairs.
    """
    with unpacked(path, form.compressed) as file:
        text = io.TextIOWrapper(file, encoding=form.encoding, errors="surrogateescape", newline="")
        most = max(MOST_UNPACKED, MOST_RATIO * path.stat().st_size) if form.compressed else None
        yield islice(_bounded(path, text, most), form.skipped, None)


def _bounded(path: Path, text: io.TextIOWrapper, most: int | None) -> Iterator[str]:
    """Yield lines; raises `BadData` for one without an end, and where all together are more than `most` characters."""
    count = 0
    for line in iter(partial(text.readline, MOST_LINE), ""):
        if len(line) >= MOST_LINE:
            raise BadData(f"{path}: has a line of more than {MOST_LINE:,} characters; expected rows with line ends")
        count += len(line)
        if most is not None and count > most:
            raise BadData(
                f"{path}: is more than {MOST_RATIO} times as large unpacked; expected a table: unpack it first"
            )
        yield line
