"""A prediction is opened and closed alike, whichever way it came in."""

from __future__ import annotations

import asyncio
import re

import numpy as np
from served_here import listening, routes

from defects.features import DefectClass, Feature
from defects.schema import Schema

SCHEMA = Schema((Feature("a"),), (DefectClass("no"), DefectClass("yes")))
GOOD, BAD = b'{"a": 1}', b'{"b": 1}'
COUNTED = r"^(defects_(?:requests_total|predictions_total|refused_total|requests_in_flight|phase_\w+_count).*) (\S+)$"


def head(body: bytes, more: str = "") -> bytes:
    return f"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode()


# Requests, and the statuses they are answered with.
REQUESTS = [
    (head(GOOD), GOOD, 200),
    (head(BAD), BAD, 400),
    (head(GOOD, "x-request-timeout-ms: soon\r\n"), GOOD, 400),
    (head(GOOD, "content-type: text/csv\r\n"), GOOD, 415),
    (head(GOOD, "content-encoding: gzip\r\n"), GOOD, 400),
]


async def counted(*, whole: bool) -> dict[str, float]:
    """What metrics say after the requests, sent in one piece each or in two."""
    app = routes(SCHEMA, lambda rows: np.full((len(rows), 2), 0.5))
    async with listening(app) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        for start, body, status in REQUESTS:
            for piece in [start + body] if whole else [start, body]:
                writer.write(piece)
                await asyncio.sleep(0.01)
            assert await answered(reader) == status
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        await server.shutdown()
    return {name: float(value) for name, value in re.findall(COUNTED, text, re.MULTILINE)}


async def answered(reader: asyncio.StreamReader) -> int:
    """An answer's status; its body is read."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    (length,) = [int(line.split(b": ")[1]) for line in lines if line.startswith(b"content-length")]
    await reader.readexactly(length)
    return int(lines[0].split()[1])


def test_what_is_counted_does_not_depend_on_the_way() -> None:
    whole, pieces = (asyncio.run(counted(whole=whole)) for whole in (True, False))
    assert whole == pieces
    assert whole["defects_requests_in_flight"] <= 1  # the scrape
    assert whole['defects_requests_total{code="200",route="/classify"}'] == 1
    assert whole['defects_requests_total{code="400",route="/classify"}'] == 3
    assert whole['defects_requests_total{code="415",route="/classify"}'] == 1
    assert whole['defects_phase_duration_seconds_count{phase="total"}'] == 1
    assert whole['defects_predictions_total{defect="no",model_version="1"}'] == 1
