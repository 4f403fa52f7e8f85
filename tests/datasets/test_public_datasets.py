"""Tables with text columns are served as scikit-learn answers, and a model without any skill is called one.

The same comparison for seventy public data sets: `make survey`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets

import train
from catalogue import PublicSet
from comparison import compare
from conftest import Serve
from defects import artifact

POSITIVES, ROWS = 42, 12_000  # 0.35 %


@pytest.mark.parametrize(("name", "column"), [("iris", "sepal width (cm)"), ("wine", "ash")])
def test_a_text_column_is_served_as_scikit_learn_answers(name: str, column: str, serve: Serve, tmp_path: Path) -> None:
    frame = getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    frame[column] = pd.cut(frame[column], 4, labels=["tiny", "small", "medium", "large"])
    one = PublicSet(name, f"sklearn:{name}", "target")
    file = tmp_path / one.file
    frame.to_csv(file, index=False)
    outcome = compare(one, file, tmp_path, serve)
    assert outcome.kinds == {"number": frame.shape[1] - 2, "category": 1}
    assert outcome.compared == round(len(frame) / 5)
    assert (outcome.largest_difference < 1e-6, outcome.other_class) == (True, 0)


def test_a_model_without_skill_is_not_called_better_than_the_majority_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(19)
    frame = pd.DataFrame({name: random.normal(size=ROWS).round(3) for name in ("a", "b", "c")})
    frame["weekday"] = random.choice(["Monday", "Tuesday", "Friday"], ROWS)
    frame["damaged"] = np.where(random.permutation(ROWS) < POSITIVES, "yes", "no")
    frame.to_csv(tmp_path / "parcels.csv", index=False)
    train.main(["--data", str(tmp_path / "parcels.csv"), "--label", "damaged", "--output", str(tmp_path / "model")])
    card = artifact.load(tmp_path / "model").card
    baseline = card["metrics"]["baseline"]
    assert baseline["class"] == "no"
    assert baseline["accuracy"] == pytest.approx(1 - POSITIVES / ROWS, abs=1e-3)
    assert card["metrics"]["log_loss"] > baseline["log_loss"]
    assert "no_better" in {warning["kind"] for warning in card["warnings"]}
    first = capsys.readouterr().out.strip().splitlines()[0]
    assert first.startswith("WARNING the model is"), first
    assert "always answering 'no', the majority" in first
