"""The card's page says what the card says, whatever names there are, and goes without what a card does not have."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_cards import Example, example, with_everything

from defects import artifact
from defects.features import DefectClass, Feature
from defects.kinds import CATEGORY
from defects.schema import Schema
from defects.training import evaluation
from defects.training.card_page import confusion, features, importances, reading, scores, tables, words
from defects.training.card_page.page import page
from defects.training.pipeline import Trained

HOSTILE = [
    "<script>alert(1)</script>", "</style><img src=x onerror=alert(1)>", "W" * 1000, "العربية \u05d0 עברית",
    "🧑‍🚀" * 20, "\u202egnp.exe", "a&amp;b", "\"' onload='x", "漢字" * 100, "tab\tand\nline",
]  # fmt: skip
VOID = {"meta", "br", "col"}


class Page(HTMLParser):
    """A page's elements: tables as rows of texts by their ids, headings, texts, and what is in it."""

    def __init__(self, html: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.headings: list[str] = []
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self._table = ""
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = dict(attributes)["id"] or ""
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")
        elif tag in ("h1", "h2", "caption", "summary"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & {*self._open}:
            self.tables[self._table][-1][-1] += data
        if {"h1", "h2", "caption", "summary"} & {*self._open}:
            self.headings[-1] += data


def shown(made: Example) -> Page:
    return Page(page(*made))


def test_it_has_everything_in_the_order_that_a_person_needs() -> None:
    made = with_everything(example(["Adelie", "Chinstrap", "Gentoo"]))
    found = shown(made)
    assert [*dict.fromkeys(found.headings)] == [
        "penguins of Palmer: which species?", "1 warning", "What is taken for what", "Most often confused",
        "Class by class", "Whether its probabilities hold", "Calibration (sigmoid)", "Score by class",
        "Cross-validation", "Against the champion, on the same rows", "Against the champion, by class",
        "What the model looks at", "Features", "Data and split", "Proof that it is served as it was fitted",
            "How to make it again", "Libraries",
        "Parameters of the estimator", "How to read it",
    ]  # fmt: skip
    assert made[1].purpose in found.text
    for warning in made[0]["warnings"]:
        assert warning["text"] in found.text
    assert "python train.py --data 'my penguins.csv' --label species" in found.text
    assert "version 20261127-021500-0123abcd" in found.text
    assert "Champion: 20260101-000000-ffffffff. The gate was passed, with a margin of 0.01." in found.text
    assert "ONNX answers as scikit-learn does, also on 1,234 probes" in found.text
    assert "column 'id' was left out" in found.text


def test_its_numbers_are_those_of_the_card() -> None:
    card, schema, reference = with_everything(example(["Adelie", "Chinstrap", "Gentoo"]))
    found = shown((card, schema, reference))
    metrics = card["metrics"]
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        assert words.metric(metrics[key]) in found.text
        assert f"95 %: {words.span(tuple(metrics['intervals'][key]))}" in found.text
        assert f"baseline: {words.metric(metrics['baseline'][key])}" in found.text
    assert "always says “Adelie”" in found.text
    rows = {row[0]: row[1:] for row in found.tables["classes"][1:]}
    assert rows["Gentoo"][0] == words.metric(metrics["classes"]["Gentoo"]["precision"])
    assert rows["Gentoo"][-2] == str(metrics["classes"]["Gentoo"]["rows"])
    wrong = metrics["confusion"]
    most = max((wrong[i][j], -i, -j) for i in range(3) for j in range(3) if i != j)
    assert found.tables["pairs"][1][:3] == [schema.class_names[-most[1]], schema.class_names[-most[2]], str(most[0])]
    assert ["log loss", "0.310", "0.330", "−0.020", "−0.040 to −0.001"] in found.tables["comparison"]
    assert found.tables["proof"][1:] == [
        ["rows compared", "600", "1,234"],
        ["largest difference of a probability", "1.2e-07", "0"],
        ["rows with another class", "0", "0"],
    ]


def test_features_have_kinds_ranges_and_missing_shares() -> None:
    rows = {row[0]: row[1:5] for row in shown(example()).tables["features"][1:]}
    assert rows["measurement_0"][:3] == ["number, mm", "−3.25 to 1,234 (at least −10 allowed)", "0 %"]
    assert rows["measurement_1"][2] == "1.3 %"
    assert rows["measurement_2"][:3] == ["category", "blue, green and red", "0 %"]
    assert rows["measurement_3"][:3] == ["boolean", "true in 37 %", "1.3 %"]


def test_a_model_that_was_brought_says_so() -> None:
    card, schema, reference = example()
    card["split"] = {"how": "given", "fitted_rows": 0, "held_out_rows": 600, "held_out_share": 1.0}
    card["estimator"] |= {"file": "pipeline.skops", "sha256": "cd" * 32}
    found = shown((card, schema, reference))
    assert "On 600 rows that came with the model, so it may have been fitted on some." in found.text
    assert ["model file", "pipeline.skops"] in found.tables["data"]
    assert ["split", "none: the model was fitted elsewhere; all rows are held out"] in found.tables["data"]


def test_many_categories_are_a_few_and_how_many_more() -> None:
    card, schema, reference = example(features=1)
    names = tuple(f"town {number:03}" for number in range(400))
    feature = Feature("town", kind=CATEGORY, categories=names)
    found = shown((card, Schema((feature,), schema.classes), reference))
    assert found.tables["features"][1][2] == ", ".join(names[:8]) + " and 392 more"


def test_the_real_page_of_a_trained_model_agrees_with_its_card(trained: Trained) -> None:
    schema = Schema.from_json(json.loads(trained.files["schema.json"]))
    reference = json.loads(trained.files["reference.json"])
    html = trained.files[artifact.CARD_PAGE].decode()
    assert html == page(trained.card, schema, reference) == page(copy.deepcopy(trained.card), schema, reference)
    found = Page(html)
    assert "scan tunnel: which defect?" in found.headings
    assert len(found.tables["features"]) == len(schema.features) + 1
    for name in ("classes", "data", "proof", "libraries"):
        assert len(found.tables[name]) > 1, name
    assert {"Score by class", "Whether its probabilities hold", "What the model looks at"} <= {*found.headings}


def test_the_reference_counts_the_texts_of_a_category() -> None:
    _, schema, _ = example(2, 4)
    rows = np.array([[1.0, 2.0, 0.0, 1.0], [2.0, 2.0, 2.0, 0.0], [3.0, 3.0, 2.0, np.nan], [3.0, 3.0, np.nan, 1.0]])
    found = evaluation.reference(schema, rows, np.array([0, 1, 1, 0]), np.full((4, 2), 0.5))
    assert found["features"]["measurement_2"] == {"missing": 1, "categories": {"blue": 1, "green": 0, "red": 2}}
    assert found["features"]["measurement_3"]["mean"] == pytest.approx(2 / 3)


# --- texts from outside ----------------------------------------------------------------------------------------------


def hostile() -> Example:
    """Every text of the card is one that means harm, and so is every name."""
    card, schema, reference = with_everything(example(len(HOSTILE), len(HOSTILE)))
    renamed = dict(zip((*schema.class_names, *schema.names), HOSTILE * 2, strict=True))

    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {renamed.get(key, key): changed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [changed(item) for item in value]
        return renamed.get(value, HOSTILE[0] + value[:3]) if isinstance(value, str) else value

    columns = tuple(
        Feature(name, unit=HOSTILE[1], description=HOSTILE[0], kind=CATEGORY, categories=tuple(HOSTILE))
        for name in HOSTILE
    )
    classes = tuple(DefectClass(name) for name in HOSTILE)
    made = Schema(columns, classes, title=HOSTILE[1], label_name=HOSTILE[0])
    return changed(card), made, changed(reference)


def test_hostile_texts_are_shown_and_do_nothing() -> None:
    plain, found = shown(with_everything(example(len(HOSTILE), len(HOSTILE)))), shown(hostile())
    assert {*found.names} <= {*plain.names, "bdi"}
    assert {name for name, _ in found.attributes} <= {name for name, _ in plain.attributes}
    assert not {"script", "img", "link", "iframe"} & {*found.names}
    assert "<script>alert(1)</script>" in found.text
    assert "\u202e" not in page(*hostile())
    assert all(len(name) <= 1000 for name in re.findall(r"W+", page(*hostile())))


def test_the_page_needs_nothing_else() -> None:
    html = page(*with_everything(example()))
    assert "script" not in Page(html).names
    assert re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?(?!#|%23)', html) == []
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert "default-src 'none'" in policy.replace("&#39;", "'")
    assert "script-src" not in policy
    assert not [name for name, _ in Page(html).attributes if name == "style" or name.startswith("on")]


# --- cards that lack something ---------------------------------------------------------------------------------------


def parts(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the paths of everything in a card, but only of the first few of many."""
    if not isinstance(value, dict) or len(path) > 3:
        return [path]
    return [path, *(each for key in list(value)[:4] for each in parts(value[key], (*path, key)))]


WRONG: list[Any] = [None, [], {}, "text", 7, True, -1.5, [None], {"a": None}, [["x"]], [{}], 1e308, float("nan")]


def test_whatever_is_missing_or_wrong_the_page_goes_without_it() -> None:
    """Each part of a card and of a reference is taken away, and is something else."""
    card, schema, reference = with_everything(example(2, 4, 60))
    paths = [("card", *path) for path in parts(card) if path] + [("reference", *path) for path in parts(reference)]
    for number, path in enumerate(paths):
        for wrong in ["gone", WRONG[number % len(WRONG)]][number % 2 :]:
            both: dict[str, Any] = {"card": copy.deepcopy(card), "reference": copy.deepcopy(reference)}
            inner = both
            for key in path[:-1]:
                inner = inner[key]
            if wrong == "gone":
                del inner[path[-1]]
            else:
                inner[path[-1]] = wrong
            found = shown((both.get("card", {}), schema, both.get("reference", {})))
            assert "How to read it" in found.headings
            assert "nan" not in re.findall(r"\bnan\b", found.text)
    assert shown(({}, schema, {})).headings[0] == "penguins of Palmer: which species?"


def test_wrong_values_of_every_kind_are_read_as_nothing() -> None:
    for value in WRONG:
        assert isinstance(reading.mapping(value, "a"), dict)
        assert isinstance(reading.text(value, "a"), str)
        assert reading.numbers(value, "a") == []
        assert reading.number({"a": value}, "a") == (value if value in (7, -1.5, 1e308) and value is not True else None)


# --- the parts -------------------------------------------------------------------------------------------------------


def test_of_many_classes_the_most_confused_are_drawn_and_nothing_is_lost() -> None:
    card, schema, _ = example(60, rows=4000)
    whole = confusion.matrix(card, schema.class_names)
    assert whole
    few = confusion.bounded(whole, 20)
    assert (len(few.names), few.names[-1], few.others) == (20, "41 others", 41)
    assert sum(map(sum, few.rows)) == 4000
    kept = [whole.names.index(name) for name in few.names[:-1]]
    assert kept == sorted(kept)
    least = min(confusion.wrong(whole, index) for index in kept)
    assert least >= max(confusion.wrong(whole, index) for index in range(60) if index not in kept)
    assert confusion.bounded(whole, 60) is whole
    found = shown((card, schema, {}))
    assert "Class by class: the 20 with the lowest F1" in found.headings
    assert "All 60 classes" in found.headings
    assert len(found.tables["all-classes"]) == 61


def test_of_many_features_the_most_important_are_listed_and_all_are_folded() -> None:
    card, schema, reference = example(3, 300)
    card["importances"].reverse()
    found = shown((card, schema, reference))
    assert [row[0] for row in found.tables["features"][1:4]] == ["measurement_0", "measurement_1", "measurement_2"]
    assert "All 300 features" in found.headings
    assert len(found.tables["all-features"]) == 301
    assert len(page(card, schema, reference)) < 1_000_000


def test_the_largest_cards_stay_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FOLDED", 70)
    monkeypatch.setattr(tables, "FOLDED_CLASSES", 50)
    found = shown(example(60, 90, 300))
    assert {"50 of 60 classes", "70 of 90 features"} <= {*found.headings}
    assert (len(found.tables["all-classes"]), len(found.tables["all-features"])) == (51, 71)


def test_the_histograms_are_those_of_the_classes_with_the_most_errors() -> None:
    card, schema, _ = example(30, rows=3000)
    found = scores.scores(card, schema.class_names)
    assert len(found) == scores.MOST
    assert [item.name for item in found] == sorted(item.name for item in found)
    others = {name: sum(of["wrong"]) for name, of in card["metrics"]["scores"].items()}
    least = min(sum(item.wrong) for item in found)
    assert max(errors for name, errors in others.items() if name not in {item.name for item in found}) <= least


def test_importances_are_drawn_from_the_highest_on() -> None:
    card, _, _ = example(3, 30)
    card["importances"] = card["importances"][::-1]
    found = importances.importances(card)
    assert [item.feature for item in found][:2] == ["measurement_0", "measurement_1"]
    assert "measurement_19" in importances.draw(found, 700, "x")
    assert "measurement_20" not in importances.draw(found, 700, "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0.000"), (1.0, "1.000"), (0.99951, "0.9995"), (0.99999, "0.9999"), (0.0004, "0.0004"),
     (-0.25, "−0.250"), (-0.0004, "−0.0004"), (12.3456, "12.346"), (1e-9, "1e-09")],
)  # fmt: skip
def test_a_metric_never_seems_perfect(value: float | None, text: str) -> None:
    assert words.metric(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (-3.0, "−3"), (1234.5, "1,234"), (0.123456, "0.1235"), (1.5e12, "1.5e+12"),
     (123456.7, "123,457"), (1e-7, "1e-07"), (20000000.0, "2e+07")],
)  # fmt: skip
def test_quantities_are_for_people(value: float | None, text: str) -> None:
    assert words.quantity(value) == text


def test_long_counts_fit_their_cells() -> None:
    for most in (1, 2, 3, 4, 6):
        assert len(words.compact(1_234_567, max(most, 2))) <= max(most, 2)
    assert words.compact(1_234, 5) == "1,234"
    assert words.compact(1_234, 4) == "1k"
    assert Path(page.__code__.co_filename).with_name("card.css").is_file()
