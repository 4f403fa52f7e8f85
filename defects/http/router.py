"""Every route in one table, answered by one ASGI application.

A handler takes a `Request` and gives a `Reply`, or raises `Refusal`, `InvalidInput` or `Overloaded`. The application
adds the headers that every answer carries and turns errors into the one shape that callers see.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import orjson

from defects.http import page
from defects.http.bodies import Bodies
from defects.http.idempotency import KEY, Idempotency
from defects.http.messages import (
    BINARY,
    JSON,
    Disconnected,
    Receive,
    Refusal,
    Reply,
    Request,
    Scope,
    Send,
    read_body,
)
from defects.http.operations import Operations
from defects.http.outcomes import OUTCOMES, PREDICTION, SUMMARY, Outcomes
from defects.http.predictions import Codecs, Decode, Predictions
from defects.http.responses import GONE, Responses
from defects.serving.batching import ScoringQueue
from defects.serving.health import Health
from defects.serving.logs import AccessLog
from defects.serving.metrics import Metrics
from defects.serving.model import Limits, ServedModel
from defects.serving.recording import RecordedPredictions, Recorder

SLOW = 408  # the status where a body did not come in time
METRICS_PATH = "/metrics"
PREDICTION_PATH = f"{PREDICTION}{{id}}"
HEALTH_PATHS = ("/livez", "/readyz", METRICS_PATH)  # always answered

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Reply]]


class Description(NamedTuple):
    """What the OpenAPI document says of a route. `content` names the kind of its bodies: see `openapi_bodies.py`."""

    id: str
    summary: str
    tag: str
    content: str


@dataclass(frozen=True, slots=True)
class PredictionRoute:
    """A route that predicts. It is refused while overloaded, if possible before its body is read.

    `name` is for people and metrics, so without anything that callers choose; `decode` is the protocol's codec.
    """

    name: str
    description: Description
    decode: Decode
    takes: tuple[bytes, ...] = (JSON,)
    methods: ClassVar[tuple[str, ...]] = ("POST",)


@dataclass(frozen=True, slots=True)
class OperationRoute:
    """Any other route. Its handler reads the body, where it takes one."""

    name: str
    description: Description
    handler: Handler
    methods: tuple[str, ...] = ("GET", "HEAD")


Route = PredictionRoute | OperationRoute
Table = Mapping[str, Route]


class Routes:
    """The application. `start` and `stop` are awaited before the first request and after the last. `openapi` makes a
    document of the table, and `bentoml_schema` what BentoML's clients ask for, once somebody asks for them. Answers
    of 200 are recorded by the `recorder`, where there is one."""

    def __init__(
        self,
        *,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
        model: ServedModel,
        batcher: ScoringQueue,
        health: Health,
        openapi: Callable[[Table], Mapping[str, Any]],
        bentoml_schema: Callable[[], Mapping[str, Any]],
        revision: str,
        limits: Limits,
        metrics: Metrics,
        access: AccessLog,
        recorder: Recorder | None = None,
        recorded: RecordedPredictions | None = None,
    ):
        self._start, self._stop, self._model, self.limits = start, stop, model, limits
        self.bodies = Bodies(limits.bodies_bytes)
        self._metrics, self._in_flight, self._recorded = metrics, metrics.in_flight, recorded
        self.responses = Responses(health, metrics, access, model.version, revision)
        self.predictions = Predictions(
            model,
            batcher,
            health=health,
            limits=limits,
            metrics=metrics,
            responses=self.responses,
            recorder=recorder,
        )
        self.idempotency = (
            None if recorder is None else Idempotency(self.predictions, recorder, self.responses.identity)
        )
        operations = Operations(
            model,
            batcher,
            health,
            metrics,
            openapi=lambda: orjson.dumps(openapi(self.table)),
            bentoml_schema=lambda: orjson.dumps(bentoml_schema()),
        )
        self.table: Table = {
            **_predicting(model, Codecs(model, limits, records=recorder is not None)),
            **_v1_and_v2(model, operations),
            **_operating(operations),
            **({} if recorded is None else _recorded(Outcomes(recorded, limits.outcomes_bytes, self.bodies))),
        }

    def predicting(self, path: str) -> PredictionRoute | None:
        """Return the route that predicts at `path`."""
        route = self.table.get(path)
        return route if type(route) is PredictionRoute else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live_through(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # before it is accepted: refused
            return
        started = scope.get("began") or time.perf_counter()  # as `Connection` has it
        headers, query = dict(scope["headers"]), scope["query_string"]
        request = Request(scope["method"], scope["path"], headers, receive, query, started=started)
        route = self._route(_spelled(scope))
        if type(route) is PredictionRoute and request.method in route.methods:
            await self._predict(route, request, send)
        else:
            await self._operate(route, request, send)

    def _route(self, path: str) -> Route | None:
        """Return the route at a path. Only one has a part that callers choose: the id of a prediction, at its end."""
        if path.startswith(PREDICTION) and "/" not in path[len(PREDICTION) :]:
            return self.table.get(PREDICTION_PATH)
        return self.table.get(path)

    async def _live_through(self, receive: Receive, send: Send) -> None:
        """Go through the server's start and end. Where the start fails, say so in the way that ends every server."""
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

    async def _predict(self, route: PredictionRoute, request: Request, send: Send) -> None:
        """Open a prediction, answer it and close it; the fast path does the same below ASGI."""
        status, refused = 500, ""  # where the answer can't be sent
        try:
            reply = await self._predicted(route, request)
            await self._send(reply, request, send)
            status, refused = reply.status, reply.refused
            if status == SLOW:
                self._metrics.connection_ended("slow_body")
        except Disconnected:
            status = GONE
        finally:
            self.predictions.close(request, route.name, status, refused)

    async def _predicted(self, route: PredictionRoute, request: Request) -> Reply:
        try:
            self.predictions.open(request)
            keyed = self.idempotency if KEY in request.headers else None
            if keyed is not None:
                keyed.check(request)
            request.body = await read_body(request, route.takes, self.limits.body_bytes, self.bodies)
            if keyed is not None:
                return await keyed.answer(route.name, route.decode, request)
            return await self.predictions.answer(route.decode, request)
        except Disconnected:
            raise
        except (Exception, asyncio.CancelledError) as problem:
            return self.responses.explained(problem, request)

    async def _operate(self, route: Route | None, request: Request, send: Send) -> None:
        """Answer what is no prediction."""
        name = route.name if route else "unknown"
        counted = name != METRICS_PATH  # a scrape would see itself
        if counted:
            self._in_flight.increment()
        try:
            try:
                reply = await self._handler(route, request)(request)
            except Disconnected:
                reply = Reply(GONE, b"")
            except (Exception, asyncio.CancelledError) as problem:
                reply = self.responses.explained(problem, request)
            if reply.status != GONE:
                await self._send(reply, request, send)
            if reply.status == SLOW:
                self._metrics.connection_ended("slow_body")
            seconds = time.perf_counter() - request.started
            self.responses.account(request, name, reply.status, seconds, reply.refused)
        finally:
            if counted:
                self._in_flight.decrement()

    async def _send(self, reply: Reply, request: Request, send: Send) -> None:
        headers, body = self.responses.complete(reply, request)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else body})

    def _handler(self, route: Route | None, request: Request) -> Handler:
        """Return who answers a request that is no prediction; raises `Refusal` where nobody does."""
        if route is None:
            raise self._not_found(request.path)
        if isinstance(route, PredictionRoute) or request.method not in route.methods:
            allowed = ", ".join(route.methods)
            refused = f"method {request.method[:16]} is not allowed here; expected {allowed}"
            raise Refusal(405, refused, [(b"allow", allowed.encode())])
        return route.handler

    def _not_found(self, path: str) -> Refusal:
        if path.startswith(("/v1/models/", "/v2/models/")):
            known = f"model {self._model.name}, version {self._model.version}"
            return Refusal(404, f"no such model, version or path; expected {known}")
        if self._recorded is None and (path in (OUTCOMES, SUMMARY) or path.startswith(PREDICTION)):
            return Refusal(404, "nothing is recorded here; expected a replica with a database (DEFECTS_DATABASE_URL)")
        return Refusal(404, "no such path; expected one that /docs.json lists")


