"""Columns that are no features: groups, times and weights."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from defects.training import dataset
from defects.training.bad_data import BadData
from defects.training.dataset import Table
from defects.training.reading import Reading

MOMENT = datetime(2026, 1, 31, 8, 0, 0, tzinfo=UTC).timestamp()


def read(directory: Path, cells: Any, **said: Any) -> Table:
    """Read a table whose column `r` has a role; cells that are no arrow array are a CSV's."""
    rows = len(cells)
    if isinstance(cells, pa.Array):
        pq.write_table(pa.table({"a": range(rows), "r": cells, "d": ["x", "y"] * (rows // 2)}), directory / "t.parquet")
        return dataset.read(directory / "t.parquet", "d", Reading(**said))
    lines = [f'{i},"{cell}",{"xy"[i % 2]}\n' for i, cell in enumerate(cells)]
    (directory / "t.csv").write_text(f"a,r,d\n{''.join(lines)}")
    return dataset.read(directory / "t.csv", "d", Reading(**said))


@pytest.mark.parametrize(
    "cells",
    [
        ["u1", " u2", "u1", "u3"],
        ["7", "9", "7", "8"],
        pa.array(["u1", "u2", "u1", "u3"]),
        pa.array(["u1", "u2", "u1", "u3"]).dictionary_encode(),
        pa.array([7, 9, 7, 2**63 - 1]),
        pa.array([0.5, 1.5, 0.5, 2.5]),
        pa.array([date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 1), date(2026, 1, 3)]),
        pa.array([datetime(2026, 1, 1), datetime(2026, 1, 2), datetime(2026, 1, 1), datetime(2026, 1, 3)]),
    ],
)
def test_equal_values_are_a_group_of_any_type(cells: Any, tmp_path: Path) -> None:
    table = read(tmp_path, cells, group="r")
    assert table.schema.names == ("a",)
    assert table.groups is not None
    assert table.groups.dtype == np.int64
    one, two, three, four = table.groups.tolist()
    assert one == three
    assert len({one, two, four}) == 3
    assert table.source["group"] == "r"


@pytest.mark.parametrize(
    ("cells", "seconds"),
    [
        (["3", "1.5", "-2", "0"], [3, 1.5, -2, 0]),
        (["2026-01-31T08:00:00Z"] * 4, [MOMENT] * 4),
        (["2026-01-31 08:00:00"] * 4, [MOMENT] * 4),
        (["2026-01-31T09:00:00+01:00"] * 4, [MOMENT] * 4),
        (["2026-01-31", "1969-12-31"] * 2, [MOMENT - 8 * 3600, -86_400] * 2),
        (["2026-01-31T08:00:00.250"] * 4, [MOMENT + 0.25] * 4),
        (pa.array([1, 2, 3, 4]), [1, 2, 3, 4]),
        (pa.array([date(2026, 1, 31)] * 4), [MOMENT - 8 * 3600] * 4),
        (pa.array([datetime(2026, 1, 31, 8)] * 4, pa.date64()), [MOMENT - 8 * 3600] * 4),
        *(
            (pa.array([datetime(2026, 1, 31, 8)] * 4, pa.timestamp(unit)), [MOMENT] * 4)
            for unit in ("s", "ms", "us", "ns")
        ),
        (pa.array([datetime(2026, 1, 31, 8, tzinfo=UTC)] * 4, pa.timestamp("us", "Europe/Berlin")), [MOMENT] * 4),
        (pa.array([time(0, 1)] * 4, pa.time32("s")), [60] * 4),
        (pa.array([time(0, 1)] * 4, pa.time64("ns")), [60] * 4),
        (pa.array([timedelta(minutes=1)] * 4), [60] * 4),
    ],
)
def test_times_are_seconds_or_numbers(cells: Any, seconds: list[float], tmp_path: Path) -> None:
    table = read(tmp_path, cells, time="r")
    assert table.schema.names == ("a",)
    np.testing.assert_array_equal(table.times, seconds)


def test_weights_are_numbers_from_zero(tmp_path: Path) -> None:
    table = read(tmp_path, ["1", "0", "2.5", "1e3"], weight="r")
    np.testing.assert_array_equal(table.weights, [1, 0, 2.5, 1000])
    assert (table.groups, table.times) == (None, None)


@pytest.mark.parametrize(
    ("cells", "role", "problem"),
    [
        (["u1", "", "u2", "u2"], "group", "row 2: has no group; expected one for every row"),
        (pa.array([1.5, math.nan, None, 2.5]), "group", "row 2: has no group"),
        (pa.array([None, 1, 1, 2]), "group", "row 1: has no group"),
        (["u"] * 4, "group", "has one group only; expected at least two"),
        (pa.array([[1]] * 4), "group", "row 1: is of type list"),
        (["1", "2", "NA", "4"], "time", "row 3: has no time; expected one for every row"),
        (pa.array([date(2026, 1, 1), None] * 2), "time", "row 2: has no time"),
        (["2026-01-31", "soon"] * 2, "time", "row 2: 'soon' is no time; expected numbers, or dates and times such as"),
        (["31.1.2026"] * 4, "time", "row 1: '31.1.2026' is no time"),
        (["1", "2026-01-31"] * 2, "time", "row 2: '2026-01-31' is no time"),
        (["1", "inf", "2", "3"], "time", "row 2: 'inf' is no time"),
        (["1", "", "2", "3"], "weight", "row 2: has no weight; expected one for every row"),
        (["1", "-0.5", "2", "3"], "weight", "row 2: -0.5 is below 0; expected a weight, a number from 0"),
        (["1", "inf", "2", "3"], "weight", "row 2: inf; expected a finite 32-bit number"),
        (["1", "heavy", "2", "3"], "weight", "row 2: 'heavy' is not a number"),
        (["0"] * 4, "weight", "is 0 in every row; expected a weight above 0 in some"),
        (["True"] * 4, "weight", "row 1: is true or false; expected a weight"),
        (pa.array([date(2026, 1, 1)] * 4), "weight", "row 1: is a date or a duration"),
    ],
)  # fmt: skip
def test_what_has_no_role_is_refused(cells: Any, role: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BadData) as caught:
        read(tmp_path, cells, **{role: "r"})
    assert f"column 'r'{'' if problem.startswith(('has one', 'is 0')) else ','} {problem}" in str(caught.value)
    assert "--ignore" not in str(caught.value)
