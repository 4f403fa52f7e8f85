"""The summary is what scikit-learn says of the same rows, from both kinds of database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sklearn import metrics

from answers import SCHEMA, Model, record
from defects.features import DefectClass
from defects.history import measures, outcomes, summary
from defects.history.database import Database
from defects.history.measures import Tally
from defects.history.models import Models
from defects.problems import InvalidInput
from defects.protocols.outcomes import Outcome
from defects.schema import Schema
from defects.training import evaluation

NAMES = SCHEMA.class_names


class Recorded:
    """A database with predictions and outcomes."""

    def __init__(self, database: Database, runner: asyncio.Runner):
        self.database, self.runner, self.models = database, runner, Models()

    def answer(self, model: Model, probabilities: Any, **options: Any) -> list[UUID]:
        return record(self.database, self.runner, model, probabilities, **options)

    def label(self, ids: Sequence[UUID], labels: Sequence[Any], origin: str = "default") -> None:
        now = datetime.now(UTC)
        given = [Outcome(id_, None, None, label, origin, now, True) for id_, label in zip(ids, labels, strict=True)]
        self.runner.run(outcomes.store(self.database, self.models, given))

    def summary(self, **asked: Any) -> Any:
        return self.runner.run(summary.summary(self.database, **asked))

    def groups(self, **asked: Any) -> dict[str, Any]:
        return {group["group"]: group["measures"] for group in self.summary(**asked)["groups"]}


@pytest.fixture
def recorded(database: Database, runner: asyncio.Runner) -> Recorded:
    return Recorded(database, runner)


def random_rows(count: int, seed: int, classes: int = 3) -> tuple[Any, Any]:
    """Probabilities `[count, classes]`, some of them 0 or 1, and true classes that are mostly the likeliest."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet([0.3] * classes, count).astype(np.float32)
    probabilities[:2] = np.eye(classes, dtype=np.float32)[:2]
    labels = np.where(random.random(count) < 0.7, probabilities.argmax(axis=1), random.integers(0, classes, count))
    labels[:2] = [0, 2]  # one is right, and one was impossible
    return probabilities, labels


def check(found: Any, probabilities: Any, labels: Any, rows: int) -> None:
    """Compare measures with those of scikit-learn, and of the card."""
    predicted = probabilities.argmax(axis=1)
    classes = range(len(NAMES))
    assert (found["rows"], found["labelled"]) == (rows, len(labels))
    assert found["labelled_share"] == len(labels) / rows
    assert found["accuracy"]["value"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    loss = metrics.log_loss(labels, y_proba=probabilities, labels=[*classes])
    assert found["log_loss"] == pytest.approx(loss, rel=1e-5)
    bins = evaluation.reliability(labels, probabilities)
    assert found["calibration_error"] == pytest.approx(evaluation.calibration_error(bins), rel=1e-5)
    assert [one["rows"] for one in found["reliability"]] == [one["rows"] for one in bins]
    for ours, card in zip(found["reliability"], bins, strict=True):
        assert ours == pytest.approx(card, rel=1e-5)
    matrix = np.zeros((len(NAMES), len(NAMES)), int)
    for cell in found["confusion"]:
        matrix[NAMES.index(cell["true"]), NAMES.index(cell["predicted"])] = cell["rows"]
    assert (matrix == metrics.confusion_matrix(labels, predicted, labels=[*classes])).all()
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=[*classes], zero_division=np.nan
    )
    by_class = {one["class"]: one for one in found["classes"]}
    for place in classes:
        one = by_class[NAMES[place]]
        assert (one["true"], one["labelled"]) == (support[place], (predicted == place).sum())
        assert one["precision"] == pytest.approx(precision[place])
        assert one["recall"] == pytest.approx(recall[place])


def test_measures_are_those_of_scikit_learn(recorded: Recorded) -> None:
    probabilities, labels = random_rows(400, seed=1)
    ids = recorded.answer(Model(), probabilities)
    recorded.label(ids[:300], [NAMES[label] for label in labels[:300]])
    found = recorded.summary()["overall"]
    check(found, probabilities[:300], labels[:300], 400)
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
    predicted = probabilities.argmax(axis=1)
    for one in found["classes"]:
        rows = (predicted == NAMES.index(one["class"])).sum()
        assert one["predicted"] == rows
        assert one["labelled_share"] == one["labelled"] / rows


