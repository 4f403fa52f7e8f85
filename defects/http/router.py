"""Every route in one table, answered by an ASGI application outside of BentoML's, which answers the rest.

A handler takes a `Request` and gives a `Reply`, or raises `Refusal`, `InvalidInput` or `Overloaded`. The application
adds the headers that every answer carries and turns errors into the one shape that callers see.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import orjson

from defects.http.messages import (
    BINARY,
    CLOSE,
    JSON,
    App,
    Disconnected,
    Headers,
    Message,
    Receive,
    Refusal,
    Reply,
    Request,
    Scope,
    Send,
    answer,
    check_body,
    compressed,
    error,
    integer,
    read_body,
    read_json,
    trace_id,
)
from defects.identifiers import new_id
from defects.problems import InvalidInput, Problem
from defects.protocols import v1 as v1_
from defects.protocols import v2 as openinference
from defects.schema import Rows, Schema
from defects.scoring import Probabilities
from defects.serving import startup
from defects.serving.batching import Batcher, Job, Overloaded, Receiver
from defects.serving.health import Health
from defects.serving.logs import AccessLog
from defects.serving.metrics import Metrics
from defects.serving.model import MAX_ROWS, Limits, Model, predictions
from defects.settings import MAX_TIMEOUT_MS

GONE = 499  # counted, and never sent, where the caller went away before it was answered

# Answered by BentoML; only headers are added.
BENTOML_PATHS = frozenset({"/", "/schema.json"})
STATIC = "/static_content/"
METRICS_PATH = "/metrics"

# The docs page has an inline Google Tag Manager; with this policy no browser runs it.
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

logger = logging.getLogger(__name__)


Handler = Callable[[Request], Awaitable[Reply]]

# What makes the answer of the rows' probabilities; the latter has each row's most probable class.
Encode = Callable[[openinference.Probabilities, Sequence[int]], Reply]


class Decoded(NamedTuple):
    """What a protocol's codec makes of a request. `single`: it has one row, which errors need not number."""

    rows: Rows
    encode: Encode
    single: bool = False


Decode = Callable[[Request], Decoded]
Answer = Callable[[Probabilities], Reply]


class Route(NamedTuple):
    """A route's name (for people and metrics, so without anything that callers choose) and its handlers by method.

    One that predicts has a protocol's codec too. It is refused while overloaded, if possible before its body is read.
    """

    name: str
    handlers: Mapping[str, Handler]
    decode: Decode | None = None
    takes: tuple[bytes, ...] = (JSON,)


