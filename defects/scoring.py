"""Score rows `[n, features]`: return probabilities `[n, classes]`, by the engine that the artifact names.

The same row gets the same bytes alone, at any place of any batch, and with any number of cores: nothing here may
depend on how many rows there are. Probabilities are float64, so that the class is the one that scikit-learn predicts
even where 32 bits see a tie; a row whose scores are not finite has NaN for all of them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.artifact import ONNX, SKOPS, Artifact, BadArtifact, Golden
from defects.features import FLOAT32_MAX
from defects.schema import ModelRows, Schema

Scores = NDArray[np.float64]  # [n, classes], or [n, 1] of the second one of two
Probabilities = NDArray[np.float64]  # [n, classes]
Scorer = Callable[[ModelRows], Probabilities]

SLICE_SECONDS = 500e-6  # of scoring are worth another thread
BLOCK_ROWS = 16  # scikit-learn gets rows in blocks of this size, whatever their number: a matrix product depends on it

# Every type that a pipeline of `ESTIMATORS` is saved with and that skops does not trust by itself. Pinned
# here: a list taken from the file would trust whatever the file declares.
TRUSTED_TYPES = (
    "functools.partial",  # what it calls is looked at by itself
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def load(artifact: Artifact) -> Scorer:
    """Return the scorer of a verified artifact; raises `BadArtifact` where its engine can't load it."""
    if artifact.engine not in _LOADERS:
        raise BadArtifact(f"card.json: engine {artifact.engine!r} is unknown; expected one of {', '.join(_LOADERS)}")
    file, loader = _LOADERS[artifact.engine]
    if file not in artifact.files:
        raise BadArtifact(f"{file} is missing from the artifact; {artifact.engine} needs it")
    try:
        return loader(artifact.files[file])
    except ImportError as error:
        raise BadArtifact(
            f"this artifact is served by {artifact.engine}, which is not installed here ({error}); "
            "install the extra 'serve-sklearn'; an image has it with ARGS=--sklearn"
        ) from None
    except Exception as error:  # what an engine raises for a model it can't read is its own affair
        raise BadArtifact(f"{file}: {artifact.engine} can't load it: {error}") from error


# --- links: what makes probabilities of scores, as scikit-learn does --------------------------------------------------


CLOSE = 1e-14  # scores nearer to the highest may have its probability, once rounded


def _identity(scores: Scores) -> tuple[Probabilities, bool]:
    return scores, False


def _sigmoid(scores: Scores) -> tuple[Probabilities, bool]:
    second = 1 / (1 + np.exp(-np.maximum(scores, -700.0)))  # the exponential of more overflows
    return np.concatenate([1 - second, second], axis=1), bool(np.minimum.reduce(np.abs(scores), axis=None) < CLOSE)


def _softmax(scores: Scores) -> tuple[Probabilities, bool]:
    powers = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
    close = bool(np.count_nonzero(powers > 1 - CLOSE) > len(powers))
    powers /= np.add.accumulate(powers, axis=1)[:, -1:]  # added in this order, however many rows there are
    return powers, close


def _sigmoids(scores: Scores) -> tuple[Probabilities, bool]:
    """One class against the rest: the highest probability wins, as in scikit-learn's calibration."""
    each = 1 / (1 + np.exp(-np.maximum(scores, -700.0)))
    each /= np.add.accumulate(each, axis=1)[:, -1:]
    return each, False


# Each gives the probabilities, and whether two classes may have got the same one though their scores differ.
LINKS: dict[str, Callable[[Scores], tuple[Probabilities, bool]]] = {
    "identity": _identity, "sigmoid": _sigmoid, "softmax": _softmax, "sigmoids": _sigmoids,
}  # fmt: skip


def apply_link(scores: Scores, link: str) -> Probabilities:
    """Return the probabilities of scores; the highest is that of the class that scikit-learn predicts.

    That is the class with the highest score, or the first of them: where two scores are so near that their
    probabilities are the same float64, the winner's is raised by its last bit. Scores beyond 32 bits give NaN: they say
    that one value outweighs all others, not how probable a class is.
    """
    if not np.vdot(scores, scores) <= FLOAT32_MAX:  # one look at all of them; most are below a hundred
        finite = (np.abs(scores) <= FLOAT32_MAX).all(axis=1)
        if not finite.all():
            probabilities = np.full((len(scores), max(2, scores.shape[1])), np.nan)
            if finite.any():
                probabilities[finite] = apply_link(scores[finite], link)
            return probabilities
    probabilities, close = LINKS[link](scores)
    if not close:
        return probabilities
    return _raise_winners(probabilities, scores[:, 0] > 0 if link == "sigmoid" else scores.argmax(axis=1))


