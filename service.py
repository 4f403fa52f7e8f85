"""The BentoML service: wiring only. Settings -> artifact -> scorer -> batcher -> routes -> service.

What can be wrong with settings and artifact ends the import with a pinned exit code, before a port is opened.
"""

from __future__ import annotations

from defects import startup  # first: what comes after it is timed

# isort: split
import asyncio
import gc
import logging
import os
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
from bentoml._internal.configuration.containers import BentoMLContainer

from defects import artifact, asgi, openapi, protocol, routes, scoring, telemetry, tunnel
from defects.batching import Batcher
from defects.health import Health, die
from defects.settings import BadSetting, Fatal, Settings

startup.done("imports")

HERE = Path(__file__).resolve().parent
WARM_UPS = 20
GC_THRESHOLDS = (10_000, 10, 10)  # allocations before a collection of the youngest; of those before older ones

logger = logging.getLogger("defects")


def load(settings: Settings) -> tuple[artifact.Artifact | None, str | None]:
    """The artifact to serve and its tag in the model store; none while a Bento without a model is built."""
    try:
        directory, tag = artifact.locate(settings.model_dir, settings.model, bento=HERE.parent)
    except artifact.NoModel:
        if not settings.build:
            raise
        return None, None
    return artifact.load(directory, settings.model_digest), tag


def scorer_of(loaded: artifact.Artifact | None) -> scoring.Scorer:
    """The artifact's scorer, once it has answered the golden inputs; raises `BadArtifact`."""
    if loaded is None:
        return _no_model
    scorer = scoring.load(loaded)
    try:
        problem = scoring.golden_difference(loaded.golden, scorer(loaded.golden.rows))
    except Exception as error:  # what an engine raises is its own affair
        problem = f"the golden inputs can't be scored: {error}"
    if problem:
        raise artifact.BadArtifact(problem)
    return scorer


def _no_model(_: Any) -> Any:
    raise RuntimeError("this Bento was built without a model: set MODEL_DIR")


def describe(loaded: artifact.Artifact | None, name: str) -> routes.Model:
    """What the routes tell about the model; before there is one, the built-in data's schema."""
    if loaded is None:
        return routes.Model(tunnel.SCHEMA, name, "none", "none", {})
    description = {
        "name": name,
        "version": loaded.version,
        "digest": loaded.digest,
        "engine": loaded.engine,
        "schema": loaded.schema.to_json(),
        "card": loaded.card,
    }
    return routes.Model(loaded.schema, name, loaded.version, loaded.engine, description)


try:
    SETTINGS = Settings.from_environment()
    ARTIFACT, TAG = load(SETTINGS)
    startup.done("artifact")
    SCORER = scorer_of(ARTIFACT)
    startup.done("verification")
except Fatal as fatal:
    fatal.exit()

MODEL = describe(ARTIFACT, SETTINGS.served_name)
DIGEST = ARTIFACT.digest if ARTIFACT else "none"
METRICS = telemetry.Metrics(MODEL.version, DIGEST, MODEL.engine, MODEL.schema.class_names)
ARBITER = None if bentoml.server_context.worker_index is None else os.getppid()
BATCHER = Batcher(
    SCORER,
    max_batch_rows=SETTINGS.max_batch_rows,
    max_queued_rows=SETTINGS.max_queued_rows,
    on_death=lambda problem: die(problem, ARBITER),
    on_doubt=lambda: asyncio.get_running_loop().create_task(end_if_wrong()),
)
HEALTH = Health(SETTINGS.drain_seconds, SETTINGS.finish_seconds, lambda: BATCHER.batch_seconds, ARBITER)
WRITER = telemetry.configure_logs(SETTINGS.log_level, {"model_version": MODEL.version, "revision": SETTINGS.revision})

METRICS.read("defects_queue_rows", "Rows waiting to be scored.", lambda: {"": BATCHER.waiting_rows})
METRICS.read("defects_ready", "1 when ready; why, or why not.", lambda: {HEALTH.reason: HEALTH.ready}, "reason")
METRICS.read("defects_startup_seconds", "What the start took.", lambda: startup.seconds, "phase")
METRICS.read("defects_log_lines_dropped", "Log lines that nobody read in time.", lambda: {"": WRITER.dropped})

Scan = MODEL.schema.request_model
Prediction = MODEL.schema.answer_model


