"""HTTP as the routes need it: requests and replies on ASGI, bodies in and out, and the one shape of errors."""

from __future__ import annotations

import asyncio
import gzip
import re
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from defects.http.bodies import Bodies, BodyShare
from defects.identifiers import new_id
from defects.problems import Problem
from defects.protocols import documents
from defects.serving.recording import Answered

GZIP_BYTES = 4096  # smaller answers are not worth compressing
BODY_SECONDS, BODY_RATE = 10.0, 1 << 16  # for a body to arrive; and a second more for each so many bytes that have
THREAD_BYTES = 1 << 16  # a packed body that is larger is unpacked in a thread
MAX_TEXT = 500  # characters of one text in an error
SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
JSON, BINARY = b"application/json", b"application/octet-stream"
CLOSE = (b"connection", b"close")  # a header of answers after which the connection is closed
GZIP_HEADERS = ((b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))

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
    """The caller went away before it was answered."""


@dataclass(slots=True)
class Request:
    """A request, with its body once that was read, and the phases of answering it, in seconds."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    query: bytes = b""
    id: bytes = field(init=False)
    body: bytes = b""
    timeout: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    queue: float = 0.0
    score: float = 0.0
    scored: float = 0.0  # when it was
    best: Sequence[int] = ()  # the class of each of its rows
    answered: Answered | None = None  # what is recorded of it, until it is
    held: float = 0.0  # while its answer waited for the database
    share: BodyShare | None = None  # of what all bodies hold, while its body comes in pieces

    def __post_init__(self) -> None:
        self.id = _request_id(self.headers)

    def drop_body(self) -> None:
        """Forget the body, which was decoded or never will be."""
        self.body = b""
        if self.share is not None:
            self.share.release()


class Reply(NamedTuple):
    """An answer. `encoded`: its body is packed already, as its headers say.

    `identity`: the headers that name who made it, where that was not this replica.
    """

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()
    refused: str = ""  # by admission, and why
    encoded: bool = False
    ids: Sequence[str] = ()  # of its predictions, where they are recorded
    identity: Headers = ()


async def read_body(request: Request, types: Sequence[bytes], limit: int, bodies: Bodies) -> bytes:
    """Read the request's body, unpacked, of at most `limit` bytes; raises `Refusal`, `Overloaded` or `Disconnected`.

    It has a share of `bodies` until the request drops it.
    """
    zipped = _announced(request.headers, types, limit)
    request.share = bodies.share(int(request.headers.get(b"content-length", b"0")))
    try:
        async with asyncio.timeout(BODY_SECONDS) as deadline:
            body = await _read(request, request.share, limit, deadline)
    except TimeoutError:
        expected = f"the body did not come; expected all of it within {BODY_SECONDS:g} s"
        raise Refusal(408, expected, [CLOSE]) from None
    if not zipped:
        return body
    if len(body) <= THREAD_BYTES:
        return _decompressed(body, limit)
    # Gzip made to be slow takes 0.2 s for a megabyte, and nobody else waits for what a thread does. A body whose turn
    # has ended is decoded before any other task runs, so few of them are unpacked at a time.
    async with bodies.unpacking:
        return await asyncio.to_thread(_decompressed, body, limit)


def check_body(request: Request, types: Sequence[bytes], limit: int) -> bytes:
    """Return the body, not packed, of a request where it has come already; raises `Refusal`."""
    _announced(request.headers, types, limit)
    if len(request.body) > limit:
        raise _too_large(limit)
    return request.body


def _announced(headers: Mapping[bytes, bytes], types: Sequence[bytes], limit: int) -> bool:
    """Tell whether the body is packed, as its headers say; raises `Refusal` where it can't be taken."""
    content_type = headers.get(b"content-type", JSON)
    if content_type not in types and content_type.split(b";")[0].strip().lower() not in types:
        given = content_type.decode("latin-1")
        raise Refusal(415, f"unsupported content type {given[:60]}; expected {b' or '.join(types).decode()}")
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in (b"identity", b"gzip"):
        raise Refusal(415, "unsupported content encoding; expected gzip or none")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and (len(length) > 15 or int(length) > limit):
        raise _too_large(limit)  # the server reads the body and throws it away, and keeps the connection
    return encoding == b"gzip"