def _raise_winners(probabilities: Probabilities, winners: NDArray[Any]) -> Probabilities:
    """Raise the probabilities at `winners` until they are the first highest; they are at most one bit too low."""
    for row in np.flatnonzero(probabilities.argmax(axis=1) != winners):
        probabilities[row, int(winners[row])] = np.nextafter(probabilities[row].max(), 2.0)
    return probabilities


# --- engines -------------------------------------------------------------------------------------------------------


def onnx_scorer(model: bytes) -> Scorer:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports to its maker, from Linux too, and keeps a file for that
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # two would add a row's trees in another order
    options.log_severity_level = 4  # what is an error is raised too
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=False)
    link = session.get_modelmeta().custom_metadata_map.get("link")
    if link not in LINKS:
        raise ValueError(f"its link is {link}; expected one of {', '.join(LINKS)}: it was made by another version")
    name = session.get_inputs()[0].name

    def score(rows: ModelRows) -> Probabilities:
        return apply_link(session.run(["scores"], {name: rows})[0], link)

    return sliced_scorer(score, cpus())


def sliced_scorer(score: Scorer, threads: int) -> Scorer:
    """Return a scorer that scores slices of large batches in threads of its own, and small batches in the caller's."""
    if threads == 1:
        return score
    pool = ThreadPoolExecutor(threads - 1, "slice")
    row_seconds = 0.0  # what a row took last, alone in a slice

    def sliced(rows: ModelRows) -> Probabilities:
        nonlocal row_seconds
        count = min(threads, len(rows), int(len(rows) * row_seconds / SLICE_SECONDS)) or 1
        parts: list[Any] = np.array_split(rows, count) if count > 1 else [rows]
        first, *others = parts
        waiting = [pool.submit(score, part) for part in others]
        began = time.perf_counter()
        scored = score(first)
        row_seconds = (time.perf_counter() - began) / len(first)
        return np.concatenate([scored, *(part.result() for part in waiting)]) if waiting else scored

    return sliced


def sklearn_scorer(model: bytes) -> Scorer:
    """Return a scorer that asks scikit-learn, one block of rows at a time."""
    import skops.io
    import threadpoolctl

    pipeline: Any = skops.io.loads(model, trusted=list(TRUSTED_TYPES))
    use_one_thread(pipeline)
    threadpoolctl.threadpool_limits(1, "blas")  # how a product is split depends on the cores
    return BlockScorer(pipeline)


def use_one_thread(pipeline: Any) -> None:
    """Make a pipeline predict in one thread: forests add up their trees in the order in which threads end."""
    names = [name for name in pipeline.get_params() if name.rpartition("__")[2] == "n_jobs"]
    pipeline.set_params(**dict.fromkeys(names, 1))


class BlockScorer:
    """A scorer that gives a pipeline `BLOCK_ROWS` rows at a time, so that its kernels always see as many rows.

    The last row is repeated where there are fewer.
    """

    def __init__(self, pipeline: Any):
        self._pipeline = pipeline
        self._good: Scores | None = None  # a row that could be scored

    def __call__(self, rows: ModelRows) -> Probabilities:
        values = rows.astype(np.float64)
        return np.concatenate(
            [self._score_block(values[i : i + BLOCK_ROWS]) for i in range(0, len(values), BLOCK_ROWS)]
        )

    def _score_block(self, rows: NDArray[np.float64]) -> Probabilities:
        try:
            probabilities = self._call("predict_proba", rows)
        except ValueError:  # scikit-learn refuses what became infinite on its way
            return np.concatenate([self._score_one(rows[i : i + 1]) for i in range(len(rows))])
        self._good = rows[:1]
        return self._settle_ties(rows, probabilities)

    def _score_one(self, row: NDArray[np.float64]) -> Probabilities:
        """Score one row; NaN where this row can't be scored. Raises scikit-learn's error where no row can be."""
        try:
            probabilities = self._call("predict_proba", row)
        except ValueError:
            if self._good is None:
                raise
            return np.full_like(self._call("predict_proba", self._good), np.nan)
        return self._settle_ties(row, probabilities)

    def _settle_ties(self, rows: NDArray[np.float64], probabilities: Probabilities) -> Probabilities:
        """Settle ties as scikit-learn does; put NaN where scores beyond 32 bits have made a class certain."""
        highest = probabilities == probabilities.max(axis=1, keepdims=True)
        tied = highest.sum(axis=1) > 1
        if tied.any():
            probabilities = _raise_winners(
                probabilities, np.where(tied, self._call("predict", rows), probabilities.argmax(axis=1))
            )
        certain = (probabilities == 1).any(axis=1)
        if certain.any() and hasattr(self._pipeline, "decision_function"):
            scores = np.abs(self._call("decision_function", rows)).reshape(len(rows), -1)
            probabilities[~(scores <= FLOAT32_MAX).all(axis=1)] = np.nan
        return probabilities

    def _call(self, method: str, rows: NDArray[np.float64]) -> Any:
        padding = np.repeat(rows[-1:], BLOCK_ROWS - len(rows), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            answer = getattr(self._pipeline, method)(np.concatenate([rows, padding]))
        return np.array(answer[: len(rows)])


def cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may use: by its affinity, and by the quotas of its cgroups (v2 or v1).

    The host's core count says nothing: with a quota of one CPU, a thread for each of 64 cores means being throttled.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # not on macOS
    limits: list[float] = [here]
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        unified = not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if unified else "cpu")
        # In a container the path may be the host's, which is not mounted there: then the mount itself is the group.
        group = mount / path.lstrip("/")
        for directory in (group, *group.parents):
            if directory.is_relative_to(mount):
                limits += _quota_v2(directory) if unified else _quota_v1(directory)
    return max(1, math.floor(min(limits)))


