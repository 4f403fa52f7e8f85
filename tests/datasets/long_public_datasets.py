"""Public data sets, as their users have them, through `train.py`, a server and back: `make survey`.

Prints a table of all of them. Every answer must be scikit-learn's; what is refused must be refused for the reason that
`catalogue` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalogue import BROUGHT, SETS, Brought, PublicSet
from comparison import Outcome, compare, compare_brought
from conftest import ROOT, Serve

TABLES = ROOT / "build" / "datasets"
OUTCOMES: list[Outcome] = []
TITLES = (
    "data set", "rows", "numbers / booleans / categories", "classes", "option", "engine", "held-out rows compared",
    "largest difference", "another class", "accuracy", "majority class", "warnings", "notes",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Print a row for each training, at the end."""
    yield
    lines = [TITLES, ["---"] * len(TITLES), *map(row, OUTCOMES)]
    print("\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))  # noqa: T201 - shown with -s


@pytest.mark.parametrize("one", SETS, ids=lambda one: one.name)
def test_public_data_is_served_as_scikit_learn_answers(one: PublicSet, serve: Serve, tmp_path: Path) -> None:
    outcome = compare(one, TABLES / one.file, tmp_path, serve)
    OUTCOMES.append(outcome)
    assert bool(outcome.refused) == bool(one.refused), outcome.refused or "was trained; expected a refusal"
    assert one.refused in outcome.refused
    assert outcome.largest_difference <= 1e-6
    assert outcome.other_class == 0


@pytest.mark.parametrize("brought", BROUGHT, ids=lambda one: f"{one.table}-{one.notebook}")
def test_a_brought_model_is_served_as_it_answers(brought: Brought, serve: Serve, tmp_path: Path) -> None:
    outcome = compare_brought(brought, TABLES / brought.set.file, tmp_path, serve)
    OUTCOMES.append(outcome)
    assert not outcome.refused
    assert outcome.largest_difference <= 1e-6
    assert outcome.other_class == 0


def row(outcome: Outcome) -> list[str]:
    option = f"`{' '.join(outcome.set.option)}`" if outcome.set.option else ""
    name = f"{outcome.set.name} ({outcome.set.source.partition(':')[0]})"
    if outcome.refused:
        message = outcome.refused.partition(f"{outcome.set.file}: ")[2] or outcome.refused
        message = "; ".join(map(str.strip, message.splitlines())).replace("|", "\\|")
        return [name, "", "", "", option, f"refused: {message}", *[""] * 7]
    metrics = outcome.card["metrics"]
    return [
        name,
        f"{outcome.rows:,}",
        " / ".join(str(outcome.kinds[kind]) for kind in ("number", "boolean", "category")),
        str(outcome.classes),
        option,
        outcome.card["engine"]["name"],
        f"{outcome.compared:,}",
        f"{outcome.largest_difference:.1e}",
        str(outcome.other_class),
        f"{metrics['accuracy']:.3f}",
        f"{metrics['baseline']['accuracy']:.3f}",
        warnings(outcome.card),
        "; ".join(outcome.card["data"]["notes"]).replace("|", "\\|"),
    ]


def warnings(card: dict[str, Any]) -> str:
    """Return the kinds of a card's warnings, each with the names of its columns or classes."""
    names: dict[str, list[str]] = {}
    for warning in card["warnings"]:
        names.setdefault(warning["kind"], []).append(warning["name"])
    return ", ".join(
        f"{kind} ({', '.join(found[:2])}{f' and {len(found) - 2} more' if len(found) > 2 else ''})"
        if any(found)
        else kind
        for kind, found in names.items()
    )
