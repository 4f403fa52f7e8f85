"""A column of a user's table is a number, a boolean or a category, or is refused with the option that helps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import ROOT
from defects.features import Feature
from defects.training import dataset
from defects.training.bad_data import BadData
from defects.training.categories import known_codes
from defects.training.reading import Reading
from defects.training.tables import Column


def csv_of(directory: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write columns as CSV, with a label column `d`."""
    frame = pd.DataFrame(columns)
    frame["d"] = ["x", "y"] * (len(frame) // 2) + ["x"] * (len(frame) % 2)
    frame.to_csv(directory / "t.csv", index=False)
    return directory / "t.csv"


def read(directory: Path, cells: Sequence[Any], **said: Any) -> tuple[Feature, list[float]]:
    """Return the only feature of a table, and its values."""
    table = dataset.read(csv_of(directory, {"a": cells}), "d", Reading(**said))
    (feature,) = table.schema.features
    return feature, table.features[:, 0].tolist()


def refused(directory: Path, cells: Sequence[Any], **said: Any) -> str:
    with pytest.raises(BadData) as caught:
        read(directory, cells, **said)
    return str(caught.value)


TEXT = ["red", " blue", "red", "", "Zoë", "NA"]


def test_text_is_a_category(tmp_path: Path) -> None:
    feature, values = read(tmp_path, TEXT)
    assert feature == Feature("a", kind="category", categories=("Zoë", "blue", "red"), optional=True)
    np.testing.assert_array_equal(values, [2, 1, 2, math.nan, 0, math.nan])


@pytest.mark.parametrize(
    ("cells", "said", "categories"),
    [
        (["yes", "no", "no", "yes"], {}, ("no", "yes")),
        (["Y", "N", "y", "n"], {}, ("N", "Y", "n", "y")),
        (["t", "f", "f", "t"], {}, ("f", "t")),
        (["10", "9", "10", "-1"], {"category": ("a",)}, ("-1", "9", "10")),
        (["1.0", "2.0", "", "1"], {"category": ("a",)}, ("1", "2")),
        (["1.5", "2", "1.5", "2"], {"category": ("a",)}, ("1.5", "2")),
        (["007", "10", "9", "007"], {"category": ("a",)}, ("007", "10", "9")),
        (["True", "False", "True", "False"], {"category": ("a",)}, ("False", "True")),
        (["red", "?", "blue", "red"], {"na": ("?",)}, ("blue", "red")),
        (["?", "red", "blue", "red"], {}, ("?", "blue", "red")),
        (["A1", "10", "B2", "B3", "A1"], {}, ("10", "A1", "B2", "B3")),
        (["2026-01-01", "2026-01-02"] * 3, {"category": ("a",)}, ("2026-01-01", "2026-01-02")),
        ([f"v{i}" for i in range(1000)], {"category": ("a",)}, tuple(sorted(f"v{i}" for i in range(1000)))),
        ([f"v{i % 255:03}" for i in range(1000)], {}, tuple(f"v{i:03}" for i in range(255))),
        (["only"] * 4, {}, ("only",)),
        (["250 ml", "500 ml", "250 ml", "1 l"], {}, ("1 l", "250 ml", "500 ml")),
        (["1st", "2nd", "3rd", "1st"], {}, ("1st", "2nd", "3rd")),
    ],
)
def test_categories_are_sorted_texts(
    cells: list[str], said: dict[str, Any], categories: tuple[str, ...], tmp_path: Path
) -> None:
    feature, _ = read(tmp_path, cells, **said)
    assert (feature.kind, feature.categories, feature.unknown) == ("category", categories, "refuse")


@pytest.mark.parametrize(
    ("cells", "said", "kind"),
    [
        (["1", "2", "NA", "4"], {}, "number"),
        (["1", "2", "?", "4"], {"na": ("?",)}, "number"),
        (["1,5", "2", "3,25", "4"], {"decimal": ","}, "number"),
        (["True", "False", "?", "True"], {"na": ("?",)}, "boolean"),
        (["True", "False", "", "True"], {"number": ("a",)}, "number"),
    ],
)
def test_what_is_said_of_numbers_holds(cells: list[str], said: dict[str, Any], kind: str, tmp_path: Path) -> None:
    feature, _ = read(tmp_path, cells, **said)
    assert (feature.kind, feature.optional) == (kind, "," not in cells[0])


def test_a_decimal_comma_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, ["1,5", "-2", "3,25", ",5"], decimal=",")[1] == [1.5, -2, 3.25, 0.5]


