"""Choose the engine for a fitted pipeline: ONNX Runtime if it is proven to answer as scikit-learn, else scikit-learn.

Held-out rows don't show what goes wrong at a threshold, in a tie or at the edges of floating point, so the proof goes
over probes that are made from the model itself, in the precision that is served, and some of them go into the artifact:
each replica proves them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects import artifact, scoring, values
from defects.features import Feature
from defects.kinds import CATEGORY
from defects.schema import Rows, Schema
from defects.scoring import Probabilities, Scorer
from defects.training.conversion import classifier_of, to_onnx
from defects.training.dataset import BadData
from defects.training.ensembles import library_of, trees_of
from defects.training.fitted import Fitted
from defects.training.probes import probes
from defects.training.trees import NotConvertible

# The largest difference of a probability between scikit-learn and the engine with which it is served.
PARITY_TOLERANCE = artifact.MAX_TOLERANCE
# scikit-learn's own linear models change by so much with the rows around a row; of trees the sums are the same.
LINEAR_TIE = 1e-12
NEAR = 1e-9  # probabilities so near have to be asked for their class
HUGE = 1e18  # a value from which on a row may have no finite scores
GOLDEN_ROWS, GOLDEN_PROBES = 64, 64
CHUNK = 8192  # rows at a time
SLOW_PROBES, SLOW_PART = 512, 256  # for scikit-learn's engine, whose answers take milliseconds; of each part of them


class NotProven(Exception):
    """A scorer answers other than the pipeline that it was made of."""


@dataclass(frozen=True)
class Engine:
    """What serves the model, why, and what it needs; `golden` are rows and answers that it has to give everywhere.

    `given` is what the pipeline itself gets of rows.
    """

    name: str
    reason: str
    file: str
    model: bytes
    parity: dict[str, Any]
    golden: dict[str, Any]
    given: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return it as the card has it."""
        return {"name": self.name, "reason": self.reason, "parity": self.parity, **self.given}


@dataclass(frozen=True)
class SklearnResults:
    """What scikit-learn says of rows `[n, features]`: probabilities `[n, classes]` and classes `[n]`, by number."""

    rows: Rows
    probabilities: Probabilities
    classes: NDArray[np.int64]

    def subset(self, chosen: Any) -> SklearnResults:
        """Return the results of some rows, which NumPy chooses."""
        return SklearnResults(self.rows[chosen], self.probabilities[chosen], self.classes[chosen])

    def joined_with(self, other: SklearnResults) -> SklearnResults:
        """Return these results and then the other ones."""
        return SklearnResults(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.probabilities, other.probabilities]),
            np.concatenate([self.classes, other.classes]),
        )


@dataclass(frozen=True)
class Proof:
    """How a scorer compares with scikit-learn, what is wrong with it, and inputs for `golden.json`."""

    parity: dict[str, Any]
    problem: str | None
    golden: dict[str, Any]


def export(fitted: Fitted, held_out: Rows, known: Rows) -> Engine:
    """Return the engine for a pipeline; raises `BadData` where none answers as it does.

    Probes are made of `known` rows: those that it was fitted on, where these are there.
    """
    schema = fitted.schema
    held = ask(fitted, held_out)
    _check_decision(fitted, held)
    parity: dict[str, Any] = {}
    try:
        model = to_onnx(fitted.pipeline, fitted.columns, wide=schema.wide)
        score = scoring.onnx_scorer(model)
    except Exception as error:  # whatever can't be converted, scikit-learn still can serve
        reason = f"the model can't be converted to ONNX: {_root_cause(error)}"
    else:
        proof = prove(fitted, score, held, probes(fitted.pipeline, schema, known, fitted.columns))
        if proof.problem is None:
            library, count = library_of(classifier_of(fitted.pipeline)), proof.parity["probes"]["rows"]
            reason = f"ONNX answers as {library} does, also on {count:,} probes"
            return Engine("onnxruntime", reason, artifact.ONNX, model, proof.parity, proof.golden, fitted.to_json())
        reason, parity = f"ONNX {proof.problem}", proof.parity
    try:
        model, golden = _for_sklearn(fitted, held, known)
    except NotProven as problem:
        raise BadData(
            f"no engine can serve this model: {reason}; the pipeline itself, loaded again, {problem}"
        ) from None
    return Engine("scikit-learn", reason, artifact.SKOPS, model, parity, golden, fitted.to_json())


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _for_sklearn(fitted: Fitted, held: SklearnResults, known: Rows) -> tuple[bytes, dict[str, Any]]:
    """Return the pipeline as scikit-learn's engine loads it, and its golden inputs; raises `NotProven`."""
    import skops.io

    try:
        model = skops.io.dumps(fitted.pipeline)
        score = scoring.sklearn_scorer(
            model, fitted.decode
        )  # refuses here, not in production, a type that is not pinned
    except Exception as error:  # what skops raises for what it can't save or load is its own affair
        raise NotProven(f"can't be saved for a replica: {_root_cause(error)}") from error
    random = np.random.default_rng(0)
    made = probes(fitted.pipeline, fitted.schema, known, fitted.columns)
    some = np.concatenate([random.permutation(part)[:SLOW_PART] for part in made])
    proof = prove(fitted, score, held.subset(slice(SLOW_PROBES)), [random.permutation(some)[:SLOW_PROBES]])
    if proof.problem is not None:
        raise NotProven(proof.problem)
    return model, proof.golden


