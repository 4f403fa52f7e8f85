"""`[n, features]` in, `[n, classes]` probabilities out, by the engine that the artifact names."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.artifact import ONNX, SKOPS, Artifact, BadArtifact, Golden

Rows = NDArray[np.float32]  # [n, features], NaN where a value is missing
Probabilities = NDArray[np.float32]  # [n, classes]
Scorer = Callable[[Rows], Probabilities]

# Every type that a pipeline of `training.ESTIMATORS` is saved with and that skops does not trust by itself. Pinned
# here: a list taken from the file would trust whatever the file declares.
TRUSTED_TYPES = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)


def load(artifact: Artifact) -> Scorer:
    """The scorer of a verified artifact; raises `BadArtifact` where its engine can't load it."""
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


def onnx_scorer(model: bytes) -> Scorer:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it reports to its maker, from Linux too, and keeps a file for that
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpus()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a thread that waits must not burn quota
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def score(rows: Rows) -> Probabilities:
        probabilities: Probabilities = session.run(["probabilities"], {name: rows})[0]
        return probabilities

    return score


def sklearn_scorer(model: bytes) -> Scorer:
    import skops.io

    pipeline: Any = skops.io.loads(model, trusted=list(TRUSTED_TYPES))

    def score(rows: Rows) -> Probabilities:
        probabilities: Probabilities = pipeline.predict_proba(rows).astype(np.float32)
        return probabilities

    return score


def cpus(root: Path = Path("/")) -> int:
    """CPUs that this process may use: its affinity, and the quota of its cgroup (v2 or v1) and of those above it.

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
    """What is wrong with the probabilities answered for the golden inputs; `None` when nothing is."""
    if answered.shape != golden.probabilities.shape:
        return f"golden answers have shape {list(answered.shape)}; expected {list(golden.probabilities.shape)}"
    largest = float(np.abs(answered - golden.probabilities).max())
    if not largest <= golden.tolerance:  # also true for NaN
        return f"golden answers differ by {largest:.2g}; at most {golden.tolerance:.2g} is allowed"
    return None
