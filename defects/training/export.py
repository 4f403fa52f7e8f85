"""Which engine serves a fitted pipeline: ONNX Runtime where it is proven to answer as scikit-learn, else that itself.

Held-out rows don't show what goes wrong at a threshold, in a tie or at the edges of floating point, so the proof goes
over probes that are made from the model itself, in the precision that is served, and some of them go into the artifact:
each replica proves them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from defects import artifact, scoring
from defects.schema import Rows, Schema
from defects.scoring import Probabilities, Scorer
from defects.training.dataset import BadData
from defects.training.graph import classifier_of, to_onnx, trees_of
from defects.training.probes import probes

# The largest difference of a probability between scikit-learn and the engine with which it is served.
PARITY_TOLERANCE = 1e-6
# scikit-learn's own linear models change by so much with the rows around a row; of trees the sums are the same.
LINEAR_TIE = 1e-12
NEAR = 1e-9  # probabilities so near have to be asked for their class
HUGE = 1e18  # a value from which on a row may have no finite scores
GOLDEN_ROWS, GOLDEN_PROBES = 64, 64
CHUNK = 8192  # rows at a time
SLOW_PROBES = 512  # for scikit-learn's engine, whose answers take milliseconds


class NotProven(Exception):
    """A scorer answers other than the pipeline that it was made of."""


@dataclass(frozen=True)
class Engine:
    """What serves the model, why, and what it needs; `golden` are rows and answers that it has to give everywhere."""

    name: str
    reason: str
    file: str
    model: bytes
    parity: dict[str, Any]
    golden: dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """What scikit-learn says of rows `[n, features]`: probabilities `[n, classes]` and classes `[n]`, by number."""

    rows: Rows
    probabilities: Probabilities
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Proof:
    """How a scorer compares with scikit-learn, what is wrong with it, and inputs for `golden.json`."""

    parity: dict[str, Any]
    problem: str | None
    golden: dict[str, Any]


def export(pipeline: Pipeline, schema: Schema, held_out: Rows, fitted: Rows) -> Engine:
    """The engine for a pipeline that was fitted on `fitted` rows; raises `BadData` where none answers as it does."""
    held, made = ask(pipeline, held_out), probes(pipeline, schema, fitted)
    parity: dict[str, Any] = {}
    try:
        model = to_onnx(pipeline, wide=schema.wide)
        score = scoring.onnx_scorer(model)
    except Exception as error:  # whatever can't be converted, scikit-learn still can serve
        reason = f"the model can't be converted to ONNX: {_root_cause(error)}"
    else:
        proof = prove(pipeline, score, schema, held, made)
        if proof.problem is None:
            reason = f"ONNX answers as scikit-learn does, also on {len(made):,} probes"
            return Engine("onnxruntime", reason, artifact.ONNX, model, proof.parity, proof.golden)
        reason, parity = f"ONNX {proof.problem}", proof.parity
    try:
        model, golden = _for_sklearn(pipeline, schema, held, made)
    except NotProven as problem:
        raise BadData(f"no engine can serve this model: {reason}; scikit-learn, loaded again, {problem}") from None
    return Engine("scikit-learn", reason, artifact.SKOPS, model, parity, golden)


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _for_sklearn(pipeline: Pipeline, schema: Schema, held: Answers, made: Rows) -> tuple[bytes, dict[str, Any]]:
    """The pipeline as scikit-learn's engine loads it, and its golden inputs; raises `NotProven`."""
    import skops.io

    model = skops.io.dumps(pipeline)
    score = scoring.sklearn_scorer(model)  # refuses here, not in production, a type that is not pinned
    some = np.random.default_rng(0).permutation(len(made))[:SLOW_PROBES]
    few = Answers(held.rows[:SLOW_PROBES], held.probabilities[:SLOW_PROBES], held.classes[:SLOW_PROBES])
    proof = prove(pipeline, score, schema, few, made[np.sort(some)])
    if proof.problem is not None:
        raise NotProven(proof.problem)
    return model, proof.golden


# --- the proof -----------------------------------------------------------------------------------------------------


def ask(pipeline: Pipeline, rows: Rows) -> Answers:
    """What scikit-learn predicts for the rows."""
    chunks = [rows[i : i + CHUNK] for i in range(0, len(rows), CHUNK)]
    with np.errstate(over="ignore", invalid="ignore"):  # of its own look for infinities
        probabilities = np.concatenate([pipeline.predict_proba(chunk) for chunk in chunks])
        best = np.sort(probabilities, axis=1)
        classes, near = probabilities.argmax(axis=1), best[:, -1] - best[:, -2] <= NEAR
        if near.any():
            classes[near] = pipeline.predict(rows[near])
    return Answers(rows, probabilities, classes)


