"""One replica, wired: settings → artifact → scorer → batcher → routes. Both entry points serve `Replica.routes`.

What can be wrong with settings and artifact ends `Replica.from_environment` with a pinned exit code, before a port is
opened. Nothing here imports BentoML's SDK, which takes longer than everything else together.
"""

from __future__ import annotations

from defects.serving import startup  # first: what comes after it is timed

# isort: split
import asyncio
import gc
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from defects import scoring, store
from defects.artifact import CARD_PAGE, NAME, Artifact, BadArtifact, Golden, described, is_ahead
from defects.http import fast_path, verification
from defects.http.connections import Connections, most_connections, raise_file_limit
from defects.http.health_port import HealthPort
from defects.http.router import Routes, Table
from defects.scoring import Scorer
from defects.serving import mounted_model
from defects.serving.batching import Batcher, Overloaded
from defects.serving.drain import Drain, die
from defects.serving.health import Health
from defects.serving.logs import AccessLog, configure_logs
from defects.serving.metrics import Metrics, Peak
from defects.serving.model import OUTCOMES_BYTES, Limits, ServedModel, all_bodies_bytes, body_bytes
from defects.settings import BadSetting, Fatal, Settings

if TYPE_CHECKING:
    from defects.history.recorded import Recorded
    from defects.history.wiring import History
    from defects.serving.cached_batcher import CachedBatcher

SOURCE = Path(__file__).resolve().parents[1]
WARM_UPS, WARM_UP_ROWS = 20, 16  # requests, and rows in each
UNAVAILABLE = 69  # exit code
GC_THRESHOLDS = (10_000, 10, 10)  # allocations before a collection of the youngest; of those before older ones

CACHE_NOT_USED = (
    "the cache is not used: a model that %s scores is answered about as fast as a cache answers; "
    "DEFECTS_CACHE_ONNX=1 uses it"
)

logger = logging.getLogger("defects")


