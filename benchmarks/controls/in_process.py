"""What the model itself can do: rows per second of ONNX Runtime on one thread, without any server.

python -m benchmarks.controls.in_process MODEL_DIR ROWS SECONDS

Scores batches of ROWS rows, each other rows, for SECONDS, and prints rows per second.
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import onnxruntime

from defects.artifact import ONNX
from defects.simulator import Tunnel

SCANS = 4096
SEED = 1


def main() -> None:
    directory, rows, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(directory / ONNX, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = np.array_split(Tunnel(seed=SEED).scans(SCANS).features, SCANS // rows)
    for batch in batches:  # warm-up
        session.run(["scores"], {name: batch})
    started = time.perf_counter()
    for done in count(1):
        session.run(["scores"], {name: batches[done % len(batches)]})
        if (now := time.perf_counter() - started) >= seconds:
            sys.stdout.write(f"{done * rows / now}\n")
            return


if __name__ == "__main__":
    main()