def prove(pipeline: Pipeline, score: Scorer, schema: Schema, held: Answers, made: Rows) -> Proof:
    """Compare a scorer with its pipeline, on held-out rows and on the probes `made`."""
    tie = 0.0 if trees_of(classifier_of(pipeline)) else LINEAR_TIE
    parity = compare(held, _scored(score, schema, held.rows), tie)
    if wrong := _difference(parity):
        return Proof(parity, f"differs on held-out rows {wrong}", {})
    answered = _scored(score, schema, made)
    finite = ~np.isnan(answered[:, 0])
    refused = np.flatnonzero(~finite & ~(np.abs(made) > HUGE).any(axis=1))
    if len(refused):
        return Proof(parity, f"has no finite scores for {_described(schema, made[refused[0]])}", {})
    asked = ask(pipeline, made[finite])
    probed = compare(asked, answered[finite], tie)
    parity |= {"probes": probed}
    if wrong := _difference(probed):
        row = asked.rows[probed["first_different"]]
        probed["row"] = dict(zip(schema.names, _values(row), strict=True))
        return Proof(parity, f"differs on probes {wrong}, first for {_described(schema, row)}", {})
    return Proof(parity, scoring.varies(score, schema.held(made[:CHUNK])), _golden(held, asked, answered[finite]))


def _scored(score: Scorer, schema: Schema, rows: Rows) -> Probabilities:
    return np.concatenate([score(schema.held(rows[i : i + CHUNK])) for i in range(0, len(rows), CHUNK)])


def compare(expected: Answers, answered: Probabilities, tie: float = 0.0) -> dict[str, Any]:
    """How far a scorer's probabilities are from scikit-learn's; another class counts unless scikit-learn's best two are
    within `tie`."""
    best = np.sort(expected.probabilities, axis=1)
    decided = best[:, -1] - best[:, -2] > tie
    other = (expected.classes != answered.argmax(axis=1)) & (decided | (tie == 0))
    apart = np.abs(expected.probabilities - answered).max(axis=1)
    worst = other.argmax() if other.any() else np.nan_to_num(apart, nan=np.inf).argmax()
    return {
        "rows": len(expected.rows),
        "largest_difference": float(apart.max()),
        "different_class_rows": int(other.sum()),
        "first_different": int(worst),
    }


def _difference(parity: dict[str, Any]) -> str | None:
    """What is wrong with a comparison, in words."""
    if not parity["different_class_rows"] and parity["largest_difference"] <= PARITY_TOLERANCE:
        return None
    return (
        f"by up to {parity['largest_difference']:.2g} (allowed {PARITY_TOLERANCE:g}), "
        f"with another class on {parity['different_class_rows']}"
    )


def _described(schema: Schema, row: NDArray[np.float64]) -> str:
    """A row for people; of many features, the first ones."""
    pairs = [f"{name}={value:.17g}" for name, value in zip(schema.names, row.tolist(), strict=True)]
    return ", ".join(pairs[:8]) + (" …" if len(pairs) > 8 else "")


# --- golden inputs -------------------------------------------------------------------------------------------------


def _golden(held: Answers, asked: Answers, answered: Probabilities) -> dict[str, Any]:
    """Held-out rows and probes with scikit-learn's answers; what serves the model must give the same.

    Of the probes, those that are nearest to being another class, and some of the others.
    """
    best = np.sort(asked.probabilities, axis=1)
    same = np.flatnonzero(asked.classes == answered.argmax(axis=1))
    nearest = same[np.argsort((best[:, -1] - best[:, -2])[same], kind="stable")]
    others = np.random.default_rng(0).permutation(same)
    picked = list(dict.fromkeys([*nearest[: GOLDEN_PROBES // 2].tolist(), *others.tolist()]))[:GOLDEN_PROBES]
    rows = np.concatenate([held.rows[:GOLDEN_ROWS], asked.rows[picked]])
    return {
        "tolerance": PARITY_TOLERANCE,
        "rows": [_values(row) for row in rows],
        "probabilities": [*held.probabilities[:GOLDEN_ROWS].tolist(), *asked.probabilities[picked].tolist()],
        "classes": [*held.classes[:GOLDEN_ROWS].tolist(), *asked.classes[picked].tolist()],
    }


def _values(row: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in row]
