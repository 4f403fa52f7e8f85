"""What `train.py` prints leads with what a person needs, and stays readable whatever names there are."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import pytest
from example_cards import example, with_everything

from conftest import BIN, ROOT
from defects.training import cost, report
from defects.training.saving import Place
from defects.training.trees import NotConvertible

PLACE = Place("build/model", Path("build/model"), "MODEL_DIR=build/model make serve")
DIGEST = "sha256:" + "0" * 64


def lines(card: dict[str, Any], place: Place = PLACE) -> list[str]:
    return report.report(card, place, DIGEST).splitlines()


def test_it_leads_with_warnings_and_metrics_beside_the_baseline() -> None:
    card, _, _ = example(["Adelie", "Chinstrap", "Gentoo"])
    metrics = card["metrics"]
    found = lines(card)
    assert found[:3] == ["", "WARNING class 'Gentoo' has only 12 held-out rows", ""]
    assert found[3] == "on 600 held-out rows; the baseline always says 'Adelie'"
    for line, key in zip(found[5:9], ("accuracy", "balanced_accuracy", "macro_f1", "log_loss"), strict=True):
        low, high = metrics["intervals"][key]
        numbers = f"{metrics[key]:.4f} {low:.4f} to {high:.4f} {metrics['baseline'][key]:.4f}"
        assert " ".join(line.split()).endswith(numbers)
    assert found[10].startswith("class ")
    of = metrics["classes"]["Gentoo"]
    assert found[13].split() == [
        "Gentoo", *(f"{of[key]:.4f}" for key in ("precision", "recall", "f1", "log_loss")), str(of["rows"]),
    ]  # fmt: skip
    assert found[15:] == [
        "note    column 'id' was left out: it has another value in every row",
        "engine  onnxruntime: ONNX answers as scikit-learn does, also on 1,234 probes",
        "        largest difference 1.2e-07",
        "model   build/model",
        f"digest  {DIGEST}",
        "card    build/model/card.html",
        "serve   MODEL_DIR=build/model make serve",
    ]


def test_of_many_classes_it_has_the_worst() -> None:
    card, _, _ = example(60, rows=3000)
    found = lines(card)
    first = next(index for index, line in enumerate(found) if line.startswith("class "))
    shown = found[first + 1 : first + 31]
    scores = [float(line.split()[4]) for line in shown]
    assert scores == sorted(scores)
    assert found[first + 31] == "the 30 classes with the lowest F1; the card has all 60"
    assert len(found) < 60


NAMES = ["\x1b[2J\x1b[H", "a\nb\rc", "\u202eevil", "W" * 1000, "漢字" * 300, "e\u0301" * 100, "\x9b31m", "tab\t"]


def test_names_are_no_commands_for_a_terminal_and_columns_stay_columns() -> None:
    card, _, _ = with_everything(example(len(NAMES)))
    card["metrics"]["classes"] = dict(zip(NAMES, card["metrics"]["classes"].values(), strict=True))
    card["warnings"] = [{"text": name} for name in NAMES] * 5
    card["data"]["notes"] = NAMES * 5
    found = lines(card, Place(NAMES[0], Path("a\nb"), "x\x1b"))
    assert all(character.isprintable() for line in found for character in line)
    assert sum(line.startswith("WARNING ") for line in found) == report.MAX_WARNINGS + 1
    first = next(index for index, line in enumerate(found) if line.startswith("class "))
    rows = found[first : first + 1 + len(NAMES)]
    assert len({report.columns(line) for line in rows}) == 1
    assert max(map(report.columns, rows)) <= report.MAX_NAME + 50


@pytest.mark.parametrize("card", [{}, {"metrics": None}, {"metrics": {"classes": {"a": None}}, "engine": 7}])
def test_a_card_that_lacks_something_has_a_report(card: dict[str, Any]) -> None:
    assert lines(card)[-1] == "serve   MODEL_DIR=build/model make serve"


@pytest.mark.parametrize(
    ("encoding", "expected"), [("ascii", r"na\xefve \u6f22\u5b57 \ud800"), ("utf-8", "naïve 漢字")]
)
def test_what_a_terminal_can_not_show_is_escaped(encoding: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(output, encoding))
    report.write("naïve 漢字 \ud800")
    assert output.getvalue().decode(encoding).startswith(expected)


def test_a_full_disk_or_a_closed_pipe_at_the_end_is_no_traceback() -> None:
    write = "from defects.training import report; report.write('x' * 100_000)"
    for output in ("> /dev/full", "| true"):
        command = f'set -o pipefail; {BIN}/python -c "{write}" {output}'
        done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# --- large models ----------------------------------------------------------------------------------------------------


def test_a_small_model_has_no_cost_worth_a_word(trained: Any) -> None:
    assert cost.warning(trained.files) is None


def test_a_large_model_is_measured(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE_BYTES", 1000)
    measured = cost.measured(trained.files)
    assert measured
    assert 30e6 < measured.memory < 3e9
    assert measured.seconds > 0
    monkeypatch.setattr(cost, "measured", lambda _: cost.Cost(1_700_000_000, 6.3))
    found = cost.warning(trained.files | {"model.onnx": bytes(136_000_000)})
    assert found == {
        "kind": "large_model", "name": "",
        "text": "the model has 136 MB and takes 1.7 GB of memory and about 6 s of CPU to load at every start; expected "
        "memory limits and startup probes that allow for it, or fewer or smaller trees",
    }  # fmt: skip


def test_what_can_not_be_measured_is_said_all_the_same(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "LARGE_BYTES", 1000)
    monkeypatch.setattr(cost, "LOAD", "raise MemoryError")
    found = cost.warning(trained.files)
    assert found
    assert "takes much memory and time to load" in found["text"]


def test_a_graph_that_onnx_can_not_hold_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from defects.training import graph

    monkeypatch.setattr(graph, "MAX_BYTES", 100)
    made = graph.Graph()
    made.cast("rows", 1)
    with pytest.raises(NotConvertible, match=r"^its graph has \d+ bytes; ONNX holds at most 100$"):
        made.model(2, 2, wide=False, link="identity")
