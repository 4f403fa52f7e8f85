"""The service with faults to inject, by the `weight_g` of a request: see `faulty_values.py`.

Served by both entry points: `bentoml serve tests.faulty:DefectClassifier`, and `python tests/faulty.py`.

In the environment, `GATE` is a `Gate`'s directory, and `WATCHDOG_SECONDS` are those that a drain may take too long.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faulty_values import BREAK, DIE, HELD, SLOW, WEDGE, Gate

from defects import scoring, serve
from defects.replica import Replica, find_artifact
from defects.schema import ModelRows
from defects.scoring import Probabilities, Scorer
from defects.serving import drain
from defects.settings import Settings

SLOW_SECONDS = 0.3


def faulty(healthy: Scorer, weight_column: int, gate: Gate) -> Scorer:
    """A scorer with faults around one without."""
    broken: list[bool] = []

    def score(rows: ModelRows) -> Probabilities:
        weight = rows[0, weight_column]
        if weight in (WEDGE, HELD):
            gate.hold()
        if weight == BREAK:
            broken.append(True)
        if broken:
            raise ValueError("broken for good")
        if weight == SLOW:
            time.sleep(SLOW_SECONDS)
        if weight == DIE:
            raise SystemExit("the scorer was told to die")
        return healthy(rows)

    return score


def build() -> Replica:
    settings = Settings.from_environment()
    artifact, _ = find_artifact(settings)
    assert artifact
    drain.WATCHDOG_SECONDS = float(os.environ.get("WATCHDOG_SECONDS", drain.WATCHDOG_SECONDS))
    gate = Gate(Path(os.environ.get("GATE", "nowhere")))
    scorer = faulty(scoring.load(artifact), artifact.schema.index["weight_g"], gate)
    return Replica.build(settings, artifact=artifact, scorer=scorer)


if __name__ == "__main__":
    serve.main(build)
else:
    from defects.bentoml_service import classifier

    DefectClassifier = classifier(build())
