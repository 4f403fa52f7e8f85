"""The classifiers that `train.py` can fit, by name."""

from __future__ import annotations

from collections.abc import Callable

from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def _hist_gradient_boosting(seed: int) -> ClassifierMixin:
    return HistGradientBoostingClassifier(random_state=seed)


def _logistic_regression(seed: int) -> ClassifierMixin:
    return make_pipeline(
        SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed)
    )


def _random_forest(seed: int) -> ClassifierMixin:
    forest = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=seed)
    return make_pipeline(SimpleImputer(strategy="median"), forest)


ESTIMATORS: dict[str, Callable[[int], ClassifierMixin]] = {
    "hist-gradient-boosting": _hist_gradient_boosting,
    "logistic-regression": _logistic_regression,
    "random-forest": _random_forest,
}
NARROW = frozenset({"random-forest"})  # cast what they are given to 32 bits
