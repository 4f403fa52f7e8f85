"""One replica, wired: settings -> artifact -> scorer -> batcher -> routes. Both entry points serve `ROUTES`.

What can be wrong with settings and artifact ends the import with a pinned exit code, before a port is opened. Nothing
here imports BentoML's SDK, which takes longer than everything else together: see `defects/serve.py`.
"""

from __future__ import annotations

from defects.serving import startup  # first: what comes after it is timed

# isort: split
import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

from defects import artifact, scoring
from defects.http import fast_path, messages, router
from defects.serving import logs, metrics, model
from defects.serving.batching import Batcher
from defects.serving.drain import Drain, die
from defects.serving.health import Health
from defects.settings import Fatal, Settings

startup.done("imports")

SOURCE = Path(__file__).resolve().parents[1]
WARM_UPS, WARM_UP_ROWS = 20, 16  # requests, and rows in each
GC_THRESHOLDS = (10_000, 10, 10)  # allocations before a collection of the youngest; of those before older ones

logger = logging.getLogger("defects")


def load(settings: Settings) -> tuple[artifact.Artifact | None, str | None]:
    """The artifact to serve and its tag in the model store; none while a Bento without a model is built."""
    if settings.build and not settings.model_dir:
        return None, None
    directory, tag = artifact.locate(settings.model_dir, settings.model, bento=SOURCE.parent)
    return artifact.load(directory, settings.model_digest), tag


def scorer_of(loaded: artifact.Artifact | None) -> scoring.Scorer:
    """The artifact's scorer, once it has answered the golden inputs; raises `BadArtifact`."""
    if loaded is None:
        return _no_model
    scorer = scoring.load(loaded)
    try:
        problem = scoring.golden_difference(loaded.golden, scorer(loaded.golden.rows))
        problem = problem or scoring.varies(scorer, loaded.golden.rows)
    except Exception as error:  # what an engine raises is its own affair
        problem = f"the golden inputs can't be scored: {error}"
    if problem:
        raise artifact.BadArtifact(problem)
    return scorer


def _no_model(_: Any) -> Any:
    raise RuntimeError("this Bento was built without a model: set MODEL_DIR")


def describe(loaded: artifact.Artifact | None, name: str) -> model.Model:
    """What the routes tell about the model; before there is one, the built-in data's schema."""
    if loaded is None:
        from defects import simulator

        return model.Model(simulator.SCHEMA, name, "none", "none", {})
    description = {
        "name": name,
        "version": loaded.version,
        "digest": loaded.digest,
        "engine": loaded.engine,
        "schema": loaded.schema.to_json(),
        "card": loaded.card,
    }
    return model.Model(loaded.schema, name, loaded.version, loaded.engine, description)


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
METRICS = metrics.Metrics(MODEL.version, DIGEST, MODEL.engine, MODEL.schema.class_names)
BATCHER = Batcher(
    SCORER,
    max_batch_rows=SETTINGS.max_batch_rows,
    max_queued_rows=SETTINGS.max_queued_rows,
    on_death=lambda problem: end(problem),  # noqa: PLW0108 - it is defined below
    on_doubt=lambda: asyncio.get_running_loop().create_task(end_if_wrong()),
)
HEALTH = Health(SETTINGS.finish_seconds, lambda: BATCHER.batch_seconds)
DRAIN = Drain(HEALTH, SETTINGS.drain_seconds)
WRITER = logs.configure_logs(SETTINGS.log_level, {"model_version": MODEL.version, "revision": SETTINGS.revision})

QUEUE_PEAK = metrics.Peak(lambda: BATCHER.waiting_rows)
METRICS.read("defects_queue_rows", "Rows waiting to be scored.", lambda: {"": BATCHER.waiting_rows})
METRICS.add_peak("defects_queue_rows", "Rows waiting to be scored.", QUEUE_PEAK)
METRICS.read("defects_ready", "1 when ready; why, or why not.", lambda: {HEALTH.reason: HEALTH.ready}, "reason")
METRICS.read("defects_startup_seconds", "What the start took.", lambda: startup.seconds, "phase")
METRICS.read("defects_log_lines_dropped", "Log lines that nobody read in time.", lambda: {"": WRITER.dropped})