def test_groups_add_up(recorded: Recorded) -> None:
    """Two models, revisions, sources and days: each group has its own rows."""
    old, new = Model(version="v1", revision="r1"), Model(version="v2", revision="r2")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = {}
    for number, (model, source, at) in enumerate([(old, "", yesterday), (old, "north", None), (new, "north", None)]):
        probabilities, labels = random_rows(60, seed=number)
        ids = recorded.answer(model, probabilities, source=source, at=at)
        recorded.label(ids, [NAMES[label] for label in labels])
        made[number] = (probabilities, labels)

    def together(*numbers: int) -> tuple[Any, Any]:
        chosen = [made[number] for number in numbers]
        return np.concatenate([p for p, _ in chosen]), np.concatenate([labels for _, labels in chosen])

    days = [f"{day:%Y-%m-%d}" for day in (yesterday, datetime.now(UTC))]
    wanted = {
        "model": {"v1": (0, 1), "v2": (2,)},
        "revision": {"r1": (0, 1), "r2": (2,)},
        "source": {"north": (1, 2), "": (0,)},
        "day": {days[0]: (0,), days[1]: (1, 2)},
    }
    for by, groups in wanted.items():
        told = recorded.groups(by=by, since="3d")
        assert [*told] == [*groups]
        for name, numbers in groups.items():
            check(told[name], *together(*numbers), sum(60 for _ in numbers))
    check(recorded.summary(since="3d")["overall"], *together(0, 1, 2), 180)
    check(recorded.summary(since="1h")["overall"], *together(1, 2), 120)


def test_models_with_other_classes_are_joined_by_name(recorded: Recorded) -> None:
    """Class 0 of one is class 1 of the other; and one was true that the first doesn't know."""
    first = Model()
    second = Model(Schema(SCHEMA.features, (DefectClass("burnt"), DefectClass("ok"))), "v2")
    ids = recorded.answer(first, [[0.8, 0.1, 0.1]] * 2)
    others = recorded.answer(second, [[0.25, 0.75]] * 2)
    recorded.label([ids[0], *others], ["ok", "ok", "burnt"])

    async def say_early() -> None:
        async with recorded.database.transaction() as transaction:
            sql = (
                "INSERT INTO outcomes (prediction_id, origin, class, occurred_at, received_at) "
                "VALUES ($1, 'default', 'burnt', $2, $2)"
            )
            await transaction.execute(sql, ids[1], datetime.now(UTC))

    recorded.runner.run(say_early())  # as an early outcome does
    found = recorded.summary()["overall"]
    assert {(c["true"], c["predicted"]): c["rows"] for c in found["confusion"]} == {("ok", "ok"): 2, ("burnt", "ok"): 2}
    assert found["accuracy"]["value"] == 0.5
    least = -np.log(np.finfo(np.float32).eps)
    assert found["log_loss"] == pytest.approx((-np.log(0.8) - np.log(0.75) - np.log(0.25) + least) / 4, rel=1e-5)
    assert [one["class"] for one in found["classes"]] == ["burnt", "ok"]
    assert (found["classes"][0]["precision"], found["classes"][0]["recall"]) == (None, 0.0)


def test_of_several_origins_the_last_counts_or_the_wanted_one(recorded: Recorded) -> None:
    ids = recorded.answer(Model(), [[0.8, 0.1, 0.1]] * 3)
    recorded.label(ids, ["ok"] * 3, "camera")
    recorded.label(ids[:2], ["torn", "ok"], "audit")
    recorded.label(ids[1:2], ["wet"], "audit")  # replaces
    found = recorded.summary()["overall"]
    assert (found["rows"], found["labelled"]) == (3, 3)
    assert {c["true"]: c["rows"] for c in found["confusion"]} == {"ok": 1, "torn": 1, "wet": 1}
    assert recorded.summary(origin="camera")["overall"]["accuracy"]["value"] == 1
    audit = recorded.summary(origin="audit")["overall"]
    assert (audit["labelled"], audit["accuracy"]["value"]) == (2, 0)
    assert recorded.summary(origin="nobody")["overall"]["labelled"] == 0


def test_without_outcomes_or_predictions_nothing_is_known(recorded: Recorded) -> None:
    empty = recorded.summary(by="day")
    assert (empty["overall"]["rows"], empty["groups"]) == (0, [])
    recorded.answer(Model(), [[0.8, 0.1, 0.1]])
    found = recorded.summary()["overall"]
    assert (found["rows"], found["labelled"], found["labelled_share"]) == (1, 0, 0.0)
    assert found["log_loss"] is found["calibration_error"] is found["accuracy"]["low"] is None
    assert found["delay_seconds"] == {"median": None, "p90": None}


def test_shadow_predictions_do_not_count(recorded: Recorded) -> None:
    recorded.answer(Model(), [[0.8, 0.1, 0.1]])
    (shadow,) = recorded.answer(Model(), [[0.1, 0.8, 0.1]])
    recorded.label([shadow], ["ok"])

    async def change() -> None:
        async with recorded.database.transaction() as transaction:
            await transaction.execute("UPDATE predictions SET kind = 1 WHERE id = $1", shadow)

    recorded.runner.run(change())
    found = recorded.summary()["overall"]
    assert (found["rows"], found["labelled"], found["delay_seconds"]["median"]) == (1, 0, None)