class Routes:
    """The application. `start` and `stop` are awaited before the first request and after the last. `openapi` makes the
    document that the page at `/` shows, and `bentoml` BentoML's application, once somebody asks for them."""

    def __init__(
        self,
        bentoml: Callable[[], App],
        *,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
        model: Model,
        batcher: Batcher,
        health: Health,
        openapi: Callable[[], Mapping[str, Any]],
        revision: str,
        limits: Limits,
        metrics: Metrics,
        access: AccessLog,
    ):
        self._make_bentoml, self._making = bentoml, asyncio.Lock()
        self._bentoml: App | None = None
        self._start, self._stop = start, stop
        self._model, self._batcher, self._health, self._limits = model, batcher, health, limits
        self._metrics, self._access, self.in_flight = metrics, access, metrics.in_flight
        self._openapi = cache(lambda: orjson.dumps(openapi()))
        self._metadata = openinference.metadata(model.schema, model.name, model.version, model.engine)
        self._identity = [(b"x-model-version", model.version.encode()), (b"x-revision", revision.encode())]
        self._table = self._routes()

    def _routes(self) -> dict[str, Route]:
        """Every path that is answered here. There is one model, so every path is known beforehand."""
        v1, v2 = f"/v1/models/{self._model.name}", f"/v2/models/{self._model.name}"
        table = {
            "/classify": self._predicting("/classify", self._classify),
            "/classify_batch": self._predicting("/classify_batch", self._classify_batch),
            "/model": Route("/model", {"GET": self._describe}),
            "/docs.json": Route("/docs.json", {"GET": self._document}),
            "/livez": Route("/livez", {"GET": self._live}),
            "/readyz": Route("/readyz", {"GET": self._ready}),
            METRICS_PATH: Route(METRICS_PATH, {"GET": self._exposition}),
            "/v1/models": Route("/v1/models", {"GET": self._v1_models}),
            v1: Route("/v1/models/{name}", {"GET": self._v1_model}),
            f"{v1}:predict": self._predicting("/v1/models/{name}:predict", self._v1_predict),
            "/v2": Route("/v2", {"GET": self._v2_server}),
            "/v2/health/live": Route("/v2/health/live", {"GET": self._live}),
            "/v2/health/ready": Route("/v2/health/ready", {"GET": self._ready}),
        }
        versioned = f"{v2}/versions/{self._model.version}"
        for path, name in ((v2, "/v2/models/{name}"), (versioned, "/v2/models/{name}/versions/{version}")):
            table[path] = Route(name, {"GET": self._v2_metadata})
            table[f"{path}/ready"] = Route(f"{name}/ready", {"GET": self._v2_model_ready})
            table[f"{path}/infer"] = self._predicting(f"{name}/infer", self._v2_infer, JSON, BINARY)
        return table

    def _predicting(self, name: str, decode: Decode, *takes: bytes) -> Route:
        return Route(name, {"POST": partial(self._predict, decode)}, decode, takes or (JSON,))

    def predicting(self, path: str) -> Route | None:
        """The route that predicts at `path`."""
        route = self._table.get(path)
        return route if route and route.decode else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live_through(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # before it is accepted: refused
            return
        request = Request(scope["method"], scope["path"], dict(scope["headers"]), receive, scope["query_string"])
        counted = request.path != METRICS_PATH  # a scrape would see itself
        if counted:
            self.in_flight.increment()
        try:
            if request.path in BENTOML_PATHS or request.path.startswith(STATIC):
                await self._pass_on(scope, request, send)
            else:
                await self._answer(request, send)
        finally:
            if counted:
                self.in_flight.decrement()

    async def _live_through(self, receive: Receive, send: Send) -> None:
        """The server's start and end. Where the start fails, that is said in the one way that ends every server."""
        await receive()
        try:
            await self._start()
        except Exception as problem:
            logger.critical("the start failed", exc_info=problem)
            await send({"type": "lifespan.startup.failed", "message": f"the start failed: {problem}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _bentoml_app(self) -> App:
        """BentoML's application. Importing and making it takes longer than all else of a start, and few ask for it."""
        async with self._making:
            if self._bentoml is None:
                self._bentoml = await asyncio.to_thread(self._make_bentoml)
        return self._bentoml

    async def _pass_on(self, scope: Scope, request: Request, send: Send) -> None:
        """Let BentoML answer."""
        status = 500

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._common_headers(request)]
                if request.path == "/":
                    message["headers"].append((b"content-security-policy", PAGE_POLICY))
            await send(message)

        name = request.path if request.path in BENTOML_PATHS else STATIC
        try:
            app = await self._bentoml_app()
        except Exception as problem:
            await self._reply(self.explained(problem, request), name, request, send)
            return
        await app(scope, request.receive, with_headers)
        self.account(request, name, status)

    async def _answer(self, request: Request, send: Send) -> None:
        route = self._table.get(request.path)
        name = route.name if route else "unknown"
        try:
            reply = await self._handled(route, request)
        except Disconnected:
            self.account(request, name, GONE)
            return
        except (Exception, asyncio.CancelledError) as problem:
            reply = self.explained(problem, request)
        await self._reply(reply, name, request, send)

    async def _reply(self, reply: Reply, name: str, request: Request, send: Send) -> None:
        headers, body = self.complete(reply, request)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})
        self.account(request, name, reply.status, reply.refused)

    async def _handled(self, route: Route | None, request: Request) -> Reply:
        if route is None:
            raise self._not_found(request.path)
        handler = _handler(route, request.method)
        if route.decode:
            self._admit(request)
        if request.method == "POST":
            request.body = await read_body(request, route.takes, self._limits.body_bytes)
        return await handler(request)

    def explained(self, problem: BaseException, request: Request) -> Reply:
        """The answer to a request that raised `problem`."""
        match problem:
            case Refusal():
                return error(problem.status, str(problem), headers=problem.headers)
            case InvalidInput():
                return error(400, f"invalid input: {problem}", problem.problems)
            case Overloaded():
                return _overloaded(problem)
            case asyncio.CancelledError():  # the time to finish is over: better this answer than none
                return _overloaded(Overloaded("draining", 0))
        fields = {"request_id": request.id.decode(), "path": request.path[:200]}
        logger.error("%s failed", request.method, exc_info=problem, extra={"fields": fields})
        return error(500, "internal error; expected none, please report it with the x-request-id of this answer")

    def complete(self, reply: Reply, request: Request) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """An answer's headers and its body, packed where the caller takes that."""
        body, encoding = compressed(reply.body, request.headers)
        headers = [
            (b"content-type", reply.content_type),
            (b"content-length", b"%d" % len(body)),
            *encoding,
            *reply.headers,
            *self._common_headers(request),
        ]
        return headers, body

    def account(self, request: Request, route: str, status: int, refused: str = "") -> None:
        """Count an answer, and log it where its turn has come."""
        total = time.perf_counter() - request.started
        self._metrics.answered(route, status, total)
        if refused:
            self._metrics.refused(refused)
        elif request.scored and status == 200:
            encode = request.started + total - request.scored
            self._metrics.predicted(request.best, request.queue, request.score, encode, total)
        # Refusals by admission come in thousands when they come: they are counted, and logged like answers.
        if self._access.wants(failed=status >= 400 and not refused):
            self._access.write(
                {
                    "request_id": request.id.decode(),
                    "trace_id": trace_id(request.headers),
                    "method": request.method,
                    "route": route,
                    "path": request.path[:200],
                    "status": status,
                    "latency_ms": round(total * 1e3, 3),
                }
            )

    def _not_found(self, path: str) -> Refusal:
        if path.startswith(("/v1/models/", "/v2/models/")):
            known = f"model {self._model.name}, version {self._model.version}"
            return Refusal(404, f"no such model, version or path; expected {known}")
        return Refusal(404, "no such path; expected one that /docs.json lists")

    def _common_headers(self, request: Request) -> Headers:
        timing = b"queue;dur=%.3f, score;dur=%.3f, total;dur=%.3f" % (
            request.queue * 1e3,
            request.score * 1e3,
            (time.perf_counter() - request.started) * 1e3,
        )
        headers = [(b"x-request-id", request.id), *self._identity, (b"server-timing", timing)]
        if self._health.draining:
            headers.append(CLOSE)  # the next request goes to another replica
        return headers

    # --- prediction: every protocol decodes to rows and encodes probabilities ---------------------------------------

    def _admit(self, request: Request) -> None:
        """Refuse a prediction at once where it can't be made in time; notes the time it may take."""
        if not self._health.serving:
            raise self._not_ready()
        given = integer(request.headers, b"x-request-timeout-ms", 1, MAX_TIMEOUT_MS)
        timeout = self._limits.timeout if given is None else given / 1000
        request.timeout = min(timeout, self._health.finish_seconds) if self._health.draining else timeout
        self._batcher.admit(1, request.timeout)

    async def _predict(self, decode: Decode, request: Request) -> Reply:
        # Who has to wait for a batch in work is watched, so that its rows are dropped when it goes away.
        waits = self._batcher.batch_seconds > 0
        done: asyncio.Future[Probabilities] = asyncio.get_running_loop().create_future()
        answered = self._begin(decode, request, done)
        watcher = asyncio.create_task(_watch(request, done)) if waits else None
        try:
            return answered(await done)
        finally:
            if watcher is not None:
                watcher.cancel()

    def predict_whole(self, route: Route, request: Request, done: Receiver) -> Answer:
        """Admit, check and begin a request that has come as a whole."""
        self._admit(request)
        request.body = check_body(request, route.takes, self._limits.body_bytes)
        assert route.decode is not None  # noqa: S101 - `predicting` gave it
        return self._begin(route.decode, request, done)

    def _begin(self, decode: Decode, request: Request, done: Receiver) -> Answer:
        """Submit an admitted request's rows, whose probabilities `done` gets; what comes back makes the answer of them.

        Raises what `explained` explains.
        """
        decoded = decode(request)
        remaining = request.timeout - (time.perf_counter() - request.started)
        if remaining <= 0:
            raise Overloaded("deadline", 0)
        job = self._batcher.submit(self._model.schema.held(decoded.rows), remaining, done)
        return partial(_answered, request, job, self._model.schema, decoded)

    def _classify(self, request: Request) -> Decoded:
        rows = self._model.schema.rows_from_objects([read_json(request)], single=True)
        return Decoded(
            rows, lambda *scored: _predicted(made := predictions(self._model, *scored), made[0]), single=True
        )

    def _classify_batch(self, request: Request) -> Decoded:
        scans = read_json(request)
        if type(scans) is not list or not 1 <= len(scans) <= MAX_ROWS:
            found = f"is a list of {len(scans)}" if type(scans) is list else "is not a list"
            raise InvalidInput([Problem("body", found, f"a list of 1 to {MAX_ROWS} scans")])
        rows = self._model.schema.rows_from_objects(scans)
        return Decoded(rows, lambda *scored: _predicted(made := predictions(self._model, *scored), made))

    def _v1_predict(self, request: Request) -> Decoded:
        value = read_json(request, stray_constants=v1_.stray_constants_v1)
        rows = v1_.decode_v1(self._model.schema, value, MAX_ROWS)
        return Decoded(
            rows, lambda *scored: _predicted(made := predictions(self._model, *scored), {"predictions": made})
        )

    def _v2_infer(self, request: Request) -> Decoded:
        length = integer(request.headers, b"inference-header-content-length", 0, self._limits.body_bytes)
        read = partial(read_json, request, stray_constants=openinference.stray_constants)
        query = openinference.decode(self._model.schema, request.body, length, read, MAX_ROWS)
        return Decoded(query.rows, partial(self._v2_answer, query))

    def _v2_answer(
        self, query: openinference.Query, probabilities: openinference.Probabilities, best: Sequence[int]
    ) -> Reply:
        model = {"model_name": self._model.name, "model_version": self._model.version}
        ids = [new_id() for _ in best] if len(best) == 1 or query.wants_ids else []
        body, length = openinference.encode(model, self._model.schema.class_names, query, probabilities, best, ids=ids)
        headers = _prediction_id(ids[0]) if len(ids) == 1 else ()
        if length is None:
            return Reply(200, body, headers=headers)
        return Reply(200, body, BINARY, [*headers, (b"inference-header-content-length", str(length).encode())])

    # --- everything else: never waits behind inference, never refused by admission ----------------------------------

    async def _describe(self, _: Request) -> Reply:
        return answer(self._model.description)

    async def _document(self, _: Request) -> Reply:
        return Reply(200, await asyncio.to_thread(self._openapi))

    async def _exposition(self, request: Request) -> Reply:
        body, content_type = self._metrics.exposition(request.headers.get(b"accept", b"").decode("latin-1"))
        return Reply(200, body, content_type.encode())

    async def _live(self, _: Request) -> Reply:
        problem = self._health.stuck()
        return answer({"live": True}) if problem is None else error(503, f"not alive: {problem}; expected progress")

    async def _ready(self, request: Request) -> Reply:
        if not any(part.partition(b"=")[0] == b"verbose" for part in request.query.split(b"&")):
            return self._readiness({})
        state = {
            "ready": self._health.ready,
            "reason": self._health.reason,
            "problem": self._health.problem,
            "model_version": self._model.version,
            "queued_rows": self._batcher.waiting_rows,
            "startup_seconds": {phase: round(seconds, 3) for phase, seconds in startup.seconds.items()},
        }
        if self._health.ready:
            return answer(state)
        refused = self._not_ready()
        return answer({"error": str(refused), **state})._replace(status=503, headers=refused.headers)

    async def _v1_models(self, _: Request) -> Reply:
        return answer({"models": [self._model.name]})

    async def _v1_model(self, _: Request) -> Reply:
        return self._readiness({"name": self._model.name})

    async def _v2_server(self, _: Request) -> Reply:
        return answer(
            {"name": "warehouse-defects", "version": self._model.version, "extensions": [*openinference.EXTENSIONS]}
        )

    async def _v2_metadata(self, _: Request) -> Reply:
        return answer(self._metadata)

    async def _v2_model_ready(self, _: Request) -> Reply:
        return self._readiness({"name": self._model.name})

    def _readiness(self, content: dict[str, Any]) -> Reply:
        if not self._health.ready:
            raise self._not_ready()
        return answer({**content, "ready": True})

    def _not_ready(self) -> Refusal:
        return Refusal(503, f"not ready: {self._health.problem}; expected another try", [(b"retry-after", b"1")])