BACKGROUND: list[asyncio.Task[None]] = []
url = f"http://localhost:{SETTINGS.port}"  # for people; `bentoml serve` listens elsewhere


async def start() -> None:
    """Take over the signals, and replay the golden inputs through the data plane: it is warm then, and right."""
    startup.done("application")
    DRAIN.handle_signals()
    if DRAIN.server is not None:
        fast_path.install(DRAIN.server.config, ROUTES)
    BACKGROUND.extend(map(asyncio.create_task, (HEALTH.beat(), DRAIN.watch_arbiter(), METRICS.watch_loop())))
    await verify()
    gc.enable()


async def stop() -> None:
    """Answer what was accepted."""
    await BATCHER.close()
    for task in BACKGROUND:
        task.cancel()
    logger.info("drained")


async def verify() -> None:
    """Become ready once the golden inputs are answered as they should be."""
    if ARTIFACT is None:
        HEALTH.set_verification("no_model", "there is no model")
        return
    problem = await replayed(ARTIFACT.golden)
    for _ in range(WARM_UPS):
        await BATCHER.score(ARTIFACT.golden.rows[:WARM_UP_ROWS], timeout=60)
    startup.done("warm_up")
    if problem:
        HEALTH.set_verification("wrong_answers", problem)
        logger.error("not ready: %s", problem)
        return
    BATCHER.on_batch = METRICS.batch_rows.observe
    BATCHER.on_rise = QUEUE_PEAK.observe
    QUEUE_PEAK.reset()  # the golden inputs were nobody's requests
    settle()
    startup.done("ready")
    HEALTH.set_verification("ready")
    logger.info("ready", extra={"fields": {f"{phase}_seconds": round(s, 3) for phase, s in startup.seconds.items()}})
    invite()


def invite() -> None:
    """Say where to look and what to try."""
    from defects.http import openapi

    fields = {"data": MODEL.description["card"]["data"]["source"], "try": openapi.curl(url, MODEL.schema)}
    logger.info("open %s/", url, extra={"fields": fields})


def document() -> dict[str, Any]:
    """The OpenAPI document, whose pydantic models take a tenth of a start to make."""
    from defects.http import openapi

    return openapi.document(MODEL.schema, MODEL.name, MODEL.version)


def settle() -> None:
    """Take what the start left out of garbage collection: looking through its 86,000 objects for nothing held every
    caller up, for 70 ms at a time (`make bench` shows it). A request leaves no cycles, so collections can be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def replayed(golden: artifact.Golden) -> str | None:
    """What is wrong with the answers that the data plane gives for the golden inputs."""
    return scoring.golden_difference(golden, await BATCHER.score(golden.rows, timeout=60))


def end(problem: str) -> None:
    """End this process, and `bentoml serve`'s arbiter with it."""
    die(problem, DRAIN.arbiter)


async def end_if_wrong() -> None:
    """End where the golden inputs are no longer answered either: it is the scorer then, not some caller's rows."""
    assert ARTIFACT is not None  # noqa: S101 - without one, nothing is ever scored
    try:
        problem = await replayed(ARTIFACT.golden)
    except Exception as error:
        problem = f"the golden inputs can't be scored any more: {error}"
    if problem:
        end(problem)


def bentoml_app() -> messages.App:
    """BentoML's own application, which has the page at `/`. Imports its SDK, so only once somebody asks for it."""
    import service

    app: messages.App = service.DefectClassifier.own_app()  # type: ignore[attr-defined]
    return app


ROUTES = router.Routes(
    bentoml_app,
    start=start,
    stop=stop,
    model=MODEL,
    batcher=BATCHER,
    health=HEALTH,
    openapi=document,
    revision=SETTINGS.revision,
    limits=model.Limits(SETTINGS.max_body_bytes or model.body_bytes(MODEL.schema), SETTINGS.request_timeout_ms / 1000),
    metrics=METRICS,
    access=logs.AccessLog(SETTINGS.access_log_share),
)
