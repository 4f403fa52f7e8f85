"""The options of `train.py`: how a table is read, how a model is made of it, and where it goes."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defects.training.estimators import ESTIMATORS, missing_extra
from defects.training.formats import encoding_name
from defects.training.reading import Reading
from defects.values import printable

DEFAULT_ESTIMATOR = "hist-gradient-boosting"
CALIBRATIONS = ("sigmoid", "temperature")
ONLY_WITH_DATA = (
    "category", "number", "ignore", "allow_unknown", "encoding", "decimal", "na", "group", "time", "weight", "model",
)  # fmt: skip
ONLY_FOR_TRAINING = (
    "estimator", "pipeline", "set", "class_weight", "calibrate", "cv", "group", "time", "weight", "allow_unknown",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How to make a model of a table. `parameters` are the estimator's own; without `folds`, no cross-validation.

    `arguments` of `train.py` make it again.
    """

    estimator: str = DEFAULT_ESTIMATOR
    seed: int = 0
    test_share: float = 0.2
    pipeline: str | None = None  # module:function, instead of an estimator
    parameters: Mapping[str, Any] = field(default_factory=dict)
    class_weight: str | None = None
    calibrate: str | None = None
    folds: int = 0
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """The command line."""

    data: Path | None
    label: str | None
    rows: int
    reading: Reading
    recipe: Recipe
    model: Path | None
    trust_pickle: bool
    champion: str | None
    margin: float
    output: Path | None
    if_missing: bool


def parse(arguments: Sequence[str], description: str) -> Options:
    """Read the command line; ends the process with a usage error where it is wrong."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    _add_data(parser)
    _add_columns(parser)
    _add_model(parser)
    _add_result(parser)
    given = parser.parse_args(arguments)
    _check(parser, given)
    return _options(given, arguments)


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the table")
    group.add_argument("--data", type=Path, help="CSV or Parquet file; default: the built-in simulated scan tunnel")
    group.add_argument("--label", help="the label column of --data")
    group.add_argument("--rows", type=positive, help="rows of built-in data (default: 40000)")
    group.add_argument("--encoding", type=_encoding, help="of a CSV file that is not UTF-8 or UTF-16, such as latin-1")
    group.add_argument(
        "--decimal", choices=(".", ","), default=".", metavar="SIGN", help="what stands before decimals in a CSV file"
    )
    group.add_argument(
        "--na", action="extend", nargs="+", default=[], metavar="TOKEN", help="one more text for a missing value"
    )


def _add_columns(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("its columns; each option can be given more than once")
    for name, text in (
        ("--category", "holds categories, also where they are numbers"),
        ("--number", "holds numbers"),
        ("--ignore", "is left out"),
        ("--allow-unknown", "holds categories, and one that training did not see counts as missing"),
    ):
        group.add_argument(name, action="extend", nargs="+", default=[], metavar="COLUMN", help=f"this column {text}")
    group.add_argument("--group", metavar="COLUMN", help="rows with the same value stay on one side of the split")
    group.add_argument("--time", metavar="COLUMN", help="hold out the rows with the latest values")
    group.add_argument("--weight", metavar="COLUMN", help="how much each row counts in fitting")


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--estimator", choices=ESTIMATORS, help=f"what is fitted (default: {DEFAULT_ESTIMATOR})")
    group.add_argument("--pipeline", metavar="MODULE:FUNCTION", help="what returns a scikit-learn classifier to fit")
    group.add_argument("--model", type=Path, metavar="FILE", help="a fitted model instead of training one")
    group.add_argument("--trust-pickle", action="store_true", help="load a pickle, which runs code of whoever made it")
    group.add_argument(
        "--set", action="append", default=[], type=_parameter, metavar="NAME=VALUE", help="a parameter of the estimator"
    )
    group.add_argument("--class-weight", choices=("balanced",), help="let rare classes count as much as frequent ones")
    group.add_argument("--calibrate", choices=CALIBRATIONS, help="make probabilities agree with how often they hold")
    group.add_argument("--seed", type=int, default=0, help="of data, split and estimator (default: %(default)s)")
    group.add_argument("--test-share", type=share, default=0.2, help="rows held out (default: %(default)s)")
    group.add_argument("--cv", type=folds, default=0, metavar="FOLDS", help="cross-validate, too")


def _add_result(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the result")
    group.add_argument(
        "--champion",
        type=_champion,
        metavar="MODEL",
        help="store nothing if it may be worse than this model: champion or latest of the store, a tag, or a directory",
    )
    group.add_argument(
        "--margin",
        type=margin,
        default=0.02,
        help="by how much it may be worse: macro-F1, a class's recall and F1, and log loss as a share of what always "
        "answering with the classes' shares has (default: %(default)s)",
    )
    group.add_argument("--output", type=Path, help="a directory (for MODEL_DIR) instead of the BentoML model store")
    group.add_argument("--if-missing", action="store_true", help="do nothing where the model store has a model")


def _check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if (given.data is None) != (given.label is None):
        parser.error("--data and --label go together")
    if not 0 <= given.seed < 2**32:
        parser.error("--seed: expected a number from 0 to 4294967295")
    if given.data is not None and given.rows is not None:
        parser.error("--rows: is for the built-in data only; expected it without --data")
    if given.model is not None:
        _check_model(parser, given)
    _check_recipe(parser, given)
    for name in ONLY_WITH_DATA:
        if given.data is None and getattr(given, name) not in (None, [], "."):
            parser.error(f"--{name.replace('_', '-')}: expected --data and --label too")


def _check_recipe(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with a usage error where options of training don't go together, or a library is missing."""
    if given.pipeline is not None and given.calibrate is not None:
        parser.error("--calibrate: is for --estimator; let your function return a CalibratedClassifierCV instead")
    if given.pipeline is not None and given.estimator is not None:
        parser.error("--pipeline and --estimator: expected one of them; each says what is fitted")
    if given.estimator is not None and (problem := missing_extra(given.estimator)):
        parser.error(f"--estimator: {problem}")
    if given.group is not None and given.time is not None:
        parser.error("--group and --time: expected one of them; each splits the rows in its own way")


