"""The gate before the store: a candidate is stored where it is shown to be no worse than the champion.

Both answer the same held-out rows, each by its own engine. What counts as worse is in `comparison.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import artifact, scoring, store
from defects.artifact import Artifact, NoModel
from defects.features import Feature
from defects.kinds import CATEGORY, MISSING
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.training.assessment import held_out
from defects.training.comparison import FEW_ROWS, compare
from defects.training.dataset import BadData, Table
from defects.training.findings import Finding
from defects.training.options import Recipe
from defects.training.splitting import Split

SHOWN = 5  # names in a message


class Refused(Exception):
    """The candidate does not pass; the message has a line for each reason."""


@dataclass(frozen=True)
class Gate:
    """The champion, where it was found, and how much worse a candidate may be."""

    champion: Artifact
    place: str
    margin: float

    def check(self, schema: Schema) -> None:
        """Raise `BadData` where the champion and a candidate of this schema don't answer the same question."""
        if problem := _difference(self.champion.schema, schema):
            raise BadData(
                f"--champion: {self.place} is a model of other data: {problem}; expected one with the same features "
                "and classes"
            )

    def judge(self, table: Table, parts: Split, probabilities: Probabilities, recipe: Recipe) -> dict[str, Any]:
        """Return the card's `comparison` with a candidate of these probabilities; raises `Refused` or `BadData`."""
        rows = table.features[parts.held].astype(np.float64)
        answered = self._answers(rows, table.schema)
        champion = {"version": self.champion.version, "digest": self.champion.digest, "place": self.place}
        seen = _seen(self.champion.card, table.source, parts, recipe)
        found = {"champion": champion, "seen": seen} | compare(
            held_out(table, parts, recipe.seed), probabilities, answered, self.margin
        )
        if not found["passed"]:
            raise Refused("\n".join(self._refusal(found)))
        return found

    def _answers(self, rows: Rows, schema: Schema) -> Probabilities:
        """Return the champion's probabilities of a table's rows, with its columns and classes in the table's order."""
        ours = self.champion.schema
        given = np.column_stack([_values(feature, schema, rows) for feature in ours.features])
        score = scoring.verified(self.champion, scoring.load(self.champion))
        answered = score(ours.held(given))[:, [ours.class_names.index(name) for name in schema.class_names]]
        unknown = np.isnan(answered).any(axis=1, keepdims=True)  # a row whose scores are not finite
        return np.where(unknown, 1 / answered.shape[1], answered)

    def _refusal(self, found: dict[str, Any]) -> list[str]:
        lines = [f"refused, nothing is stored; against the champion, {self.place}, the candidate is"]
        lines += [f"  {reason}" for reason in found["reasons"]]
        if text := SEEN.get(found["seen"]):
            lines.append(f"  {text}")
        return lines


def open_gate(named: str, margin: float) -> Gate:
    """Load the champion: a directory, `latest` or `champion` of the model store, or a tag; raises `Fatal`."""
    if Path(named).is_dir():
        return Gate(artifact.load(Path(named)), named, margin)
    if named == "champion":
        tag = store.champion()
        if tag is None:
            raise NoModel(
                "--champion champion: no model of the store has passed a comparison yet; expected latest, a tag or a "
                "directory"
            )
    elif "/" in named:
        raise NoModel(f"--champion {named}: no such directory; expected one with a model, champion, latest or a tag")
    else:
        tag = named if ":" in named else f"{artifact.NAME}:{named}"
    try:
        directory, found = store.locate(None, tag, Path())
    except NoModel:
        raise NoModel(
            f"--champion {named}: there is no such model in the store, nor such a directory; the first model is "
            "trained without --champion"
        ) from None
    return Gate(artifact.load(directory), str(found), margin)


# --- schemas ---------------------------------------------------------------------------------------------------------