# --- the proof -----------------------------------------------------------------------------------------------------


def ask(fitted: Fitted, rows: Rows) -> SklearnResults:
    """Return what the pipeline itself predicts for the rows."""
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    probabilities = np.concatenate([_answers(fitted, chunk) for chunk in chunks])
    classes, near = probabilities.argmax(axis=1), _margins(probabilities) <= NEAR
    if near.any():
        classes[near] = fitted.predict(rows[near])
    return SklearnResults(rows, probabilities, classes)


def _check_decision(fitted: Fitted, held: SklearnResults) -> None:
    """Raise `BadData` where a model predicts another class than the one that it says is most probable."""
    held = held.subset(~np.isnan(held.probabilities[:, 0]))  # it refuses the others
    other = (fitted.predict(held.rows) != held.classes) & (_margins(held.probabilities) > NEAR)
    if other.any():
        name = type(classifier_of(fitted.pipeline)).__name__
        raise BadData(
            f"{name} predicts another class than the most probable one, on {other.sum():,} of {len(other):,} rows; "
            "expected a classifier that decides by its probabilities: without a threshold of its own, and a "
            "CalibratedClassifierCV of an SVC instead of its probability=True"
        )


def _answers(fitted: Fitted, rows: Rows) -> Probabilities:
    """Return the pipeline's probabilities; NaN for a row that it refuses, such as one that becomes infinite in it."""
    try:
        return fitted.predict_proba(rows)
    except ValueError:
        if len(rows) == 1:
            return np.full((1, len(fitted.schema.classes)), np.nan)
        half = len(rows) // 2
        return np.concatenate([_answers(fitted, rows[:half]), _answers(fitted, rows[half:])])


def _margins(probabilities: Probabilities) -> NDArray[np.float64]:
    """Return by how much each row's best class leads the next."""
    best = np.sort(probabilities, axis=1)
    return best[:, -1] - best[:, -2]


def prove(fitted: Fitted, score: Scorer, held: SklearnResults, made: Iterable[Rows]) -> Proof:
    """Compare a scorer with its pipeline, on held-out rows and on probes, which come in parts."""
    schema = fitted.schema
    tie = 0.0 if _has_trees(fitted) else LINEAR_TIE
    answered = _scored(score, schema, held.rows)
    parity = compare(held, answered, tie)
    if wrong := _difference(parity):
        return Proof(parity, f"differs on held-out rows {wrong}", {})
    problem = scoring.varies(score, schema.held(held.rows[:CHUNK]))
    golden = _Golden(held.subset(held.classes == answered.argmax(axis=1)))
    probed: dict[str, Any] = {"rows": 0, "largest_difference": 0.0, "different_class_rows": 0}
    for rows in _blocks(made):
        answered = _scored(score, schema, rows)
        finite = ~np.isnan(answered[:, 0])
        for row in rows[~finite & ~(np.abs(rows) > HUGE).any(axis=1)][:1]:
            problem = problem or f"has no finite scores for {_described(schema, row)}"
        if not finite.any():
            continue
        asked, answered = ask(fitted, rows[finite]), answered[finite]
        found = compare(asked, answered, tie)
        if problem is None and (wrong := _difference(found)):
            worst = asked.rows[found["worst"]]
            probed["row"] = dict(zip(schema.names, _values(worst), strict=True))
            problem = f"differs on probes {wrong}, first for {_described(schema, worst)}"
        probed |= {
            "rows": probed["rows"] + found["rows"],
            "largest_difference": max(probed["largest_difference"], found["largest_difference"]),
            "different_class_rows": probed["different_class_rows"] + found["different_class_rows"],
        }
        golden.add(asked.subset(asked.classes == answered.argmax(axis=1)))
    return Proof(parity | {"probes": probed}, problem, golden.to_json())


