"""The writer on real databases: nothing twice, nothing lost that was acknowledged, all that is dropped counted."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from conftest import WAIT_SECONDS
from defects.history import link, pending, state, writer
from defects.history.database import Database, Unreachable, Unusable
from defects.history.databases import database_of
from defects.history.postgres_transactions import MOST
from defects.history.sqlite import READERS
from defects.serving.batching import Overloaded
from defects.serving.recording import Answered
from writing import REGISTRATION, Bench, answered, eventually, results, writing

Check = Callable[[Database], Coroutine[Any, Any, None]]
Run = Callable[[Check], None]


@pytest.fixture
def run(database_url: str, runner: asyncio.Runner) -> Run:
    """Run a check of the writer on a database that is new to the test."""
    return lambda check: runner.run(check(database_of(database_url)))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow one another at once."""
    monkeypatch.setattr(link, "BACKOFF_SECONDS", (0.0,))
    monkeypatch.setattr(link, "UNUSABLE_SECONDS", 0.01)


def test_a_commit_whose_result_is_unknown_is_repeated_without_a_second_record(run: Run) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            bench.database.writes = ["unknown", "lost", "unknown"]
            told = bench.commit(answered(), answered(3))
            await asyncio.gather(*told)
            assert [*results(told)] == ["committed"] * 2
            assert await bench.rows() == (4, 4)
            assert bench.database.opened == 4
            assert bench.counted("stored") == 4

    run(check)


def test_the_next_commit_takes_what_came_while_the_last_one_ran(run: Run) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            bench.database.writes = ["held"]
            first = bench.commit(answered())
            await eventually(lambda: bench.database.written == [1])
            others = bench.commit(*(answered(2) for _ in range(100)))
            assert bench.sample("defects_history_queue_rows") == 201
            assert bench.sample("defects_history_lag_seconds") > 0
            bench.database.go.set()
            await asyncio.gather(*first, *others)
            assert bench.database.written == [1, 200]
            assert await bench.rows() == (201, 201)
            assert bench.sample("defects_history_commit_seconds_count") == 2
            assert bench.sample("defects_history_queue_rows") == bench.sample("defects_history_lag_seconds") == 0

    run(check)


def test_who_waits_for_too_long_is_refused_and_left_out_of_what_is_repeated(run: Run) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            bench.database.writes = ["held, lost"]
            hurried, patient = bench.commit(answered(5)), bench.commit(answered(2), timeout=3 * WAIT_SECONDS)
            await eventually(lambda: bench.database.written)
            bench.later = 2 * WAIT_SECONDS
            assert isinstance(await hurried[0], Overloaded)
            bench.database.go.set()
            await asyncio.gather(*patient)
            assert bench.database.written == [7, 2]
            assert await bench.rows() == (2, 2)
            assert (bench.counted("stored"), bench.counted("refused"), bench.counted("dropped")) == (2, 5, 0)

    run(check)


def test_buffered_keeps_what_comes_while_the_database_is_away(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=False) as bench:
            bench.database.writes = ["unknown"]
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.database.written == [1])
            bench.database.refuses = Unreachable("away")
            await eventually(lambda: bench.database.opened >= 5)
            for _ in range(9):
                bench.writer.record(answered(), 0.001)
            assert bench.writer.problem is None
            bench.database.refuses = None
            await eventually(lambda: bench.counted("stored") == 10)
            assert await bench.rows() == (10, 10)

    with caplog.at_level(logging.INFO, "defects"):
        run(check)
    first, away, again = caplog.messages
    assert re.fullmatch("recording predictions into (SQLite|PostgreSQL).*", first)
    assert away.endswith("can't be used now, trying again: nobody knows")
    assert again.startswith(f"{first} again, after")


def test_what_does_not_fit_is_dropped_and_counted(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(pending.Queue(REGISTRATION.layout).add(answered(), 0.0)[0].records)  # type: ignore[index]
    monkeypatch.setattr(pending, "WAITING_BYTES", 10 * size)

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=False) as bench:
            bench.database.writes = ["held"]
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.database.written == [1])
            for _ in range(25):
                bench.writer.record(answered(), 0.001)
            assert bench.counted("dropped") == 15
            bench.database.go.set()
            await eventually(lambda: bench.counted("stored") == 11)
            assert await bench.rows() == (11, 11)

    run(check)
    assert len([text for text in caplog.messages if "dropped" in text]) == 1


