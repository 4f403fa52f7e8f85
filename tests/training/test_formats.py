"""Files as people have them are read as they are meant, or refused in one line that says what to do."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defects.training import dataset, fast_csv, formats, tables
from defects.training.bad_data import BadData
from defects.training.dataset import Table
from defects.training.reading import Reading

CSV = "a,b,d\n1.5,x,yes\n2.5,y,no\n3.5,x,yes\n4.5,,no\n"
VALUES = [[1.5, 0], [2.5, 1], [3.5, 0], [4.5, np.nan]]


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)  # the time is in names of tests


def write(directory: Path, content: str | bytes, name: str = "t.csv") -> Path:
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory / name


def refused(file: Path, label: str = "d", **said: Any) -> str:
    with pytest.raises(BadData) as caught:
        dataset.read(file, label, Reading(**said))
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    assert "Traceback" not in message
    return message.removeprefix(f"{file}: ")


def same(table: Table) -> None:
    np.testing.assert_array_equal(table.features, VALUES)
    assert table.schema.names == ("a", "b")
    assert table.schema.features[1].categories == ("x", "y")
    assert table.schema.class_names == ("no", "yes")


SEMICOLONS = CSV.replace(",", ";")
COMMAS = SEMICOLONS.replace(".", ",")


@pytest.mark.parametrize(
    ("content", "said", "form", "note"),
    [
        (CSV, {}, {"separator": ",", "encoding": "utf-8", "compression": None, "decimal": ".", "skipped_lines": 0}, ""),
        (SEMICOLONS, {}, {"separator": ";"}, "the file is read as CSV with semicolons between columns"),
        (CSV.replace(",", "\t"), {}, {"separator": "\t"}, "with tabs between columns"),
        (CSV.replace(",", "|"), {}, {"separator": "|"}, "with bars (|) between columns"),
        (COMMAS, {"decimal": ","}, {"separator": ";", "decimal": ","}, "with a decimal comma"),
        (f"sep=;\r\n{SEMICOLONS}", {}, {"separator": ";", "skipped_lines": 1}, "from line 2 on"),
        (f"sep=;\n{CSV}", {}, {"separator": ","}, "from line 2 on"),
        (f"sep=^\n{CSV.replace(',', '^')}", {}, {"separator": "^"}, "with '^' between columns"),
        (f'"sep=,"\n{CSV}', {}, {"separator": ","}, "from line 2 on"),
        (f"# made, by; a tool\n#\n\n{CSV}", {}, {"skipped_lines": 3}, "from line 4 on"),
        (f"\n\n{CSV}", {}, {"skipped_lines": 2}, ""),
        ('a,  "b",  d\n1.5, "x" , yes\n2.5, "y", no\n3.5, "x", yes\n4.5, "", no\n'.replace(" ,", ","), {}, {}, ""),
        ("\ufeff" + CSV, {}, {"encoding": "utf-8"}, ""),
        (CSV.encode("utf-16"), {}, {"encoding": "utf-16"}, "in UTF-16"),
        (b"\xfe\xff" + CSV.encode("utf-16-be"), {}, {"encoding": "utf-16"}, "in UTF-16"),
        (CSV.encode("utf-32"), {}, {"encoding": "utf-32"}, "in UTF-32"),
        (CSV.encode("utf-16-le"), {"encoding": "utf-16-le"}, {"encoding": "utf-16-le"}, "in UTF-16-LE"),
        (CSV.encode("utf-16"), {"encoding": "utf-16"}, {"encoding": "utf-16"}, "in UTF-16"),
        ("\ufeff" + CSV, {"encoding": "UTF8"}, {"encoding": "utf-8"}, ""),
        (CSV.encode("cp500"), {"encoding": "cp500"}, {"encoding": "cp500"}, "in CP500"),
        (packed(CSV.encode()), {}, {"compression": "gzip"}, "compressed with gzip"),
        (packed(CSV[:20].encode()) + packed(CSV[20:].encode()), {}, {"compression": "gzip"}, "gzip"),
        (packed(COMMAS.encode("utf-16")), {"decimal": ","}, {"separator": ";", "encoding": "utf-16"}, "gzip"),
    ],
)
def test_how_a_file_is_written_is_recognised_and_said(
    content: str | bytes, said: dict[str, Any], form: dict[str, Any], note: str, tmp_path: Path
) -> None:
    table = dataset.read(write(tmp_path, content), "d", Reading(**said))
    same(table)
    assert table.source["format"].items() >= {"kind": "csv", **form}.items()
    assert len(table.notes) == (note != "" or bool(form.get("skipped_lines")))
    assert note in "".join(table.notes)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.TXT", "t", "t.data", "t.dat.gz"])
@pytest.mark.parametrize("compress", [False, True])
def test_the_content_decides_not_the_name(name: str, compress: bool, tmp_path: Path) -> None:
    same(dataset.read(write(tmp_path, packed(CSV.encode()) if compress else CSV, name), "d"))


def test_parquet_is_recognised_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    pd.read_csv(io.StringIO(CSV)).to_parquet(file)
    table = dataset.read(file, "d")
    same(table)
    assert table.source["format"] == {"kind": "parquet"}
    assert table.notes == ("the file is read as Parquet, which it is by its content",)
    assert "is a Parquet file; expected no --encoding" in refused(file, encoding="latin-1")


@pytest.mark.parametrize(
    ("content", "widths"),
    [
        ("a;b;d\n1,5;2,5;x\n3,5;4,5;y\n", 3),  # decimal commas, as many in each row
        ("a, kg;b, m;d\n1,5;2,5;x\n3,5;4,5;y\n", 3),  # and in the header
        ('a;"b;c";d\n1;2;x\n3;4;y\n', 3),
        ('a,b,d\n"1;2;3",2,x\n"3;4;5",4,y\n', 3),
        ("a,b,d\n1;2,2,x\n3;4,4,y\n", 3),
        ("a\tb, c\td\n1\t2,5\tx\n3\t4,5\ty\n", 3),
        ("a|b|d\n1|x, y, z|x\n2|u, v|y\n", 3),
        ('a,b,d\n1,"x\ny;z",x\n2,"u",y\n', 3),
        ("a;d\n1;x\n2;y\n3,5;x,y\n", 2),
    ],
)
def test_the_separator_is_what_makes_rows_alike(content: str, widths: int, tmp_path: Path) -> None:
    form = formats.recognise(write(tmp_path, content), Reading())
    with formats.lines(tmp_path / "t.csv", form) as lines:
        assert {len(row) for row in form.dialect.rows(lines)} == {widths}


def test_quotes_may_have_backslashes(tmp_path: Path) -> None:
    body = '"H. \\"B\\" E",x\n"C:\\\\",y\n'
    file = write(tmp_path, "a,d\n" + body * 3)
    table = dataset.read(file, "d")
    assert table.schema.features[0].categories == ("C:\\", 'H. "B" E')


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("#id,b,d\n1,2,x\n2,3,x\n3,4,y\n3,5,y\n", ("#id", "b")),
        ("# a tool, of 2026\n#id,b,d\n1,2,x\n2,3,x\n3,4,y\n3,5,y\n", ("#id", "b")),
        ("# what, it, is\nid,b,d\n1,2,x\n2,3,x\n3,4,y\n3,5,y\n", ("id", "b")),
    ],
)
def test_a_line_with_a_hash_may_be_the_header(content: str, names: tuple[str, ...], tmp_path: Path) -> None:
    assert dataset.read(write(tmp_path, content), "d").schema.names == names


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, "x")
    return buffer.getvalue()


def feather() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"a": [1]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    return bytes(sink.getvalue().to_pybytes())


NOT_TABLES = {
    "t.xlsx": (zipped("xl/workbook.xml"), "is an Excel file; expected a CSV or Parquet file: save the sheet as CSV"),
    "renamed.csv": (zipped("xl/workbook.xml"), "is an Excel file"),
    "t.zip": (zipped("t.csv"), "is a zip file; expected a CSV or Parquet file: unpack it first"),
    "t.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "is an old Excel file"),
    "t.feather": (feather(), "is an Arrow (Feather) file"),
    "t.h5": (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
    "t.db": (b"SQLite format 3\0", "is an SQLite database"),
    "t.csv.bz2": (b"BZh91AY&SY\0\0", "is compressed with bzip2"),
    "t.csv.xz": (b"\xfd7zXZ\0\0", "is compressed with xz"),
    "t.csv.zst": (b"\x28\xb5\x2f\xfd\0", "is compressed with zstd"),
    "t.pkl": (b"\x80\x04\x95\x10.", "is a pickle"),
    "page.csv": (b"\n<!DOCTYPE html><html>", "is an HTML or XML page"),
    "t.json": (b'[\n {"a": 1}]', "is JSON"),
    "lfs.csv": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is only a pointer to a file in Git"),
    "text.parquet": (CSV.encode(), "is no Parquet file; expected a CSV"),
    "t.parquet.gz": (packed(parquet()), "is a Parquet file compressed with gzip"),
    "t.tar.gz": (packed(b"a" + bytes(256) + b"ustar" + bytes(250)), "is a tar archive"),
    "encrypted.parquet": (b"PARE" + bytes(20), "is an encrypted Parquet file"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_TABLES)
def test_what_is_no_table_is_named(name: str, tmp_path: Path) -> None:
    content, problem = NOT_TABLES[name]
    assert refused(write(tmp_path, content, name)).startswith(problem)


CAFE = "a,b,d\n1,café,x\n2,thé,x\n3,café,y\n4,thé,y\n"
BROKEN: dict[str, tuple[Callable[[], str | bytes], str]] = {
    "latin-1": (lambda: CAFE.encode("latin-1"), "row 1: can't be read: the byte 0xe9 is not UTF-8; expected CSV with "
                "commas, in UTF-8, or --encoding with what it is, such as cp1252"),
    "utf-16 without a mark": (lambda: CSV.encode("utf-16-le"), "looks like UTF-16 without a mark at its beginning; "
                              "expected UTF-8, or --encoding utf-16-le"),
    "utf-16-be without a mark": (lambda: CSV.encode("utf-16-be"), "expected UTF-8, or --encoding utf-16-be"),
    "half a utf-16 character": (lambda: CSV.encode("utf-16")[:-1], "row 4: can't be read: "),
    "gzip cut off": (lambda: packed(CSV.encode())[:-12], "ends too early; expected a whole gzip file"),
    "gzip damaged": (lambda: packed(CSV.encode())[:10] + b"\xff" * 40, "is damaged: "),
    "gzip with a wrong sum": (lambda: packed(CSV.encode())[:-8] + bytes(8), "is damaged: "),
    "gzip of nothing": (lambda: packed(b""), "is empty"),
    "nul": (lambda: CSV.replace("x", "\0"), "row 1: can't be read: a NUL character"),
    "ragged": (lambda: CSV + "5,x\n", "row 5: has 2 cells; expected 3, as in the header"),
    "ragged semicolons": (lambda: SEMICOLONS + "5;x\n", "row 5: has 2 cells; expected 3, as in the header"),
    "open quote": (lambda: CSV + '5,"x,no\n', "row 5: can't be read: unexpected end of data"),
    "only comments": (lambda: "# a\n# b\n", "is empty"),
    "only sep": (lambda: "sep=;\n", "is empty"),
    "spaces": (lambda: CSV.replace(",", " "), "the header has one column, 'a b d'; expected commas, semicolons,"),
    "quoted lines": (lambda: '"a,b,d"\n"1,2,x"\n', "the header has one column, 'a,b,d'; expected commas, semicolons,"),
    "no header": (lambda: CSV[6:], "the header seems to be missing: the first line, '1.5,x,yes', looks like a row"),
    "no header, integers": (lambda: "39,13,x\n50,13,y\n38,9,x\n", "the header seems to be missing"),
    "no header, text": (lambda: "low,x\nhigh,y\nlow,x\n", "the header seems to be missing"),
    "no header, repeated": (lambda: "low,low,x\nhigh,low,y\n", "column 'low' appears more than once; expected unique "
                            "column names in the first line, which is 'low,low,x'"),
    "a nameless column": (lambda: "a,,d\n1,2,x\n2,2,x\n3,2,y\n4,2,y\n", "column 2 has no name"),
    "a nameless first column": (lambda: ",a,d\n1,2,x\n1,2,x\n3,2,y\n4,2,y\n", "column 1 has no name"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_line(kind: str, tmp_path: Path) -> None:
    make, problem = BROKEN[kind]
    assert problem in refused(write(tmp_path, make()))


def test_another_encoding_is_read_where_it_is_said(tmp_path: Path) -> None:
    for encoding in ("latin-1", "cp1252", "ISO-8859-15"):
        table = dataset.read(write(tmp_path, CAFE.encode(encoding)), "d", Reading(encoding=encoding))
        assert table.schema.features[1].categories == ("café", "thé")
    bad = write(tmp_path, CAFE.encode("latin-1").replace(b"\xe9", b"\x81"))
    assert "the byte 0x81 is not CP1252" in refused(bad, encoding="cp1252")
    assert "begins with the mark of UTF-16" in refused(write(tmp_path, CSV.encode("utf-16")), encoding="latin-1")


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MOST_LINE", 2**20)
    assert "has a line of more than 1,048,576 characters" in refused(write(tmp_path, b"a" * 2**20))
    bomb = packed(CSV.encode() + b"\n" * 2**17)
    monkeypatch.setattr(formats, "MOST_UNPACKED", 2**16)
    monkeypatch.setattr(formats, "MOST_RATIO", 20)
    assert "is more than 20 times as large unpacked" in refused(write(tmp_path, bomb))


def rows(header: str, cells: Callable[[int], str], count: int = 20) -> str:
    return header + "\n" + "".join(f"{cells(i)},{'xy'[i % 2]}\n" for i in range(count))


@pytest.mark.parametrize(
    ("content", "names", "notes"),
    [
        (rows(",a,d", lambda i: f"{i},{i % 3}"), ("a",), ["the first column, which has no name, is taken for a data"]),
        (rows('"",a,d', lambda i: f"{7 * i % 20},{i % 3}"), ("a",), ["the first column, which has no name"]),
        (rows(",a,d", lambda i: f"Mazda {i},{i % 3}"), ("a",), ["the first column, which has no name"]),
        (rows("Unnamed: 0,a,d", lambda i: f"{i},{i % 3}"), ("a",), ["column 'Unnamed: 0' counts the rows"]),
        (rows("index,a,d", lambda i: f"{i + 1},{i % 3}"), ("a",), ["column 'index' counts the rows"]),
        (rows("rownames,a,d", lambda i: f"{i + 1},{i % 3}"), ("a",), ["column 'rownames' counts the rows"]),
        (rows("index,a,d", lambda i: f"{i * i},{i % 3}"), ("index", "a"), []),
        (rows("n,a,d", lambda i: f"{i},{i % 3}"), ("n", "a"), []),
        (rows("a,e,d", lambda i: f"{i},"), ("a",), ["column 'e' is empty in every row and is left out"]),
        (rows("a,e,d", lambda i: f"{i},NA"), ("a",), ["column 'e' is empty in every row and is left out"]),
        (rows("a,,d", lambda i: f"{i},"), ("a",), ["column 2, which has no name and no values, is left out"]),
        (rows("0,1,d", lambda i: f"{i * 2},{i % 3}"), ("0", "1"), []),
        (rows("2019,2021,d", lambda i: f"{i * 2},{i % 3}"), ("2019", "2021"), []),
    ],
)
def test_what_is_no_feature_is_left_out_with_a_word(
    content: str, names: tuple[str, ...], notes: list[str], tmp_path: Path
) -> None:
    table = dataset.read(write(tmp_path, content), "d")
    assert table.schema.names == names
    assert len(table.notes) == len(notes)
    for note, begin in zip(table.notes, notes, strict=True):
        assert note.startswith(begin)


def test_what_the_command_names_is_not_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, rows("index,a,d", lambda i: f"{i},{i % 3}"))
    assert dataset.read(file, "d", Reading(number=("index",))).schema.names == ("index", "a")
    table = dataset.read(file, "d", Reading(time="index"))
    assert (table.schema.names, table.notes) == (("a",), ())
    frame = pd.DataFrame({"a": [1, 2, 3, 4]}, index=pd.Index(list("xyxy"), name="d"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert dataset.read(tmp_path / "t.parquet", "d").schema.class_names == ("x", "y")
    frame.reset_index().assign(a=[7, 9, 8, 6], b=1.5).set_index("a").to_parquet(tmp_path / "t.parquet")
    table = dataset.read(tmp_path / "t.parquet", "d")
    assert (table.schema.names, table.notes) == (("b",), ("column 'a' is the data frame's index and is left out",))


@pytest.mark.parametrize(
    ("label", "rows_", "is_refused"),
    [
        (lambda i: i * 1.37, 100, True),
        (lambda i: i % 25, 100, True),
        (lambda i: i % 21, 209, True),
        (lambda i: i % 21, 210, False),
        (lambda i: i % 20, 40, False),
        (lambda i: i * 1.37, 10, True),
        (lambda i: i % 6, 11, True),
        (lambda i: i % 5, 15, False),
        (lambda i: f"c{i % 25}", 100, False),
    ],
)
def test_a_target_of_regression_is_recognised(
    label: Callable[[int], Any], rows_: int, is_refused: bool, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"a": range(rows_), "d": [label(i) for i in range(rows_)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        if is_refused:
            message = refused(tmp_path / name)
            assert f"different numbers in {rows_} rows, as a target of regression has; expected classes" in message
        else:
            dataset.read(tmp_path / name, "d")


def test_many_numbers_are_no_classes_however_many_rows_they_have(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": np.arange(20_020) % 7, "d": np.arange(20_020) % 1001}), tmp_path / "t.parquet")
    assert "has 1,001 different numbers in 20,020 rows" in refused(tmp_path / "t.parquet")


def test_missing_labels_may_have_a_token_of_their_own(tmp_path: Path) -> None:
    file = write(tmp_path, "a,d\n1,x\n2,?\n3,x\n4,?\n")
    assert dataset.read(file, "d").schema.class_names == ("?", "x")
    assert "column 'd', row 2: has no label; expected one for every row" in refused(file, na=("?",))


def test_labels_may_have_a_decimal_comma(tmp_path: Path) -> None:
    file = write(tmp_path, "a;d\n1;1,5\n2;1\n3;1,50\n4;1\n")
    assert dataset.read(file, "d", Reading(decimal=",")).schema.labels == (1.0, 1.5)


PIECES = [
    b"a", b"1", b",", b",", b"\n", b"\r\n", b"\r", b" ", b"\xc3\xa9", b"\xff", b"#", b"\t", b"\x0b", b"\xe2\x80\xa8",
    b"\\", b"'", b";", b'"', b"\0",
]  # fmt: skip


def test_plain_files_are_read_fast_as_others_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random files give the same cells or the same refusal, whichever way they are read."""
    rng, fast, used = random.Random(19), fast_csv.read, 0

    def outcome(*, is_fast: bool) -> Any:
        nonlocal used
        monkeypatch.setattr(fast_csv, "read", fast if is_fast else lambda *_: None)
        try:
            columns = tables.read(tmp_path / "t.csv", names)
        except BadData as error:
            return str(error)
        used += is_fast
        return {name: column.cells.to_pylist() for name, column in columns.items()}

    for _ in range(150):
        width = rng.randint(1, 3)
        names = [f"c{width - 1}"] if rng.random() < 0.5 else None
        body = b""
        for _ in range(rng.randint(0, 5)):
            cells = [rng.choice((b"a", b"1", b"", b" ", rng.choice(PIECES))) for _ in range(width)]
            body += b",".join(cells) + rng.choice((b"\n", b"\n", b"\r\n", b"\n\n", b"\r"))
        header = b",".join(b"c%d" % place for place in range(width))
        start = rng.choice((b"", b"", b"\n", b"# x\n", b"\xef\xbb\xbf", b"\r\n\n"))
        write(tmp_path, start + header + rng.choice((b"\n", b"\r\n", b"\r")) + body)
        assert outcome(is_fast=True) == outcome(is_fast=False), (tmp_path / "t.csv").read_bytes()
    assert used > 25