class Replica:
    """A model with all that serves it. `build` makes one; `routes` is the application, which starts and stops it."""

    def __init__(
        self, settings: Settings, model: ServedModel, scorer: Scorer, metrics: Metrics, artifact: Artifact | None
    ):
        self.settings, self.model, self.metrics = settings, model, metrics
        self.tag: str | None = None  # in BentoML's model store, where the model is from there
        self.url = f"http://localhost:{settings.port}"  # for people; `bentoml serve` listens elsewhere
        self.batcher = Batcher(
            scorer,
            max_batch_rows=settings.max_batch_rows,
            max_queued_rows=settings.max_queued_rows,
            on_death=self.end,
            on_doubt=lambda: asyncio.get_running_loop().create_task(self.end_if_wrong()),
        )
        self.connections = Connections(most_connections(settings.max_connections), metrics.connection_ended)
        self.health = Health(settings.finish_seconds, lambda: self.batcher.batch_seconds)
        self.drain = Drain(self.health, settings.drain_seconds)
        self._golden = None if artifact is None else artifact.golden
        self.cached = self._cached(scorer, self._golden)
        self.history = self._history(artifact)
        self._queue_peak = Peak(lambda: self.batcher.waiting_rows)
        self.routes = Routes(
            start=self.start,
            stop=self.stop,
            model=model,
            batcher=self.cached or self.batcher,
            health=self.health,
            openapi=self.openapi,
            bentoml_schema=self.bentoml_schema,
            revision=settings.revision,
            limits=limits(settings, model),
            metrics=metrics,
            access=AccessLog(settings.access_log_share),
            recorder=None if self.history is None else self.history.writer,
            recorded=None if self.history is None else self._recorded(self.history),
        )
        self.health_port = HealthPort(self.routes, metrics.connection_ended)
        self._background: list[asyncio.Task[None]] = []

    @classmethod
    def from_environment(cls) -> Self:
        """Build what the environment asks for; ends the process with an exit code and one line where that can't be."""
        try:
            return cls.build(Settings.from_environment())
        except Fatal as fatal:
            fatal.exit()

    @classmethod
    def build(
        cls,
        settings: Settings,
        *,
        artifact: Artifact | None = None,
        scorer: Scorer | None = None,
        metrics: Metrics | None = None,
    ) -> Self:
        """Build a replica of the parts that are given, and of those that the settings ask for.

        The scorer is verified with the golden inputs, also one that is given. Raises `Fatal`.
        """
        startup.done("imports")
        tag = None
        if artifact is None:
            artifact, tag = find_artifact(settings)
        startup.done("artifact")
        scorer = verified_scorer(artifact, scorer)
        model = describe(artifact, settings.served_name)
        digest = artifact.digest if artifact else "none"
        metrics = metrics or Metrics(model.version, digest, model.engine, model.schema.class_names)
        if artifact and (problem := verification.problem_with_answers(model, metrics, artifact.golden)):
            raise BadArtifact(problem)
        startup.done("verification")
        replica = cls(settings, model, scorer, metrics, artifact)
        replica.tag = tag
        replica.instrument()
        return replica

    def _cached(self, scorer: Scorer, golden: Golden | None) -> CachedBatcher | None:
        """Return what asks the cache before the batcher, where the settings have a cache and the model gains by it."""
        url = self.settings.cache_url
        if url is None or golden is None or not (self.model.engine == "scikit-learn" or self.settings.cache_onnx):
            return None
        from defects.serving.cached_batcher import in_front_of

        return in_front_of(self.batcher, url.get_secret_value(), self.model, scorer(golden.rows), self.metrics)

    def _history(self, artifact: Artifact | None) -> History | None:
        """Make the history that the settings ask for; raises `Fatal`."""
        if self.settings.database_url is None or artifact is None:
            return None
        from defects.history import wiring  # costs nothing where there is none

        history = wiring.history_of(self.settings, artifact, self.metrics, self.end_for_want_of_a_database)
        self.health.history_problem = lambda: history.writer.problem
        return history

    def _recorded(self, history: History) -> Recorded:
        """Make what answers from the history, and stores outcomes."""
        from defects.history.recorded import Recorded

        return Recorded(history.database)

    def instrument(self) -> None:
        """Set up logs, and the metrics that are read from the batcher, the health and the start."""
        always = {"model_version": self.model.version, "revision": self.settings.revision}
        writer = configure_logs(self.settings.log_level, always)
        read, health = self.metrics.read, self.health
        read("defects_queue_rows", "Rows waiting to be scored.", lambda: {"": self.batcher.waiting_rows})
        self.metrics.add_peak("defects_queue_rows", "Rows waiting to be scored.", self._queue_peak)
        open_connections, bodies = self.connections.open, self.routes.bodies
        read("defects_connections", "Open connections.", lambda: {"": len(open_connections)})
        read("defects_bodies_bytes", "Bytes of bodies that are being received.", lambda: {"": bodies.held})
        read("defects_ready", "1 when ready; why, or why not.", lambda: {health.reason: health.ready}, "reason")
        read("defects_startup_seconds", "What the start took.", lambda: startup.seconds, "phase")
        read("defects_log_lines_dropped", "Log lines that nobody read in time.", lambda: {"": writer.dropped})

    async def start(self) -> None:
        """Take over the signals, and replay the golden inputs through the data plane: it is warm then, and right."""
        startup.done("application")
        self.drain.handle_signals()
        raise_file_limit()
        if self.drain.server is not None:
            fast_path.install(self.drain.server.config, self.routes, self.connections)
            await self.open_health_port()
        watching = (
            self.health.beat(),
            self.drain.watch_arbiter(),
            self.metrics.watch_loop(),
            self.connections.watch(),
            self.health_port.connections.watch(),
        )
        self._background.extend(map(asyncio.create_task, watching))
        if self.history is not None:
            self.history.writer.start()
        await self.verify()
        if self.cached is not None:
            self.cached.cache.start()
        elif self.settings.cache_url is not None:
            logger.info(CACHE_NOT_USED, self.model.engine)
        gc.enable()

    async def open_health_port(self) -> None:
        """Listen on the second port, where the settings have one; end the process where that can't be."""
        if self.settings.health_port is not None:
            try:
                await self.health_port.open(self.settings.host, self.settings.health_port, self.drain.server.config)
            except BadSetting as problem:
                die(str(problem), self.drain.arbiter, problem.exit_code)

    async def stop(self) -> None:
        """Answer what was accepted, and record it."""
        if self.cached is not None:
            await self.cached.cache.stop()  # first: what it does not know any more is scored
        await self.batcher.close()
        if self.history is not None:
            await self.history.writer.stop(self.drain.flush_seconds())
        for task in self._background:
            task.cancel()
        self.health_port.close()
        logger.info("drained")

    async def verify(self) -> None:
        """Become ready once the golden inputs are answered as they should be."""
        if self._golden is None:
            self.health.set_verification("no_model", "there is no model")
            return
        problem = await self.replay(self._golden)
        for _ in range(WARM_UPS):
            await self.batcher.score(self._golden.rows[:WARM_UP_ROWS], timeout=60)
        self.tune_gc()
        startup.done("warm_up")
        if problem:
            self.health.set_verification("wrong_answers", problem)
            logger.error("not ready: %s", problem)
            return
        self.batcher.on_batch = self.metrics.batch_rows.observe
        self.batcher.on_rise = self._queue_peak.observe
        self._queue_peak.reset()  # the golden inputs were nobody's requests
        startup.done("ready")
        self.health.set_verification("ready")
        phases = {f"{phase}_seconds": round(seconds, 3) for phase, seconds in startup.seconds.items()}
        logger.info("ready", extra={"fields": phases})
        self.log_example()

    def tune_gc(self) -> None:
        """Take what the start made out of garbage collection, and collect rarely.

        Looking through its 86,000 objects for nothing held every caller up, for 70 ms at a time (`make bench` shows
        it). A request leaves no cycles, so collections can be rare.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def log_example(self) -> None:
        """Log where to look and what to try."""
        from defects.http import openapi

        card = self.model.description["card"]
        recorded = {} if self.history is None else {"history": self.history.database.name}
        fields = {"data": described(card), **recorded, "try": openapi.curl(self.url, self.model.schema)}
        logger.info("open %s/", self.url, extra={"fields": fields})
        self._warn_of_a_wrong_clock(card)

    def _warn_of_a_wrong_clock(self, card: Mapping[str, Any]) -> None:
        created, now = str(card.get("created")), datetime.now(UTC)
        if is_ahead(created, now) or is_ahead(self.model.version, now):
            fields = {"model": self.tag or self.model.version, "created": created}
            logger.warning("the model is of a time to come, so it hides later ones", extra={"fields": fields})

    async def replay(self, golden: Golden) -> str | None:
        """Replay the golden inputs through the data plane; return what is wrong with the answers."""
        return scoring.golden_difference(golden, await self.batcher.score(golden.rows, timeout=60))

    def end(self, problem: str) -> None:
        """End this process, and `bentoml serve`'s arbiter with it."""
        die(problem, self.drain.arbiter)

    def end_for_want_of_a_database(self, problem: str) -> None:
        """End as one that lacks what it requires."""
        die(problem, self.drain.arbiter, UNAVAILABLE)

    async def end_if_wrong(self) -> None:
        """End where the golden inputs are no longer answered either: it is the scorer then, not some caller's rows."""
        assert self._golden is not None  # noqa: S101 - without one, nothing is ever scored
        try:
            problem = await self.replay(self._golden)
        except Overloaded:
            return  # nobody can say as yet
        except Exception as error:
            problem = f"the golden inputs can't be scored any more: {error}"
        if problem:
            self.end(problem)

    # What makes these takes a tenth of a start to import.

    def openapi(self, table: Table) -> dict[str, Any]:
        """Make the OpenAPI document of the routes."""
        from defects.http import openapi

        return openapi.document(self.model.schema, self.model.version, table)

    def bentoml_schema(self) -> dict[str, Any]:
        """Make what BentoML's clients ask for."""
        from defects.http import openapi

        return openapi.bentoml_schema(self.model.schema, NAME, self.model.schema.purpose)