def test_acknowledged_refuses_what_does_not_fit(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            bench.database.writes = ["held"]
            first = bench.commit(answered())
            await eventually(lambda: bench.database.written == [1])
            monkeypatch.setattr(pending, "WAITING_BYTES", 1000)
            told = bench.commit(*(answered() for _ in range(20)))
            refused = [done for done in told if done.done()]
            assert 0 < len(refused) < 20
            assert bench.counted("refused") == len(refused)
            bench.database.go.set()
            await asyncio.gather(*first, *told)
            assert await bench.rows() == (21 - len(refused), 21 - len(refused))

    run(check)


def test_a_rejected_batch_is_dropped_and_the_next_one_is_not(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def buffered(database: Database) -> None:
        async with writing(database, acknowledges=False) as bench:
            bench.database.writes = ["rejected", "rejected"]
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.counted("dropped") == 1)
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.counted("dropped") == 2)
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.counted("stored") == 1)
            assert bench.database.opened == 1

    async def acknowledged(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            bench.database.writes = ["rejected"]
            (problem,) = await asyncio.gather(*bench.commit(answered()))
            assert isinstance(problem, Overloaded)
            assert await asyncio.gather(*bench.commit(answered())) == [None]

    run(buffered)
    assert len([text for text in caplog.messages if "rejected" in text]) == 1
    run(acknowledged)


@pytest.mark.parametrize("acknowledges", [False, True])
def test_a_database_that_can_be_opened_but_not_written_to_is_logged_once_and_left_in_peace(
    acknowledges: bool, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one with a full disk."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        if seconds > 1e5:
            pauses.append(seconds)
        await sleep(0 if seconds > 1e5 else seconds)

    monkeypatch.setattr(link.asyncio, "sleep", counted)  # type: ignore[attr-defined]
    monkeypatch.setattr(link, "BACKOFF_SECONDS", (1e6, 1e7, 1e8))

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=acknowledges) as bench:
            bench.database.writes = ["lost"] * 20
            if acknowledges:
                await asyncio.gather(*bench.commit(answered()))
            else:
                bench.writer.record(answered(), 0.001)
                await eventually(lambda: bench.counted("stored") == 1)
            assert await bench.rows() == (1, 1)

    with caplog.at_level(logging.INFO, "defects"):
        run(check)
    assert len(pauses) >= 18
    assert min(pauses[2:]) >= 0.5e8
    away, again = (text for text in caplog.messages if "again" in text)
    assert away.endswith("can't be used now, trying again: lost")
    assert "again, after" in again


@pytest.mark.parametrize("acknowledges", [True, False])
def test_others_are_not_lost_with_a_request_that_is_rejected(run: Run, acknowledges: bool) -> None:
    """A record with the id of another one is refused by the database, and with it the whole batch that has it."""

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=acknowledges) as bench:
            await bench.writer._link.opened.wait()

            async def answer(*requests: Answered) -> list[str]:
                if acknowledges:
                    told = bench.commit(*requests)
                    await asyncio.wait(told)
                    return [*results(told)]
                for request in requests:
                    bench.writer.record(request, 0.001)
                await eventually(lambda: bench.sample("defects_history_queue_rows") == 0)
                return ["committed", "committed", "history", "committed", "committed"]

            bad = answered(source=b"bad")
            await answer(bad)
            requests = [answered(2, source=b"a"), answered(), bad, answered(3, source=b"b"), answered()]
            bench.database.written.clear()
            assert await answer(*requests) == ["committed", "committed", "history", "committed", "committed"]
            assert bench.database.written[0] == 8  # they came together
            assert bench.counted("refused" if acknowledges else "dropped") == 1
            assert (bench.counted("stored"), await bench.rows()) == (8, (8, 8))
            async with bench.database.transaction() as transaction:
                rows = await transaction.fetch("SELECT s.name FROM predictions p JOIN sources s ON s.no = p.source")
            assert Counter(row["name"] for row in rows) == {"": 2, "a": 2, "b": 3, "bad": 1}

    run(check)


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_buffered_serves_where_this_version_cannot_use_the_database(
    when: str, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """It drops, counts and logs once, until somebody mends the database."""

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=False) as bench:
            if when == "later":
                await eventually(lambda: bench.database.opened)
                bench.database.writes = ["unusable"]
            bench.database.refuses = Unusable("migrate it")
            for _ in range(3):
                bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.counted("dropped") == 3)
            bench.writer.record(answered(), 0.001)
            assert bench.counted("dropped") == 4
            opened = bench.database.opened
            await eventually(lambda: bench.database.opened > opened + 2)
            bench.database.refuses = None
            await eventually(lambda: "again, after" in caplog.messages[-1])
            bench.writer.record(answered(), 0.001)
            await eventually(lambda: bench.counted("stored") == 1)
            assert (await bench.rows(), bench.counted("dropped"), bench.ended) == ((1, 1), 4, [])

    with caplog.at_level(logging.INFO, "defects"):
        run(check)
    assert len([text for text in caplog.messages if "dropped and counted" in text]) == 1


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_acknowledged_ends_where_this_version_cannot_use_the_database(when: str, run: Run) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            if when == "later":
                await eventually(lambda: bench.database.opened)
                bench.database.writes = ["unusable"]
            else:
                bench.database.refuses = Unusable("migrate it")
            told = bench.commit(answered())
            await eventually(lambda: bench.ended)
            assert isinstance(await told[0], Overloaded)

    run(check)


