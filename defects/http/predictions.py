"""Predictions: how one is opened and closed, whichever way it came in, and the codec of each route that predicts.

Every protocol decodes a body to rows and encodes probabilities to a body. Between the two there is one way: `open`,
`submit`, `close`. The fast path and ASGI both call these; what every prediction needs is done there, and only there.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from defects.http.messages import BINARY, Disconnected, Headers, Reply, Request, integer, read_json
from defects.http.responses import Responses, not_ready
from defects.identifiers import new_id
from defects.problems import InvalidInput, Problem
from defects.protocols import v1, v2
from defects.protocols.v2 import Query, RoundedProbabilities
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.serving.batching import Job, Overloaded, Receiver, ScoringQueue
from defects.serving.health import Health
from defects.serving.metrics import Metrics
from defects.serving.model import MAX_ROWS, Limits, ServedModel, most_parts, prediction_objects
from defects.serving.recording import PROTOCOLS, Answered, Recorder, set_unless_done
from defects.settings import MAX_TIMEOUT_MS

SANE_SOURCE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,64}")
JSON, V1, V2 = map(PROTOCOLS.index, ("json", "v1", "v2"))

Encode = Callable[[RoundedProbabilities, Sequence[int]], Reply]  # of the rows' probabilities and most probable classes


class Decoded(NamedTuple):
    """What a codec makes of a request. `single`: it has one row, which errors need not number.

    `protocol` is the codec's place in `PROTOCOLS`.
    """

    rows: Rows
    encode: Encode
    single: bool = False
    protocol: int = JSON


Decode = Callable[[Request], Decoded]
Finish = Callable[[Probabilities], Reply]  # makes the answer, once the probabilities are there


class Predictions:
    """Opens predictions, submits their rows to the batcher, and closes them.

    With a `recorder`, answers of 200 are recorded: when they are closed, or before they are released.
    """

    def __init__(
        self,
        model: ServedModel,
        batcher: ScoringQueue,
        *,
        health: Health,
        limits: Limits,
        metrics: Metrics,
        responses: Responses,
        recorder: Recorder | None = None,
    ):
        self._recorder = recorder
        self._schema, self._batcher, self._health, self._limits = model.schema, batcher, health, limits
        self._metrics, self._responses, self._in_flight = metrics, responses, metrics.in_flight

    def open(self, request: Request) -> None:
        """Open a prediction, which is in flight from now on; note in `request` the seconds that it may take.

        Raises `Refusal` or `Overloaded` where it can't be made in time: if possible before its body is read. Whether it
        raises or not, the prediction has to be closed, once.
        """
        self._in_flight.increment()
        if not self._health.serving:
            raise not_ready(self._health)
        given = integer(request.headers, b"x-request-timeout-ms", 1, MAX_TIMEOUT_MS)
        timeout = self._limits.timeout if given is None else given / 1000
        request.timeout = min(timeout, self._health.finish_seconds) if self._health.draining else timeout
        self._batcher.admit(1, request.timeout)
        if self._recorder is not None:
            self._recorder.admit()

    def submit(self, decode: Decode, request: Request, receiver: Receiver) -> Finish:
        """Submit the rows of an open prediction, whose body has come, to be scored.

        `receiver` gets their probabilities; what is returned makes the answer of them. Raises `Refusal`,
        `InvalidInput` or `Overloaded`.
        """
        decoded = decode(request)
        request.drop_body()  # many requests wait for the scorer; only their rows do
        remaining = request.timeout - (time.perf_counter() - request.started)
        if remaining <= 0:
            raise Overloaded("deadline", 0)
        job = self._batcher.submit(self._schema.held(decoded.rows), remaining, receiver)
        if self._recorder is None:
            return partial(finish, request, job, self._schema, decoded)
        return partial(finish, request, job, self._schema, decoded, records=True)

    def release(self, reply: Reply, request: Request, send: Callable[[Reply], object]) -> None:
        """Send an answer: at once, or once what it says is committed, where it has to be; or else why it is not."""
        answered, recorder = request.answered, self._recorder
        if answered is None or recorder is None or not recorder.acknowledges:
            send(reply)
            return
        began = time.perf_counter()

        def done(problem: Exception | None) -> None:
            request.held = time.perf_counter() - began
            send(reply if problem is None else self._responses.explained(problem, request))

        seconds = began - request.started
        recorder.commit(answered, seconds, max(0.0, request.timeout - seconds), done)

    def close(self, request: Request, route: str, status: int, refused: str = "") -> None:
        """Close a prediction that was answered with `status`: count it, and log it where its turn has come."""
        self._in_flight.decrement()
        if request.share is not None:
            request.drop_body()
        seconds = time.perf_counter() - request.started
        if request.scored and status == 200:
            encode = request.started + seconds - request.scored - request.held
            self._metrics.predicted(request.best, request.queue, request.score, encode, seconds)
        self._responses.account(request, route, status, seconds, refused)
        if request.answered is not None:
            self._record(request, status, seconds)

    def _record(self, request: Request, status: int, seconds: float) -> None:
        answered, request.answered = request.answered, None  # an idle connection keeps its last request
        if answered is not None and self._recorder is not None and status == 200 and not self._recorder.acknowledges:
            self._recorder.record(answered, seconds)

    async def answer(self, decode: Decode, request: Request) -> Reply:
        """Answer an open prediction whose caller can be heard by `request.receive`; raises what `submit` raises."""
        reply = await self.made(decode, request)
        if request.answered is None or self._recorder is None or not self._recorder.acknowledges:
            return reply
        released: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.release(reply, request, partial(set_unless_done, released))
        return await released

    async def made(self, decode: Decode, request: Request) -> Reply:
        """Make the answer of an open prediction, which is then still to be released; raises what `submit` raises."""
        # Who has to wait for a batch in work is watched, so that its rows are dropped when it goes away.
        waits = self._batcher.batch_seconds > 0
        receiver: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        finished = self.submit(decode, request, receiver)
        watcher = asyncio.create_task(_watch(request, receiver)) if waits else None
        try:
            return finished(await receiver)
        finally:
            if watcher is not None:
                watcher.cancel()


def finish(
    request: Request, job: Job, schema: Schema, decoded: Decoded, probabilities: Probabilities, *, records: bool = False
) -> Reply:
    """Make the answer; note in `request` what its headers and metrics say, and what is recorded if it `records`.

    The most probable class is found before the probabilities are rounded to 32 bits, as answers have them. Raises
    `InvalidInput` where a row could not be scored, which is then all NaN.
    """
    request.queue, request.score = job.started - job.submitted, job.finished - job.started
    request.scored = job.finished
    best = probabilities.argmax(axis=1).tolist()
    # NaN is the highest to both; an element of one row costs a tenth of the other.
    if math.isnan(probabilities.item(best[0]) if len(best) == 1 else probabilities.max()):
        schema.check_scored(decoded.rows, np.logical_or.reduce(np.isnan(probabilities), axis=1), single=decoded.single)
    request.best = best
    rounded = probabilities.astype(np.float32, copy=False)
    reply = decoded.encode(rounded, best)
    if records:
        source = request.headers.get(b"x-source", b"")
        source = source if source and SANE_SOURCE.fullmatch(source) else b""
        request.answered = Answered(request.id, source, decoded.protocol, reply.ids, job.rows, rounded, best)
    return reply


async def _watch(request: Request, receiver: asyncio.Future[Probabilities]) -> None:
    """Fail a prediction when its caller goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not receiver.done():
        receiver.set_exception(Disconnected())


