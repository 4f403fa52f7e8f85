"""The maximum of a gauge over the last 15 s: by a clock of the test's, and as a real server shows it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import faulty_values as faulty
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import BIN, MODULE, WAIT_SECONDS, Serve, Server, until
from defects import simulator
from defects.serving.metrics import PEAK_SECONDS, Level, Metrics, Peak

BIN_SECONDS = 0.125  # exact in binary
EXAMPLE = simulator.SCHEMA.example
QUEUE, IN_FLIGHT = "defects_queue_rows", "defects_requests_in_flight"


class Gauge:
    """A gauge with a peak, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.level = 100.0, 0.0
        self.peak = Peak(lambda: self.level, lambda: self.now)

    def change(self, level: float) -> None:
        if level > self.level:
            self.peak.observe(level)
        self.level = level

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / BIN_SECONDS)):
            self.now += BIN_SECONDS
            self.peak.close_bin()


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


def test_a_peak_between_two_reads_is_seen_by_every_reader(gauge: Gauge) -> None:
    gauge.change(7)
    gauge.change(0)
    assert [gauge.peak.read(), gauge.peak.read()] == [7, 7]
    gauge.wait(1)
    assert [gauge.peak.read(), gauge.peak.read()] == [7, 7]


def test_a_peak_stays_for_the_window_and_at_most_one_bin_more(gauge: Gauge) -> None:
    gauge.wait(2 * BIN_SECONDS)
    gauge.change(7)
    gauge.change(2)
    gauge.wait(PEAK_SECONDS - 2 * BIN_SECONDS)
    assert gauge.peak.read() == 7
    gauge.wait(3 * BIN_SECONDS)
    assert gauge.peak.read() == 2


@pytest.mark.parametrize("held", [0.5, 20.0, 100.0])
def test_a_level_that_stayed_counts_until_the_window_after_its_fall_is_over(gauge: Gauge, held: float) -> None:
    gauge.change(5)
    gauge.wait(held)
    assert gauge.peak.read() == 5
    gauge.change(1)
    gauge.wait(PEAK_SECONDS - BIN_SECONDS)
    assert gauge.peak.read() == 5
    gauge.wait(2 * BIN_SECONDS)
    assert gauge.peak.read() == 1


def test_the_highest_of_several_peaks_gives_way_to_the_next(gauge: Gauge) -> None:
    for level in (9, 4, 6):
        gauge.change(level)
        gauge.change(0)
        gauge.wait(5)
    seen = []
    for _ in range(4):
        seen.append(gauge.peak.read())
        gauge.wait(5)
    assert seen == [9, 6, 6, 0]


def test_old_bins_are_forgotten_by_a_reader_even_while_none_closes(gauge: Gauge) -> None:
    gauge.change(3)
    gauge.change(0)
    gauge.wait(BIN_SECONDS)
    gauge.now += 2 * PEAK_SECONDS
    assert gauge.peak.read() == 0


def test_memory_is_bounded(gauge: Gauge) -> None:
    gauge.wait(100)
    assert len(gauge.peak._bins) <= PEAK_SECONDS / BIN_SECONDS + 1


def test_a_level_notes_its_own_peak() -> None:
    level = Level()
    for _ in range(3):
        level.increment()
    for _ in range(3):
        level.decrement()
    assert (level.value, level.peak.read()) == (0, 3)


def values(exposition: str) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(exposition) for s in family.samples}


def scraped(server: Server) -> dict[str, float]:
    return values(httpx.get(f"{server.url}/metrics").text)


def post(path: str, rows: object) -> bytes:
    body = json.dumps(rows).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nx-request-timeout-ms: 60000\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rsplit(":", 1)[1])), timeout=WAIT_SECONDS)


Requests = dict[socket.socket, bytes]


def at_once(requests: Requests) -> None:
    """So that they are answered below ASGI."""
    for opened, request in requests.items():
        opened.sendall(request)


def in_pieces(requests: Requests) -> None:
    """So that they are answered by the ASGI application."""
    at_once({opened: request[:-1] for opened, request in requests.items()})
    time.sleep(0.1)  # the server reads what is there
    at_once({opened: request[-1:] for opened, request in requests.items()})


@pytest.mark.parametrize("send", [at_once, in_pieces])
def test_a_server_shows_what_waited_between_two_scrapes(
    serve: Serve, model_dir: Path, tmp_path: Path, send: Callable[[Requests], None]
) -> None:
    """Whether all have come is asked of the readiness, which is in flight itself then: no scrape may see them wait."""
    with serve(command=[BIN / "python", "tests/faulty.py"], MODEL_DIR=model_dir, GATE=tmp_path) as server:
        idle = scraped(server)
        assert [idle[name] for name in (QUEUE, f"{QUEUE}_max", IN_FLIGHT)] == [0, 0, 0]
        slow, held = (post("/classify", EXAMPLE | {"weight_g": fault}) for fault in (faulty.SLOW, faulty.HELD))
        with connect(server) as first, connect(server) as second, connect(server) as third:
            send({first: slow})  # after this one, such batches are scored in a thread
            assert first.recv(12) == b"HTTP/1.1 200"
            large, larger = (post("/classify_batch", [EXAMPLE] * rows) for rows in (400, 500))
            send({first: held, second: large, third: larger})
            until(lambda: queued_rows(server) == 901)
            faulty.Gate(tmp_path).open()
            for opened in (second, third):
                assert opened.recv(12) == b"HTTP/1.1 200"
        for _ in range(2):  # two readers
            after = scraped(server)
            assert (after[QUEUE], after[IN_FLIGHT]) == (0, 0)
            assert after[f"{QUEUE}_max"] == 901
            assert after[f"{IN_FLIGHT}_max"] == 4


def queued_rows(server: Server) -> int:
    return int(httpx.get(f"{server.url}/readyz?verbose").json()["queued_rows"])


def test_bins_close_by_themselves_while_the_event_loop_is_watched() -> None:
    gauge, metrics = Gauge(), Metrics("1", "none", "test", ["a"])
    metrics.add_peak("test", "Of a test.", gauge.peak)

    def shown() -> float:
        return values(metrics.exposition("")[0].decode())["test_max"]

    async def forgotten() -> None:
        watching = asyncio.create_task(metrics.watch_loop())
        while shown():  # until a bin has closed after the time of this one
            gauge.now += PEAK_SECONDS
            await asyncio.sleep(0.01)
        watching.cancel()

    gauge.change(3)
    gauge.change(0)
    assert shown() == 3
    asyncio.run(asyncio.wait_for(forgotten(), WAIT_SECONDS))


def test_a_scrape_is_not_counted_but_other_requests_are(serve: Serve, model_dir: Path) -> None:
    with serve(command=MODULE, MODEL_DIR=model_dir) as server, connect(server) as half, connect(server) as other:
        for opened in (half, other):
            opened.sendall(post("/classify", EXAMPLE)[:-1])
        until(lambda: scraped(server)[IN_FLIGHT] == 2)
        assert scraped(server)[f"{IN_FLIGHT}_max"] == 2
        assert httpx.head(f"{server.url}/metrics").status_code == 200
        for opened in (half, other):
            opened.sendall(b"}")
            assert opened.recv(12) == b"HTTP/1.1 200"
        until(lambda: scraped(server)[IN_FLIGHT] == 0)
        assert scraped(server)[f"{IN_FLIGHT}_max"] == 2
