"""Train with `train.py`, serve with a real server, ask for every held-out row as a client would, and compare with
scikit-learn."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

import notebooks
import train
from catalogue import Brought, PublicSet
from conftest import Serve
from defects import artifact
from defects.features import Feature
from defects.kinds import BOOLEAN, CATEGORY, NUMBER
from defects.schema import Schema
from defects.training import dataset, pipeline
from defects.training.columns import MISSING, TRUTHS
from defects.training.options import Recipe
from defects.training.splitting import split

Floats = NDArray[np.float64]
ROWS_AT_ONCE = 500  # in a request
V2 = "/v2/models/defect-classifier/infer"

# How pandas reads what the survey wrote.
READING: dict[str, dict[str, Any]] = {
    "semicolon": {"sep": ";"},
    "tab": {"sep": "\t"},
    "pipe": {"sep": "|"},
    "comma": {"sep": ";"},
    "utf-16": {"encoding": "utf-16"},
    "bom": {"encoding": "utf-8-sig"},
    "backslashes": {"escapechar": "\\"},
}


@dataclass
class Outcome:
    """What became of one training: a refusal's message, or what was served and how far it is from scikit-learn."""

    set: PublicSet
    refused: str = ""
    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    classes: int = 0
    card: dict[str, Any] = field(default_factory=dict)
    compared: int = 0
    largest_difference: float = 0.0
    other_class: int = 0


def cells(one: PublicSet, path: Path) -> pd.DataFrame:
    """Return the file's cells as a program in Python has them: text in a CSV, typed in a Parquet file."""
    text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
    table: pd.DataFrame = (
        pd.read_parquet(path) if one.form == "parquet" else pd.read_csv(path, **text, **READING.get(one.form, {}))
    )
    return table


def value(feature: Feature, cell: Any, decimal: str) -> Any:
    """Return a cell as JSON has it: text, number, true, false or null."""
    if not isinstance(cell, str):
        return None if pd.isna(cell) else cell.item() if hasattr(cell, "item") else cell
    text = cell.strip()
    if text in MISSING:
        return None
    if feature.kind == CATEGORY:
        return cell
    if feature.kind == BOOLEAN:
        return TRUTHS[text]
    return float(text.replace(decimal, "."))


def objects(schema: Schema, table: pd.DataFrame, rows: NDArray[np.int64], decimal: str) -> list[dict[str, Any]]:
    """Return rows of the file as the objects that a client sends."""
    chosen = table.iloc[rows]
    columns = {f.name: [value(f, cell, decimal) for cell in chosen[f.name]] for f in schema.features}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# --- protocols -------------------------------------------------------------------------------------------------------

Answers = tuple[list[Any], Floats]  # labels, and probabilities [rows, classes]


def ask_json(client: httpx.Client, schema: Schema, rows: list[dict[str, Any]]) -> Answers:
    answers = client.post("/classify_batch", json=rows)
    assert answers.status_code == 200, answers.text
    predictions = answers.json()
    probabilities = [[one["probabilities"][name] for name in schema.class_names] for one in predictions]
    return [one[schema.label_name] for one in predictions], np.array(probabilities)


