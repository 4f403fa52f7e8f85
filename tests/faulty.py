"""The service with faults to inject, by the `weight_g` of a request: see `faulty_values.py`.

Served by both entry points: `bentoml serve tests.faulty:DefectClassifier`, and `python tests/faulty.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faulty_values import BREAK, DIE, HANG, SLOW, WEDGE

import service
from defects import replica, serve

DefectClassifier = service.DefectClassifier

WEDGE_SECONDS, SLOW_SECONDS = 3.0, 0.3

healthy = replica.SCORER
broken: list[bool] = []
WEIGHT = replica.MODEL.schema.index["weight_g"]


def faulty(rows: Any) -> Any:
    weight = rows[0, WEIGHT]
    if weight == WEDGE:
        time.sleep(WEDGE_SECONDS)
    if weight == HANG:
        time.sleep(3600)
    if weight == BREAK:
        broken.append(True)
    if broken:
        raise ValueError("broken for good")
    if weight == SLOW:
        time.sleep(SLOW_SECONDS)
    if weight == DIE:
        raise SystemExit("the scorer was told to die")
    return healthy(rows)


replica.BATCHER._score = faulty

if __name__ == "__main__":
    serve.main()
