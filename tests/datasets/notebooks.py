"""Fitted models as notebooks have them: pipelines on data frames in skops files, LightGBM's and XGBoost's own files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import pandas as pd
import skops.io
import xgboost
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

NUMBERS = make_column_selector(dtype_include="number")
TEXTS = make_column_selector(dtype_exclude="number")


def one_hot_and_logistic() -> Any:
    return make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), NUMBERS),
            (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), TEXTS),
        ),
        LogisticRegression(max_iter=1_000),
    )


def one_hot_and_forest() -> Any:
    return make_pipeline(
        make_column_transformer(
            (SimpleImputer(strategy="median"), NUMBERS), (OneHotEncoder(handle_unknown="ignore"), TEXTS)
        ),
        RandomForestClassifier(50, min_samples_leaf=2, random_state=0),
    )


def ordinal_and_boosting() -> Any:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(
        make_column_transformer((encoder, TEXTS), remainder="passthrough"),
        HistGradientBoostingClassifier(random_state=0),
    )


def boosted_by_lightgbm() -> Any:
    return lightgbm.LGBMClassifier(n_estimators=40, random_state=0, verbose=-1)


def boosted_by_xgboost() -> Any:
    return xgboost.XGBClassifier(n_estimators=40, random_state=0)


def save(model: Any, path: Path) -> None:
    """Save a fitted model in the format that the file's name says."""
    match path.suffix:
        case ".skops":
            skops.io.dump(model, path)
        case ".txt":
            model.booster_.save_model(path)
        case _:
            model.save_model(path)


def fitted(make: Callable[[], Any], frame: pd.DataFrame, label: str) -> Any:
    return make().fit(frame.drop(columns=label), frame[label])
