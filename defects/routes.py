"""Every route in one table, answered in an ASGI middleware before BentoML's router; BentoML answers the rest.

A handler takes a `Request` and gives a `Reply`, or raises `Refusal` or `InvalidInput`. The middleware adds the
headers that every answer carries and turns errors into the one shape that callers see.
"""

from __future__ import annotations

import json
import logging
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from defects.schema import Constant, InvalidInput, Problem, Schema

MAX_BATCH = 1024  # rows in one request

# Answered by BentoML; the middleware only adds headers to them.
BENTOML_PATHS = frozenset({"/", "/schema.json", "/livez", "/readyz", "/healthz"})
STATIC = "/static_content/"

# The docs page has an inline Google Tag Manager; with this policy no browser runs it.
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]


class Refusal(Exception):
    """An answer other than success, with its status, what was expected, and headers."""

    def __init__(self, status: int, error: str, headers: Headers = ()):
        super().__init__(error)
        self.status, self.headers = status, tuple(headers)


class Disconnected(Exception):
    """The caller went away before its request was complete."""


@dataclass
class Request:
    """A complete request, and the phases of answering it, in seconds."""

    headers: Mapping[bytes, bytes]
    body: bytes
    started: float = field(default_factory=time.perf_counter)
    queue: float = 0.0
    score: float = 0.0


class Reply(NamedTuple):
    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = ()


@dataclass(frozen=True)
class Model:
    """What the routes know of the model they answer for. `score` takes float32 `[n, features]`."""

    schema: Schema
    version: str
    description: Mapping[str, Any]
    score: Callable[[NDArray[np.float32]], NDArray[np.float32]]


class Routes:
    """The middleware. `openapi` is the document that the page at `/` shows."""

    def __init__(self, app: App, *, model: Model, openapi: Mapping[str, Any], revision: str, max_body_bytes: int):
        self._app = app
        self._model = model
        self._max_body_bytes = max_body_bytes
        self._openapi = orjson.dumps(openapi)
        self._identity = [(b"x-model-version", model.version.encode()), (b"x-revision", revision.encode())]
        self._table: dict[str, dict[str, Callable[[Request], Awaitable[Reply]]]] = {
            "/classify": {"POST": self._classify},
            "/classify_batch": {"POST": self._classify_batch},
            "/model": {"GET": self._describe},
            "/docs.json": {"GET": self._document},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path in BENTOML_PATHS or path.startswith(STATIC):
            await self._pass_on(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(dict(scope["headers"]), b"")

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._common_headers(request)]
                if scope["path"] == "/":
                    message["headers"].append((b"content-security-policy", PAGE_POLICY))
            await send(message)

        await self._app(scope, receive, with_headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(dict(scope["headers"]), b"")
        try:
            reply = await self._reply(scope, receive, request)
        except Disconnected:
            return
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", str(len(reply.body)).encode()),
            *reply.headers,
            *self._common_headers(request),
        ]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})

    async def _reply(self, scope: Scope, receive: Receive, request: Request) -> Reply:
        try:
            handler = self._handler(scope["method"], scope["path"])
            if scope["method"] == "POST":
                request.body = await self._body(request, receive)
            return await handler(request)
        except Refusal as refusal:
            return error(refusal.status, str(refusal), headers=refusal.headers)
        except InvalidInput as invalid:
            return error(400, f"invalid input: {invalid}", invalid.problems)
        except Disconnected:
            raise
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            return error(500, "internal error; expected none, please report it with the x-request-id of this answer")

    def _handler(self, method: str, path: str) -> Callable[[Request], Awaitable[Reply]]:
        methods = self._table.get(path)
        if methods is None:
            raise Refusal(404, f"no such path; expected one of {', '.join(sorted({*self._table, *BENTOML_PATHS}))}")
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            allowed = ", ".join(methods)
            raise Refusal(
                405, f"method {method[:16]} is not allowed here; expected {allowed}", [(b"allow", allowed.encode())]
            )
        return handler

    async def _body(self, request: Request, receive: Receive) -> bytes:
        content_type = request.headers.get(b"content-type", b"application/json").split(b";")[0].strip().lower()
        if content_type != b"application/json":
            raise Refusal(415, "unsupported content type; expected application/json")
        length = request.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise self._too_large()
        return await self._read(receive)

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                raise self._too_large()
            chunks.append(chunk)
            if not message.get("more_body"):
                return b"".join(chunks)

    def _too_large(self) -> Refusal:
        # The rest of the body is not read, so the connection can't be used again.
        return Refusal(
            413, f"body too large; expected at most {self._max_body_bytes} bytes", [(b"connection", b"close")]
        )

    def _common_headers(self, request: Request) -> Headers:
        total = time.perf_counter() - request.started
        timing = (
            f"queue;dur={request.queue * 1e3:.3f}, score;dur={request.score * 1e3:.3f}, total;dur={total * 1e3:.3f}"
        )
        return [
            (b"x-request-id", _request_id(request.headers)),
            *self._identity,
            (b"server-timing", timing.encode()),
        ]

    # --- handlers ------------------------------------------------------------------------------------------------

    async def _classify(self, request: Request) -> Reply:
        rows = self._model.schema.rows_from_objects([read_json(request.body)], single=True)
        return _json(self._predictions(rows, request)[0])

    async def _classify_batch(self, request: Request) -> Reply:
        scans = read_json(request.body)
        if type(scans) is not list or not 1 <= len(scans) <= MAX_BATCH:
            found = f"is a list of {len(scans)}" if type(scans) is list else "is not a list"
            raise InvalidInput([Problem("body", found, f"a list of 1 to {MAX_BATCH} scans")])
        return _json(self._predictions(self._model.schema.rows_from_objects(scans), request))

    async def _describe(self, _: Request) -> Reply:
        return _json(self._model.description)

    async def _document(self, _: Request) -> Reply:
        return Reply(200, self._openapi)

    def _predictions(self, rows: NDArray[np.float64], request: Request) -> list[dict[str, Any]]:
        started = time.perf_counter()
        probabilities = self._model.score(rows.astype(np.float32))
        request.score = time.perf_counter() - started
        return predictions(self._model, probabilities)


