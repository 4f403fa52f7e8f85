"""A user's table is read as it is meant: exact numbers, booleans and labels, or a refusal that names the cell."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import run
from defects.training import columns, dataset, tables
from defects.training.columns import Numbers, numbers
from defects.training.dataset import BadData, Table
from defects.training.labels import Labels, labels

XXYY = ("x", "x", "y", "y")


def csv_file(path: Path, cells: Sequence[str], marks: Sequence[str] = XXYY) -> Path:
    file = path / "t.csv"
    lines = (f"{cell},{mark}\n" for cell, mark in zip(cells, marks, strict=True))
    file.write_text("a,d\n" + "".join(lines), "utf-8", newline="")
    return file


def parquet_file(path: Path, cells: Any, marks: Any = XXYY) -> Path:
    pq.write_table(pa.table({"a": cells, "d": marks}), path / "t.parquet")
    return path / "t.parquet"


def table_of(path: Path, cells: Sequence[str], marks: Sequence[str] = XXYY) -> Table:
    return dataset.read(csv_file(path, cells, marks), "d")


def column_of(cells: Any, *, typed: bool = False) -> tables.Column:
    array = cells if isinstance(cells, pa.Array) else pa.array(cells, None if typed else pa.large_string())
    return tables.Column(Path("t"), "a", pa.chunked_array([array]), typed)


def read(cells: Any, *, typed: bool = False) -> Numbers:
    return numbers(column_of(cells, typed=typed))


def classes(cells: Any, *, typed: bool = False) -> Labels:
    """Of a column where each cell comes twice, because a class needs two rows."""
    array = cells if isinstance(cells, pa.Array) else pa.array(cells, None if typed else pa.large_string())
    return labels(column_of(pa.concat_arrays([array, array]), typed=typed))


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_epochs_keep_every_second(tmp_path: Path) -> None:
    epochs = np.arange(1_700_000_000, 1_700_002_000)
    frame = pd.DataFrame({"epoch_s": epochs, "b": epochs % 7 / 10, "d": epochs % 2})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        table = dataset.read(tmp_path / name, "d")
        assert [feature.wide for feature in table.schema.features] == [True, False]
        assert table.features.dtype == np.float64
        np.testing.assert_array_equal(table.features[:, 0], epochs)
        np.testing.assert_array_equal(table.features[:, 1], frame["b"].to_numpy(np.float32))
        observed = table.schema.observe(table.features).features[0]
        assert (observed.observed_low, observed.observed_high) == (1_700_000_000, 1_700_001_999)


@pytest.mark.parametrize(
    ("cells", "wide"),
    [
        (("16777216", "16777217", "1", "2"), True),  # the latter is the former in 32 bits
        (("16777217", "1", "2", ""), True),  # it is no integer of 32 bits, even where it is alone
        (("20000003", "1", "2", "3"), True),
        (("1234567.89", "1234567.88", "1", "2"), True),
        (("16777216", "1", "2", "3"), False),
        (("0.1", "0.2", "0.3", "0.3"), False),
        (("True", "False", "", "True"), False),
    ],
)
def test_a_feature_is_wide_where_32_bits_lose_something(cells: Sequence[str], wide: bool, tmp_path: Path) -> None:
    table = table_of(tmp_path, cells)
    assert table.schema.features[0].wide is wide
    assert table.features.dtype == (np.float64 if wide else np.float32)


def test_text_is_the_nearest_float64() -> None:
    rng = random.Random(1)
    floats = (struct.unpack("<d", rng.randbytes(8))[0] for _ in range(20_000))
    short = [repr(value) for value in floats if abs(value) < 1e38]
    long = [f"{rng.choice(('', '+', '-'))}{rng.random() * 10.0 ** rng.randint(-30, 30):.25e}" for _ in range(5_000)]
    tiny = ["2.4703282292062328e-324", "2.2250738585072011e-308", "8.98846567431158e-308"]
    cells = [*short, *long, *tiny, "0.1", "100000000000000016777215.0e-8"]
    np.testing.assert_array_equal(read(cells).values, [float(cell) for cell in cells])


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("+5", 5), (" 5 ", 5), ("5.", 5), (".5", 0.5), ("1E5", 1e5), ("-0", 0), ("007", 7), ("\u00a01\t", 1),
        ("0." + "1" * 5000, 1 / 9), ("0" * 5000 + "1", 1), ("1e-400", 0), ("1e-99999999999999999999", 0),
        ("9007199254740992", 2**53), ("9007199254740994", 2**53 + 2), ("1e23", 1e23),
        *((marker, math.nan) for marker in ("", "  ", " NA ", *columns.MISSING)),
    ],
)  # fmt: skip
def test_a_cell_is_the_number_that_it_says(cell: str, value: float) -> None:
    np.testing.assert_array_equal(read([cell, "3"]).values, [value, 3])


@pytest.mark.parametrize(
    "cell",
    [
        "1_000", "0x10", "1,000", "1 000", "1e", ".", "-", "--1", "NAN", "-nan", "nan(1)", "١", "²", "½", "1.5f",
        "2026-01-01", "True", "1\n2", "é", "x" * 1000,
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused(cell: str) -> None:
    with pytest.raises(BadData, match=r"t: column 'a', row 2: '.*'? is not a number; expected one$") as caught:
        read(["1", cell, cell])
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("cell", "shown"),
    [("1e400", "1e400"), ("-1e400", "-1e400"), ("1e39", "1e+39"), ("inf", "inf"), ("-Infinity", "-Infinity")],
)
def test_what_is_not_finite_in_32_bits_is_refused(cell: str, shown: str) -> None:
    with pytest.raises(
        BadData, match=rf"column 'a', row 2: {shown.replace('+', '.')}; expected a finite 32-bit number"
    ):
        read(["1", cell])
    with pytest.raises(BadData, match="column 'a', row 2: -inf; expected a finite 32-bit number"):
        read([1.0, -math.inf], typed=True)


INEXACT = [
    (["1", "9007199254740993"], "row 2: 9007199254740993 is an integer that a 64-bit float does not hold"),
    (["", "9007199254740993.0", "1"], "row 2: 9007199254740993.0 is an integer"),
    (["175928847299117063", "175928847299117064"], "row 1: 175928847299117063 is an integer"),
    ([str(10**23)], "row 1: 100000000000000000000000 is an integer"),
    (["0.1", "", "0.10000000000000000000001"], "row 3: 0.10000000000000000000001 is the same 64-bit float as 0.1 in"),
    (["1e-400", "2e-400"], "row 2: 2e-400 is the same 64-bit float as 1e-400 in row 1"),
    (["0", "1e-99999999999999999999"], "row 2: 1e-99999999999999999999 is the same 64-bit float as 0"),
    (pa.array([None, 2**53, 2**53 + 1]), "row 3: 9007199254740993 is an integer"),
    (pa.array([2**64 - 1], pa.uint64()), "row 1: 18446744073709551615 is an integer"),
    (pa.array([-(2**63) + 1]), "row 1: -9223372036854775807 is an integer"),
    (pa.array([None, Decimal(2**53 + 1)]), "row 2: 9007199254740993 is an integer"),
    (pa.array([Decimal("0.10000000000000000000"), Decimal("0.10000000000000000001")]), "row 2: 0.10000000000000000001"),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "problem"), INEXACT)
def test_what_64_bits_do_not_hold_is_refused(cells: Any, problem: str) -> None:
    with pytest.raises(BadData) as caught:
        read(cells)
    assert f"column 'a', {problem}" in str(caught.value)
    assert "; leave the column out if it identifies rows, else subtract a constant" in str(caught.value)


def test_one_number_may_be_written_in_several_ways() -> None:
    cells = [
        "0.1",
        "0.10",
        "1e-1",
        ".1",
        "+0.1",
        "0.1" + "0" * 40,
        "9007199254740992",
        "9007199254740992.00",
        "0",
        "-0",
    ]
    np.testing.assert_array_equal(read(cells).values, [0.1] * 6 + [2.0**53] * 2 + [0, 0])


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (pa.array([1, None, -128], pa.int8()), [1, math.nan, -128]),
        (pa.array([2**63, 0], pa.uint64()), [2.0**63, 0]),
        (pa.array([-(2**63), 2**53]), [-(2.0**63), 2.0**53]),
        (pa.array(np.array([0.1, np.nan], np.float16)), [float(np.float16(0.1)), math.nan]),
        (pa.array([0.1, None, math.nan], pa.float32()), [float(np.float32(0.1)), math.nan, math.nan]),
        (pa.array([0.1, None, math.nan]), [0.1, math.nan, math.nan]),
        (pa.array([Decimal("1.50"), None, Decimal("0.10")]), [1.5, math.nan, 0.1]),
        (pa.array([Decimal(1200), None], pa.decimal128(10, -2)), [1200, math.nan]),
        (pa.array([Decimal("0.1")], pa.decimal256(50, 5)), [0.1]),
        (pa.array(["1", " NA ", None, "0.1"], pa.large_string()), [1, math.nan, math.nan, 0.1]),
        (pa.nulls(2), [math.nan, math.nan]),
    ],
)
def test_parquet_numbers_of_every_type(cells: pa.Array, values: list[float]) -> None:
    found = read(cells, typed=True)
    assert found.values.dtype == np.float64
    assert not found.boolean
    np.testing.assert_array_equal(found.values, values)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([[1], [2], None, []], "is of type list<element: int64>"),
        ([{"x": 1}] * 4, "is of type struct<x: int64>"),
        (pa.array([[("k", 1)]] * 4, pa.map_(pa.string(), pa.int64())), "is of type map<"),
        ([b"1"] * 4, "is of type binary"),
        (pa.array([b"1"] * 4, pa.binary(1)), "is of type fixed_size_binary"),
        ([datetime(2026, 1, 1)] * 4, "is a date or a duration"),
        ([date(2026, 1, 1)] * 4, "is a date or a duration"),
        ([time(1)] * 4, "is a date or a duration"),
        ([timedelta(1)] * 4, "is a date or a duration"),
    ],
)
def test_parquet_columns_that_are_no_numbers_are_refused_unless_they_are_left_out(
    cells: Any, kind: str, tmp_path: Path
) -> None:
    file = parquet_file(tmp_path, cells)
    with pytest.raises(BadData) as caught:
        dataset.read(file, "d")
    assert f"t.parquet: column 'a', row 1: {kind}" in str(caught.value)
    assert "; expected a number, or true or false" in str(caught.value)
    assert tables.read(file, ["d"]).keys() == {"d"}


def test_parquet_types_of_other_libraries_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": pd.period_range("2026-01", periods=4, freq="M"), "d": XXYY})
    frame.to_parquet(tmp_path / "t.parquet")
    code = f"import pathlib, defects.training.dataset as t; t.read(pathlib.Path({str(tmp_path / 't.parquet')!r}), 'd')"
    assert "t.parquet: column 'a', row 1: is of type" in run(tmp_path, "python", "-c", code).stderr
    with pytest.raises(BadData, match="column 'a', row 1: is of type"):
        dataset.read(tmp_path / "t.parquet", "d")
    with pytest.raises(BadData, match="column 'a', row 1: is of type"):
        numbers(tables.read(tmp_path / "t.parquet")["a"])


def test_a_data_frame_s_index_is_no_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3, 4], "d": XXYY}, index=pd.Index([7, 8, 9, 10], name="id"))
    for index, name in (("id", "id"), (None, "__index_level_0__")):
        frame.index.name = index
        frame.to_parquet(tmp_path / "t.parquet")
        assert name in pq.read_schema(tmp_path / "t.parquet").names
        assert dataset.read(tmp_path / "t.parquet", "d").schema.names == ("a",)


def test_dictionaries_are_their_values(tmp_path: Path) -> None:
    cells, marks = pa.array([3, 1, None, 3]).dictionary_encode(), pa.array([10, 2, 10, 2]).dictionary_encode()
    table = dataset.read(parquet_file(tmp_path, cells, marks), "d")
    np.testing.assert_array_equal(table.features[:, 0], [3, 1, math.nan, 3])
    assert table.schema.labels == (2, 10)


def test_parquet_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 4, pa.array([b"\xff", b"1", b"2", b"3"]).buffers())
    with pytest.raises(BadData, match="column 'a' has text that is not UTF-8"):
        dataset.read(parquet_file(tmp_path, text), "d")


def test_damaged_parquet_is_refused_or_read(tmp_path: Path) -> None:
    file = parquet_file(tmp_path, pa.array([1.0, 2.0] * 50), pa.array(["x", "y"] * 50))
    good, rng = file.read_bytes(), random.Random(1)
    refused = 0
    for _ in range(200):
        damaged = bytearray(good)
        for _ in range(rng.randint(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged)
        try:
            dataset.read(file, "d")
        except BadData as error:
            refused += str(file) in str(error)
    assert refused > 50


# --- booleans --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [("True", "False", "True", "False"), ("true", "FALSE", "", "TRUE"), ("False",) * 4])
def test_booleans_are_booleans_with_or_without_missing_ones(cells: Sequence[str], tmp_path: Path) -> None:
    values = [None if not cell else cell.lower() == "true" for cell in cells]
    numbers = [math.nan if value is None else float(value) for value in values]
    one = table_of(tmp_path, cells)
    pandas = [pd.array(values, "boolean"), pd.Series(values, dtype=object)]
    for array in (pa.array(values), pa.array(cells), *(pa.array(array) for array in pandas)):
        two = dataset.read(parquet_file(tmp_path, array), "d")
        for table in (one, two):
            (feature,) = table.schema.features
            assert (feature.kind, feature.low, feature.high, feature.wide) == ("boolean", 0, 1, False)
            assert feature.optional is (None in values)
            np.testing.assert_array_equal(table.features[:, 0], numbers)
        assert one.schema == two.schema
    (observed,) = one.schema.observe(one.features).features
    assert (observed.observed_low, observed.observed_high) == (np.nanmin(numbers), np.nanmax(numbers))
    assert one.schema.observe(one.features).example["a"] in (True, False)


def test_zeros_and_ones_are_numbers(tmp_path: Path) -> None:
    assert table_of(tmp_path, ["0", "1", "1", "0"]).schema.features[0].kind == "number"


@pytest.mark.parametrize(
    ("cells", "problem"),
    [
        (["True", "", "yes"], "row 3: 'yes' is neither true nor false; expected one, as in other rows"),
        (["False", "0"], "row 2: '0' is neither true nor false"),
        (["0", "", "False"], "row 3: 'False' is not a number"),
        (["TRUE", "tRUE"], "row 2: 'tRUE' is neither true nor false"),
    ],
)
def test_half_booleans_are_refused(cells: list[str], problem: str) -> None:
    with pytest.raises(BadData, match=f"column 'a', {problem}"):
        read(cells)


# --- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        ([str(i) for i in range(12)], "integer", list(range(12))),
        (["10", " 9 ", "-1"], "integer", [-1, 9, 10]),
        ([str(-(2**63)), str(2**63 - 1)], "integer", [-(2**63), 2**63 - 1]),
        (["10.5", "9", "-1.0"], "number", [-1.0, 9.0, 10.5]),
        (["1.0", "2.0"], "number", [1.0, 2.0]),
        (["0.1", "0.10", ".2", "5."], "number", [0.1, 0.2, 5.0]),
        (["1e-05", "1.5"], "number", [1e-05, 1.5]),
        (["-0.0", "0", "1"], "number", [0.0, 1.0]),
        (["True", "false", "TRUE"], "boolean", [False, True]),
        (["x", "X", "é", "10", "9"], "text", ["10", "9", "X", "x", "é"]),
        (["None", "NA", "nan"], "text", ["NA", "None", "nan"]),
        (["007", "1"], "text", ["007", "1"]),  # identifiers
        (["007.5", "1.5"], "text", ["007.5", "1.5"]),
        (["+1", "-1"], "text", ["+1", "-1"]),
        (["-0", "1"], "text", ["-0", "1"]),
        (["1_0", "2"], "text", ["1_0", "2"]),
        (["١", "٢"], "text", ["١", "٢"]),
        (["5e3", "2e7"], "text", ["2e7", "5e3"]),  # codes
        (["1", str(2**63)], "text", ["1", str(2**63)]),
        (["1e400", "1.5"], "text", ["1.5", "1e400"]),
        (["inf", "1.5"], "text", ["1.5", "inf"]),
        ([".", "1.5"], "text", [".", "1.5"]),
        (["9007199254740993.5", "9007199254740993.6"], "text", ["9007199254740993.5", "9007199254740993.6"]),
        (["0", "True"], "text", ["0", "True"]),
        (["a\nb", "a"], "text", ["a", "a\nb"]),
    ],
)
def test_labels_in_text_have_a_type_and_its_order(
    cells: list[str], kind: str, values: list[Any], tmp_path: Path
) -> None:
    found = classes(cells)
    assert (found.type, found.classes) == (kind, tuple(map(str, values)))
    quoted = [f'"{cell}"' for cell in cells * 2]
    table = dataset.read(csv_file(tmp_path, ["1"] * len(quoted), quoted), "d")
    assert (table.schema.labels, table.schema.label_type) == (tuple(values), kind)
    assert list(map(type, table.schema.labels)) == list(map(type, values))
    assert len(set(table.labels.tolist())) == len(values)


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (pa.array([10, 9, 2], pa.int8()), "integer", [2, 9, 10]),
        (pa.array([2**63 - 1, 0], pa.uint64()), "integer", [0, 2**63 - 1]),
        (pa.array([10.5, 9.0, -0.0, 0.0]), "number", [0.0, 9.0, 10.5]),
        (pa.array([0.1, 0.2], pa.float32()), "number", [0.1, 0.2]),
        (pa.array([True, False]), "boolean", [False, True]),
        (pa.array(["10", " 9"], pa.large_string()), "text", ["10", "9"]),
        (pa.array(["True", "False"], pa.large_string()), "text", ["False", "True"]),
        (pa.array([Decimal(10), Decimal(9)]), "integer", [9, 10]),
        (pa.array([Decimal("10.50"), Decimal("9.00")]), "number", [9.0, 10.5]),
    ],
)
def test_labels_in_parquet_have_its_type(cells: pa.Array, kind: str, values: list[Any]) -> None:
    found = classes(cells, typed=True)
    assert (found.type, found.classes) == (kind, tuple(map(str, values)))


def test_each_row_has_its_class() -> None:
    found = labels(column_of(["10", "9", "10", "9", "2", "2"]))
    assert [found.classes[index] for index in found.indices] == ["10", "9", "10", "9", "2", "2"]


@pytest.mark.parametrize("blank", ["", "   ", "\t", "\u00a0"])
def test_a_blank_label_is_missing(blank: str, tmp_path: Path) -> None:
    marks = ["x", "y", "x", "y", blank, blank]
    files = csv_file(tmp_path, ["1"] * 6, marks), parquet_file(tmp_path, pa.array([1.0] * 6), pa.array(marks))
    for file in files:
        with pytest.raises(BadData, match="column 'd', row 5: has no label; expected one for every row"):
            dataset.read(file, "d")


@pytest.mark.parametrize(
    ("marks", "problem"),
    [
        (pa.array([1.5, math.nan, 1.5, 2.5]), "row 2: has no label"),
        (pa.array([1, None, 1, 2]), "row 2: has no label"),
        (pa.array([True, True, None, False]), "row 3: has no label"),
        (pa.array(["x", None, "x", "y"]).dictionary_encode(), "row 2: has no label"),
        (pa.nulls(4), "row 1: has no label"),
        (pa.array([1.5, 1.5, math.inf, math.inf]), "row 3: inf; expected a finite number"),
        (pa.array([1, 1, 2**63, 2**63], pa.uint64()), "row 3: 9223372036854775808 is larger than a 64-bit integer"),
        (pa.array([Decimal("0.1"), Decimal("0.10000000000000000001")] * 2), "row 2: 0.10000000000000000001 has more"),
        (pa.array([b"x", b"x", b"y", b"y"]), "row 1: is of type binary"),
        (pa.array([[1], [1], [2], [2]]), "row 1: is of type list"),
    ],
)  # fmt: skip
def test_labels_that_are_none_are_refused(marks: pa.Array, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=f"column 'd', {problem}"):
        dataset.read(parquet_file(tmp_path, pa.array([1, 2, 3, 4]), marks), "d")


# --- files -----------------------------------------------------------------------------------------------------------

GOOD = "a,d\n1,x\n2,x\n3,y\n4,y\n"


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        "\ufeff" + GOOD,
        '\ufeff"a","d"\n' + GOOD[4:],
        "\n\n" + GOOD.replace("\n", "\n\n"),
        GOOD.rstrip(),
        GOOD.replace("x", '"x"').replace("1", '"1"'),
    ],
)
def test_a_csv_may_be_written_in_many_ways(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content, "utf-8", newline="")
    table = dataset.read(tmp_path / "t.csv", "d")
    np.testing.assert_array_equal(table.features[:, 0], [1, 2, 3, 4])
    assert table.schema.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xef\xbb\xbf", "is empty"),
        (b"\xef\xbb\xbf\n\n", "is empty"),
        (b"a,d", "has no rows"),
        (b"a,  ,d\n1,2,x\n", "column 2 has no name"),
        (b"a,,,d\n1,2,3,x\n", "column 2 has no name"),
        (b"a,d\n1,x\n2,\xff\n", "row 2: can't be read: the byte 0xff is not UTF-8"),
        (b"a,d\n" + b"1,x\n" * 5000 + b"2,caf\xe9\n", "row 5001: can't be read: the byte 0xe9 is not UTF-8"),
        (b"a,\xff\n1,x\n", "the header: can't be read: the byte 0xff is not UTF-8"),
        (b"a,d\n1,x\n2,\0\n", "row 2: can't be read: a NUL character"),
        (b'a,d\n1,x\n2,"y\n3,z\n', "row 2: can't be read: unexpected end of data"),
        (b'a,d\n"1"2,x\n', "row 1: can't be read: ',' expected after"),
        (b"a,d\n" + b"9" * 200_000 + b",x\n", "row 1: can't be read: field larger than field limit"),
        (b"a,d\n1,x\n   \n", "row 2: has 1 cells; expected 2"),
    ],
)
def test_a_csv_that_can_not_be_read_says_where(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BadData) as caught:
        dataset.read(tmp_path / "t.csv", "d")
    assert f"t.csv: {problem}" in str(caught.value)


def test_parquet_without_columns_rows_or_names_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    one = pa.array([1.0, 2.0])
    for table, problem in (
        (pa.table({}), "has no columns"),
        (pa.table({"a": pa.array([], pa.float64()), "d": pa.array([], pa.string())}), "has no rows"),
        (pa.table([one, one, one], ["a", "a", "d"]), "column 'a' appears more than once"),
        (pa.table([one, one, one], ["a", "", "d"]), "column 2 has no name"),
    ):
        pq.write_table(table, file)
        with pytest.raises(BadData, match=problem):
            dataset.read(file, "d")


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,b,a,a.b\nx,1,2,\ny,3,4,\n")
    pq.write_table(pa.table({"id": ["x", "y"], "b": [1, 3], "a": [2, 4], "a.b": [[1], [2]]}), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        found = tables.read(tmp_path / name, ["a", "b"])
        assert [*found] == ["b", "a"]
        np.testing.assert_array_equal(numbers(found["a"]).values, [2, 4])
        with pytest.raises(BadData, match=r"column 'ids' is missing; expected it among 'id', .*; did you mean 'id'\?"):
            tables.read(tmp_path / name, ["a", "ids"])


def test_reading_needs_neither_pandas_nor_scikit_learn(tmp_path: Path) -> None:
    csv_file(tmp_path, ["1", "NA", "0.5", "2"])
    parquet_file(tmp_path, pa.array([1, None, 3, 4]))
    code = f"""
import sys
from pathlib import Path
class Nothing:
    def find_spec(self, name, *_):
        if name in ("pandas", "sklearn"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import tools.payloads
from defects.training import dataset
for name in "t.csv", "t.parquet":
    dataset.read(Path({str(tmp_path)!r}, name), "d")
"""
    result = run(tmp_path, "python", "-c", code)
    assert result.returncode == 0, result.stderr