def test_an_unknown_category_may_be_allowed(tmp_path: Path) -> None:
    feature, _ = read(tmp_path, ["red", "blue"] * 3, allow_unknown=("a",))
    assert (feature.unknown, feature.optional) == ("missing", True)
    feature, _ = read(tmp_path, ["1", "2"] * 3, allow_unknown=("a",), category=("a",))
    assert (feature.unknown, feature.categories) == ("missing", ("1", "2"))
    assert "holds numbers; expected categories" in refused(tmp_path, ["1", "2"] * 3, allow_unknown=("a",))


@pytest.mark.parametrize(
    ("cells", "categories"),
    [
        (pa.array(["b", None, "a", "b"]), ("a", "b")),
        (pa.array(["2", "10", None, "2"]).dictionary_encode(), ("2", "10")),
        (pd.Categorical(["b", None, "a", "b"]), ("a", "b")),
        (pd.Categorical([2, 10, 2, None]), ("2", "10")),
        (pd.Categorical([2.0, 10.0, 2.0, None]), ("2", "10")),
        (pd.Categorical([True, False, None, True]), ("False", "True")),
    ],
)
def test_parquet_says_which_columns_are_categories(cells: Any, categories: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    if isinstance(cells, pd.Categorical):
        pd.DataFrame({"a": cells, "d": list("xyxy")}).to_parquet(file)
    else:
        pq.write_table(pa.table({"a": cells, "d": list("xyxy")}), file)
    table = dataset.read(file, "d")
    (feature,) = table.schema.features
    assert (feature.kind, feature.categories, feature.optional) == ("category", categories, True)
    assert np.isnan(table.features).sum() == 1


@pytest.mark.parametrize(
    ("cells", "categories"),
    [
        (pa.array([3, 1, None, 3]), ("1", "3")),
        (pa.array([3.0, 1.0, None, math.nan]), ("1", "3")),
        (pa.array([0.1, 1.5, 0.1, -0.0], pa.float32()), ("0.0", "0.1", "1.5")),
        (pa.array([True, False, None, True]), ("False", "True")),
        (pa.array(["x", "y", None, "x"]), ("x", "y")),
    ],
)
def test_typed_columns_are_categories_where_the_command_says_so(
    cells: Any, categories: tuple[str, ...], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"a": cells, "d": list("xyxy")}), tmp_path / "t.parquet")
    (feature,) = dataset.read(tmp_path / "t.parquet", "d", Reading(category=("a",))).schema.features
    assert feature.categories == categories


NUMBERS = [str(i) for i in range(50)]


