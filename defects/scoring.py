"""`[n, features]` in, `[n, classes]` probabilities out, by the engine that the artifact names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.artifact import ONNX, SKOPS, Artifact, BadArtifact

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
            "install the extra 'train'"
        ) from None
    except Exception as error:  # what an engine raises for a model it can't read is its own affair
        raise BadArtifact(f"{file}: {artifact.engine} can't load it: {error}") from error


def onnx_scorer(model: bytes) -> Scorer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
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


_LOADERS = {"onnxruntime": (ONNX, onnx_scorer), "scikit-learn": (SKOPS, sklearn_scorer)}


def golden_rows(artifact: Artifact) -> Rows:
    """The artifact's golden inputs."""
    return np.array(artifact.json("golden.json")["rows"], dtype=np.float32)


def golden_difference(artifact: Artifact, answered: Probabilities) -> str | None:
    """What is wrong with the probabilities answered for the golden inputs; `None` when nothing is."""
    golden = artifact.json("golden.json")
    expected = np.array(golden["probabilities"])
    if answered.shape != expected.shape:
        return f"golden answers have shape {list(answered.shape)}; expected {list(expected.shape)}"
    largest = float(np.abs(answered - expected).max())
    if not largest <= golden["tolerance"]:  # also true for NaN
        return f"golden answers differ by {largest:.2g}; at most {golden['tolerance']:.2g} is allowed"
    return None
