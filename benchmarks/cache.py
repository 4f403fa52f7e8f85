"""Compare the price of an answer from the cache with that of scoring.

python -m benchmarks.cache redis://127.0.0.1:6379 [--rows N] [--seconds S]

Trains a model of the built-in data and prints the CPU that this process takes for a row from the cache, alone and 64 in
a request, for the same row scored by ONNX Runtime, and by scikit-learn. Redis is another process, whose time is not in
these figures; waiting for it is not either.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import skops.io
import uvloop

from benchmarks.machine import describe
from benchmarks.models import trained
from defects import artifact, scoring
from defects.decoding import Decoder
from defects.schema import ModelRows
from defects.serving.batching import Batcher
from defects.serving.cache import Cache, Times, connect
from defects.serving.cached_batcher import CachedBatcher, Entries

SIZES = (1, 64)


async def microseconds(ask: Callable[[], Awaitable[object]], seconds: float) -> tuple[float, float]:
    """Return the CPU of this process, and the time, that a call takes, in µs."""
    for _ in range(20):
        await ask()
    calls, began, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        await ask()
        calls += 1
    return (time.process_time() - cpu) / calls * 1e6, (time.perf_counter() - began) / calls * 1e6


async def cached(url: str, loaded: artifact.Artifact, score: scoring.Scorer, rows: ModelRows, seconds: float) -> None:
    """Print what rows from the cache take."""
    counts: dict[str, int] = {}

    def count(result: str, number: int) -> None:
        counts[result] = counts.get(result, 0) + number

    times = Times(lookup=10.0)
    cache = Cache(connect(url, times), count, times)
    batcher = Batcher(score)
    queue = CachedBatcher(batcher, cache, Entries(loaded.digest, "benchmark", score(loaded.golden.rows)), count)

    async def ask(size: int) -> None:
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        queue.submit(rows[:size], 60.0, done)
        await done

    cache.start()
    while not cache.in_use:
        await asyncio.sleep(0.01)
    for size in SIZES:
        await ask(size)
        await asyncio.sleep(0.5)  # until it is stored
        counts.clear()
        say(f"from the cache, {size} in a request", *await microseconds(partial(ask, size), seconds), size)
        if set(counts) != {"hit"}:
            raise SystemExit(f"the cache did not answer every row: {counts}")
    await cache.stop()
    await batcher.close()


def say(what: str, cpu: float, wall: float, size: int) -> None:
    sys.stdout.write(f"{what:<40} {cpu / size:>10.1f} µs of CPU a row {wall / size:>10.1f} µs a row\n")


async def compare(url: str, rows: int, seconds: float, scratch: Path) -> None:
    """Train a model; print what its rows take, scored in both ways and from the cache."""
    model = trained(rows, 1, scratch)
    loaded = artifact.load(model.artifact)
    if model.pipeline is None:
        raise SystemExit("there is no pipeline beside the model")
    by_onnx = scoring.load(loaded)
    saved = skops.io.dumps(joblib.load(model.pipeline))
    by_sklearn = scoring.sklearn_scorer(saved, Decoder.of_card(loaded.schema, loaded.card["engine"]))
    sample = loaded.golden.rows[np.arange(max(SIZES)) % len(loaded.golden.rows)]
    sys.stdout.write(", ".join(f"{name} {value}" for name, value in describe().items()) + "\n")
    for size in SIZES:
        for name, score in (("ONNX Runtime", by_onnx), ("scikit-learn", by_sklearn)):

            async def ask(score: scoring.Scorer = score, size: int = size) -> None:
                score(sample[:size])

            say(f"{name}, {size} in a request", *await microseconds(ask, seconds), size)
    await cached(url, loaded, by_onnx, sample, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cache", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", metavar="URL", help="of a Redis that nobody else uses")
    parser.add_argument("--rows", type=int, default=20_000, help="to train on; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure; default: %(default)s")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        uvloop.run(compare(options.url, options.rows, options.seconds, Path(scratch)))


if __name__ == "__main__":
    main()
