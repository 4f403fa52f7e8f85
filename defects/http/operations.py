"""All but predictions: readiness, metrics, descriptions, documents. Never refused, and never behind inference."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from defects.http import page
from defects.http.messages import GZIP_HEADERS, Refusal, Reply, Request, accepts_gzip, answer, error
from defects.http.responses import RETRY, not_ready
from defects.protocols import v2
from defects.serving import startup
from defects.serving.batching import ScoringQueue
from defects.serving.health import Health
from defects.serving.metrics import Metrics
from defects.serving.model import ServedModel

T = TypeVar("T")


class Lazy(Generic[T]):
    """A value that takes long to make: made once, in a thread, when somebody asks for it."""

    def __init__(self, make: Callable[[], T]):
        self._make, self._lock, self._made = make, asyncio.Lock(), list[T]()

    async def __call__(self) -> T:
        async with self._lock:
            if not self._made:
                self._made.append(await asyncio.to_thread(self._make))
        return self._made[0]


class Operations:
    """The handlers. `openapi` and `bentoml_schema` make the documents, once somebody asks for them."""

    def __init__(
        self,
        model: ServedModel,
        batcher: ScoringQueue,
        health: Health,
        metrics: Metrics,
        *,
        openapi: Callable[[], bytes],
        bentoml_schema: Callable[[], bytes],
    ):
        self._model, self._batcher, self._health, self._metrics = model, batcher, health, metrics
        self._openapi, self._bentoml_schema = Lazy(openapi), Lazy(bentoml_schema)
        self._assets = {name: Lazy(page.asset(name)) for name in page.ASSETS}
        self._card = Lazy(lambda: gzip.compress(model.card_page or b"", mtime=0))
        self._metadata = v2.metadata(model.schema, model.name, model.version, model.engine)

    async def page(self, _: Request) -> Reply:
        return Reply(200, page.html(self._model), page.HTML, [page.POLICY])

    def asset(self, name: str) -> Callable[[Request], Any]:
        """Return the handler of a file that the page needs."""
        lazy, content_type = self._assets[name], page.ASSETS[name]

        async def handle(request: Request) -> Reply:
            plain, packed = await lazy()
            if accepts_gzip(request.headers.get(b"accept-encoding", b"")):
                return Reply(200, packed, content_type, [*GZIP_HEADERS, page.CACHED], encoded=True)
            return Reply(200, plain, content_type, [GZIP_HEADERS[1], page.CACHED])

        return handle

    async def card(self, request: Request) -> Reply:
        if self._model.card_page is None:
            raise Refusal(404, "this model came without a card for people; expected /model, which has it as JSON")
        if accepts_gzip(request.headers.get(b"accept-encoding", b"")):
            return Reply(200, await self._card(), page.HTML, [*GZIP_HEADERS, page.CARD_POLICY], encoded=True)
        return Reply(200, self._model.card_page, page.HTML, [GZIP_HEADERS[1], page.CARD_POLICY])

    async def openapi(self, _: Request) -> Reply:
        return Reply(200, await self._openapi())

    async def bentoml_schema(self, _: Request) -> Reply:
        return Reply(200, await self._bentoml_schema())

    async def describe(self, _: Request) -> Reply:
        return answer(self._model.description)

    async def exposition(self, request: Request) -> Reply:
        body, content_type = self._metrics.exposition(request.headers.get(b"accept", b"").decode("latin-1"))
        return Reply(200, body, content_type.encode())

    async def live(self, _: Request) -> Reply:
        problem = self._health.stuck()
        if problem is None:
            return answer({"live": True})
        return error(503, f"not alive: {problem}; expected progress", headers=[RETRY])

    async def ready(self, request: Request) -> Reply:
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
        refused = not_ready(self._health)
        return answer({"error": str(refused), **state})._replace(status=503, headers=refused.headers)

    async def model_ready(self, _: Request) -> Reply:
        return self._readiness({"name": self._model.name})

    async def v1_models(self, _: Request) -> Reply:
        return answer({"models": [self._model.name]})

    async def v2_server(self, _: Request) -> Reply:
        return answer({"name": "warehouse-defects", "version": self._model.version, "extensions": [*v2.EXTENSIONS]})

    async def v2_metadata(self, _: Request) -> Reply:
        return answer(self._metadata)

    def _readiness(self, content: dict[str, Any]) -> Reply:
        """Return `content` where this replica is ready; raises `Refusal` where it isn't."""
        if not self._health.ready:
            raise not_ready(self._health)
        return answer({**content, "ready": True})