def test_a_new_connection_does_not_make_a_replica_unready_and_a_commit_that_hangs_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            with pytest.raises(Overloaded):  # nobody knows as yet whether there is a database
                bench.writer.admit()
            await eventually(lambda: bench.writer.problem is None)
            monkeypatch.setattr(state, "PATIENCE_SECONDS", WAIT_SECONDS)
            bench.database.writes = ["unknown"]
            (told,) = bench.commit(answered())
            while not told.done():
                assert bench.writer.problem is None
                await asyncio.sleep(0)
            assert bench.database.opened == 2
            monkeypatch.setattr(state, "PATIENCE_SECONDS", 0.05)
            bench.database.writes = ["held"]
            held = bench.commit(answered())
            await eventually(lambda: bench.writer.problem == "the database of predictions does not answer")
            with pytest.raises(Overloaded):
                bench.writer.admit()
            bench.database.go.set()
            await asyncio.gather(*held)
            assert bench.writer.problem is None
            bench.writer.admit()

    run(check)


def test_a_database_that_goes_while_nothing_is_written_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PING_SECONDS", 0.01)
    monkeypatch.setattr(state, "PATIENCE_SECONDS", 0.05)

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=True) as bench:
            await eventually(lambda: bench.writer.problem is None)
            bench.database.refuses = Unreachable("away")
            await bench.database.close()
            await eventually(lambda: bench.writer.problem == "the database of predictions can't be used now")
            bench.database.refuses = None
            await eventually(lambda: bench.writer.problem is None)
            assert await asyncio.gather(*bench.commit(answered())) == [None]

    run(check)


