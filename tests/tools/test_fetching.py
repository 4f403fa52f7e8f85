"""What is fetched is bounded in time and size, whatever the server does; with gevent's sockets too."""

from __future__ import annotations

import http.client
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from lying_server import lying

from conftest import CI, ROOT
from tools.fetching import Budget, TooLarge, fetch

GENEROUS = 60.0  # seconds for what takes one; without a bound, it takes minutes or for ever


def spent(began: float) -> float:
    return time.monotonic() - began


@pytest.mark.parametrize("lie", ["trickle", "trickle_head", "silent", "announced"])
def test_the_time_is_bounded_in_all_and_not_for_each_read(lie: str) -> None:
    with lying({"/m": lie}) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no complete answer within 2 s"):
            fetch(f"{url}/m", 2)
        assert spent(began) < GENEROUS


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        ("endless", TooLarge), ("chunks", TooLarge), ("trailers", OSError), ("informational", TooLarge),
        ("header_lines", http.client.HTTPException), ("one_header", http.client.HTTPException),
        ("early_hints", HTTPError), ("redirect", HTTPError),
    ],
)  # fmt: skip
def test_the_size_is_bounded(lie: str, error: type[Exception]) -> None:
    with lying({"/model": lie}) as url, pytest.raises(error):
        fetch(f"{url}/model", GENEROUS, most=1_000_000)


def test_a_redirection_leads_to_no_file() -> None:
    script = {"/m": {"status": "302 Found", "headers": {"location": "ftp://127.0.0.1/x"}, "body": ""}}
    with lying(script) as url, pytest.raises(URLError, match="unknown url type"):
        fetch(f"{url}/m", GENEROUS)
    with pytest.raises(URLError, match="unknown url type"):
        fetch(Path(__file__).as_uri(), GENEROUS)


def test_what_is_within_the_bounds_comes_whole() -> None:
    script = {"/a": {"body": "x" * 900_000}, "/b": {"status": "302 Found", "headers": {"location": "/a"}, "body": ""}}
    with lying(script) as url:
        for path in ("/a", "/b"):
            assert fetch(f"{url}{path}", GENEROUS, most=1_000_000) == b"x" * 900_000


PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
from tools.fetching import fetch
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
ticking = gevent.spawn(tick)
try:
    fetch(sys.argv[1], 2)
except Exception as error:
    print(type(error).__name__, bool(ticks))
"""


@pytest.mark.parametrize(("lie", "said"), [("trickle", "TimeoutError True"), ("endless", "TooLarge True")])
def test_gevents_sockets_are_bounded_too_and_others_run_meanwhile(lie: str, said: str) -> None:
    with lying({"/m": lie}) as url:
        assert patched(f"{url}/m") == said


def patched(url: str, **environment: str) -> str:
    """Return what fetching does where gevent has patched everything."""
    command = [sys.executable, "-c", PATCHED, url]
    done = subprocess.run(
        command, cwd=ROOT, env={"PATH": "", **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.stderr
    return done.stdout.strip()


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own making, for localhost, in one file."""
    openssl, file = shutil.which("openssl"), tmp_path_factory.mktemp("tls") / "both.pem"
    if openssl is None:
        (pytest.fail if CI else pytest.skip)("openssl is not installed; .ci/system-packages installs it")
    command = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", str(file), "-out", f"{file}.crt",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@contextmanager
def accepting(certificate: Path | None) -> Iterator[str]:
    """A TLS server that answers; without a certificate, one that sends a record's head and then a byte now and then."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        context.load_cert_chain(certificate)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if certificate:
                with context.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(65_536)
                    wrapped.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsafe")
                return
            connection.sendall(b"\x16\x03\x03\x3f\xff")
            while not over.wait(0.3):
                connection.sendall(b"\x02")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"https://localhost:{server.getsockname()[1]}/"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)


def test_tls_is_checked_and_read(certificate: Path) -> None:
    fetching = "from tools.fetching import fetch; import sys; print(fetch(sys.argv[1], 60))"
    with accepting(certificate) as url:
        for trusted, said in (({"SSL_CERT_FILE": str(certificate)}, "b'safe'"), ({}, "CERTIFICATE_VERIFY_FAILED")):
            done = subprocess.run(
                [sys.executable, "-c", fetching, url], cwd=ROOT, env={"PATH": "", **trusted}, capture_output=True,
                text=True, check=False, timeout=120,
            )  # fmt: skip
            assert said in done.stdout + done.stderr


def test_a_tls_handshake_that_trickles_is_given_up() -> None:
    with accepting(None) as url:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="no complete answer within 2 s"):
            fetch(url, 2)
        assert spent(began) < GENEROUS
        assert patched(url) == "TimeoutError True"


def test_a_budget_ends_with_its_bytes_and_with_its_time() -> None:
    budget = Budget(GENEROUS, 10)
    budget.spend(10)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        budget.spend(1)
    with pytest.raises(TimeoutError):
        Budget(0).spend(1)