def _difference(champion: Schema, candidate: Schema) -> str | None:
    """Say what differs in features or classes; `None` where nothing does but their order."""
    for what, theirs, ours in (
        ("feature", champion.names, candidate.names),
        ("class", champion.class_names, candidate.class_names),
    ):
        for text, names in (
            (f"it has {what} {{}}, which the data have not", [name for name in theirs if name not in ours]),
            (f"it has no {what} {{}}", [name for name in ours if name not in theirs]),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                return text.format(", ".join(map(repr, names[:SHOWN])) + more)
    kinds = {feature.name: feature.kind for feature in candidate.features}
    for feature in champion.features:
        if feature.kind != kinds[feature.name]:
            return f"its feature {feature.name!r} is a {feature.kind}, that of the data a {kinds[feature.name]}"
    return None


def _values(feature: Feature, schema: Schema, rows: Rows) -> NDArray[np.float64]:
    """Return the values of a champion's feature in a table's rows; raises `BadData` where it would refuse them."""
    place = schema.index[feature.name]
    values = rows[:, place]
    if feature.kind == CATEGORY:
        values = _codes(feature, schema.features[place], values)
    if np.isnan(values).any() and not feature.optional:
        raise _refused(feature, int(np.isnan(values).sum()), "have no value")
    low, high = feature.limits
    outside = (values < low) | (values > high)
    if outside.any():
        raise _refused(feature, int(outside.sum()), f"have a value outside of {low:g} to {high:g}")
    return values


def _codes(feature: Feature, ours: Feature, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the champion's codes of a table's categories."""
    places = {text: float(code) for code, text in enumerate(feature.categories)}
    codes = np.array([*(places.get(text, np.nan) for text in ours.categories), np.nan])
    given = np.where(np.isnan(values), len(ours.categories), values).astype(np.int64)
    found: NDArray[np.float64] = codes[given]
    unknown = np.isnan(found) & ~np.isnan(values)
    if unknown.any() and feature.unknown != MISSING:
        text = ours.categories[given[int(unknown.argmax())]]
        raise _refused(feature, int(unknown.sum()), f"have a value that it does not know, such as {text!r}")
    return found


def _refused(feature: Feature, count: int, problem: str) -> BadData:
    return BadData(
        f"--champion: column {feature.name!r}: {count:,} held-out rows {problem}, so the champion refuses them; "
        "expected data that both models take"
    )


# --- whether the comparison is a fair one ----------------------------------------------------------------------------

SEEN = {
    "some": "the champion was fitted on some of these held-out rows (the same data, split in another way), so it looks "
    "better than it is; expected the same --seed and --test-share",
    "unknown": "whether the champion was fitted on some of these held-out rows is not known: it was fitted elsewhere, "
    "or on other data",
}


def warnings(comparison: dict[str, Any]) -> list[Finding]:
    """Return what a person must know of a comparison that a candidate has passed."""
    found = [Finding("champion_saw_rows", "", SEEN["some"])] if comparison["seen"] == "some" else []
    for name in comparison["undecided"]:
        scores = comparison["classes"][name]
        if scores["rows"] < FEW_ROWS:
            text = f"class {name!r} has {scores['rows']} held-out rows, too few to compare it with the champion's"
            found.append(Finding("undecided", name, text))
            continue
        text = (
            f"class {name!r} is undecided against the champion on {scores['rows']:,} held-out rows: the differences "
            f"are between {scores['recall']['low']:+.4f} and {scores['recall']['high']:+.4f} in recall, and "
            f"{scores['f1']['low']:+.4f} and {scores['f1']['high']:+.4f} in F1"
        )
        found.append(Finding("undecided", name, text))
    return found


def _seen(card: dict[str, Any], source: dict[str, Any], parts: Split, recipe: Recipe) -> str:
    """Return whether the champion was fitted on held-out rows: `none`, `some` or `unknown`, by what its card says."""
    data = card.get("data", {})
    if not any(data.get(name) is not None and data[name] == source.get(name) for name in ("sha256", "seed")):
        return "unknown"
    if "seed" in source and "sha256" not in source and data.get("source") != source["source"]:
        return "unknown"
    theirs, ours = card.get("split", {}), parts.to_json()
    if theirs.get("how") == "given":  # its card tells the rows on which it was assessed, and not where it was fitted
        return "unknown"
    same = data.get("rows") == source.get("rows") and theirs.get("how", "stratified") == ours["how"]
    same = same and theirs.get("column") == ours.get("column")
    same = same and theirs.get("test_share", theirs.get("held_out_share")) == recipe.test_share
    return "none" if same and card.get("estimator", {}).get("seed") == recipe.seed else "some"
