"""BentoML's own adaptive batching as its documentation shows it, with the defaults of `bentoml serve`.

`ENGINE` is `onnx` (of the artifact in `MODEL_DIR`) or `sklearn` (the pipeline that `PIPELINE` names).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from defects import artifact, scoring
from defects.pydantic_models import request_model

ARTIFACT = artifact.load(Path(os.environ["MODEL_DIR"]))
Scan: Any = request_model(ARTIFACT.schema)


def scorer() -> Callable[[Any], Any]:
    """Return a function from rows `[n, features]` float32 to probabilities `[n, classes]`."""
    if os.environ["ENGINE"] == "onnx":
        return scoring.load(ARTIFACT)
    import joblib

    predict: Callable[[Any], Any] = joblib.load(os.environ["PIPELINE"]).predict_proba
    return predict


@bentoml.service
class Classifier:
    def __init__(self) -> None:
        self.score = scorer()

    @bentoml.api(batchable=True, max_batch_size=256, route="/classify")  # type: ignore[untyped-decorator]
    def classify(self, scans: list[Scan]) -> list[dict[str, float]]:
        rows = np.array([list(scan.model_dump().values()) for scan in scans], dtype=np.float32)
        names = ARTIFACT.schema.class_names
        return [dict(zip(names, row, strict=True)) for row in self.score(rows).tolist()]