@pytest.mark.parametrize(
    ("cells", "problem", "option"),
    [
        ([*NUMBERS, "?"], "row 51: '?' is not a number; expected one, as in other rows", "--na '?'"),
        (["-", *NUMBERS], "row 1: '-' is not a number", "--na=-"),
        ([*NUMBERS, "12 kg"], "row 51: '12 kg' is not a number", "--na '12 kg'"),
        (["1", "0", "?", "?", "?", "?"], "row 3: '?' is not a number", "--na '?'"),
        (["0", "1", "2", "3+"], "row 4: '3+' is not a number", "--category a"),
        ([*NUMBERS, "1,5"], "row 51: '1,5' is not a number", "--decimal ,"),
        ([*NUMBERS, *"abcdefgh"], "row 51: 'a' is not a number", "--ignore a"),
        (["1,5", "2,5", "1,5", "3,5"], "row 1: '1,5' has a comma; expected a point before decimals", "--decimal ,"),
        (["1,234,567", "2", "1,000,000", "3,000"], "row 1: '1,234,567' has separated thousands", "--ignore a"),
        (["1 234,5", "2", "1 000", "3 000"], "row 1: '1 234,5' has separated thousands; expected digits", "--ignore a"),
        (["1.234.567", "1.000.000"] * 2, "row 1: '1.234.567' has separated thousands", "--ignore a"),
        (["$1,200", "$5", "$ 1.5", "-$3"], "row 1: '$1,200' is a number with a sign; expected the", "--category a"),
        ([f"{i}.5 %" for i in range(30)], "row 1: '0.5 %' is a number with a sign; expected the number", "--ignore a"),
        ([f"{i % 25} kg" for i in range(90)], "row 1: '0 kg' is a number with a unit; expected the num", "--ignore a"),
        (["True", "False", "maybe", "True"], "row 3: 'maybe' is neither true nor false", "--category a"),
        (["0", "True", "0", "True"], "row 1: '0' is neither true nor false", "--category a"),
        ([f"u{i}" for i in range(30)], "has 30 different texts in 30 rows", "--ignore a"),
        ([f"u{i % 16}" for i in range(30)], "has 16 different texts in 30 rows", "--ignore a"),
        ([f"u{i % 256}" for i in range(1000)], "has 256 different texts in 1,000 rows", "--category a"),
        ([f"u{i % 1001}" for i in range(9000)], "has 1,001 different texts in 9,000 rows", "--ignore a"),
        (["9007199254740993", "1", "2", "3"], "row 1: 9007199254740993 is an integer that a 64-bit", "--ignore a"),
        (["1", "1e39", "2", "3"], "row 2: 1e+39; expected a finite 32-bit number", "--ignore a"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_names_the_option_that_helps(
    cells: list[str], problem: str, option: str, tmp_path: Path
) -> None:
    message = refused(tmp_path, cells)
    assert "\n" not in message
    assert f"t.csv: column 'a'{' ' if problem.startswith('has') else ', '}{problem}" in message
    assert message.endswith(f"; or add {option} to the command")


@pytest.mark.parametrize(
    ("cells", "said", "problem"),
    [
        (["red", "1"], {"number": ("a",)}, "row 1: 'red' is not a number; expected one, as --number says"),
        (["1.234,5", "1,5", "2.000,0", "7"], {"decimal": ","}, "row 1: '1.234,5' has separated thousands; expected"),
        (["1.5", "2.5", "1.5", "3.5"], {"decimal": ","}, "row 1: '1.5' has a point; expected a comma"),
        ([f"u{i}" for i in range(1001)], {"category": ("a",)}, "1,001 different texts in 1,001 rows; expected at most"),
        (["a\x07", "b"], {}, "its categories"),
    ],
)  # fmt: skip
def test_what_is_said_and_does_not_hold_is_refused(
    cells: list[str], said: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    assert problem in refused(tmp_path, cells, **said)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31", "2026-1-3", "2026/01/31", "2026.01.31", "2026-01", "31.1.2026", "1/31/26", "31-01-2026",
        "31-Jan-2026", "31 Jan 26", "Jan 31, 2026", "January 3rd, 2026", "Jan 2026", "Saturday, January 31, 2026",
        "2026-01-31T08:00:00", "2026-01-31 08:00:00.123456", "2026-01-31T08:00Z", "2026-01-31T08:00:00+01:00",
        "2026-01-31 08:00:00 UTC", "1/31/2026 8:05 AM", "08:15", "8:15:30", "8:15 p.m.", "20260131T080000Z",
        "Sat Jan 31 08:00:00 2026", "31. Januar 2026",
    ],
)  # fmt: skip
def test_dates_and_times_are_refused(text: str, tmp_path: Path) -> None:
    message = refused(tmp_path, [text, "2025-02-01", text, text])
    assert f"column 'a', row 1: {text!r} is a date or a time; make numbers of it before training" in message
    assert message.endswith("; or add --ignore a to the command")


@pytest.mark.parametrize(
    "text", ["10-20", "Monday", "May", "1/2", "v1.2.3", "16:9", "A-1-2", "2026 model", "192.168.1.1", "12-3", "Q1 2026"]
)
def test_what_only_resembles_a_date_is_a_category(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, [text, "other", text, text])[0].categories == tuple(sorted([text, "other"]))


def test_all_columns_that_can_not_be_used_are_named_at_once(tmp_path: Path) -> None:
    rows = 40
    frame = pd.DataFrame(
        {
            "serial no": [f"u{i}" for i in range(rows)],
            "when": [datetime(2026, 1, 1)] * rows,
            "day": [date(2026, 1, 1)] * rows,
            "amount": [*map(str, range(rows - 1)), "?"],
            "list": [[1]] * rows,
            "raw": [b"1"] * rows,
            "good": range(rows),
            "d": ["x", "y"] * (rows // 2),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(BadData) as caught:
        dataset.read(tmp_path / "t.parquet", "d")
    first, *lines, last = caught.value.lines
    assert first.endswith("t.parquet: 6 columns can't be used")
    assert [line.partition("'")[2].partition("'")[0] for line in lines] == [*frame.columns[:6]]
    assert lines[0].endswith("; does it identify rows?: --ignore 'serial no'")
    options = "--ignore 'serial no' --ignore when --ignore day --na '?' --ignore list --ignore raw"
    assert last == f"add to the command: {options}"
    said = Reading(ignore=("serial no", "when", "day", "list", "raw"), na=("?",))
    assert dataset.read(tmp_path / "t.parquet", "d", said).schema.names == ("amount", "good")


def test_the_message_is_the_documented_one(tmp_path: Path) -> None:
    columns = {"serial": [f"u{i}" for i in range(40)], "weight": [*map(str, range(7)), "?", *map(str, range(32))]}
    file = csv_of(tmp_path, columns).rename(tmp_path / "parcels.csv")
    with pytest.raises(BadData) as caught:
        dataset.read(file, "d")
    text = "\n".join(caught.value.lines).replace(f"{tmp_path}/", "")
    assert f"```text\ntrain.py: {text}\n```" in (ROOT / "docs" / "your-data.md").read_text("utf-8")


def test_the_list_of_what_can_not_be_used_is_bounded(tmp_path: Path) -> None:
    columns = {f"c{i}": [f"u{j}" for j in range(10)] for i in range(30)}
    with pytest.raises(BadData) as caught:
        dataset.read(csv_of(tmp_path, columns), "d")
    assert len(caught.value.lines) == 23
    assert caught.value.lines[-2] == "  and 10 more"
    assert caught.value.lines[-1].endswith(" --ignore c29")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"ignore": ("bb",)}, "no column 'bb'; --ignore: expected it among 'b', 'c', 'd'; did you mean 'b'?"),
        ({"category": ("cc",)}, "no column 'cc'; --category: expected it among"),
        ({"number": ("x",)}, "no column 'x'; --number: expected it"),
        ({"allow_unknown": ("x",)}, "no column 'x'; --allow-unknown: expected it"),
        ({"group": "x"}, "no column 'x'; --group: expected it"),
        ({"time": "x"}, "no column 'x'; --time: expected it"),
        ({"weight": "x"}, "no column 'x'; --weight: expected it"),
        ({"category": ("b",), "number": ("b",)}, "column 'b' is given to --category and to --number; expected one"),
        ({"ignore": ("d",)}, "column 'd' is given to --label and to --ignore"),
        ({"ignore": ("b",), "allow_unknown": ("b",)}, "column 'b' is given to --ignore and to --allow-unknown"),
        ({"group": "b", "weight": "b"}, "column 'b' is given to --group and to --weight"),
        ({"group": "b", "ignore": ("c",)}, "has no feature besides the label column 'd'"),
    ],
)
def test_options_name_columns_that_there_are_once(said: dict[str, Any], problem: str, tmp_path: Path) -> None:
    file = csv_of(tmp_path, {"b": [1, 2, 3, 4], "c": [1, 2, 3, 4]})
    with pytest.raises(BadData) as caught:
        dataset.read(file, "d", Reading(**said))
    assert problem in str(caught.value)


def test_what_is_ignored_is_not_looked_at(tmp_path: Path) -> None:
    file = csv_of(tmp_path, {"id": [f"u{i}" for i in range(10)], "c": range(10)})
    assert dataset.read(file, "d", Reading(ignore=("id",))).schema.names == ("c",)


def test_cells_are_coded_by_categories_that_are_known() -> None:
    def column(*cells: str | None) -> Column:
        return Column(Path("t.csv"), "a", pa.chunked_array([pa.array(cells, pa.large_string())]), typed=False)

    feature = Feature("a", kind="category", categories=("blue", "red"))
    np.testing.assert_array_equal(known_codes(column("red", " blue", "NA", None), feature), [1, 0, math.nan, math.nan])
    with pytest.raises(BadData, match=r"t.csv: column 'a', row 2: 'rde' is unknown; .*did you mean 'red'\?"):
        known_codes(column("red", "rde"), feature)
    lenient = Feature("a", kind="category", categories=("blue", "red"), unknown="missing", optional=True)
    np.testing.assert_array_equal(known_codes(column("red", "rde"), lenient), [1, math.nan])
    numbered = Feature("a", kind="category", categories=("1", "2"))
    np.testing.assert_array_equal(known_codes(column("2.0", "1.0", ""), numbered), [1, 0, math.nan])
