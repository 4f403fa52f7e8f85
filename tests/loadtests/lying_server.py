"""A server that lies, on raw sockets: what it says on each path is a script.

python tests/loadtests/lying_server.py PORT < SCRIPT

The script is a JSON object from paths to what is said there: the name of a function of `LIES`, or an object with the
`body` (and, if wanted, `status` and `headers`) of an answer. Paths that are not in it are answered as the load tests'
stub does.
"""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from loadtests.load import stub_server
from tools.processes import STOP_SECONDS, end, free_port
from tools.raw_http import ask, get

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
LONG = b"content-length: 1000000\r\n\r\n"
BLOCK = 1 << 16
Say = Callable[[bytes], None]


def trickle(say: Say, content: bytes = b" ") -> None:
    """Send a byte a second of a body, for ever."""
    say(HEAD + LONG)
    while True:
        say(content)
        time.sleep(1)


def trickle_head(say: Say) -> None:
    """Send a byte a second of a header."""
    say(HEAD + b"x-long: ")
    while True:
        say(b"a")
        time.sleep(1)


def endless(say: Say) -> None:
    """Send a body without an end, as fast as it is read."""
    say(HEAD + b"\r\n[")
    while True:
        say(b"1," * (BLOCK // 2))


def chunks(say: Say) -> None:
    """Send chunks without an end."""
    say(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    while True:
        say(b"1\r\n \r\n" * (BLOCK // 6))


def trailers(say: Say) -> None:
    """Send trailers without an end."""
    say(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n")
    while True:
        say(b"a: \r\n" * (BLOCK // 5))


def announced(say: Say) -> None:
    """Announce a body that no memory holds, and send nothing of it."""
    say(HEAD + b"content-length: 999999999999\r\n\r\n")
    time.sleep(3600)


def header_lines(say: Say) -> None:
    """Send headers without an end."""
    say(HEAD)
    while True:
        say(b"a: \r\n" * (BLOCK // 5))


def one_header(say: Say) -> None:
    """Send one header without an end."""
    say(HEAD + b"a: ")
    while True:
        say(b"a" * BLOCK)


def informational(say: Say) -> None:
    """Send informational answers without an end."""
    while True:
        say(b"HTTP/1.1 100 Continue\r\n\r\n" * (BLOCK // 25))


def early_hints(say: Say) -> None:
    """Send early hints without an end."""
    while True:
        say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * (BLOCK // 28))


def twice(say: Say) -> None:
    """Send the same answer again and again, where one was asked for."""
    while True:
        say(answer(body=b"{}") * 100)


def silent(_: Say) -> None:
    """Say nothing."""
    time.sleep(3600)


def redirect(say: Say) -> None:
    """Send whoever asks back to the same place."""
    say(answer(b"302 Found", {"location": "/model"}))


def deep(say: Say) -> None:
    """Send JSON of 100,000 levels."""
    say(answer(body=b'{"schema": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"))


LIES: dict[str, Callable[[Say], None]] = {
    lie.__name__: lie
    for lie in (
        trickle, trickle_head, endless, chunks, trailers, announced, header_lines, one_header, informational,
        early_hints, twice, silent, redirect, deep,
    )
}  # fmt: skip


def answer(status: bytes = b"200 OK", headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    fields = {"content-type": "application/json", "content-length": len(body), **(headers or {})}
    return b"\r\n".join([b"HTTP/1.1 " + status, *(f"{k}: {v}".encode() for k, v in fields.items()), b"", b""]) + body


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    script: dict[str, Any]

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            while line := self.rfile.readline():
                length = 0
                while (field := self.rfile.readline().strip()) != b"":
                    name, _, value = field.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                method, path = line.decode().split()[:2]
                self._answer(method, path, self.rfile.read(length))

    def _answer(self, method: str, path: str, body: bytes) -> None:
        said = self.script.get(path)
        if isinstance(said, str):
            LIES[said](self.request.sendall)
        elif said is not None:
            status = said.get("status", "200 OK").encode()
            self.request.sendall(answer(status, said.get("headers"), said["body"].encode()))
        else:
            self.request.sendall(stub_server.answer(method, path, body))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads, block_on_close, allow_reuse_address, request_queue_size = True, False, True, 1024


@contextmanager
def lying(script: dict[str, Any]) -> Iterator[str]:
    """Run a server with this script in a process of its own; yield its URL."""
    port = free_port()
    with subprocess.Popen([sys.executable, __file__, str(port)], stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin
            process.stdin.write(json.dumps(script).encode())
            process.stdin.close()
            while process.poll() is None and not _is_up(port):
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process, STOP_SECONDS)


def _is_up(port: int) -> bool:
    with suppress(OSError):
        return ask(port, get("/up"), 60).status == 404
    return False


if __name__ == "__main__":
    Handler.script = json.load(sys.stdin)
    with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        server.serve_forever()
