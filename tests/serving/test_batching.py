"""The batcher: nobody gets another's rows, nothing accepted is lost, what can't be in time is refused."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from conftest import WAIT_SECONDS
from defects.schema import ModelRows
from defects.scoring import Probabilities
from defects.serving import batching
from defects.serving.batching import SLICE_ROWS, Batcher, Job, Overloaded

NEVER = 1e9  # seconds: a deadline that no estimate exceeds, however long the machine stopped while it was made


def doubled(rows: ModelRows) -> Probabilities:
    return np.column_stack([rows[:, 0], rows[:, 0] * 2]).astype(np.float32)


class Recorder:
    """A scorer that keeps what it was given, and may take its time or fail."""

    def __init__(
        self,
        seconds: float = 0.0,
        fails: Callable[[ModelRows], bool] = lambda _: False,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.seconds, self.fails, self.sleep = seconds, fails, sleep
        self.batches: list[list[float]] = []
        self.threads: set[str] = set()

    def __call__(self, rows: ModelRows) -> Probabilities:
        self.batches.append(rows[:, 0].tolist())
        self.threads.add(threading.current_thread().name)
        self.sleep(self.seconds)
        if self.fails(rows):
            raise ValueError("bad row")
        return doubled(rows)


def rows(*values: float) -> ModelRows:
    return np.array(values, np.float32).reshape(-1, 1)


class Sent(NamedTuple):
    job: Job
    done: asyncio.Future[Probabilities]


def submit(batcher: Batcher, sent: ModelRows, timeout: float) -> Sent:
    done: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
    return Sent(batcher.submit(sent, timeout, done), done)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), WAIT_SECONDS)

    asyncio.run(bounded())


async def warm(batcher: Batcher) -> None:
    for value in range(20):
        await submit(batcher, rows(-value), NEVER).done


class Held(Recorder):
    """A scorer whose next batch, in the thread, waits until it may go on."""

    def __init__(self) -> None:
        super().__init__(seconds=0.005)
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, rows: ModelRows) -> Probabilities:
        answer = super().__call__(rows)
        self.may_go.wait(WAIT_SECONDS)
        return answer

    async def begun(self) -> None:
        """Wait until a batch is held."""
        while not self.batches:
            await asyncio.sleep(0.001)

    def hold(self) -> None:
        self.batches.clear()
        self.may_go.clear()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the batcher's clock be one that only goes on by calls, as on a busy machine anything may take long."""
    now = [0.0]

    def take(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return take


@pytest.mark.parametrize("seconds", [0.0, 0.002], ids=["inline", "in a thread"])
def test_every_caller_gets_its_own_answer(seconds: float) -> None:
    scorer, chance = Recorder(seconds), random.Random(1)
    sizes = [chance.choice([1, 1, 1, 2, 7, 64, 65, 300]) for _ in range(400)]
    starts = np.cumsum([0, *sizes])

    async def test() -> None:
        batcher = Batcher(scorer, max_queued_rows=10**6)

        async def call(start: int, size: int) -> None:
            await asyncio.sleep(chance.random() * 0.05)
            mine = rows(*range(start, start + size))
            np.testing.assert_array_equal(await submit(batcher, mine, NEVER).done, doubled(mine))

        await asyncio.gather(*(call(int(a), n) for a, n in zip(starts, sizes, strict=False)))
        assert batcher.waiting_rows == 0

    run(test)
    seen = [value for batch in scorer.batches for value in batch]
    assert sorted(seen) == list(range(sum(sizes)))
    assert len(scorer.batches) < len(sizes)
    assert max(map(len, scorer.batches)) <= 256


def test_a_lone_request_waits_for_nobody_and_a_tick_is_one_batch() -> None:
    scorer = Recorder()

    async def test() -> None:
        batcher = Batcher(scorer)
        await submit(batcher, rows(1), NEVER).done
        await asyncio.gather(*(submit(batcher, rows(value), NEVER).done for value in (2, 3, 4)))

    run(test)
    assert scorer.batches == [[1], [2, 3, 4]]


def test_what_arrives_while_the_scorer_is_busy_is_the_next_batch() -> None:
    scorer = Held()

    async def test() -> None:
        batcher = Batcher(scorer)
        await warm(batcher)
        scorer.hold()
        first = submit(batcher, rows(1), NEVER)
        await scorer.begun()
        later = [submit(batcher, rows(value), NEVER) for value in (2, 3)]
        assert batcher.waiting_rows == 3
        scorer.may_go.set()
        await asyncio.gather(first.done, *(job.done for job in later))
        assert later[0].job.started >= first.job.finished

    run(test)
    assert scorer.batches == [[1], [2, 3]]


def test_short_batches_run_on_the_loop_and_long_ones_in_a_thread(clock: Callable[[float], None]) -> None:
    fast, slow = Recorder(sleep=clock), Recorder(seconds=0.005, sleep=clock)

    async def test() -> None:
        for scorer in (fast, slow):
            await warm(Batcher(scorer))

    run(test)
    assert fast.threads == {"MainThread"}
    assert "scorer_0" in slow.threads
    assert len(slow.batches) == 20


def test_the_loop_goes_on_while_a_thread_scores() -> None:
    scorer = Held()

    async def test() -> None:
        batcher = Batcher(scorer)
        await submit(batcher, rows(0), NEVER).done  # the first is inline: nothing is known yet
        scorer.hold()
        job = submit(batcher, rows(1), NEVER)
        await scorer.begun()
        await asyncio.sleep(0.01)
        assert not job.done.done()
        scorer.may_go.set()
        await job.done

    run(test)


def test_a_large_request_takes_turns_with_small_ones() -> None:
    scorer = Recorder(seconds=0.002)

    async def test() -> None:
        batcher = Batcher(scorer, max_batch_rows=128)
        await warm(batcher)
        large = submit(batcher, rows(*range(1024)), NEVER)
        await asyncio.sleep(0.001)
        small = [submit(batcher, rows(value), NEVER) for value in (-1, -2)]
        await asyncio.gather(*(job.done for job in small))
        assert not large.done.done()
        np.testing.assert_array_equal(await large.done, doubled(large.job.rows))
        assert large.job.scored == 1024

    run(test)
    assert SLICE_ROWS < 128


def test_only_the_request_with_the_bad_row_fails() -> None:
    scorer = Recorder(fails=lambda batch: bool((batch == 13).any()))

    async def test() -> None:
        batcher = Batcher(scorer)
        jobs = [submit(batcher, rows(value), NEVER) for value in (1, 13, 2)]
        large = submit(batcher, rows(*range(100, 400), 13), NEVER)
        good, bad, also = await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)
        np.testing.assert_array_equal(good, doubled(rows(1)))
        np.testing.assert_array_equal(also, doubled(rows(2)))
        assert isinstance(bad, ValueError)
        with pytest.raises(ValueError, match="bad row"):
            await large.done
        np.testing.assert_array_equal(await submit(batcher, rows(5), NEVER).done, doubled(rows(5)))
        assert batcher.waiting_rows == 0

    run(test)


