"""Give every request with the same `Idempotency-Key` the first answer, from whichever replica.

The first answer is committed together with its records, so it needs a history that acknowledges. Only answers of 200
are kept: whoever got another one may try again with the same key.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from defects.http.messages import Headers, Refusal, Reply, Request
from defects.http.predictions import Decode, Predictions
from defects.serving.batching import Overloaded
from defects.serving.recording import KeyedAnswer, Recorder

KEY = b"idempotency-key"
REPLAYED = (b"idempotency-replayed", b"true")  # as of those who have such keys, Stripe's APIs do
SANE_KEY = re.compile(rb"[\x20-\x7e]{1,255}")
LENGTH = b"inference-header-content-length"  # the only header that changes what a body means


class Idempotency:
    """Answers predictions with a key; `predictions` makes the answers, and `recorder` keeps them.

    `identity` are the headers that name this replica's model and revision: they are kept with the answer.
    """

    def __init__(self, predictions: Predictions, recorder: Recorder, identity: Headers):
        self._predictions, self._recorder, self._identity = predictions, recorder, identity

    def check(self, request: Request) -> None:
        """Raise `Refusal` where a key can't be used, before the body is read."""
        if not SANE_KEY.fullmatch(request.headers[KEY]):
            raise Refusal(400, "idempotency-key is not valid; expected 1 to 255 printable ASCII characters")
        if not self._recorder.acknowledges:
            expected = "expected DEFECTS_HISTORY=acknowledged, or no key"
            raise Refusal(
                400, f"idempotency-key can't be kept: answers leave before they are recorded here; {expected}"
            )

    async def answer(self, route: str, decode: Decode, request: Request) -> Reply:
        """Answer an open prediction whose body was read; raises what `Predictions.made` raises, and `Refusal`."""
        key, digest = request.headers[KEY].decode(), _digest(route, request)
        async with _in_time(request):
            first = await self._recorder.first_answer(key)
        if first is not None:
            return _replayed(first, digest)
        reply = await self._predictions.made(decode, request)
        answered = request.answered
        if answered is None:
            return reply
        began = time.perf_counter()
        seconds = began - request.started
        keyed = KeyedAnswer(key, digest, _packed(reply, self._identity))
        async with _in_time(request):
            other = await self._recorder.commit_once(answered, seconds, _left(request), keyed)
        request.held = time.perf_counter() - began
        return reply if other is None else _replayed(other, digest)


@asynccontextmanager
async def _in_time(request: Request) -> AsyncIterator[None]:
    """Raise `Overloaded` where the database does not answer within the request's deadline."""
    try:
        async with asyncio.timeout(_left(request)):
            yield
    except TimeoutError:
        raise Overloaded("history", 1) from None


def _left(request: Request) -> float:
    """Return the seconds until a request's deadline."""
    return max(0.0, request.timeout - (time.perf_counter() - request.started))


def _digest(route: str, request: Request) -> bytes:
    """Return the digest of all that says what was asked."""
    parts = [route.encode(), request.headers.get(LENGTH, b""), request.body]
    return hashlib.sha256(b"".join(b"%d:%b" % (len(part), part) for part in parts)).digest()


def _replayed(keyed: KeyedAnswer, digest: bytes) -> Reply:
    """Return a kept answer; raises `Refusal` where something else was asked."""
    if keyed.body_digest != digest:
        raise Refusal(
            409, "idempotency-key was used for another request; expected the same body and route, or a new key"
        )
    reply = _unpacked(keyed.answer)
    return reply._replace(headers=[*reply.headers, REPLAYED])


def _packed(reply: Reply, identity: Headers) -> bytes:
    """Pack an answer. Its predictions' ids are in it, so that no two answers are packed alike."""
    parts = [reply.status, reply.content_type.decode(), _texts(reply.headers), _texts(identity), list(reply.ids)]
    head = orjson.dumps(parts)
    return b"%d:%b%b" % (len(head), head, reply.body)


def _unpacked(packed: bytes) -> Reply:
    length, _, rest = packed.partition(b":")
    status, content_type, headers, identity, ids = orjson.loads(rest[: int(length)])
    body, named = rest[int(length) :], _headers(headers)
    return Reply(status, body, content_type.encode(), named, ids=ids, identity=_headers(identity))


def _texts(headers: Headers) -> list[list[str]]:
    return [[name.decode(), value.decode()] for name, value in headers]


def _headers(texts: Sequence[Sequence[str]]) -> Headers:
    return [(name.encode(), value.encode()) for name, value in texts]
