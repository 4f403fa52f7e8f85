"""Make the classifier that a function of the user's own returns: `--pipeline module:function`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sklearn.base import clone, is_classifier

from defects.training.bad_data import BadData, among
from defects.training.conversion import classifier_of
from defects.training.importing import NO_PROBABILITIES

OURS = Path(__file__).parents[1]  # what a user's error is not in
EXPECTED = "expected module:function, such as notebook:make_pipeline for make_pipeline() in notebook.py"


def build(given: str, seed: int) -> Any:
    """Return the unfitted classifier that `module:function` makes; raises `BadData`, in one line.

    The module is looked for in the working directory first. The function gets the seed if it takes one.
    """
    name, colon, function = given.partition(":")
    if not colon or not function.isidentifier() or not all(part.isidentifier() for part in name.split(".")):
        raise BadData(f"--pipeline {given}: {EXPECTED}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    with users_errors(f"--pipeline {given}"):
        made = _call(given, _function(given, name, function), seed)
    return _checked(given, made)


def _function(given: str, name: str, function: str) -> Any:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0] and error.name != name:
            raise
        raise BadData(f"--pipeline {given}: no module {name!r} in {Path.cwd()}; {EXPECTED}") from None
    if not callable(getattr(module, function, None)):
        known = sorted(n for n, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == name)
        raise BadData(f"--pipeline {given}: {name} has no function {function!r}; expected one {among(function, known)}")
    return getattr(module, function)


def _call(given: str, function: Any, seed: int) -> Any:
    parameters = inspect.signature(function).parameters
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if others := [name for name in required if name != "seed"]:
        problem = f"{function.__name__} needs {', '.join(others)}; expected a function without arguments, or with seed"
        raise BadData(f"--pipeline {given}: {problem}")
    return function(seed=seed) if "seed" in parameters else function()


def _checked(given: str, made: Any) -> Any:
    kind = type(made).__name__
    if isinstance(made, type) or not hasattr(made, "get_params") or not is_classifier(made):
        what = f"the type {made.__name__}" if isinstance(made, type) else f"a {kind}"
        raise BadData(f"--pipeline {given}: returned {what}; expected a classifier of scikit-learn, not fitted")
    try:
        classifier = clone(made)
    except (TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise BadData(f"--pipeline {given}: returned a {kind} that scikit-learn can't clone: {reason}") from None
    if not hasattr(classifier, "predict_proba"):
        name = type(classifier_of(classifier)).__name__
        raise BadData(f"--pipeline {given}: returned a {name} {NO_PROBABILITIES}")
    return classifier


@contextmanager
def users_errors(what: str) -> Iterator[None]:
    """Raise `BadData` for whatever is raised within, with its place in the user's own code if it is from there."""
    try:
        yield
    except BadData:
        raise
    except Exception as error:
        raise BadData(f"{what}: {_described(error)}") from None


def _described(error: Exception) -> str:
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{reason} ({frames[-1].filename}:{frames[-1].lineno})" if frames else reason


def _is_users(file: str) -> bool:
    path = Path(file)
    libraries = (sys.prefix, sys.base_prefix)
    return (
        path.is_absolute()
        and not path.is_relative_to(OURS)
        and path != OURS.parent / "train.py"
        and not any(path.is_relative_to(library) for library in libraries)
        and "site-packages" not in path.parts
    )
