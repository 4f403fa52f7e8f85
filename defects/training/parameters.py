"""Set an estimator's own parameters, as `--set NAME=VALUE` names them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.pipeline import Pipeline

from defects.training.bad_data import among
from defects.training.dataset import BadData

# Those that this project sets itself: how they are given instead.
ELSEWHERE = {
    "random_state": "expected --seed, which is also that of the split",
    "seed": "expected --seed, which is also that of the split",
    "n_jobs": "expected none: training takes all cores, and a replica scores in its own threads",
    "nthread": "expected none: training takes all cores, and a replica scores in its own threads",
    "num_threads": "expected none: training takes all cores, and a replica scores in its own threads",
    "class_weight": "expected --class-weight",
}


def set_parameters(estimator: Any, parameters: Mapping[str, Any]) -> None:
    """Set parameters of an estimator, or of the last step of a pipeline; raises `BadData` for an unknown one."""
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    known = sorted(estimator.get_params(deep=False).keys() - ELSEWHERE.keys())
    for name, value in parameters.items():
        if name in ELSEWHERE:
            raise BadData(f"--set {name}: {ELSEWHERE[name]}")
        if name not in known:
            kind = type(estimator).__name__
            raise BadData(f"--set {name}: {kind} has no such parameter; expected one {among(name, known)}")
        estimator.set_params(**{name: value})