async def _read(request: Request, share: BodyShare, limit: int, deadline: asyncio.Timeout) -> bytes:
    chunks: list[bytes] = []
    size, began = 0, asyncio.get_running_loop().time()
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:  # and nobody knows how much more comes
            raise _too_large(limit, CLOSE)
        share.grow(len(chunk))
        chunks.append(chunk)
        deadline.reschedule(began + BODY_SECONDS + size / BODY_RATE)
        if not message.get("more_body"):
            return b"".join(chunks)


def _decompressed(body: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error:
        raise Refusal(400, "body is not gzip, as content-encoding says; expected gzip") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not reader.eof or reader.unused_data:
        raise Refusal(400, "body is cut off, or goes on after its end; expected one complete gzip member")
    return content


def _too_large(limit: int, *headers: tuple[bytes, bytes]) -> Refusal:
    return Refusal(413, f"body too large; expected at most {limit} bytes", headers)


def integer(headers: Mapping[bytes, bytes], name: bytes, least: int, most: int) -> int | None:
    """Return the value of a header that is an integer, `None` where it is missing; raises `Refusal`."""
    given = headers.get(name)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12 or not least <= int(given) <= most:
        raise Refusal(400, f"{name.decode()} is not valid; expected an integer from {least} to {most}")
    return int(given)


def compressed(reply: Reply, headers: Mapping[bytes, bytes]) -> tuple[bytes, Headers]:
    """Return the body as the caller takes it, and the headers that say so."""
    body, accepted = reply.body, headers.get(b"accept-encoding")
    if accepted is None or len(body) < GZIP_BYTES or reply.encoded or not accepts_gzip(accepted):
        return body, ()
    return gzip.compress(body, compresslevel=1, mtime=0), GZIP_HEADERS


def accepts_gzip(accepted: bytes) -> bool:
    """Tell whether a caller takes gzip, by its `accept-encoding`."""
    for part in accepted.lower().split(b","):
        coding, _, quality = part.partition(b";")
        if coding.strip() == b"gzip":
            return quality.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def read_json(
    request: Request,
    body: bytes | None = None,
    *,
    most: int = documents.MAX_PARTS,
    constant_places: documents.Places | None = None,
) -> Any:
    """Read the JSON value of `body`, or of the request's; raises `Refusal` or `InvalidInput`.

    It may have as many values, lists and objects as `most`. `NaN` and infinities come as `Constant`, for
    validation to take or to name them. `constant_places` tells where in an object validation looks, if not everywhere.
    """
    try:
        return documents.read(request.body if body is None else body, most, constant_places)
    except documents.NotJSON as problem:
        raise Refusal(400, f"body is not valid JSON ({problem}); expected a JSON document") from None
    except documents.StrayConstant:
        expected = "expected NaN for missing values only, and no infinity"
        raise Refusal(400, f"body has NaN or an infinity where no value is read; {expected}") from None


def error(status: int, message: str, problems: Sequence[Problem] = (), headers: Headers = ()) -> Reply:
    """Make an error's answer; every error has this shape."""
    content: dict[str, Any] = {"error": _clean(message)}
    if problems:
        content["fields"] = [
            {"field": _clean(p.field), "problem": _clean(p.problem), "expected": _clean(p.expected)} for p in problems
        ]
    return Reply(status, orjson.dumps(content), headers=headers)


def _clean(text: str) -> str:
    """Return `text`, which may quote a caller, short and as valid UTF-8."""
    return text[:MAX_TEXT].encode(errors="replace").decode()


def answer(value: Any) -> Reply:
    """Make an answer of 200 with a JSON value."""
    return Reply(200, orjson.dumps(value))


def trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the id of the caller's trace, where it sends one (W3C Trace Context)."""
    found = TRACE_PARENT.fullmatch(headers.get(b"traceparent", b"").decode("latin-1"))
    return found[1] if found else None


def _request_id(headers: Mapping[bytes, bytes]) -> bytes:
    given = headers.get(b"x-request-id")
    return given if given and SANE_ID.fullmatch(given.decode("latin-1")) else new_id().encode()