def find_artifact(settings: Settings) -> tuple[Artifact | None, str | None]:
    """Load the artifact to serve, and find its tag in the model store; none while a Bento without a model is built.

    Raises `Fatal`.
    """
    if settings.model_uri is not None:
        from defects.serving import fetched_model

        return fetched_model.load(settings.model_uri.get_secret_value(), settings), None
    if settings.build and not settings.model_dir:
        return None, None
    directory, tag = store.locate(settings.model_dir, settings.model, bento=SOURCE.parent)
    return mounted_model.load(directory, settings), tag


def limits(settings: Settings, model: ServedModel) -> Limits:
    """Return what requests to a model may take; raises `BadSetting` where not even one body would have room."""
    one = settings.max_body_bytes or body_bytes(model.schema)
    all_bodies = all_bodies_bytes(one, settings.max_bodies_bytes)
    if all_bodies < one:
        raise BadSetting(
            f"DEFECTS_MAX_BODIES_BYTES: is {all_bodies}, less than the largest body (DEFECTS_MAX_BODY_BYTES, or enough "
            f"for 1,024 rows); expected at least {one}"
        )
    outcomes = min(settings.max_body_bytes or OUTCOMES_BYTES, all_bodies)
    return Limits(one, settings.request_timeout_ms / 1000, all_bodies, outcomes)


def verified_scorer(artifact: Artifact | None, scorer: Scorer | None = None) -> Scorer:
    """Return the artifact's scorer, or the one that is given, once it has answered the golden inputs.

    Raises `BadArtifact`.
    """
    if artifact is None:
        return scorer or _no_model
    return scoring.verified(artifact, scorer or scoring.load(artifact))


def _no_model(_: Any) -> Any:
    raise RuntimeError("this Bento was built without a model: set MODEL_DIR")


def describe(artifact: Artifact | None, name: str) -> ServedModel:
    """Describe the model that the routes answer for; before there is one, the built-in data's schema."""
    if artifact is None:
        from defects import simulator

        return ServedModel(simulator.SCHEMA, name, "none", "none", {})
    description = {
        "name": name,
        "version": artifact.version,
        "digest": artifact.digest,
        "engine": artifact.engine,
        "schema": artifact.schema.to_json(),
        "card": artifact.card,
    }
    page = artifact.files.get(CARD_PAGE)
    return ServedModel(artifact.schema, name, artifact.version, artifact.engine, description, page)
