"""The classifiers that `train.py` can fit, by name.

They are fitted on rows, in which a category is its code. Trees split codes as they are; linear models get a column for
each category, and one for a missing one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from defects.kinds import CATEGORY
from defects.schema import Schema

NO_CATEGORY = -1.0  # stands for a missing category where trees can't be told that it is missing


def _hist_gradient_boosting(seed: int, _: Schema) -> ClassifierMixin:
    return HistGradientBoostingClassifier(random_state=seed)


def _logistic_regression(seed: int, schema: Schema) -> ClassifierMixin:
    numbers = [SimpleImputer(strategy="median"), StandardScaler()]
    categories = OneHotEncoder(categories=_codes(schema), handle_unknown="ignore", sparse_output=False)
    classifier = LogisticRegression(max_iter=1000, random_state=seed)
    return make_pipeline(*_by_kind(schema, categories, numbers), classifier)


def _random_forest(seed: int, schema: Schema) -> ClassifierMixin:
    categories = SimpleImputer(strategy="constant", fill_value=NO_CATEGORY)
    classifier = RandomForestClassifier(100, min_samples_leaf=2, n_jobs=-1, random_state=seed)
    return make_pipeline(*_by_kind(schema, categories, [SimpleImputer(strategy="median")]), classifier)


def _lightgbm(seed: int, _: Schema) -> ClassifierMixin:
    from lightgbm import LGBMClassifier

    return LGBMClassifier(random_state=seed, deterministic=True, force_row_wise=True, n_jobs=1, verbosity=-1)


def _xgboost(seed: int, _: Schema) -> ClassifierMixin:
    from xgboost import XGBClassifier

    return XGBClassifier(random_state=seed, n_jobs=1)  # its sums depend on the number of threads


def _by_kind(schema: Schema, categories: Any, numbers: list[Any]) -> list[Any]:
    """Return steps that prepare categories in one way and all other columns in another."""
    chosen = [feature.kind == CATEGORY for feature in schema.features]
    if not any(chosen):
        return numbers
    parts = [("categories", categories, np.flatnonzero(chosen).tolist())]
    if not all(chosen):
        parts.append(("numbers", make_pipeline(*numbers), np.flatnonzero(~np.array(chosen)).tolist()))
    return [ColumnTransformer(parts)]


def _codes(schema: Schema) -> list[list[float]]:
    """Return the codes of each feature with categories, and NaN where a value may be missing."""
    return [
        [*map(float, range(len(feature.categories))), *([np.nan] if feature.optional else [])]
        for feature in schema.features
        if feature.kind == CATEGORY
    ]


ESTIMATORS: dict[str, Callable[[int, Schema], ClassifierMixin]] = {
    "hist-gradient-boosting": _hist_gradient_boosting,
    "logistic-regression": _logistic_regression,
    "random-forest": _random_forest,
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
}
NARROW = frozenset({"random-forest", "xgboost"})  # cast what they are given to 32 bits
EXTRAS = ("lightgbm", "xgboost")  # estimators that are modules of the same name, installed by an extra of that name


def missing_extra(estimator: str) -> str | None:
    """Say that the library of an estimator is not installed here, and how it is; `None` where it is."""
    if estimator not in EXTRAS or find_spec(estimator) is not None:
        return None
    return f"{estimator} is not installed here; expected the extra {estimator!r}: pip install -e '.[{estimator}]'"