def _answered(request: Request, job: Job, schema: Schema, decoded: Decoded, probabilities: Probabilities) -> Reply:
    """The answer; what is to be told and counted of it is noted in `request`.

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
    return decoded.encode(probabilities.astype(np.float32, copy=False), best)


def _predicted(made: Sequence[Mapping[str, Any]], content: Any) -> Reply:
    """The answer with these predictions."""
    headers = _prediction_id(made[0]["prediction_id"]) if len(made) == 1 else ()
    return Reply(200, orjson.dumps(content), headers=headers)


def _prediction_id(identifier: str) -> Headers:
    """The header that names the prediction of an answer that has but one."""
    return ((b"x-prediction-id", identifier.encode()),)


async def _watch(request: Request, done: asyncio.Future[Probabilities]) -> None:
    """Fail a request when its caller goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    if not done.done():
        done.set_exception(Disconnected())


def _handler(route: Route, method: str) -> Handler:
    handler = route.handlers.get("GET" if method == "HEAD" else method)
    if handler is None:
        allowed = ", ".join(route.handlers)
        refused = f"method {method[:16]} is not allowed here; expected {allowed}"
        raise Refusal(405, refused, [(b"allow", allowed.encode())])
    return handler


def _overloaded(overload: Overloaded) -> Reply:
    texts = {
        "queue_full": "overloaded: the queue is full",
        "deadline": "overloaded: this request can't be answered within its deadline",
        "draining": "shutting down: this replica takes no more requests",
    }
    expected = f"expected another try in {overload.retry_after} s"
    retry = (b"retry-after", str(overload.retry_after).encode())
    return error(503, f"{texts[overload.reason]}; {expected}", headers=[retry])._replace(refused=overload.reason)
