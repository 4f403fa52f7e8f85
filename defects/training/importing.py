"""Load a fitted classifier from a file: of skops, of XGBoost or LightGBM, or a pickle whose maker is trusted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.validation import check_is_fitted

from defects.artifact import PICKLES, SERVED_ELSEWHERE
from defects.sklearn_engine import UntrustedTypes, loads
from defects.training.bad_data import BadData
from defects.training.conversion import classifier_of
from defects.training.estimators import missing_extra
from defects.values import one_line

FILES = "a fitted classifier: .skops, .joblib or .pkl; XGBoost's .json, .ubj or .bst; or LightGBM's .txt or .bst"


@dataclass(frozen=True)
class Loaded:
    """A fitted classifier from a file, and what there is to say about it.

    `versions` says which libraries it was fitted with, where these are others than here.
    """

    path: Path
    model: Any
    notes: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()

    def bad(self, problem: str) -> BadData:
        """Return the error to raise for this model."""
        return BadData(f"{self.path}: {problem}")


def load(path: Path, *, trust_pickle: bool) -> Loaded:
    """Load and check a fitted classifier; raises `BadData`, in one line."""
    _check_place(path)
    with warnings.catch_warnings(record=True) as caught, _one_line(path):
        warnings.simplefilter("always")
        model = _read(path, trust_pickle)
    older = [warning.message for warning in caught if isinstance(warning.message, InconsistentVersionWarning)]
    others = [one_line(str(warning.message))[:300] for warning in caught if warning.message not in older]
    notes = [f"{path}: {text}" for text in dict.fromkeys(others)]
    if hasattr(model, "best_estimator_"):
        notes.append(f"{path}: the best estimator of a {type(model).__name__} is taken")
        model = model.best_estimator_
    loaded = Loaded(path, model, tuple(notes), tuple(dict.fromkeys(map(_described, older))))
    check(loaded)
    return loaded


def _check_place(path: Path) -> None:
    if path.is_dir():
        found = [name for name in SERVED_ELSEWHERE if (path / name).is_file()]
        expected = f"--model {path / found[0]}" if found else FILES
        raise BadData(f"{path}: is a directory; expected {expected}")
    if not path.is_file():
        raise BadData(f"{path}: no such file; expected {FILES}")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Raise `BadData` for whatever a library raises for a file that it can't read."""
    try:
        yield
    except BadData:
        raise
    except ModuleNotFoundError as error:
        problem = f"needs the module {error.name!r}, which is not installed here; expected what it was made with"
        raise BadData(f"{path}: {problem}") from None
    except Exception as error:  # an unpickler raises anything
        reason = (str(error).splitlines() or [""])[0][:300]
        raise BadData(f"{path}: can't be read: {type(error).__name__}: {reason}; expected {FILES}") from None


def _read(path: Path, trust_pickle: bool) -> Any:
    kind = path.suffix.lower()
    if kind == ".skops":
        return _read_skops(path)
    if kind in PICKLES:
        if not trust_pickle:
            raise BadData(
                f"{path}: a pickle runs whatever code its maker has put into it; expected a file that skops has saved "
                "(skops.io.dump), or --trust-pickle if you trust whoever made it"
            )
        import joblib

        return joblib.load(path)
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"tree\n"):
        return _read_lightgbm(path)
    if kind in (".json", ".ubj", ".bst"):
        return _read_xgboost(path)
    raise BadData(f"{path}: is no file of a kind that is known; expected {FILES}")


def _read_skops(path: Path) -> Any:
    try:
        return loads(path.read_bytes())
    except UntrustedTypes as error:
        raise BadData(
            f"{path}: {error}; expected types of scikit-learn, LightGBM and XGBoost only, or the pipeline as a .joblib "
            "with --trust-pickle"
        ) from None


def _require(path: Path, library: str) -> None:
    if problem := missing_extra(library):
        raise BadData(f"{path}: {problem}")


def _read_xgboost(path: Path) -> Any:
    _require(path, "xgboost")
    import json

    import xgboost

    objective = json.loads(xgboost.Booster(model_file=path).save_config())["learner"]["objective"]["name"]
    if not objective.startswith(("binary:", "multi:")):
        raise BadData(f"{path}: is an XGBoost model with the objective {objective}; expected a classifier")
    model = xgboost.XGBClassifier()
    model.load_model(path)
    return model


def _read_lightgbm(path: Path) -> Any:
    """Return a model of LightGBM's own file as the classifier that it was saved from."""
    _require(path, "lightgbm")
    import lightgbm

    booster = lightgbm.Booster(model_file=path)
    objective = booster.dump_model(num_iteration=1).get("objective", "of a function").split()[0]
    if objective not in ("binary", "multiclass"):
        raise BadData(f"{path}: is a LightGBM model with the objective {objective}; expected a classifier")
    model = lightgbm.LGBMClassifier(objective=objective)
    count = max(2, booster.num_model_per_iteration())
    model._Booster, model._objective, model.fitted_ = booster, objective, True
    model._n_features = model._n_features_in = booster.num_feature()
    model._n_classes, model._classes = count, np.arange(count)
    model._le = LabelEncoder().fit(model._classes)
    return model


def _described(warning: InconsistentVersionWarning) -> str:
    here = version("scikit-learn")
    return (
        f"the model was fitted with scikit-learn {warning.original_sklearn_version}, and this is {here}: it may answer "
        "otherwise here than there; expected the same version"
    )


# --- what a classifier has to be -----------------------------------------------------------------------------------


def check(loaded: Loaded) -> None:
    """Raise `BadData` where a model is no fitted classifier that gives probabilities of two or more classes."""
    model, kind = loaded.model, type(loaded.model).__name__
    if not hasattr(model, "predict") or not hasattr(model, "get_params"):
        raise loaded.bad(f"holds a {kind}; expected a classifier of scikit-learn, XGBoost or LightGBM")
    if not is_classifier(model):
        raise loaded.bad(f"holds a {kind} that is no classifier; expected one")
    try:
        check_is_fitted(model)
    except NotFittedError:
        raise loaded.bad(f"holds a {kind} that is not fitted; expected a fitted one") from None
    if not hasattr(model, "predict_proba"):
        raise loaded.bad(f"holds a {type(classifier_of(model)).__name__} {NO_PROBABILITIES}")
    classes = getattr(model, "classes_", None)
    if classes is None or isinstance(classes, list) or np.ndim(classes) != 1 or len(classes) < 2:
        raise loaded.bad(f"holds a {kind} without one list of classes; expected one label for each row, of two or more")


NO_PROBABILITIES = (
    "without predict_proba; expected a classifier that gives probabilities, such as a CalibratedClassifierCV of it"
)
PANDAS_CATEGORIES = (
    "was fitted on categorical columns of pandas, which are not supported for LightGBM and XGBoost; expected a "
    "pipeline that encodes text itself: fit it with an OrdinalEncoder or OneHotEncoder before the classifier"
)


def takes_pandas_categories(model: Any) -> bool:
    """Whether a classifier of LightGBM or XGBoost was fitted on columns of the type `category`."""
    if booster := getattr(model, "booster_", None):
        return bool(booster.pandas_categorical)
    return hasattr(model, "get_booster") and "c" in (model.get_booster().feature_types or ())
