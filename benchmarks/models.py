"""Train the model that a benchmark serves."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from benchmarks.servers import SUBJECTS, ModelFiles
from defects import artifact, simulator
from defects.training import dataset, pipeline
from defects.training.options import Recipe


def trained(rows: int, seed: int, scratch: Path) -> ModelFiles:
    """Train a model of the built-in data; return it as an artifact and as a pipeline."""
    import joblib
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several threads wait for each other actively, and for ever on a busy machine
        result = pipeline.train(dataset.builtin(rows, seed), Recipe("hist-gradient-boosting", seed, 0.2), progress)
    model = ModelFiles(scratch / "model", scratch / "pipeline.joblib")
    artifact.replace(model.artifact, result.files)
    joblib.dump(result.pipeline, model.pipeline)
    return model


STARTED = time.monotonic()


def say(text: str) -> None:
    sys.stderr.write(f"[{time.monotonic() - STARTED:6.1f} s] {text}\n")


def progress(what: str) -> AbstractContextManager[None]:
    say(what)
    return nullcontext()


def given(options: argparse.Namespace, subjects: Iterable[str]) -> ModelFiles:
    """Check and return the model that the options name."""
    loaded = artifact.load(options.model_dir)
    if loaded.schema.names != simulator.SCHEMA.names or loaded.engine != "onnxruntime":
        raise SystemExit(f"--model-dir: {options.model_dir} is another model; expected ONNX of the built-in data")
    needy = [name for name in subjects if SUBJECTS[name].needs_pipeline]
    if needy and not (options.pipeline and options.pipeline.is_file()):
        raise SystemExit(f"--pipeline: {', '.join(needy)} need the model's pipeline; expected a file from joblib.dump")
    return ModelFiles(options.model_dir.resolve(), options.pipeline and options.pipeline.resolve())
