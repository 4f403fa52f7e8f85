"""Ask a pipeline itself, of scikit-learn, LightGBM or XGBoost, for what ONNX can't express."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.features import FLOAT32_MAX
from defects.links import Probabilities, Scores, raise_winners
from defects.schema import ModelRows, Rows

BLOCK_ROWS = 16  # a pipeline gets rows in blocks of this size, whatever their number: a matrix product depends on it
UNKNOWN_CATEGORIES = "Found unknown categories"  # an encoder's warning, for each block of rows

# Every type that a pipeline is saved with and that skops does not trust by itself: data, and functions that only
# compute. Pinned here: a list taken from the file would trust whatever the file declares.
TRUSTED_TYPES = (
    "builtins.object",  # that a selector of columns names
    "collections.OrderedDict",
    "functools.partial",  # what it calls is looked at by itself
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "numpy.dtype",
    "numpy.number",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.calibration._TemperatureScaling",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._scorer._PassthroughScorer",
    "sklearn.model_selection._split.StratifiedKFold",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
)


class UntrustedTypes(Exception):
    """A file has types that are not pinned; the message names them."""


def loads(model: bytes) -> Any:
    """Read a pipeline that skops has saved; raises `UntrustedTypes`, or what skops raises."""
    import skops.io

    unknown = sorted(set(skops.io.get_untrusted_types(data=model)) - set(TRUSTED_TYPES))
    if unknown:
        raise UntrustedTypes(f"it has types that are not trusted: {', '.join(unknown)}")
    return skops.io.loads(model, trusted=list(TRUSTED_TYPES))


def sklearn_scorer(model: bytes, decode: Callable[[Rows], Any] = lambda rows: rows) -> BlockScorer:
    """Return a scorer that asks a saved pipeline, one block of rows at a time, which it is given decoded."""
    import threadpoolctl

    pipeline = loads(model)
    use_one_thread(pipeline)
    warnings.filterwarnings("ignore", UNKNOWN_CATEGORIES, UserWarning)
    threadpoolctl.threadpool_limits(1, "blas")  # how a product is split depends on the cores
    return BlockScorer(pipeline, decode)


def use_one_thread(pipeline: Any) -> None:
    """Make a pipeline predict in one thread: forests add up their trees in the order in which threads end."""
    names = [name for name in pipeline.get_params() if name.rpartition("__")[2] == "n_jobs"]
    pipeline.set_params(**dict.fromkeys(names, 1))


class BlockScorer:
    """A scorer that gives a pipeline `BLOCK_ROWS` rows at a time, so that its kernels always see as many rows.

    The last row is repeated where there are fewer.
    """

    def __init__(self, pipeline: Any, decode: Callable[[Rows], Any] = lambda rows: rows):
        self._pipeline = pipeline
        self._decode = decode
        self._good: Scores | None = None  # a row that could be scored

    def __call__(self, rows: ModelRows) -> Probabilities:
        values = rows.astype(np.float64)
        return np.concatenate(
            [self._score_block(values[i : i + BLOCK_ROWS]) for i in range(0, len(values), BLOCK_ROWS)]
        )

    def _score_block(self, rows: NDArray[np.float64]) -> Probabilities:
        try:
            probabilities = self._call("predict_proba", rows)
        except ValueError:  # scikit-learn refuses what became infinite on its way
            return np.concatenate([self._score_one(rows[i : i + 1]) for i in range(len(rows))])
        self._good = rows[:1]
        return self._settle_ties(rows, probabilities)

    def _score_one(self, row: NDArray[np.float64]) -> Probabilities:
        """Score one row; NaN where this row can't be scored. Raises scikit-learn's error where no row can be."""
        try:
            probabilities = self._call("predict_proba", row)
        except ValueError:
            if self._good is None:
                raise
            return np.full_like(self._call("predict_proba", self._good), np.nan)
        return self._settle_ties(row, probabilities)

    def _settle_ties(self, rows: NDArray[np.float64], probabilities: Probabilities) -> Probabilities:
        """Settle ties as scikit-learn does; put NaN where scores beyond 32 bits have made a class certain."""
        highest = probabilities == probabilities.max(axis=1, keepdims=True)
        tied = highest.sum(axis=1) > 1
        if tied.any():
            probabilities = raise_winners(
                probabilities, np.where(tied, self._classes(rows), probabilities.argmax(axis=1))
            )
        certain = (probabilities == 1).any(axis=1)
        if certain.any() and hasattr(self._pipeline, "decision_function"):
            scores = np.abs(self._call("decision_function", rows)).reshape(len(rows), -1)
            probabilities[~(scores <= FLOAT32_MAX).all(axis=1)] = np.nan
        return probabilities

    def _classes(self, rows: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the numbers of the classes that are predicted."""
        found: NDArray[np.intp] = np.searchsorted(self._pipeline.classes_, self._call("predict", rows))
        return found

    def _call(self, method: str, rows: NDArray[np.float64]) -> Any:
        padding = np.repeat(rows[-1:], BLOCK_ROWS - len(rows), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            answer = getattr(self._pipeline, method)(self._decode(np.concatenate([rows, padding])))
        return np.array(answer[: len(rows)], None if method == "predict" else np.float64)