def _spelled(scope: Scope) -> str:
    """Return the path as it came, so that each has but one spelling; only `:` may be encoded, as some clients do."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.replace(b"%3A", b":").replace(b"%3a", b":").decode("latin-1")


# --- the table: there is one model, so every path is known beforehand ------------------------------------------------

CLASSIFY, V1, V2, OPERATE, PAGE = "Classify", "KServe V1", "Open Inference Protocol (V2)", "Operate", "Documentation"
HISTORY = "History"


def _predicting(model: ServedModel, codecs: Codecs) -> dict[str, Route]:
    """Return the routes that predict."""
    scan = Description("classify", "Classify one scan", CLASSIFY, "scan")
    scans = Description("classify_batch", "Classify up to 1,024 scans", CLASSIFY, "scans")
    instances = Description("v1_predict", "Predict", V1, "instances")
    table: dict[str, Route] = {
        "/classify": PredictionRoute("/classify", scan, codecs.scan),
        "/classify_batch": PredictionRoute("/classify_batch", scans, codecs.scans),
        f"/v1/models/{model.name}:predict": PredictionRoute("/v1/models/{name}:predict", instances, codecs.v1),
    }
    for path, name, suffix, of in _v2_models(model):
        tensors = Description(f"v2_infer{suffix}", f"Infer{of}", V2, "tensors")
        table[f"{path}/infer"] = PredictionRoute(f"{name}/infer", tensors, codecs.v2, (JSON, BINARY))
    return table


def _v1_and_v2(model: ServedModel, operations: Operations) -> dict[str, Route]:
    """Return what else the two protocols have."""
    table: dict[str, Route] = {
        "/v1/models": _get("/v1/models", "v1_models", "List the models", V1, operations.v1_models, content="models"),
        f"/v1/models/{model.name}": _get(
            "/v1/models/{name}", "v1_model", "Is the model ready?", V1, operations.model_ready, content="model_ready"
        ),
        # Clients ask for the first; the second is the path in the protocol's OpenAPI file, which has no other like it.
        "/v2": _get("/v2", "v2_server", "Describe the server", V2, operations.v2_server, content="server"),
        "/v2/": _get("/v2", "v2_server_slash", "Describe the server", V2, operations.v2_server, content="server"),
        "/v2/health/live": _get(
            "/v2/health/live", "v2_live", "Is the server alive?", V2, operations.live, content="live"
        ),
        "/v2/health/ready": _get(
            "/v2/health/ready", "v2_ready", "Is the server ready?", V2, operations.ready, content="ready"
        ),
    }
    for path, name, suffix, of in _v2_models(model):
        table[path] = _get(
            name, f"v2_metadata{suffix}", f"Describe the model{of}", V2, operations.v2_metadata, content="metadata"
        )
        table[f"{path}/ready"] = _get(
            f"{name}/ready",
            f"v2_model_ready{suffix}",
            f"Is the model ready?{of}",
            V2,
            operations.model_ready,
            content="model_ready",
        )
    return table


def _v2_models(model: ServedModel) -> list[tuple[str, str, str, str]]:
    """Return the V2 protocol's two paths to the model: path, name, and what tells them apart in ids and summaries."""
    path, name = f"/v2/models/{model.name}", "/v2/models/{name}"
    return [
        (path, name, "", ""),
        (f"{path}/versions/{model.version}", f"{name}/versions/{{version}}", "_version", " (by version)"),
    ]