def test_a_scorer_that_loses_rows_is_an_error_not_a_wrong_answer() -> None:
    async def test() -> None:
        batcher = Batcher(lambda batch: doubled(batch)[:-1])
        jobs = [submit(batcher, rows(value), NEVER) for value in (1, 2)]
        for job in jobs:
            with pytest.raises(ValueError, match=r"gave results of shape \(0, 2\) for 1 rows"):
                await job.done

    run(test)


@pytest.mark.parametrize("seconds", [0.0, 0.005], ids=["inline", "in a thread"])
def test_the_death_of_the_scorer_is_told_and_leaves_nobody_waiting(seconds: float) -> None:
    deaths: list[str] = []
    scorer = Recorder(seconds)

    async def test() -> None:
        batcher = Batcher(scorer, on_death=deaths.append)
        await warm(batcher)

        def die(_: ModelRows) -> bool:
            raise SystemExit("told to")

        scorer.fails = die
        jobs = [submit(batcher, rows(value), NEVER) for value in range(300)]
        for job in jobs:
            with pytest.raises(Overloaded, match="draining"):
                await job.done
        with pytest.raises(Overloaded, match="draining"):
            submit(batcher, rows(1), NEVER)
        await batcher.close()

    run(test)
    assert deaths == ["SystemExit('told to')"]