def test_delays(recorded: Recorded) -> None:
    """Nine outcomes come after ten minutes, and two after ten hours."""
    now = datetime.now(UTC)
    ids = recorded.answer(Model(), [[0.8, 0.1, 0.1]] * 11, at=now - timedelta(hours=11))
    recorded.label(ids, ["ok"] * 11)

    async def change() -> None:
        async with recorded.database.transaction() as transaction:
            for place, id_ in enumerate(ids):
                delay = timedelta(minutes=10) if place < 9 else timedelta(hours=10)
                sql = "UPDATE outcomes SET received_at = $1 WHERE prediction_id = $2"
                await transaction.execute(sql, now - timedelta(hours=11) + delay, id_)

    recorded.runner.run(change())
    delay = recorded.summary()["overall"]["delay_seconds"]
    assert delay == pytest.approx({"median": 600, "p90": 36_000}, rel=0.03)


def test_delays_of_many_outcomes_are_those_of_a_sample(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "SAMPLE", 100)
    ids = recorded.answer(Model(), [[0.8, 0.1, 0.1]] * 800, at=datetime.now(UTC) - timedelta(minutes=100))
    recorded.label(ids, ["ok"] * 800)
    found = recorded.summary()["overall"]
    assert found["delay_seconds"] == pytest.approx({"median": 6_000, "p90": 6_000}, rel=0.1)
    assert found["labelled"] == 800


def test_early_outcomes_are_joined_before(recorded: Recorded) -> None:
    model = Model()
    recorded.answer(model, [[0.8, 0.1, 0.1]], request_id="other")
    recorded.runner.run(
        outcomes.store(recorded.database, Models(), [Outcome(None, "r", 0, "ok", "default", datetime.now(UTC), False)])
    )
    recorded.answer(model, [[0.8, 0.1, 0.1]])
    assert recorded.summary()["overall"]["labelled"] == 1


def test_many_groups_are_bounded(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "MAX_GROUPS", 3)
    for number in range(6):
        source = f"s{number}" if number != 1 else "other"
        ids = recorded.answer(Model(), [[0.8, 0.1, 0.1]] * (6 - number), source=source)
        recorded.label(ids, ["ok"] * len(ids))
    told = recorded.summary(by="source")["groups"]
    assert [(one["group"], one["measures"]["rows"]) for one in told] == [("s0", 6), ("s2", 4), ("other", 11)]
    assert told[-1]["measures"]["labelled"] == 11


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"since": ""}, "since"), ({"since": "24"}, "since"), ({"since": "0h"}, "since"), ({"since": "-1h"}, "since"),
        ({"since": "9999999d"}, "since"), ({"since": "1w"}, "since"), ({"since": "٣h"}, "since"),
        ({"since": "2026-11-27"}, "since"), ({"since": "2999-01-01T00:00:00Z"}, "since"), ({"since": "24h\n"}, "since"),
        ({"by": ""}, "by"), ({"by": "Day"}, "by"), ({"by": "origin"}, "by"), ({"origin": ""}, "origin"),
        ({"origin": "a b"}, "origin"), ({"origin": "x" * 65}, "origin"),
    ],
)  # fmt: skip
def test_wrong_questions_are_refused(asked: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        summary.question(**asked)
    assert [problem.field for problem in refused.value.problems] == [field]


@pytest.mark.parametrize("since", ["999999d", "999999h", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_long_ago(recorded: Recorded, since: str) -> None:
    recorded.answer(Model(), [[0.8, 0.1, 0.1]])
    assert recorded.summary(since=since, by="day")["overall"]["rows"] == 1


# --- measures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "total", "interval"),
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634)), (81, 263, (0.2553, 0.3662))],
)
def test_wilson(count: int, total: int, interval: tuple[float, float]) -> None:
    """The last one is the example of Newcombe (Statistics in Medicine 17, 1998), table I."""
    assert measures.wilson(count, total) == pytest.approx(interval, abs=5e-5)


def test_the_largest_classes_and_cells_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "MAX_CLASSES", 2)
    monkeypatch.setattr(measures, "MAX_CELLS", 2)
    tally = Tally()
    for number, name in enumerate("abcd", 1):
        tally.add(name, name, {"number": number, "loss": 0.0, "bin": 9, "confidence": 0.9 * number})
    told = tally.to_json()
    assert [one["class"] for one in told["classes"]] == ["c", "d"]
    assert [one["true"] for one in told["confusion"]] == ["c", "d"]
    assert told["labelled"] == 10
