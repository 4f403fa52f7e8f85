"""What an overload does: goodput, latency, refusals and recovery at multiples of the measured capacity.

python -m benchmarks.overload --host http://127.0.0.1:3000

First the capacity, closed loop. Then open loop: requests leave at evenly spaced times that were fixed beforehand,
whether or not earlier ones were answered, and latency counts from those times. Prints a table; judges nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from tools import payloads

ROWS_IN_FLIGHT = 4096  # in the closed loop: busy, but nothing is refused
LATE_SECONDS = 0.05  # a request that left later than this after its time makes the run invalid
RECOVERY_SECONDS = 3.0


class Answer(NamedTuple):
    """One request. Times are seconds since the run's start; `sent` is when it really left."""

    intended: float
    sent: float
    end: float
    status: int  # 0 where there was no answer
    retry_after: str | None

    @property
    def latency(self) -> float:
        return self.end - self.intended


@dataclass(frozen=True)
class Target:
    """What to send, and the deadline that goes with it."""

    url: str
    body: bytes
    headers: dict[str, str]
    rows: int
    deadline: float


Send = Callable[[float], Coroutine[Any, Any, Answer]]


def target(host: str, rows: int, deadline: float) -> Target:
    """A V2 binary request with `rows` rows for whatever model is served at `host`."""
    try:
        model = payloads.Served.from_json(payloads.ask_model(host))
    except payloads.BadPayload as error:
        raise SystemExit(str(error)) from None
    head, raw = payloads.v2_binary(payloads.rows_for(model.schema, rows, seed=3))
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
        "x-request-timeout-ms": str(round(deadline * 1000)),
    }
    return Target(f"{host}/v2/models/{model.name}/infer", head + raw, headers, rows, deadline)


def sender(session: aiohttp.ClientSession, what: Target, started: float) -> Send:
    """A function that sends one request and says how it went; it takes the intended time."""

    async def send(intended: float) -> Answer:
        sent = time.perf_counter() - started
        status, retry_after = 0, None
        try:
            async with session.post(what.url, data=what.body, headers=what.headers) as response:
                await response.read()
                status, retry_after = response.status, response.headers.get("retry-after")
        except (aiohttp.ClientError, TimeoutError):
            pass
        return Answer(intended, sent, time.perf_counter() - started, status, retry_after)

    return send


