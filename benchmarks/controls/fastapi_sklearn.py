"""What one writes first: FastAPI, typed input, and the scikit-learn pipeline from joblib. Run by uvicorn.

The environment names the files: `PIPELINE` for the pipeline, `MODEL_DIR` for the artifact whose schema gives the types.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

from defects.pydantic_models import request_model
from defects.schema import Schema

SCHEMA = Schema.from_json(json.loads(Path(os.environ["MODEL_DIR"], "schema.json").read_text("utf-8")))
PIPELINE = joblib.load(os.environ["PIPELINE"])

Scan: Any = request_model(SCHEMA)


class Prediction(BaseModel):
    defect: str
    confidence: float
    probabilities: dict[str, float]


app = FastAPI(title="Warehouse defects")


def predict(scans: list[Any]) -> list[Prediction]:
    rows = np.array([list(scan.model_dump().values()) for scan in scans], dtype=np.float32)
    return [
        Prediction(
            defect=SCHEMA.class_names[int(np.argmax(row))],
            confidence=max(row),
            probabilities=dict(zip(SCHEMA.class_names, row, strict=True)),
        )
        for row in PIPELINE.predict_proba(rows).tolist()
    ]


@app.post("/classify")
def classify(scan: Scan) -> Prediction:
    return predict([scan])[0]


@app.post("/classify_batch")
def classify_batch(scans: list[Scan]) -> list[Prediction]:
    return predict(scans)
