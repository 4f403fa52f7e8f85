"""Send the deploy check's requests, bounded in time and size whatever comes back, and read their responses.

Anything that is not as expected (no connection, no HTTP, half a response, a proxy's page, other types) raises
`Failed`.
"""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import TypeAdapter, ValidationError

from defects.settings import Fatal

MAX_BYTES = 64 << 20  # of an answer
EXCERPT = 80  # characters of what was not expected

T = TypeVar("T")


class Failed(Exception):
    """A check has failed; the message says what was seen and what was expected."""


class Skipped(Exception):
    """A check could not be made; the message says why."""


class Unreachable(Fatal):
    exit_code = 69


class Response(NamedTuple):
    """A whole HTTP response."""

    request: str  # method and path
    status: int
    headers: Mapping[str, str]  # by name in lower case
    body: bytes
    request_id: str  # that was sent
    seconds: float  # from before the connection to the end of the body

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; `none` where there is none."""
        return self.headers.get("content-type", "none").partition(";")[0].strip().lower()

    @property
    def excerpt(self) -> str:
        """The request, the status and the beginning of the body, for people."""
        text = " ".join(self.body[:EXCERPT].decode("utf-8", "replace").split())
        return f"{self.request}: {self.status} {self.content_type} {text!r}"


@dataclass(frozen=True)
class Client:
    """Sends requests to one server. `responses` has every response so far.

    `host_header` is for an ingress, which routes by it (with TLS it is also the name in the certificate); `prefix` goes
    before every path. `timeout` is in seconds, for the connection and then for all the rest.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    prefix: str = ""
    host_header: str | None = None
    timeout: float = 10.0
    responses: list[Response] = field(default_factory=list)

    def reach(self) -> None:
        """Raise `Unreachable` where nothing can be connected to."""
        with closing(self._connection()) as connection:
            try:
                connection.connect()
            except (OSError, ValueError) as problem:  # the latter for what can't be a host's name
                host = f"[{self.host}]" if ":" in self.host else self.host
                place = f"{'https' if self.tls else 'http'}://{host}:{self.port}"
                reason = "it took too long" if connection.late else getattr(problem, "strerror", None) or problem
                raise Unreachable(f"can't reach {place}: {reason}; expected a server there") from None
            finally:
                connection.timer.cancel()

    def get(self, path: str, **headers: str) -> Response:
        """Send a GET request."""
        return self.send("GET", path, None, **headers)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Response:
        """Send a request; in names of headers, `_` stands for `-`. Raises `Failed` where no whole response comes."""
        fields = {"x-request-id": f"check-{secrets.token_hex(8)}"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if self.host_header is not None:
            fields["host"] = self.host_header
        request = f"{method} {path}"
        started = time.perf_counter()
        with closing(self._connection()) as connection:
            try:
                status, received, content = _exchange(connection, method, self.prefix + path, body, fields)
            except (OSError, ValueError, http.client.HTTPException) as problem:
                raise Failed(f"{request}: {self._reason(connection, problem)}") from None
            finally:
                connection.timer.cancel()
        response = Response(request, status, received, content, fields["x-request-id"], time.perf_counter() - started)
        self.responses.append(response)
        return response

    def _connection(self) -> _Connection:
        named = urlsplit(f"//{self.host_header or ''}").hostname
        return _Connection(self.host, self.port, self.timeout, self.tls, named or self.host)

    def _reason(self, connection: _Connection, problem: Exception) -> str:
        if connection.late or isinstance(problem, TimeoutError):
            return f"no complete answer within {self.timeout:g} s"
        if isinstance(problem, http.client.IncompleteRead):
            return "the answer was cut off"
        return f"no answer: {problem or type(problem).__name__}"


class _Connection(http.client.HTTPConnection):
    """A connection that is cut when its time is over, however steadily a little more comes."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None, name: str):
        super().__init__(host, port, timeout=timeout)
        self._tls, self._name = tls, name
        self.late = False
        self.timer = threading.Timer(timeout, self._cut)
        self.timer.daemon = True

    def connect(self) -> None:
        super().connect()
        if self._tls is not None:
            plain = self.sock
            self.sock = self._tls.wrap_socket(plain, server_hostname=self._name, do_handshake_on_connect=False)
        self._opened = self.sock  # the response may take it over
        self.timer.start()
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.do_handshake()

    def _cut(self) -> None:
        self.late = True
        with suppress(OSError):
            socket.socket.shutdown(self._opened, socket.SHUT_RDWR)  # an SSLSocket's own would forget its state


def _exchange(
    connection: _Connection, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    connection.connect()
    with suppress(BrokenPipeError, ConnectionResetError):  # who refuses a body need not read it, but says why
        connection.request(method, path, body, headers)
    with connection.getresponse() as response:
        content = response.read(MAX_BYTES)
        if connection.late or response.length:  # read() with a size doesn't complain
            raise http.client.IncompleteRead(content)
        if len(content) == MAX_BYTES:
            raise http.client.HTTPException(f"it has more than {MAX_BYTES} bytes")
        return response.status, {name.lower(): response.headers[name] for name in response.headers}, content


def read_json(response: Response, status: int = 200) -> Any:
    """Return the value of a JSON response that has this status."""
    if response.status != status:
        raise Failed(f"{response.excerpt}; expected {status}")
    if response.content_type != "application/json":
        raise Failed(f"{response.excerpt}; expected application/json")
    return json_value(response.body)


def json_value(text: bytes) -> Any:
    """Return the value of a JSON document."""
    try:
        value = orjson.loads(text)
        orjson.dumps(value)  # refuses what nests too deep for all that comes later
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as problem:
        raise Failed(f"not JSON ({problem}): {text[:EXCERPT]!r}") from None
    return value


def parsed(kind: type[T], value: Any) -> T:
    """Return a JSON value as a `kind`, without converting one type to another."""
    try:
        return TypeAdapter(kind).validate_json(orjson.dumps(value), strict=True)
    except ValidationError as problem:
        first = problem.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the answer"
        raise Failed(f"{place}: {first['msg']}, got {str(first['input'])[:EXCERPT]}") from None


def difference(seen: Any, expected: Any, place: str = "") -> str | None:
    """Say where two JSON values differ first; `None` where they are the same."""
    if isinstance(seen, dict) and isinstance(expected, dict) and seen.keys() == expected.keys():
        pairs = [(f"{place}.{key}".lstrip("."), seen[key], expected[key]) for key in expected]
    elif isinstance(seen, list) and isinstance(expected, list) and len(seen) == len(expected):
        pairs = [(f"{place}[{i}]", *both) for i, both in enumerate(zip(seen, expected, strict=True))]
    elif seen == expected and isinstance(seen, bool) == isinstance(expected, bool):
        return None
    else:
        return f"{place or 'it'} is {_short(seen)}; expected {_short(expected)}"
    return next(filter(None, (difference(a, b, inner) for inner, a, b in pairs)), None)


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= EXCERPT else f"{text[:EXCERPT]}…"
