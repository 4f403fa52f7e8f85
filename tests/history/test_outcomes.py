"""Outcomes in both kinds of database: each is stored once, whoever else says the same, and nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from answers import SCHEMA, Model, ids_at, record
from defects.features import DefectClass
from defects.history import early_outcomes, outcomes
from defects.history.database import Database
from defects.history.databases import database_of
from defects.history.models import Models
from defects.kinds import BOOLEAN, INTEGER, NUMBER
from defects.problems import InvalidInput
from defects.protocols.outcomes import Outcome
from defects.schema import Schema

NOW = datetime(2026, 11, 27, 5, tzinfo=UTC)
OK, TORN, WET = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]
Row = tuple[Any, ...]


def of_id(id_: UUID, label: Any = "ok", origin: str = "default", *, replace: bool = False) -> Outcome:
    return Outcome(id_, None, None, label, origin, NOW, replace)


def of_row(request_id: str, row: int, label: Any = "ok", *, replace: bool = False) -> Outcome:
    return Outcome(None, request_id, row, label, "default", NOW, replace)


class Store:
    """Stores outcomes in a database, and looks what is there."""

    def __init__(self, database: Database, runner: asyncio.Runner):
        self.database, self.runner, self.models = database, runner, Models()

    def __call__(self, *given: Outcome) -> list[str]:
        return [stored.result for stored in self.stored(*given)]

    def stored(self, *given: Outcome) -> Any:
        return self.runner.run(outcomes.store(self.database, self.models, given))

    def rows(self, sql: str, *values: Any) -> list[Row]:
        async def fetch() -> list[Row]:
            async with self.database.transaction(reading=True) as transaction:
                return [tuple(row.values()) for row in await transaction.fetch(sql, *values)]

        return self.runner.run(fetch())

    def there(self) -> list[Row]:
        """Class, origin and whether it was replaced, of all outcomes."""
        sql = "SELECT class, origin, replaced_at FROM outcomes ORDER BY origin, received_at, class"
        return [(name, origin, replaced is not None) for name, origin, replaced in self.rows(sql)]

    def early(self) -> list[Row]:
        return self.rows("SELECT class, replaces FROM early_outcomes ORDER BY no")


@pytest.fixture
def store(database: Database, runner: asyncio.Runner) -> Store:
    return Store(database, runner)


@pytest.fixture
def model() -> Model:
    return Model()


def test_stored_duplicate_conflict_and_correction(store: Store, model: Model) -> None:
    (id_,) = record(store.database, store.runner, model, [OK])
    assert store(of_id(id_)) == ["stored"]
    assert store(of_id(id_)) == ["duplicate"]
    (conflict,) = store.stored(of_id(id_, "torn"))
    assert (conflict.result, conflict.label) == ("conflict", "ok")
    assert store(of_id(id_, "ok", replace=True)) == ["duplicate"]
    assert store.there() == [("ok", "default", False)]
    assert store(of_id(id_, "torn", replace=True)) == ["stored"]
    assert sorted(store.there()) == [("ok", "default", True), ("torn", "default", False)]
    assert store(of_id(id_, "wet", "audit")) == ["stored"]  # of another origin
    assert len(store.there()) == 3
    ((occurred, received),) = store.rows("SELECT occurred_at, received_at FROM outcomes WHERE origin = $1", "audit")
    assert occurred == NOW
    assert timedelta() <= datetime.now(UTC) - received < timedelta(hours=1)


def test_the_same_prediction_many_times_in_one_request(store: Store, model: Model) -> None:
    first, second = record(store.database, store.runner, model, [OK, TORN])
    given = [
        of_id(first), of_id(second, "torn"), of_id(first), of_id(first, "torn"), of_id(first, "torn", replace=True),
        of_id(first, "wet", replace=True), of_id(first, "torn"), of_row("r", 0, "wet"), of_id(second, "torn", "audit"),
    ]  # fmt: skip
    told = store.stored(*given)
    assert [one.result for one in told] == [
        "stored", "stored", "duplicate", "conflict", "stored", "stored", "conflict", "duplicate", "stored",
    ]  # fmt: skip
    assert [told[3].label, told[6].label] == ["ok", "wet"]
    of_first = store.rows("SELECT class, replaced_at FROM outcomes WHERE prediction_id = $1", first)
    assert {(name, replaced is None) for name, replaced in of_first} == {("ok", False), ("torn", False), ("wet", True)}


def test_a_thousand_outcomes_take_few_statements(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = record(store.database, store.runner, model, [OK] * 1_024)
    asked = 0
    begun = store.database.transaction

    def counted(*, reading: bool = False) -> Any:
        return Counted(begun(reading=reading))

    class Counted:
        def __init__(self, inner: Any):
            self.inner = inner

        async def __aenter__(self) -> Counted:
            self.transaction = await self.inner.__aenter__()
            return self

        async def __aexit__(self, *problem: Any) -> Any:
            return await self.inner.__aexit__(*problem)

        async def fetch(self, *given: Any) -> Any:
            nonlocal asked
            asked += 1
            return await self.transaction.fetch(*given)

        async def execute(self, *given: Any) -> Any:
            nonlocal asked
            asked += 1
            return await self.transaction.execute(*given)

    monkeypatch.setattr(store.database, "transaction", counted)
    half = [of_id(id_) for id_ in ids[:512]] + [of_row("r", row) for row in range(512, 1_024)]
    assert set(store(*half)) == {"stored"}
    assert set(store(*(of_id(id_, "torn", replace=True) for id_ in ids))) == {"stored"}
    assert set(store(*(of_id(id_) for id_ in ids_at(NOW, 1_024)))) == {"unknown"}
    assert asked < 60
    assert store.rows("SELECT count(*) FROM outcomes WHERE replaced_at IS NULL") == [(1_024,)]


@pytest.mark.parametrize("replace", [False, True], ids=["first", "replacing"])
def test_two_replicas_with_the_same_items_at_the_same_moment(
    database_url: str, store: Store, model: Model, replace: bool
) -> None:
    ids = record(store.database, store.runner, model, [OK] * 300)
    if replace:
        store(*(of_id(id_, "torn") for id_ in ids))
    given = [of_id(id_, "ok", replace=replace) for id_ in ids]

    async def at_once() -> list[Any]:
        others = [database_of(database_url) for _ in range(3)]
        try:
            for other in others:
                await other.open()
            orders: list[Sequence[Outcome]] = [given, given[::-1], given[100:] + given[:100]]
            stores = (outcomes.store(other, Models(), some) for other, some in zip(others, orders, strict=True))
            return await asyncio.gather(*stores)
        finally:
            for other in others:
                await other.close()

    told = store.runner.run(at_once())
    results = [one.result for replica in told for one in replica]
    assert results.count("stored") == 300
    assert results.count("duplicate") == 600
    counted = "SELECT count(*), count(DISTINCT prediction_id) FROM outcomes WHERE replaced_at IS NULL"
    assert store.rows(counted) == [(300, 300)]
    assert store.rows("SELECT count(*) FROM outcomes") == [(600 if replace else 300,)]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_a_class_that_the_model_does_not_have_is_refused_and_nothing_is_stored(store: Store, model: Model) -> None:
    ids = record(store.database, store.runner, model, [OK, OK])
    newer = Model(Schema(SCHEMA.features, (DefectClass("ok"), DefectClass("burnt"))), "v2")
    record(store.database, store.runner, newer, [[0.5, 0.5]])
    given = [of_id(ids[0]), of_id(ids[1], "burnt"), of_id(ids_at(NOW)[0], "burnt"), of_id(ids_at(NOW)[0], "lost")]
    with pytest.raises(InvalidInput) as refused:
        store(*given)
    first, second = refused.value.problems
    assert (first.field, first.problem) == ("[1].class", "'burnt' is unknown")
    assert first.expected == "one of 'ok', 'torn', 'wet', of model v1"
    assert (second.field, second.problem) == ("[3].class", "'lost' is unknown")
    assert store.there() == store.early() == []


@pytest.mark.parametrize(
    ("label_type", "names", "taken", "refused"),
    [
        (
            INTEGER,
            ("1", "20", "-3"),
            [(1, "1"), (20.0, "20"), ("-3", "-3"), ("1.0", "1")],
            [True, 2, "x", 1e300, "nan"],
        ),
        (NUMBER, ("1.0", "2.5"), [(1, "1.0"), (2.5, "2.5"), ("1.0", "1.0"), ("1", "1.0")], [True, 3, "", "inf", "nan"]),
        (BOOLEAN, ("True", "False"), [(True, "True"), (False, "False"), ("True", "True")], [1, 0, "true", "1"]),
    ],
)
def test_a_class_is_taken_as_an_answer_has_it_or_by_its_name(
    store: Store, label_type: str, names: Sequence[str], taken: Sequence[Any], refused: Sequence[Any]
) -> None:
    model = Model(Schema(SCHEMA.features, tuple(map(DefectClass, names)), label_type=label_type))
    ids = record(store.database, store.runner, model, [[1.0] + [0.0] * (len(names) - 1)] * len(taken))
    assert store(*(of_id(id_, label) for id_, (label, _) in zip(ids, taken, strict=True))) == ["stored"] * len(taken)
    assert sorted(name for name, _, _ in store.there()) == sorted(name for _, name in taken)
    for label in refused:
        with pytest.raises(InvalidInput):
            store(of_id(ids[0], label))
    (conflict,) = store.stored(of_id(ids[0], taken[1][0]))
    assert type(conflict.label) is type(model.schema.labels[0])


# --- by request id and row --------------------------------------------------------------------------------------------


def test_of_repeated_requests_the_newest_record_is_meant(store: Store, model: Model) -> None:
    before = record(store.database, store.runner, model, [OK, OK], at=NOW)
    after = record(store.database, store.runner, model, [OK, OK], at=NOW + timedelta(days=2))
    record(store.database, store.runner, model, [OK], at=NOW + timedelta(days=3), request_id="another")
    (stored,) = store.stored(of_row("r", 1))
    assert stored.prediction_id == after[1] != before[1]
    assert store(of_id(before[1], "torn"), of_row("r", 2)) == ["stored", "unknown"]


def test_of_a_request_id_that_was_used_often_one_record_is_fetched(
    store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    for hour in range(5):
        ids = record(store.database, store.runner, model, [OK, OK], at=NOW + timedelta(hours=hour))
    fetched: list[int] = []
    find = outcomes._find_rows

    async def counting(transaction: Any, wanted: Any) -> Any:
        class Counting:
            async def fetch(self, sql: str, *values: Any) -> Any:
                rows = await transaction.fetch(sql, *values)
                fetched.append(len(rows))
                return rows

        return await find(Counting(), wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(outcomes, "_find_rows", counting)
    (stored,) = store.stored(of_row("r", 1))
    assert (stored.prediction_id, fetched) == (ids[1], [1])


# --- early ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "row"])
def test_an_early_outcome_is_joined_when_the_record_arrives(store: Store, model: Model, by: str) -> None:
    record(store.database, store.runner, model, [OK], request_id="other")  # so the model is known
    (id_,) = ids_at(datetime.now(UTC))

    def given(label: str, *, replace: bool = False) -> Outcome:
        return of_id(id_, label, replace=replace) if by == "id" else of_row("r", 0, label, replace=replace)

    assert store(given("torn"), given("torn")) == ["unknown", "unknown"]
    assert store(given("torn")) == ["unknown"]
    (conflict,) = store.stored(given("ok"))
    assert (conflict.result, conflict.label) == ("conflict", "torn")
    assert store(given("wet", replace=True)) == ["unknown"]
    assert store.early() == [("torn", False), ("wet", True)]
    store.runner.run(outcomes.join_early(store.database))
    assert (len(store.early()), store.there()) == (2, [])  # no record as yet
    record(store.database, store.runner, model, [OK], ids=[id_])
    store.runner.run(outcomes.join_early(store.database))
    assert store.early() == []
    assert sorted(store.there()) == [("torn", "default", True), ("wet", "default", False)]
    assert store(given("wet")) == ["duplicate"]


def test_replicas_join_an_early_outcome_once(database_url: str, store: Store, model: Model) -> None:
    record(store.database, store.runner, model, [OK], request_id="other")
    ids = ids_at(datetime.now(UTC), 40)
    assert set(store(*(of_id(id_) for id_ in ids))) == {"unknown"}
    record(store.database, store.runner, model, [OK] * 40, ids=ids)

    async def at_once() -> None:
        others = [database_of(database_url) for _ in range(3)]
        try:
            for other in others:
                await other.open()
            await asyncio.gather(*map(outcomes.join_early, others))
        finally:
            for other in others:
                await other.close()

    store.runner.run(at_once())
    assert store.early() == []
    assert store.there() == [("ok", "default", False)] * 40


def test_an_early_outcome_of_a_class_that_only_another_model_has_is_kept(store: Store, model: Model) -> None:
    newer = Model(Schema(SCHEMA.features, (DefectClass("ok"), DefectClass("burnt"))), "v2")
    record(store.database, store.runner, newer, [[0.5, 0.5]], request_id="other")
    (id_,) = ids_at(datetime.now(UTC))
    assert store(of_id(id_, "burnt")) == ["unknown"]
    record(store.database, store.runner, model, [OK], ids=[id_])
    store.runner.run(outcomes.join_early(store.database))
    assert store.there() == [("burnt", "default", False)]


def test_an_early_conflict_loses_to_what_was_said_since(
    store: Store, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    record(store.database, store.runner, model, [OK], request_id="other")
    (id_,) = ids_at(datetime.now(UTC))
    assert store(of_row("r", 0, "torn")) == ["unknown"]
    record(store.database, store.runner, model, [OK], ids=[id_])
    assert store(of_id(id_, "wet")) == ["stored"]
    store.runner.run(outcomes.join_early(store.database))
    assert (store.early(), store.there()) == ([], [("wet", "default", False)])
    assert str(id_) in caplog.text


def test_an_early_correction_does_not_replace_a_later_one(store: Store, model: Model) -> None:
    record(store.database, store.runner, model, [OK], request_id="other")
    (id_,) = ids_at(datetime.now(UTC))
    assert store(of_id(id_, "torn", replace=True)) == ["unknown"]
    record(store.database, store.runner, model, [OK], ids=[id_])
    assert store(of_id(id_, "wet", replace=True)) == ["stored"]
    store.runner.run(outcomes.join_early(store.database))
    assert (store.early(), store.there()) == ([], [("wet", "default", False)])


def test_what_nobody_recorded_is_deleted_after_a_day(store: Store, model: Model) -> None:
    record(store.database, store.runner, model, [OK], request_id="other")
    old, new, joined = ids_at(NOW, 3)
    store(of_id(old), of_id(new), of_id(joined))

    async def age(hours: float, *ids: UUID) -> None:
        async with store.database.transaction() as transaction:
            for id_ in ids:
                sql = "UPDATE early_outcomes SET received_at = $1 WHERE prediction_id = $2"
                await transaction.execute(sql, datetime.now(UTC) - timedelta(hours=hours), id_)

    store.runner.run(age(25, old))
    store.runner.run(age(23, joined))
    record(store.database, store.runner, model, [OK], ids=[joined])
    store.runner.run(outcomes.join_early(store.database))
    assert len(store.early()) == 3  # only the last minutes are looked at so often
    store.runner.run(outcomes.join_all_early(store.database))
    assert store.there() == [("ok", "default", False)]
    assert store.rows("SELECT prediction_id FROM early_outcomes") == [(new,)]


def test_many_early_outcomes_are_joined_in_parts(store: Store, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_outcomes, "AT_ONCE", 7)
    record(store.database, store.runner, model, [OK], request_id="other")
    ids = ids_at(datetime.now(UTC), 40)
    store(*(of_id(id_) for id_ in ids))
    record(store.database, store.runner, model, [OK] * 20, ids=ids[::2])
    store.runner.run(outcomes.join_early(store.database))
    assert (len(store.there()), len(store.early())) == (20, 20)
