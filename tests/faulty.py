"""The service with faults to inject, by the `weight_g` of a request: see `faulty_values.py`.

Served by both entry points: `bentoml serve tests.faulty:DefectClassifier`, and `python tests/faulty.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from faulty_values import BREAK, DIE, HANG, SLOW, WEDGE

from defects import scoring, serve
from defects.replica import Replica, find_artifact
from defects.schema import ModelRows
from defects.scoring import Probabilities, Scorer
from defects.settings import Settings

WEDGE_SECONDS, SLOW_SECONDS = 3.0, 0.3


def faulty(healthy: Scorer, weight_column: int) -> Scorer:
    """A scorer with faults around one without."""
    broken: list[bool] = []

    def score(rows: ModelRows) -> Probabilities:
        weight = rows[0, weight_column]
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

    return score


def build() -> Replica:
    settings = Settings.from_environment()
    artifact, _ = find_artifact(settings)
    assert artifact
    scorer = faulty(scoring.load(artifact), artifact.schema.index["weight_g"])
    return Replica.build(settings, artifact=artifact, scorer=scorer)


if __name__ == "__main__":
    serve.main(build)
else:
    from defects.bentoml_service import classifier

    DefectClassifier = classifier(build())
