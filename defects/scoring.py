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

from defects.artifact import ONNX, SKOPS, Artifact, BadArtifact, Golden
from defects.decoding import Decoder
from defects.links import LINKS, Probabilities, apply_link
from defects.schema import ModelRows, Schema
from defects.sklearn_engine import sklearn_scorer, use_one_thread

__all__ = [
    "Probabilities", "Scorer", "golden_difference", "load", "sklearn_scorer", "use_one_thread", "varies", "verified",
]  # fmt: skip

Scorer = Callable[[ModelRows], Probabilities]

SLICE_SECONDS = 500e-6  # of scoring are worth another thread


def load(artifact: Artifact) -> Scorer:
    """Return the scorer of a verified artifact; raises `BadArtifact` where its engine can't load it."""
    if artifact.engine not in _LOADERS:
        raise BadArtifact(f"card.json: engine {artifact.engine!r} is unknown; expected one of {', '.join(_LOADERS)}")
    file, loader = _LOADERS[artifact.engine]
    if file not in artifact.files:
        raise BadArtifact(f"{file} is missing from the artifact; {artifact.engine} needs it")
    try:
        return loader(artifact)
    except ImportError as error:
        more = f" and {error.name}" if error.name in ("lightgbm", "xgboost") else ""
        raise BadArtifact(
            f"this artifact is served by {artifact.engine}{more}, which is not installed here ({error}); "
            f"install the extra 'serve-sklearn'{more}; an image has it with ARGS=--sklearn"
        ) from None
    except Exception as error:  # what an engine raises for a model it can't read is its own affair
        raise BadArtifact(f"{file}: {artifact.engine} can't load it: {error}") from error


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


def _load_onnx(artifact: Artifact) -> Scorer:
    return onnx_scorer(artifact.files[ONNX])


def _load_sklearn(artifact: Artifact) -> Scorer:
    return sklearn_scorer(artifact.files[SKOPS], Decoder.of_card(artifact.schema, artifact.card["engine"]))


_LOADERS: dict[str, tuple[str, Callable[[Artifact], Scorer]]] = {
    "onnxruntime": (ONNX, _load_onnx),
    "scikit-learn": (SKOPS, _load_sklearn),
}


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