async def capacity(session: aiohttp.ClientSession, what: Target, seconds: float) -> float:
    """Requests answered per second, closed loop, with a deadline that refuses nothing."""
    patient = replace(what, headers=what.headers | {"x-request-timeout-ms": "600000"})
    connections = max(2, min(32, ROWS_IN_FLIGHT // what.rows))
    started = time.perf_counter()
    send = sender(session, patient, started)

    async def client() -> int:
        answered = 0
        while (now := time.perf_counter() - started) < seconds:
            answered += (await send(now)).status == 200
        return answered

    answered = await asyncio.gather(*(client() for _ in range(connections)))
    return sum(answered) / (time.perf_counter() - started)


async def open_loop(session: aiohttp.ClientSession, what: Target, rate: float, seconds: float) -> list[Answer]:
    """Every answer to `rate` requests per second for `seconds`."""
    started = time.perf_counter()
    send = sender(session, what, started)
    calls: list[asyncio.Task[Answer]] = []
    for number in range(int(rate * seconds)):
        delay = number / rate - (time.perf_counter() - started)
        if delay > 0:
            await asyncio.sleep(delay)
        elif number % 16 == 0:
            await asyncio.sleep(0)  # behind: still let answers be read
        calls.append(asyncio.create_task(send(number / rate)))
    return await asyncio.gather(*calls)


def measures(answers: list[Answer], deadline: float, seconds: float) -> dict[str, Any]:
    """The figures of an open-loop run; latencies in ms, of answers from the intended time, of refusals from sending."""
    good = [a.latency for a in answers if a.status == 200]
    refused = [a.end - a.sent for a in answers if a.status == 503]
    late = sum(a.sent - a.intended > LATE_SECONDS for a in answers)
    return {
        "offered/s": len(answers) / seconds,
        "goodput/s": sum(latency <= deadline for latency in good) / seconds,
        "in time": f"{sum(latency <= deadline for latency in good) / max(1, len(good)):.1%}",
        "p50": 1e3 * float(np.percentile(good, 50)) if good else math.nan,
        "p99": 1e3 * float(np.percentile(good, 99)) if good else math.nan,
        "refused": len(refused),
        "refusal p50": 1e3 * float(np.percentile(refused, 50)) if refused else math.nan,
        "refusal p99": 1e3 * float(np.percentile(refused, 99)) if refused else math.nan,
        "failed": sum(a.status not in (200, 503) for a in answers),
        "sent late": f"{late / max(1, len(answers)):.1%}",
    }


async def recovery(session: aiohttp.ClientSession, what: Target, normal: float) -> float:
    """Seconds after the overload until a lone request takes at most twice its normal time again."""
    started = time.perf_counter()
    send = sender(session, what, started)
    while (now := time.perf_counter() - started) < RECOVERY_SECONDS:
        answer = await send(now)
        if answer.status == 200 and answer.latency <= 2 * normal:
            return answer.end
        await asyncio.sleep(0.01)
    return math.inf


async def lone(session: aiohttp.ClientSession, what: Target) -> float:
    """The median seconds of a request when nothing else is going on."""
    send = sender(session, what, time.perf_counter())
    answers = [await send(time.perf_counter()) for _ in range(30)]
    return float(np.median([a.end - a.sent for a in answers]))


def connect() -> aiohttp.ClientSession:
    """With as many connections as there are requests; to be closed by the caller."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(30))


class Normal(NamedTuple):
    """How the server does without an overload."""

    capacity: float  # requests answered per second, closed loop
    lone: float  # seconds that a request takes when it is the only one


async def prepare(session: aiohttp.ClientSession, what: Target, seconds: float) -> Normal:
    """Warm up, and measure what an overload is to be compared with; ends the process where the server refuses."""
    first = await sender(session, what, time.perf_counter())(0.0)
    if first.status != 200:
        raise SystemExit(f"{what.url} answered {first.status}; expected 200")
    await capacity(session, what, 1.0)  # warm-up
    return Normal(await capacity(session, what, seconds), await lone(session, what))


async def press(
    session: aiohttp.ClientSession, what: Target, normal: Normal, multiple: float, seconds: float
) -> dict[str, Any]:
    """The figures of a run at a multiple of the capacity, and of the recovery from it."""
    answers = await open_loop(session, what, multiple * normal.capacity, seconds)
    back = await recovery(session, what, normal.lone)
    figures = measures(answers, what.deadline, seconds)
    share = figures["goodput/s"] / normal.capacity
    return {"multiple": multiple, "goodput share": share, **figures, "recovered after s": back}


async def run(what: Target, multiples: list[float], seconds: float) -> None:
    """Measure and print."""
    async with connect() as connected:
        normal = await prepare(connected, what, seconds)
        lone_ms = normal.lone * 1e3
        print(f"capacity {normal.capacity:.0f} requests/s; a lone request takes {lone_ms:.1f} ms (median)")
        for multiple in multiples:
            figures = await press(connected, what, normal, multiple, seconds)
            share = figures.pop("goodput share")
            del figures["multiple"]
            text = "  ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in figures.items())
            print(f"{multiple:4g}x  goodput {share:.0%} of capacity  {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="http://127.0.0.1:3000")
    parser.add_argument("--rows", type=int, default=256, help="rows in a request (default: %(default)s)")
    parser.add_argument("--deadline", type=float, default=0.5, help="seconds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5, help="of each run (default: %(default)s)")
    parser.add_argument("--multiples", type=float, nargs="+", default=[0.7, 3, 10], help="of the capacity")
    options = parser.parse_args()
    asyncio.run(
        run(target(options.host.rstrip("/"), options.rows, options.deadline), options.multiples, options.seconds)
    )


if __name__ == "__main__":
    main()