class Codecs:
    """The codec of each route that predicts, as a `Decode`; they raise `Refusal` or `InvalidInput`.

    With `records`, every row gets an id, also where the answer does not have it.
    """

    def __init__(self, model: ServedModel, limits: Limits, *, records: bool = False):
        self._records = records
        self._model, self._schema, self._limits = model, model.schema, limits
        self._read = partial(read_json, most=most_parts(model.schema))
        self._v2_model = {"model_name": model.name, "model_version": model.version}

    def scan(self, request: Request) -> Decoded:
        """Decode one row, as an object."""
        return Decoded(
            self._schema.rows_from_objects([self._read(request)], single=True), self._encode_scan, single=True
        )

    def scans(self, request: Request) -> Decoded:
        """Decode a list of rows, as objects."""
        scans = self._read(request)
        if type(scans) is not list or not 1 <= len(scans) <= MAX_ROWS:
            found = f"is a list of {len(scans)}" if type(scans) is list else "is not a list"
            raise InvalidInput([Problem("body", found, f"a list of 1 to {MAX_ROWS} scans")])
        return Decoded(self._schema.rows_from_objects(scans), self._encode_scans)

    def v1(self, request: Request) -> Decoded:
        """Decode a request of KServe's V1 protocol."""
        value = self._read(request, constant_places=v1.constant_places)
        return Decoded(v1.decode(self._schema, value, MAX_ROWS), self._encode_v1, protocol=V1)

    def v2(self, request: Request) -> Decoded:
        """Decode a request of the Open Inference Protocol (V2)."""
        length = integer(request.headers, b"inference-header-content-length", 0, self._limits.body_bytes)
        read = partial(self._read, request, constant_places=v2.constant_places)
        query = v2.decode(self._schema, request.body, length, read, MAX_ROWS)
        return Decoded(query.rows, partial(self._encode_v2, query), protocol=V2)

    def _encode_scan(self, probabilities: RoundedProbabilities, best: Sequence[int]) -> Reply:
        made = prediction_objects(self._model, probabilities, best)
        return self._predicted(made, made[0])

    def _encode_scans(self, probabilities: RoundedProbabilities, best: Sequence[int]) -> Reply:
        made = prediction_objects(self._model, probabilities, best)
        return self._predicted(made, made)

    def _encode_v1(self, probabilities: RoundedProbabilities, best: Sequence[int]) -> Reply:
        made = prediction_objects(self._model, probabilities, best)
        return self._predicted(made, {"predictions": made})

    def _encode_v2(self, query: Query, probabilities: RoundedProbabilities, best: Sequence[int]) -> Reply:
        ids = [new_id() for _ in best] if self._records or len(best) == 1 or query.wants_ids else []
        body, length = v2.encode(self._v2_model, self._schema.class_names, query, probabilities, best, ids=ids)
        headers = _prediction_id(ids[0]) if len(ids) == 1 else ()
        if length is None:
            return Reply(200, body, headers=headers, ids=ids)
        return Reply(200, body, BINARY, [*headers, (b"inference-header-content-length", b"%d" % length)], ids=ids)

    def _predicted(self, made: Sequence[Mapping[str, Any]], content: Any) -> Reply:
        """Make the answer with these predictions."""
        ids = [prediction["prediction_id"] for prediction in made] if self._records else ()
        headers = _prediction_id(made[0]["prediction_id"]) if len(made) == 1 else ()
        return Reply(200, orjson.dumps(content), headers=headers, ids=ids)


def _prediction_id(identifier: str) -> Headers:
    """Name the prediction of an answer that has but one in a header."""
    return ((b"x-prediction-id", identifier.encode()),)