def predictions(model: Model, probabilities: NDArray[np.float32]) -> list[dict[str, Any]]:
    """One answer for each row of `probabilities` `[n, classes]`."""
    names = model.schema.class_names
    best = probabilities.argmax(axis=1)
    return [
        {
            "defect": names[index],
            "confidence": values[index],
            "probabilities": dict(zip(names, values, strict=True)),
            "prediction_id": secrets.token_hex(16),
            "model_version": model.version,
        }
        for index, values in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]


def read_json(body: bytes) -> Any:
    """The body's value; raises `Refusal`. `NaN` and infinities come as `Constant`, for validation to name them."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        value = _with_constants(body)
        if value is None:
            raise Refusal(400, f"body is not valid JSON ({problem}); expected a JSON document") from None
        return value


def _with_constants(body: bytes) -> Any:
    """What Python's own, laxer reader makes of the body where NaN or an infinity was all that was wrong with it."""
    found = False

    def constant(text: str) -> Constant:
        nonlocal found
        found = True
        return Constant(text)

    def number(text: str) -> float | Constant:
        value = float(text)  # gives infinity for what no float holds, an integer too
        return constant("Infinity") if math.isinf(value) else value

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=constant, parse_float=number, parse_int=number)
    except (ValueError, RecursionError):
        return None
    return value if found else None


def error(status: int, message: str, problems: Sequence[Problem] = (), headers: Headers = ()) -> Reply:
    """The one shape of every error."""
    content: dict[str, Any] = {"error": message}
    if problems:
        content["fields"] = [{"field": p.field, "problem": p.problem, "expected": p.expected} for p in problems]
    return Reply(status, orjson.dumps(content), headers=headers)


def _json(value: Any) -> Reply:
    return Reply(200, orjson.dumps(value))


def _request_id(headers: Mapping[bytes, bytes]) -> bytes:
    given = headers.get(b"x-request-id", b"")
    return given if SANE_ID.fullmatch(given.decode("latin-1")) else secrets.token_hex(16).encode()