def ask_v2(client: httpx.Client, schema: Schema, rows: list[dict[str, Any]]) -> Answers:
    """Ask with a tensor for each column: text for a category."""
    inputs = [
        {"name": f.name, "datatype": DATATYPES[f.kind], "shape": [len(rows)], "data": [row[f.name] for row in rows]}
        for f in schema.features
    ]
    answer = client.post(V2, json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    outputs = {output["name"]: output for output in answer.json()["outputs"]}
    probabilities = np.reshape(outputs["probabilities"]["data"], outputs["probabilities"]["shape"])
    return outputs["label"]["data"], probabilities


DATATYPES = {NUMBER: "FP64", BOOLEAN: "BOOL", CATEGORY: "BYTES"}
PROTOCOLS = (ask_json, ask_v2)


# --- the comparison --------------------------------------------------------------------------------------------------


def compare(one: PublicSet, file: Path, directory: Path, serve: Serve) -> Outcome:
    """Train on the file into `directory`, serve what came out, and compare every held-out row.

    Where `train.py` refuses the file, its message is all that comes back.
    """
    try:
        table, trained, held_out = train_by_command(
            ["--data", str(file), "--label", one.label, *one.option, "--output", str(directory / "model")]
        )
    except SystemExit as refusal:
        return Outcome(one, refused=str(refusal.code))
    outcome = outcome_of(one, table.schema, trained.card, len(table.labels))
    rows = objects(table.schema, cells(one, file), held_out, one.decimal)
    expected = trained.pipeline.predict_proba(table.features[held_out].astype(np.float64))
    ask_all(outcome, table.schema, directory / "model", rows, expected, serve)
    return outcome


def train_by_command(arguments: list[str]) -> tuple[dataset.Table, pipeline.Trained, NDArray[np.int64]]:
    """Run `train.py` in this process; return the table, what was trained, and the places of the held-out rows.

    Raises what ends it: `SystemExit`, with the message of a refusal.
    """
    seen: list[tuple[dataset.Table, Recipe, pipeline.Trained]] = []
    original = pipeline.train

    def watched(table: dataset.Table, recipe: Recipe, *more: Any) -> pipeline.Trained:
        trained = original(table, recipe, *more)
        seen.append((table, recipe, trained))
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "train", watched)
        train.main(arguments)
    ((table, recipe, trained),) = seen
    return table, trained, split(table, recipe.test_share, recipe.seed).held


def ask_all(
    outcome: Outcome, schema: Schema, model: Path, rows: list[dict[str, Any]], expected: Floats, serve: Serve
) -> None:
    """Serve the model in a directory, and note how far the answers for `rows` are from `expected`."""
    outcome.compared = len(rows)
    with serve(MODEL_DIR=model) as server, httpx.Client(base_url=server.url) as client:
        for ask in PROTOCOLS:
            for start in range(0, len(rows), ROWS_AT_ONCE):
                part = slice(start, start + ROWS_AT_ONCE)
                judge(outcome, schema, ask(client, schema, rows[part]), expected[part])


def compare_brought(brought: Brought, file: Path, directory: Path, serve: Serve) -> Outcome:
    """Fit a model as a notebook does, bring it to `train.py` with the rows it was not fitted on, serve and compare."""
    one = brought.set
    frame = pd.read_csv(file, **READING.get(one.form, {})).drop(columns=[*brought.without])
    fitted_part, rest = train_test_split(frame, test_size=0.3, random_state=0, stratify=frame[one.label])
    model = notebooks.fitted(getattr(notebooks, brought.notebook), fitted_part, one.label)
    saved, holdout = directory / f"model{brought.suffix}", directory / "holdout.csv"
    notebooks.save(model, saved)
    rest[rest.columns[::-1]].to_csv(holdout, index=False)  # names say which is which, whatever their order
    one = replace(one, name=f"{one.name}, {brought.title}", form="csv", option=("--model", saved.name))
    arguments = ["--model", str(saved), "--data", str(holdout), "--label", one.label]
    try:
        train.main([*arguments, "--output", str(directory / "served")])
    except SystemExit as refusal:
        return Outcome(one, refused=str(refusal.code))
    loaded = artifact.load(directory / "served")
    outcome = outcome_of(one, loaded.schema, loaded.card, len(rest))
    rows = objects(loaded.schema, cells(one, holdout), np.arange(len(rest)), one.decimal)
    expected = model.predict_proba(rest.drop(columns=one.label))
    ask_all(outcome, loaded.schema, directory / "served", rows, expected, serve)
    return outcome


def outcome_of(one: PublicSet, schema: Schema, card: dict[str, Any], rows: int) -> Outcome:
    """Return what is known of a training before anything is asked."""
    return Outcome(one, "", rows, Counter(feature.kind for feature in schema.features), len(schema.classes), card)


def judge(outcome: Outcome, schema: Schema, answers: Answers, expected: Floats) -> None:
    labels, probabilities = answers
    difference = float(np.abs(probabilities - expected).max())
    outcome.largest_difference = max(outcome.largest_difference, difference)
    best = [schema.class_names[place] for place in expected.argmax(axis=1)]
    outcome.other_class += sum(name_of(schema, label) != name for label, name in zip(labels, best, strict=True))


def name_of(schema: Schema, label: Any) -> str:
    """Return the name of the class that an answer has: V2 has names, and JSON labels of the data's own type."""
    return str(label) if label in schema.class_names else schema.class_names[schema.labels.index(label)]