def _check_model(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with a usage error where an option of training is given for a model that is fitted already."""
    for name in ONLY_FOR_TRAINING:
        if getattr(given, name) not in (None, [], 0):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option}: is for a model that is fitted here; expected it without --model")


def _options(given: argparse.Namespace, arguments: Sequence[str]) -> Options:
    return Options(
        data=given.data,
        label=given.label,
        rows=given.rows or 40_000,
        reading=Reading(
            category=tuple(given.category),
            number=tuple(given.number),
            ignore=tuple(given.ignore),
            allow_unknown=tuple(given.allow_unknown),
            group=given.group,
            time=given.time,
            weight=given.weight,
            encoding=given.encoding,
            decimal=given.decimal,
            na=tuple(given.na),
        ),
        recipe=Recipe(
            estimator=given.estimator or DEFAULT_ESTIMATOR,
            seed=given.seed,
            test_share=given.test_share,
            pipeline=given.pipeline,
            parameters=dict(given.set),
            class_weight=given.class_weight,
            calibrate=given.calibrate,
            folds=given.cv,
            arguments=tuple(map(printable, arguments)),
        ),
        model=given.model,
        trust_pickle=given.trust_pickle,
        champion=given.champion,
        margin=given.margin,
        output=given.output,
        if_missing=given.if_missing,
    )


# --- types of values -------------------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _encoding(text: str) -> str:
    """Read the name of an encoding."""
    try:
        return encoding_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _champion(text: str) -> str:
    """Read the name of a model; an empty one, of a variable that is not set, would leave the comparison out."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; expected champion, latest, a tag or a directory")
    return text


def folds(text: str) -> int:
    """Read a number of folds."""
    if not (text.isascii() and text.isdigit()) or not 2 <= int(text) <= 50:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 2 to 50")
    return int(text)


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return number


def margin(text: str) -> float:
    """Read a number from 0."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _parameter(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, where the value is a number, true, false, none, or else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    words = {"true": True, "false": False, "none": None}
    if value.lower() in words:
        return name, words[value.lower()]
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value