class RoutedService(bentoml.Service[Any]):
    """BentoML's service with our routes outside its middlewares, whose tracing, log and timer cost more than a
    prediction does. BentoML answers what the routes don't."""

    def to_asgi(self, is_main: bool = True) -> asgi.App:
        bentoml_app = super().to_asgi
        self.routes = routes.Routes(
            lambda: bentoml_app(is_main),
            start=start,
            stop=stop,
            model=MODEL,
            batcher=BATCHER,
            health=HEALTH,
            openapi=openapi.document(MODEL.schema, MODEL.name, MODEL.version),
            revision=SETTINGS.revision,
            limits=routes.Limits(
                SETTINGS.max_body_bytes or routes.body_bytes(MODEL.schema), SETTINGS.request_timeout_ms / 1000
            ),
            metrics=METRICS,
            access=telemetry.AccessLog(SETTINGS.access_log_share),
        )
        return self.routes


@bentoml.service(
    name=artifact.NAME,
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    service_class=RoutedService,
)
class DefectClassifier:
    """Says which defect, if any, a parcel has."""

    if TAG is not None:
        model = bentoml.models.BentoModel(TAG)  # what `bentoml build` packs

    @bentoml.api
    async def classify(self, scan: Scan, /) -> Prediction:  # type: ignore[valid-type]
        """Classify one scan."""
        return (await _classify([scan]))[0]

    @bentoml.api
    async def classify_batch(self, scans: list[Scan], /) -> list[Prediction]:  # type: ignore[valid-type]
        """Classify 1 to 1,024 scans."""
        return await _classify(scans)

    @bentoml.on_deployment
    @staticmethod
    def check_the_arbiter() -> None:
        """In `bentoml serve`'s arbiter: one worker, and with it the arbiter is to end, should it be killed."""
        workers = BentoMLContainer.config.services[artifact.NAME].workers.get()
        if workers != 1:
            BadSetting(
                f"workers: is {workers}; expected 1: scale by replicas, for each worker has its own batches"
            ).exit()
        os.environ["BENTOML_CONTAINERIZED"] = "true"


BACKGROUND: list[asyncio.Task[None]] = []


async def start() -> None:
    """Take over the signals, and replay the golden inputs through the data plane: it is warm then, and right."""
    startup.done("application")
    HEALTH.take_over()
    if HEALTH.server is not None:
        protocol.install(HEALTH.server.config, DefectClassifier.routes)
    BACKGROUND.extend(map(asyncio.create_task, (HEALTH.beat(), METRICS.watch_loop())))
    await verify()


async def stop() -> None:
    """Answer what was accepted."""
    await BATCHER.close()
    for task in BACKGROUND:
        task.cancel()
    logger.info("drained")


async def verify() -> None:
    """Become ready once the golden inputs are answered as they should be."""
    if ARTIFACT is None:
        HEALTH.became("no_model", "there is no model")
        return
    for _ in range(WARM_UPS):
        problem = await replayed(ARTIFACT.golden)
    startup.done("warm_up")
    if problem:
        HEALTH.became("wrong_answers", problem)
        logger.error("not ready: %s", problem)
        return
    BATCHER.on_batch = METRICS.batch_rows.observe
    settle()
    startup.done("ready")
    HEALTH.became("ready")
    logger.info("ready", extra={"fields": {f"{phase}_seconds": round(s, 3) for phase, s in startup.seconds.items()}})
    url = DefectClassifier.url or f"http://localhost:{SETTINGS.port}"
    source = ARTIFACT.card["data"]["source"]
    logger.info("open %s/", url, extra={"fields": {"data": source, "try": openapi.curl(url, MODEL.schema)}})


def settle() -> None:
    """Take what the start left out of garbage collection: looking through its 86,000 objects for nothing held every
    caller up, for 70 ms at a time (`make bench` shows it). A request leaves no cycles, so collections can be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def replayed(golden: artifact.Golden) -> str | None:
    """What is wrong with the answers that the data plane gives for the golden inputs."""
    return scoring.golden_difference(golden, await BATCHER.score(golden.rows, timeout=60))


async def end_if_wrong() -> None:
    """End where the golden inputs are no longer answered either: it is the scorer then, not some caller's rows."""
    assert ARTIFACT is not None  # noqa: S101 - without one, nothing is ever scored
    try:
        problem = await replayed(ARTIFACT.golden)
    except Exception as error:
        problem = f"the golden inputs can't be scored any more: {error}"
    if problem:
        die(problem, ARBITER)


async def _classify(scans: list[Any]) -> list[Any]:
    """For callers in this process; over HTTP the routes answer first."""
    rows = MODEL.schema.rows_from_objects([scan.model_dump(by_alias=True) for scan in scans])
    probabilities = await BATCHER.score(rows.astype(np.float32), SETTINGS.request_timeout_ms / 1000)
    best = probabilities.argmax(axis=1).tolist()
    return [Prediction(**answer) for answer in routes.predictions(MODEL, probabilities, best)]
