"""A replica with the manifests' settings keeps to the manifests' memory limit, whatever is uploaded at once."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import manifests
from attacks import BATCH, MIB, ask, metric, post, serving_process
from conftest import Command, Serve, Server, until

UPLOADS, BODY_BYTES = 900, 1_290_000  # what killed a pod with 1 GiB
PACKED_UPLOADS = 200


@pytest.fixture(scope="module")
def limit() -> int:
    """The memory limit of the manifests, in bytes."""
    quantity = manifests.container(manifests.render("base"))["resources"]["limits"]["memory"]
    number, unit = re.fullmatch(r"(\d+)([MG])i", quantity).groups()  # type: ignore[union-attr]
    return int(number) * (MIB if unit == "M" else 1024 * MIB)


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    given = manifests.settings(manifests.render("base")) | {"DEFECTS_DRAIN_SECONDS": "0"}
    with serve(MODEL_DIR=model_dir, **given) as running:
        yield running


def uploading(server: Server, connections: int, request: bytes) -> dict[str, int]:
    """Upload at once; return how often each status came.

    On a slow machine some uploads take too long, and are ended with 408 or without an answer: status 0.
    """
    url = httpx.URL(server.url)
    program = Path(__file__).with_name("uploads.py")
    command: Command = [sys.executable, program, url.host, str(url.port), str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        counts: dict[str, int] = json.loads(process.stdout.read())
    assert sum(counts.values()) == connections
    until(lambda: httpx.get(f"{server.url}/livez").status_code == 200)
    return counts


def most_memory(server: Server) -> int:
    """The most resident memory that the process has had, in bytes."""
    status = Path(f"/proc/{serving_process(server).pid}/status").read_text("utf-8")
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kilobytes) * 1024


def test_packed_bodies_are_unpacked_a_few_at_a_time(server: Server) -> None:
    """200 of 90 kB, which are 258 MB unpacked, and take longer to decode than to unpack."""
    rng = random.Random(1)
    blanks = bytes(rng.choice(b" \n\t\r") for _ in range(300_000))
    document = BATCH[:-1] + blanks + b" " * (BODY_BYTES - len(BATCH) - len(blanks)) + b"]"
    packed = gzip.compress(document)
    before = most_memory(server)
    counts = uploading(server, PACKED_UPLOADS, post(packed, "/classify_batch", "content-encoding: gzip"))
    assert set(counts) <= {"200", "503", "408", "0"}
    assert most_memory(server) - before < PACKED_UPLOADS * (BODY_BYTES + len(packed)) / 2


def test_uploads_at_once_keep_to_the_memory_limit(server: Server, limit: int) -> None:
    """900 of 1.29 MB: 1.16 GB, of which the bound of bodies lets 128 MiB in."""
    assert limit < UPLOADS * BODY_BYTES
    request = post(BATCH[:-1] + b" " * (BODY_BYTES - len(BATCH)) + b"]", "/classify_batch")
    counts = uploading(server, UPLOADS, request)
    assert set(counts) <= {"200", "503", "408", "0"}
    assert counts["503"] > 0
    assert metric(server, "defects_refused_total", reason="bodies") > 0
    assert most_memory(server) < limit
    until(lambda: metric(server, "defects_bodies_bytes") == 0)
    assert ask(server, post()).status == 200


def test_more_connections_than_the_manifests_allow_are_refused(server: Server, limit: int) -> None:
    most = int(manifests.settings(manifests.render("base"))["DEFECTS_MAX_CONNECTIONS"])
    uploading(server, most + 50, post())
    assert metric(server, "defects_refused_total", reason="connections") > 0
    assert most_memory(server) < limit