def _has_trees(fitted: Fitted) -> bool:
    try:
        return bool(trees_of(classifier_of(fitted.pipeline)))
    except NotConvertible:
        return True


def _blocks(parts: Iterable[Rows]) -> Iterator[Rows]:
    """Join parts to at least `CHUNK` rows, but for the last: a call costs boosted trees as much as hundreds of rows."""
    held: list[Rows] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= CHUNK:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def _scored(score: Scorer, schema: Schema, rows: Rows) -> Probabilities:
    return np.concatenate([score(schema.held(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])


def compare(expected: SklearnResults, answered: Probabilities, tie: float = 0.0) -> dict[str, Any]:
    """Compare a scorer's probabilities with scikit-learn's; another class counts unless scikit-learn's best two are
    within `tie`."""
    decided = _margins(expected.probabilities) > tie
    other = (expected.classes != answered.argmax(axis=1)) & (decided | (tie == 0))
    apart = np.abs(expected.probabilities - answered).max(axis=1)
    worst = other.argmax() if other.any() else np.nan_to_num(apart, nan=np.inf).argmax()
    return {
        "rows": len(expected.rows),
        "largest_difference": float(apart.max()),
        "different_class_rows": int(other.sum()),
        "worst": int(worst),
    }


def _difference(parity: dict[str, Any]) -> str | None:
    """Say what a comparison found; `None` where it found nothing wrong."""
    if not parity["different_class_rows"] and parity["largest_difference"] <= PARITY_TOLERANCE:
        return None
    return (
        f"by up to {parity['largest_difference']:.2g} (allowed {PARITY_TOLERANCE:g}), "
        f"with another class on {parity['different_class_rows']}"
    )


def _described(schema: Schema, row: NDArray[np.float64]) -> str:
    """Describe a row for people; of many features, the first ones."""
    pairs = [f"{f.name}={_shown(f, value)}" for f, value in zip(schema.features, row.tolist(), strict=True)]
    return ", ".join(pairs[:8]) + (" …" if len(pairs) > 8 else "")


def _shown(feature: Feature, value: float) -> str:
    if feature.kind == CATEGORY and not np.isnan(value):
        return values.shown(feature.shown(value))
    return f"{value:.17g}"


# --- golden inputs -------------------------------------------------------------------------------------------------


class _Golden:
    """Held-out rows and probes with scikit-learn's answers; what serves the model must give the same.

    Of the probes, those that are nearest to being another class, and some of the others.
    """

    def __init__(self, held: SklearnResults) -> None:
        self._held = held.subset(slice(GOLDEN_ROWS))
        self._nearest: tuple[SklearnResults, NDArray[np.float64]] | None = None
        self._others: tuple[SklearnResults, NDArray[np.float64]] | None = None
        self._random = np.random.default_rng(0)

    def add(self, asked: SklearnResults) -> None:
        self._nearest = _lowest(self._nearest, asked, _margins(asked.probabilities))
        self._others = _lowest(self._others, asked, self._random.random(len(asked.rows)))

    def to_json(self) -> dict[str, Any]:
        golden = self._held
        for kept in (self._nearest, self._others):
            golden = golden if kept is None else golden.joined_with(kept[0])
        return {
            "tolerance": PARITY_TOLERANCE,
            "rows": [_values(row) for row in golden.rows],
            "probabilities": golden.probabilities.tolist(),
            "classes": golden.classes.tolist(),
        }


def _lowest(
    kept: tuple[SklearnResults, NDArray[np.float64]] | None, added: SklearnResults, keys: NDArray[np.float64]
) -> tuple[SklearnResults, NDArray[np.float64]]:
    """Merge what was kept with what is added, and keep those with the lowest keys, with their keys."""
    if kept is not None:
        added, keys = kept[0].joined_with(added), np.concatenate([kept[1], keys])
    first = np.argsort(keys, kind="stable")[: GOLDEN_PROBES // 2]
    return added.subset(first), keys[first]


def _values(row: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row]