def test_slow_questions_do_not_make_a_replica_unready(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PING_SECONDS", 0.01)

    async def ask_slowly(database: Database, begun: list[object]) -> None:
        async with database.transaction(reading=True) as transaction:
            await transaction.fetch("SELECT 1")
            begun.append(transaction)
            await asyncio.sleep(WAIT_SECONDS)

    async def check(database: Database) -> None:
        begun: list[object] = []
        async with writing(database, acknowledges=True) as bench, asyncio.TaskGroup() as group:
            await eventually(lambda: bench.writer.problem is None)
            slow = [group.create_task(ask_slowly(database, begun)) for _ in range(READERS)]
            await eventually(lambda: len(begun) >= MOST)
            monkeypatch.setattr(state, "PATIENCE_SECONDS", 5.0)
            asked, ask = [0], bench.writer._link.ask

            async def counted() -> None:
                await ask()
                asked[0] += 1

            monkeypatch.setattr(bench.writer._link, "ask", counted)
            await eventually(lambda: asked[0] == 3 or bench.writer.problem)
            assert bench.writer.problem is None
            for task in slow:
                task.cancel()

    run(check)


def test_what_waits_is_written_in_the_end_and_what_can_not_be_is_counted(run: Run) -> None:
    async def check(database: Database) -> None:
        async with writing(database, acknowledges=False) as flushed:
            await eventually(lambda: flushed.database.opened)
            for _ in range(1_000):
                flushed.writer.record(answered(), 0.001)
        assert (flushed.counted("stored"), flushed.counted("dropped")) == (1_000, 0)

    async def cut(database: Database) -> None:
        bench = Bench(database, acknowledges=False)
        bench.database.refuses = Unreachable("away")
        bench.writer.start()
        for _ in range(10):
            bench.writer.record(answered(), 0.001)
        await bench.writer.stop(0.05)
        assert (bench.counted("stored"), bench.counted("dropped")) == (0, 10)

    run(check)
    run(cut)


def test_a_key_gets_one_answer_and_is_recorded_once_by_whichever_replica(run: Run, database_url: str) -> None:
    """Also where several get it at the same moment, and where the result of the first commit is unknown."""

    async def check(database: Database) -> None:
        others = database_of(database_url)
        async with writing(database, acknowledges=True) as one, writing(others, acknowledges=True) as other:
            await eventually(lambda: one.writer.problem is None and other.writer.problem is None)
            one.database.writes = ["unknown"]
            tries = [(one, b"a"), (other, b"b"), (one, b"c"), (other, b"d")]
            told = await asyncio.gather(*(bench.commit_once("key", name, answered(2)) for bench, name in tries))
            won = [name for (_, name), first in zip(tries, told, strict=True) if first is None]
            assert len(won) == 1
            assert {first.answer for first in told if first is not None} == {*won}
            assert await one.rows() == (2, 2)
            assert one.counted("stored") + other.counted("stored") == 2
            kept = await other.writer.first_answer("key")
            assert (kept and kept.answer) == won[0]
            assert await other.writer.first_answer("another key") is None

    run(check)


def test_a_share_is_chosen_by_request_id(run: Run) -> None:
    ids = [b"request-%d" % number for number in range(400)]
    found: list[set[str]] = []

    async def check(database: Database) -> None:
        async with writing(database, acknowledges=len(found) == 0, share=0.25) as bench:
            requests = [answered(2, request_id=name) for name in ids]
            if bench.writer.acknowledges:
                await asyncio.gather(*bench.commit(*requests))
            else:
                for request in requests:
                    bench.writer.record(request, 0.001)
            await eventually(lambda: bench.counted("stored") + bench.counted("unsampled") == 2 * len(ids))
            async with bench.database.transaction() as transaction:
                rows = await transaction.fetch("SELECT request_id FROM predictions WHERE row = 1")
            found.append({row["request_id"] for row in rows})
            assert bench.counted("stored") == 2 * len(found[-1])
            async with bench.database.transaction() as transaction:
                await transaction.execute("DELETE FROM predictions")

    run(check)
    run(check)
    assert 40 < len(found[0]) < 160
    assert found[0] == found[1]


def test_nothing_that_waits_is_an_object_of_its_own() -> None:
    queue = pending.Queue(REGISTRATION.layout)
    request = answered()
    queue.add(request, 0.001)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(5_000):
        queue.add(request, 0.001)
    assert len(gc.get_objects()) - before < 100


def test_sources_beyond_the_limit_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_SOURCES", 2)
    queue = pending.Queue(REGISTRATION.layout)
    for source in (b"a", b"b", b"c", b"a", b"d", b""):
        queue.add(answered(source=source), 0.001)
    batch = queue.take().batch(REGISTRATION.layout)
    assert [batch.sources[number] for number in batch.records["source"]] == ["a", "b", "other", "a", "other", ""]
    queue.add(answered(source=b"b"), 0.001)
    assert [*queue.take().batch(REGISTRATION.layout).sources] == ["", "b"]


def test_a_request_that_is_larger_than_the_queue_is_taken_where_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "WAITING_BYTES", 1_000)
    queue = pending.Queue(REGISTRATION.layout)
    assert queue.add(answered(1_000), 0.001) is not None
    assert queue.add(answered(1), 0.001) is None