def _quota_v2(group: Path) -> list[float]:
    quota, period = (*" ".join(_lines(group / "cpu.max")).split(), "max", "max")[:2]
    return [] if quota == "max" else [int(quota) / int(period)]


def _quota_v1(group: Path) -> list[float]:
    quota, period = (int(" ".join(_lines(group / f"cpu.cfs_{name}_us")) or -1) for name in ("quota", "period"))
    return [quota / period] if quota > 0 and period > 0 else []


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8").splitlines()
    except OSError:
        return []


_LOADERS = {"onnxruntime": (ONNX, onnx_scorer), "scikit-learn": (SKOPS, sklearn_scorer)}


def golden_difference(golden: Golden, answered: Probabilities) -> str | None:
    """Say what is wrong with the probabilities answered for the golden inputs; `None` when nothing is."""
    if answered.shape != golden.probabilities.shape:
        return f"golden answers have shape {list(answered.shape)}; expected {list(golden.probabilities.shape)}"
    largest = float(np.abs(answered - golden.probabilities).max())
    if not largest <= golden.tolerance:  # also true for NaN
        return f"golden answers differ by {largest:.2g}; at most {golden.tolerance:.2g} is allowed"
    if golden.classes is not None:
        wrong = np.flatnonzero(answered.argmax(axis=1) != golden.classes)
        if len(wrong):
            return f"golden answers have another class on {len(wrong)} rows, first on row {wrong[0]}"
    return None


def verified(artifact: Artifact, score: Scorer) -> Scorer:
    """Return an artifact's scorer once it has answered the golden inputs; raises `BadArtifact`."""
    golden = artifact.golden
    try:
        problem = golden_difference(golden, score(golden.rows))
        problem = problem or varies(score, golden.rows) or proves_nothing(golden, artifact.schema, score)
    except Exception as error:  # what an engine raises is its own affair
        problem = f"the golden inputs can't be scored: {error}"
    if problem:
        raise BadArtifact(problem)
    return score


def proves_nothing(golden: Golden, schema: Schema, score: Scorer) -> str | None:
    """Say that all golden inputs have one answer and other rows don't; `None` where that is not so.

    Training makes models that answer every row alike, such as trees without a split. They answer the ends of what
    training saw in this way too.
    """
    expected = golden.probabilities
    if np.ptp(expected, axis=0).max() > golden.tolerance:
        return None
    ends = [[_first(f.observed_low, f.low, f.example) for f in schema.features]]
    ends += [[_first(f.observed_high, f.high, f.example) for f in schema.features]]
    answered = score(schema.held(np.clip(ends, *schema.limits[:2])))
    if not np.abs(answered - expected[0]).max() > golden.tolerance:  # NaN, for rows without finite scores, is no proof
        return None
    return "the golden inputs all have the same answer, and other rows another one; expected golden inputs that differ"


def _first(*numbers: float | None) -> float:
    return next((number for number in numbers if number is not None), 0.0)


def varies(score: Scorer, rows: ModelRows) -> str | None:
    """Say where a row's answer depends on the rows around it; `None` when it doesn't."""
    whole = score(rows)
    parts: list[Any] = np.array_split(rows[::-1], min(7, len(rows)))
    backwards = np.concatenate([score(part) for part in parts])[::-1]
    alone = score(rows[:1])
    if whole.tobytes() == backwards.tobytes() and whole[:1].tobytes() == alone.tobytes():
        return None
    return "a row's answer depends on the rows that are scored with it; expected the same bytes in any batch"