def _operating(operations: Operations) -> dict[str, Route]:
    """Return the platform's and people's routes."""
    table: dict[str, Route] = {
        "/model": _get(
            "/model",
            "model",
            "The model's card, schema, version, digest and engine",
            OPERATE,
            operations.describe,
            content="model",
        ),
        "/card": _get("/card", "card", "The model's card as a page", OPERATE, operations.card, content="card"),
        "/livez": _get("/livez", "livez", "Can the process make progress?", OPERATE, operations.live, content="live"),
        "/readyz": _get(
            "/readyz", "readyz", "Does this replica answer correctly now?", OPERATE, operations.ready, content="ready"
        ),
        METRICS_PATH: _get(
            METRICS_PATH, "metrics", "Prometheus metrics", OPERATE, operations.exposition, content="metrics"
        ),
        "/": _get("/", "page", "This page", PAGE, operations.page, content="html"),
        "/docs.json": _get(
            "/docs.json", "openapi", "The OpenAPI document", PAGE, operations.openapi, content="openapi"
        ),
        "/schema.json": _get(
            "/schema.json",
            "bentoml_schema",
            "What BentoML's clients ask for",
            PAGE,
            operations.bentoml_schema,
            content="bentoml",
        ),
    }
    for name in page.ASSETS:
        id_, summary = f"page_{name.replace('.', '_').replace('-', '_')}", "A file of this page"
        table[f"{page.FOLDER}/{name}"] = _get(
            f"{page.FOLDER}/{{file}}", id_, summary, PAGE, operations.asset(name), content="file"
        )
    return table


def _recorded(outcomes: Outcomes) -> dict[str, Route]:
    """Return the routes that need a history."""
    store = Description("store_outcomes", "Say what turned out to be true", HISTORY, "outcomes")
    return {
        OUTCOMES: OperationRoute(OUTCOMES, store, outcomes.store, ("POST",)),
        PREDICTION_PATH: _get(
            PREDICTION_PATH,
            "prediction",
            "A prediction and its outcomes",
            HISTORY,
            outcomes.prediction,
            content="record",
        ),
        SUMMARY: _get(
            SUMMARY,
            "outcomes_summary",
            "How often predictions were right",
            HISTORY,
            outcomes.summary,
            content="summary",
        ),
    }


def _get(name: str, id_: str, summary: str, tag: str, handler: Handler, *, content: str) -> OperationRoute:
    return OperationRoute(name, Description(id_, summary, tag, content), handler)
