"""Store outcomes, each once: in one transaction for a request, with few statements, however many there are."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from defects.history import early_outcomes
from defects.history.database import Database, Transaction
from defects.history.early_outcomes import Early
from defects.history.models import Models, RecordedModel
from defects.history.settling import Given, Key, Verdict, settle
from defects.history.sql import marks, parts
from defects.problems import InvalidInput, Problem
from defects.protocols.outcomes import Outcome, Stored, field_of, place_of
from defects.values import shown

KEPT = timedelta(days=1)  # an outcome whose prediction is not recorded
RECENT = timedelta(minutes=2)  # in which records arrive: later ones are looked for now and then
MAX_SHOWN = 10  # classes in a message
# The database chooses: a caller who always sends the same request id has millions of records with it.
NEWEST = """\
SELECT id, model, request_id, row FROM (
    SELECT id, model, request_id, row, row_number() OVER (PARTITION BY request_id, row ORDER BY id DESC) AS nth
    FROM predictions WHERE kind = 0 AND request_id IN ({requests}) AND row IN ({rows})
) AS found WHERE nth = 1"""

logger = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """A recorded prediction, and the number of its model."""

    id: UUID
    model: int


async def store(
    database: Database, models: Models, outcomes: Sequence[Outcome], *, single: bool = False
) -> list[Stored]:
    """Store outcomes, and say of each what became of it; raises `InvalidInput`, and stores nothing then."""
    now = datetime.now(UTC)
    async with database.transaction() as transaction:
        found = await find(transaction, outcomes)
        known = await models.of(transaction, {prediction.model for prediction in found.values()})
        everyone = [*(await models.all(transaction)).values()] if len(found) < len(outcomes) else []
        takers = [[known[found[place].model]] if place in found else everyone for place in range(len(outcomes))]
        names = _class_names(outcomes, takers, single)
        given: dict[Key, list[Given]] = defaultdict(list)
        early = []
        for place, (outcome, name) in enumerate(zip(outcomes, names, strict=True)):
            if place in found:
                one = Given(place, name, outcome.occurred_at, now, outcome.replace)
                given[found[place].id, outcome.origin].append(one)
            else:
                early.append(Early(place, outcome, name, now))
        verdicts = await settle(transaction, given, now, database.dialect.lock)
        verdicts += await early_outcomes.keep(transaction, early, now - KEPT)
    return [_stored(verdict, takers[verdict.place]) for verdict in sorted(verdicts)]


def _stored(verdict: Verdict, models: Sequence[RecordedModel]) -> Stored:
    """Return what became of an outcome, with its class as answers have it."""
    if verdict.stored.result != "conflict":
        return verdict.stored
    labels = (model.label(verdict.name) for model in models if model.class_name(verdict.name) is not None)
    return verdict.stored._replace(label=next(labels, verdict.name))


# --- those that came before the record --------------------------------------------------------------------------------


async def join_early(database: Database) -> None:
    """Join early outcomes, of the last minutes, with the records that have arrived since.

    Many replicas may do so at once: who deletes an early outcome stores it, in the same transaction.
    """
    await _join_since(database, datetime.now(UTC) - RECENT)


async def join_all_early(database: Database) -> None:
    """Join all early outcomes that have a record now, and delete those that have waited for a day."""
    now = datetime.now(UTC)
    await _join_since(database, now - KEPT)
    total, deleted = 0, early_outcomes.AT_ONCE
    while deleted == early_outcomes.AT_ONCE:  # in parts, so that records are written in between
        async with database.transaction() as transaction:
            deleted = await early_outcomes.delete_before(transaction, now - KEPT)
        total += deleted
    if total:
        logger.info("outcomes of %d predictions that nobody recorded are deleted", total)


async def _join_since(database: Database, since: datetime) -> None:
    last = 0
    while True:
        async with database.transaction(reading=True) as transaction:
            some = await early_outcomes.received(transaction, since, last)
            found = await find(transaction, [one.outcome for one in some]) if some else {}
        if found:
            await _join(database, [some[place] for place in found])
        if len(some) < early_outcomes.AT_ONCE:
            return
        last = some[-1].place


async def _join(database: Database, some: Sequence[Early]) -> None:
    """Store early outcomes that have a record, but for those that somebody else takes."""
    now = datetime.now(UTC)
    async with database.transaction() as transaction:
        taken = await early_outcomes.take(transaction, [one.place for one in some])
        mine = [one for one in some if one.place in taken]
        found = await find(transaction, [one.outcome for one in mine])
        models = await Models().of(transaction, {prediction.model for prediction in found.values()})
        given: dict[Key, list[Given]] = defaultdict(list)
        for place, prediction in found.items():
            one = mine[place]
            name = models[prediction.model].class_name(one.name) or one.name  # another model had it
            outcome = one.outcome
            item = Given(one.place, name, outcome.occurred_at, one.received_at, outcome.replace, waited=True)
            given[prediction.id, outcome.origin].append(item)
        verdicts = await settle(transaction, given, now, database.dialect.lock)
    for verdict in verdicts:
        if verdict.stored.result == "conflict":
            logger.warning(
                "an outcome of prediction %s that came early is dropped: its origin has said another class since",
                verdict.stored.prediction_id,
            )


# --- which predictions, and which classes -----------------------------------------------------------------------------


async def find(transaction: Transaction, outcomes: Sequence[Outcome]) -> dict[int, Prediction]:
    """Return the predictions of outcomes, by the outcomes' places; those that are not recorded are left out.

    Of several records with the same request id and row, which a repeated request leaves, the newest is meant.
    """
    ids = sorted({outcome.prediction_id for outcome in outcomes if outcome.prediction_id is not None})
    by_id: dict[UUID | None, Prediction] = {}
    for some in parts(ids):
        sql = f"SELECT id, model FROM predictions WHERE id IN ({marks(len(some))})"
        by_id |= {row["id"]: Prediction(row["id"], row["model"]) for row in await transaction.fetch(sql, *some)}
    by_row = await _find_rows(transaction, sorted({(o.request_id or "", o.row or 0) for o in outcomes if o.request_id}))
    found = (by_row.get((o.request_id, o.row)) if o.request_id else by_id.get(o.prediction_id) for o in outcomes)
    return {place: prediction for place, prediction in enumerate(found) if prediction is not None}


async def _find_rows(
    transaction: Transaction, wanted: Sequence[tuple[str, int]]
) -> dict[tuple[str | None, int | None], Prediction]:
    """Return the newest served prediction of each request id and row."""
    by_row: dict[tuple[str | None, int | None], Prediction] = {}
    for some in parts(wanted):
        requests, numbers = sorted({request for request, _ in some}), sorted({row for _, row in some})
        sql = NEWEST.format(requests=marks(len(requests)), rows=marks(len(numbers), len(requests) + 1))
        for row in await transaction.fetch(sql, *requests, *numbers):
            by_row[row["request_id"], row["row"]] = Prediction(row["id"], row["model"])
    return by_row


def _class_names(outcomes: Sequence[Outcome], takers: Sequence[Sequence[RecordedModel]], single: bool) -> list[str]:
    """Return the name of each outcome's class, which one of its `takers` has to have; raises `InvalidInput`."""
    names, problems = [], []
    for place, (outcome, models) in enumerate(zip(outcomes, takers, strict=True)):
        named = (model.class_name(outcome.label) for model in models)
        name = next((name for name in named if name is not None), None)
        if name is None:
            field = field_of(place_of(place, single), "class")
            problems.append(Problem(field, f"{_shown(outcome)} is unknown", _expected(models)))
        names.append(name or "")
    if problems:
        raise InvalidInput(problems)
    return names


def _shown(outcome: Outcome) -> str:
    label = outcome.label
    return shown(label) if type(label) is str else str(label).lower() if type(label) is bool else str(label)


def _expected(models: Sequence[RecordedModel]) -> str:
    if len(models) != 1:
        return "a class of a model that has answered here"
    (model,) = models
    names = ", ".join(shown(name) for name in model.schema.class_names[:MAX_SHOWN])
    count = len(model.schema.class_names)
    return f"one of {names if count <= MAX_SHOWN else f'{count} classes, such as {names}'}, of model {model.version}"
