"""The schema validates rows, names what is wrong, and travels as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from defects.features import FLOAT32_MAX, DefectClass, Feature
from defects.problems import MAX_PROBLEMS, NAN, Constant, InvalidInput, Problem
from defects.pydantic_models import request_model
from defects.schema import Schema

SCHEMA = Schema(
    (
        Feature("weight", "g", "weight", 0, 100, example=50.0),
        Feature("moisture", "%", "", 0, None, optional=True, example=3.0),
        Feature("free"),
    ),
    (DefectClass("ok", "fine"), DefectClass("bad")),
)


def problems(item: Any) -> dict[str, str]:
    with pytest.raises(InvalidInput) as caught:
        SCHEMA.rows_from_objects([item], single=True)
    return {p.field: f"{p.problem}; {p.expected}" for p in caught.value.problems}


def test_rows_are_in_model_order_and_missing_is_nan() -> None:
    rows = SCHEMA.rows_from_objects([{"free": 3, "weight": 1.5}, {"weight": 2, "moisture": 1, "free": -1e30}])
    np.testing.assert_array_equal(rows, [[1.5, math.nan, 3], [2, 1, -1e30]])


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"weight": None}, "weight", "is missing; a number from 0 to 100 g"),
        ({"weight": 100.1}, "weight", "100.1 is out of range; a number from 0 to 100 g"),
        ({"weight": "5"}, "weight", "is text; a number from 0 to 100 g"),
        ({"weight": True}, "weight", "is a boolean; a number from 0 to 100 g"),
        ({"weight": [1]}, "weight", "is a list; a number from 0 to 100 g"),
        ({"weight": Constant("NaN")}, "weight", "is NaN; a number from 0 to 100 g"),
        ({"moisture": -1}, "moisture", "-1 is out of range; a number of at least 0 %, or null"),
        ({"moisture": Constant("Infinity")}, "moisture", "is Infinity; a number of at least 0 %, or null"),
        ({"free": -(10**400)}, "free", "is infinite; a number"),
        ({"free": 1e39}, "free", "1e+39 is out of range; a number"),
        ({"free": 10**400}, "free", "is infinite; a number"),
        ({"wieght": 1}, "wieght", "unknown field; one of the 3 features; did you mean weight?"),
        ({"x" * 200: 1}, "x" * 100, "unknown field; one of the 3 features"),
    ],
)
def test_every_problem_names_its_field(change: dict[str, Any], field: str, message: str) -> None:
    assert problems({"weight": 1, "free": 1, **change}) == {field: message}


def test_several_problems_are_all_named() -> None:
    assert problems({"weight": 101, "moisture": "x"}).keys() == {"weight", "moisture", "free"}


def test_rows_of_a_batch_are_named_by_number() -> None:
    with pytest.raises(InvalidInput, match=r"\[1\]\.weight: 200 is out of range") as caught:
        SCHEMA.rows_from_objects([{"weight": 1, "free": 1}, {"weight": 200, "free": 1}])
    assert len(caught.value.problems) == 1


def test_problems_are_counted_but_not_all_listed() -> None:
    with pytest.raises(InvalidInput, match="and at least 50 more") as caught:
        SCHEMA.check(np.full((1000, 3), [500.0, 1, 1]))
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_the_request_model_agrees_with_validation() -> None:
    model = request_model(SCHEMA)
    model.model_validate({"weight": 1, "moisture": None, "free": 2})
    for wrong in (
        {"weight": 101},
        {"weight": "1"},
        {"weight": math.nan},
        {"moisture": -1},
        {"extra": 1},
        {"free": None},
    ):
        with pytest.raises(ValueError, match="1 validation error"):
            model.model_validate({"weight": 1, "free": 1} | wrong)


def test_any_column_name_can_be_a_field() -> None:
    names = ("model_dump", "_private", "a b", "class", "Größe", "json")
    schema = Schema(tuple(Feature(n, example=1.0) for n in names), SCHEMA.classes)
    properties = request_model(schema).model_json_schema()["properties"]
    assert tuple(properties) == names


def test_json_round_trip() -> None:
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA


def test_a_limit_itself_is_allowed_as_float32_too() -> None:
    schema = Schema((Feature("rate", low=0.1, high=0.97),), SCHEMA.classes)
    schema.check(np.array([[np.float32(0.1)], [np.float32(0.97)], [0.1], [0.97]], dtype=np.float64))
    with pytest.raises(InvalidInput):
        schema.check(np.array([[0.9701]]))


def test_limits_are_finite_in_32_bits() -> None:
    assert Feature("x", low=-1e300, high=1e300).limits == (-FLOAT32_MAX, FLOAT32_MAX)
    for largest in (3.4028234663852886e38, 3.4028235e38):  # as float64 and as float32 write it
        held = SCHEMA.held(SCHEMA.rows_from_objects([{"weight": 1, "free": largest}]))
        assert held[0, 2] == np.float32(FLOAT32_MAX)


def test_observed_ranges_are_kept_but_not_enforced() -> None:
    observed = SCHEMA.observe(np.array([[1, np.nan, 5], [3, 2, 7]], dtype=np.float32))
    assert [(f.observed_low, f.observed_high) for f in observed.features] == [(1, 3), (2, 2), (5, 7)]
    assert [f.example for f in observed.features] == [50.0, 3.0, 6.0]
    observed.rows_from_objects([{"weight": 99, "free": 1000}])


@pytest.mark.parametrize("names", [(), ("a", "a")])
def test_a_schema_needs_unique_features(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="feature"):
        Schema(tuple(Feature(n) for n in names), SCHEMA.classes)


# --- categories ----------------------------------------------------------------------------------------------------

SIZES = Feature("size", kind="category", categories=("L", "M", "S", "m"), example=1)
DECK = Feature("deck", kind="category", categories=("1", "2", "3"), optional=True, unknown="missing")
CATEGORIES = Schema((SIZES, Feature("mass"), DECK), (DefectClass("a"), DefectClass("b")), label_name="species")


@pytest.mark.parametrize(
    ("sent", "row"),
    [
        ({"size": "L", "mass": 2, "deck": "3"}, [0, 2, 2]),
        ({"size": "m", "mass": 2, "deck": 3}, [3, 2, 2]),  # an integer, where all categories are
        ({"size": "S", "mass": 2.5, "deck": 3.0}, [2, 2.5, 2]),
        ({"size": "S", "mass": 2, "deck": None}, [2, 2, math.nan]),
        ({"size": "S", "mass": 2}, [2, 2, math.nan]),
        ({"size": "S", "mass": 2, "deck": "4"}, [2, 2, math.nan]),  # an unknown one counts as missing
        ({"size": "S", "mass": 2, "deck": " 3\n"}, [2, 2, 2]),  # and not one with spaces around it, as files have them
        ({"size": "S", "mass": 2, "deck": NAN}, [2, 2, math.nan]),
    ],
)
def test_a_category_becomes_its_code(sent: Any, row: list[float]) -> None:
    np.testing.assert_array_equal(CATEGORIES.rows_from_objects([sent]), [row])
    np.testing.assert_array_equal(CATEGORIES.rows_from_objects([sent, sent]), [row, row])


@pytest.mark.parametrize(
    ("value", "problem", "expected"),
    [
        ("XL", "'XL' is unknown", "one of 'L', 'M', 'S', 'm'; did you mean 'L'?"),
        ("huge", "'huge' is unknown", "one of 'L', 'M', 'S', 'm'"),
        ("l", "'l' is unknown", "one of 'L', 'M', 'S', 'm'; did you mean 'L'?"),
        (" S ", "' S ' is unknown", "one of 'L', 'M', 'S', 'm'; did you mean 'S'?"),
        ("", "'' is unknown", "one of 'L', 'M', 'S', 'm'"),
        (1, "is a number", "text: one of 'L', 'M', 'S', 'm'"),
        (True, "is a boolean", "text: one of 'L', 'M', 'S', 'm'"),
        (["L"], "is a list", "text: one of 'L', 'M', 'S', 'm'"),
        (None, "is missing", "one of 'L', 'M', 'S', 'm'"),
        (NAN, "is missing", "one of 'L', 'M', 'S', 'm'"),
    ],
)
def test_what_is_no_category_is_refused_by_name(value: Any, problem: str, expected: str) -> None:
    with pytest.raises(InvalidInput) as error:
        CATEGORIES.rows_from_objects([{"size": value, "mass": 1}], single=True)
    assert error.value.problems == (Problem("size", problem, expected),)


def test_an_integer_category_is_not_true_and_no_text_category_a_number() -> None:
    with pytest.raises(InvalidInput, match="deck: is a boolean"):
        CATEGORIES.rows_from_objects([{"size": "L", "mass": 1, "deck": True}])


def test_rows_hold_codes_only() -> None:
    assert CATEGORIES.check(np.array([[3.0, 1, 2], [0, 1, math.nan]])) is not None
    for wrong in (4.0, -1.0, 0.5, math.nan):
        with pytest.raises(
            InvalidInput, match=r"size: .*; expected (a code from 0 to 3, of )?one of 'L', 'M', 'S', 'm'"
        ):
            CATEGORIES.check(np.array([[wrong, 1, 2]]), single=True)


def test_a_category_goes_into_json_and_back() -> None:
    assert Schema.from_json(json.loads(json.dumps(CATEGORIES.to_json()))) == CATEGORIES
    assert "categories" not in CATEGORIES.to_json()["features"][1]


def test_the_example_of_a_category_is_the_most_frequent_one() -> None:
    seen = CATEGORIES.observe(np.array([[3.0, 1, 2], [3, 1, 2], [0, 1, math.nan]], np.float32))
    assert seen.example == {"size": "M", "mass": 1.0, "deck": "3"}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"kind": "category"}, "categories are missing"),
        ({"kind": "category", "categories": ("a", "a")}, "appears twice"),
        ({"kind": "category", "categories": ("a", " ")}, r"categories\[1\] is ' '; expected a name"),
        ({"kind": "category", "categories": "ab"}, "categories is text; expected a list"),
        ({"kind": "category", "categories": ("a",), "unknown": "missing"}, "a value is required"),
        ({"kind": "category", "categories": ("a",), "unknown": "x"}, "unknown is 'x'"),
        ({"kind": "category", "categories": ("a",), "low": 1.0}, "for numbers only"),
        ({"kind": "category", "categories": ("a",), "example": 1.0}, "expected the code of a category"),
        ({"categories": ("a",)}, "for a category only"),
    ],
)
def test_a_category_that_makes_no_sense_is_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Feature("x", **given)


@pytest.mark.parametrize("name", ["confidence", "probabilities", "prediction_id", "model_version"])
def test_the_label_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(ValueError, match=f"the label is named '{name}', as another field of every answer"):
        Schema((Feature("x"),), (DefectClass("a"),), label_name=name)
