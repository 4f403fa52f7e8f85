"""A real server that is wrong in one way: it stands before a right one and damages what passes."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from conftest import WAIT_SECONDS

HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")
PAGE = b"<html><h1>Sorry</h1></html>"


@dataclass
class Exchange:
    """A request and, once there is one, its answer; whatever is changed is what the other side gets."""

    method: str
    path: str
    request_headers: dict[str, str]
    request: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int = 0  # bytes at the end that are announced and never come
    drip: float = 0.0  # seconds before every byte
    raw: bytes | None = None  # instead of an HTTP answer

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @json.setter
    def json(self, value: Any) -> None:
        self.body = json.dumps(value).encode()

    def becomes(self, status: int, value: Any) -> None:
        self.status, self.json = status, value
        self.headers["content-type"] = "application/json"

    def page(self, status: int) -> None:
        """A proxy's own."""
        self.status, self.body = status, PAGE
        self.headers["content-type"] = "text/html"


Change = Callable[[Exchange], object]


@dataclass(frozen=True)
class Damage:
    """What happens to the requests before they are passed on, and to the answers."""

    answer: Change = lambda _: None
    request: Change = lambda _: None


def on(path: str, change: Change, *, status: int = 0, request: bytes = b"") -> Damage:
    """Change the answers on paths that match as a whole, with this status, to requests with this in their bodies."""

    def answer(x: Exchange) -> None:
        if re.fullmatch(path, x.path) and status in (0, x.status) and request in x.request:
            change(x)

    return Damage(answer)


@contextmanager
def wrong_server(
    url: str, damage: Damage = Damage(), *, host: str = "", prefix: str = "", tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The URL of a server before the one at `url`. As an ingress would, it answers by itself where the Host header is
    not `host`, if that is given, and takes `prefix` off the path."""
    target = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            exchange = Exchange(self.command, self.path, dict(self.headers.items()), body)
            if self.path.startswith(prefix) and host in ("", self.headers["host"]):
                exchange.path = self.path.removeprefix(prefix)
                damage.request(exchange)
                _pass_on(exchange, target.netloc)
                damage.answer(exchange)
            else:
                exchange.page(404)
            self._send(exchange)

        do_POST = do_GET  # noqa: N815

        def _send(self, exchange: Exchange) -> None:
            self.close_connection = True
            if exchange.raw is not None:
                self.wfile.write(exchange.raw)
                return
            self.send_response_only(exchange.status)
            for name, value in exchange.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(exchange.body)))
            self.end_headers()
            body = exchange.body[: len(exchange.body) - exchange.cut]
            for piece in [body] if not exchange.drip else [body[i : i + 1] for i in range(len(body))]:
                time.sleep(exchange.drip)
                self.wfile.write(piece)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # a caller who doesn't wait for the end

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _pass_on(exchange: Exchange, target: str) -> None:
    with closing(http.client.HTTPConnection(target, timeout=WAIT_SECONDS)) as connection:
        headers = {n: v for n, v in exchange.request_headers.items() if n.lower() not in (*HOP_BY_HOP, "host")}
        connection.request(exchange.method, exchange.path, exchange.request, headers)
        with connection.getresponse() as response:
            exchange.status, exchange.body = response.status, response.read()
            exchange.headers = {n.lower(): v for n, v in response.getheaders() if n.lower() not in HOP_BY_HOP}
