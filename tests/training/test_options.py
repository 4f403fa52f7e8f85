"""The command line of `train.py`: what belongs together, and what is refused."""

from __future__ import annotations

import pytest

from defects.training.options import parse
from defects.training.reading import Reading

DATA = ("--data", "t.csv", "--label", "d")


def test_columns_may_be_given_in_one_option_or_in_several() -> None:
    options = parse((*DATA, "--ignore", "a", "b", "--ignore", "c", "--na", "?", "-", "--category=x", "--time", "t"), "")
    assert options.reading == Reading(ignore=("a", "b", "c"), na=("?", "-"), category=("x",), time="t")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((*DATA, "--rows", "10"), "--rows: is for the built-in data only"),
        (("--data", "t.csv"), "--data and --label go together"),
        ((*DATA, "--champion", ""), "argument --champion: is empty; expected champion, latest, a tag or a directory"),
        (("--label", "d"), "--data and --label go together"),
        *(
            ((f"--{name}", value), f"--{name}: expected --data and --label too")
            for name, value in {
                "category": "a", "number": "a", "ignore": "a", "allow-unknown": "a", "group": "a", "time": "a",
                "weight": "a", "encoding": "latin-1", "decimal": ",", "na": "?",
            }.items()
        ),
        *(
            ((*DATA, "--model", "m.skops", f"--{name}", value), f"--{name}: is for a model that is fitted here")
            for name, value in {
                "set": "a=1", "class-weight": "balanced", "calibrate": "sigmoid", "cv": "5", "pipeline": "a:b",
                "group": "a", "time": "a", "weight": "a", "estimator": "random-forest", "allow-unknown": "a",
            }.items()
        ),
        ((*DATA, "--pipeline", "a:b", "--estimator", "random-forest"), "--pipeline and --estimator: expected one"),
        ((*DATA, "--group", "a", "--time", "b"), "--group and --time: expected one of them"),
        (("--cv", "1"), "--cv: '1' is not a whole number from 2 to 50"),
        (("--set", "=3"), "--set: '=3' is not NAME=VALUE"),
        (("--margin", "-1"), "--margin: '-1' is not a number from 0"),
        ((*DATA, "--encoding", "latin-17"), "--encoding: 'latin-17' is no encoding; expected one such as utf-8"),
        ((*DATA, "--encoding", "base64"), "--encoding: 'base64' is no encoding"),
        ((*DATA, "--decimal", ";"), "--decimal: invalid choice: ';'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(
    arguments: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(arguments, "")
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err.splitlines()[-1]