def test_a_scorer_whose_calls_are_costly_is_never_called_on_the_loop_again() -> None:
    scorer = Recorder(seconds=0.005)

    async def test() -> None:
        batcher = Batcher(scorer)
        for _ in range(10):  # cheap by the row, but not by the call
            await submit(batcher, rows(*range(200)), NEVER).done
        await submit(batcher, rows(1), NEVER).done
        scorer.threads.clear()
        for _ in range(5):
            await submit(batcher, rows(*range(200)), NEVER).done
            await submit(batcher, rows(1), NEVER).done

    run(test)
    assert scorer.threads == {"scorer_0"}


def test_no_rows_are_an_error_of_the_caller_in_this_process() -> None:
    async def test() -> None:
        with pytest.raises(ValueError, match="no rows"):
            submit(Batcher(Recorder()), np.empty((0, 1), np.float32), NEVER)

    run(test)


def test_rows_of_a_caller_who_went_away_are_not_scored() -> None:
    scorer = Held()

    async def test() -> None:
        batcher = Batcher(scorer)
        await warm(batcher)
        scorer.hold()
        busy = submit(batcher, rows(1), NEVER)
        await scorer.begun()
        gone, stays = submit(batcher, rows(*range(2, 202)), NEVER), submit(batcher, rows(3000), NEVER)
        gone.done.cancel()
        scorer.may_go.set()
        await asyncio.gather(busy.done, stays.done)
        assert batcher.waiting_rows == 0
        await batcher.close()

    run(test)
    assert scorer.batches[-1] == [3000]


def test_a_full_queue_is_refused_and_said_so() -> None:
    async def test() -> None:
        batcher = Batcher(Recorder(), max_queued_rows=10)
        accepted = [submit(batcher, rows(*range(5)), NEVER) for _ in range(2)]
        with pytest.raises(Overloaded, match="queue_full") as caught:
            submit(batcher, rows(1), NEVER)
        assert caught.value.retry_after >= 1
        await asyncio.gather(*(job.done for job in accepted))
        await submit(batcher, rows(1), NEVER).done

    run(test)


def test_what_can_not_be_in_time_is_refused_on_arrival(clock: Callable[[float], None]) -> None:
    async def test() -> None:
        batcher = Batcher(Recorder(seconds=0.05, sleep=clock), max_batch_rows=1)
        await warm(batcher)
        accepted = [submit(batcher, rows(value), 10) for value in range(10)]
        with pytest.raises(Overloaded, match="deadline"):
            submit(batcher, rows(1), 0.1)
        with pytest.raises(Overloaded, match="deadline"):
            batcher.admit(1, 0.1)
        assert 0.3 < batcher.admit(1, 10) < 1.2
        later = submit(batcher, rows(1), 10)
        await asyncio.gather(*(job.done for job in accepted), later.done)

    run(test)


def test_one_bad_measurement_does_not_refuse_for_ever(clock: Callable[[float], None]) -> None:
    scorer = Recorder(seconds=0.2, sleep=clock)

    async def test() -> None:
        batcher = Batcher(scorer)
        await submit(batcher, rows(1), 10).done
        scorer.seconds = 1e-4
        for _ in range(50):  # each alone, so each is tried, though 0.2 s a row is more than it may take
            await submit(batcher, rows(1), 0.05).done
        jobs = [submit(batcher, rows(value), 0.05) for value in range(3)]
        await asyncio.gather(*(job.done for job in jobs))

    run(test)


def test_closing_answers_what_was_accepted_and_takes_no_more() -> None:
    async def test() -> None:
        batcher = Batcher(Recorder(seconds=0.01), max_batch_rows=8)
        jobs = [submit(batcher, rows(*range(10)), NEVER) for _ in range(10)]
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="draining"):
            submit(batcher, rows(1), 10)
        await closing
        assert all(job.done.done() for job in jobs)
        for job in jobs:
            np.testing.assert_array_equal(job.done.result(), doubled(rows(*range(10))))

    run(test)
