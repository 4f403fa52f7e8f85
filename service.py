"""The BentoML service: wiring only. Settings -> artifact -> scorer -> batcher -> routes -> service.

What can be wrong with settings and artifact ends the import with a pinned exit code, before a port is opened.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from defects import artifact, openapi, routes, scoring, tunnel
from defects.batching import Batcher
from defects.health import Health
from defects.settings import Fatal, Settings

HERE = Path(__file__).resolve().parent
WARM_UPS = 20

logger = logging.getLogger("defects")
logger.setLevel(logging.INFO)


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
    if problem := scoring.golden_difference(loaded, scorer(scoring.golden_rows(loaded))):
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
    SCORER = scorer_of(ARTIFACT)
except Fatal as fatal:
    fatal.exit()

MODEL = describe(ARTIFACT, SETTINGS.served_name)
BATCHER = Batcher(SCORER, max_batch_rows=SETTINGS.max_batch_rows, max_queued_rows=SETTINGS.max_queued_rows)
HEALTH = Health()

Scan = MODEL.schema.request_model()
Prediction = MODEL.schema.answer_model()


class RoutedService(bentoml.Service[Any]):
    """BentoML's service with our routes outside its middlewares, whose tracing, log and timer cost more than a
    prediction does. BentoML answers what the routes don't."""

    def to_asgi(self, is_main: bool = True) -> routes.App:
        return routes.Routes(
            super().to_asgi(is_main),
            model=MODEL,
            batcher=BATCHER,
            health=HEALTH,
            openapi=openapi.document(MODEL.schema, MODEL.name, MODEL.version),
            revision=SETTINGS.revision,
            limits=routes.Limits(SETTINGS.max_body_bytes, SETTINGS.request_timeout_ms / 1000),
        )


@bentoml.service(name=artifact.NAME, workers=1, metrics={"enabled": False}, service_class=RoutedService)
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

    @bentoml.on_startup
    async def verify(self) -> None:
        """Replay the golden inputs through the data plane: it is warm then, and right."""
        if ARTIFACT is None:
            HEALTH.problem = "there is no model"
            return
        rows = scoring.golden_rows(ARTIFACT)
        for _ in range(WARM_UPS):
            answered = await BATCHER.submit(rows, timeout=60).done
        HEALTH.problem = scoring.golden_difference(ARTIFACT, answered)
        if HEALTH.problem:
            logger.error("not ready: %s", HEALTH.problem)
        elif url := DefectClassifier.url:
            logger.info("ready: open %s/ or try\n%s", url, openapi.curl(url, MODEL.schema))

    @bentoml.on_shutdown
    async def answer_what_was_accepted(self) -> None:
        await BATCHER.close()


async def _classify(scans: list[Any]) -> list[Any]:
    """For callers in this process; over HTTP the routes answer first."""
    rows = MODEL.schema.rows_from_objects([scan.model_dump(by_alias=True) for scan in scans])
    job = BATCHER.submit(rows.astype(np.float32), SETTINGS.request_timeout_ms / 1000)
    return [Prediction(**answer) for answer in routes.predictions(MODEL, await job.done)]
