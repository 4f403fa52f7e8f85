"""The BentoML service: wiring only. Settings -> artifact -> scorer -> routes -> service.

What can be wrong with settings and artifact ends the import with a pinned exit code, before a port is opened.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import bentoml

from defects import artifact, openapi, routes, scoring, tunnel
from defects.settings import Fatal, Settings

HERE = Path(__file__).resolve().parent

logger = logging.getLogger("defects")
logger.setLevel(logging.INFO)


def load(settings: Settings) -> tuple[routes.Model, str | None]:
    """The model to serve and its tag in the model store; raises `Fatal`."""
    try:
        directory, tag = artifact.locate(settings.model_dir, settings.model, bento=HERE.parent)
    except artifact.NoModel:
        if not settings.build:
            raise
        return routes.Model(tunnel.SCHEMA, "none", {}, _no_model), None
    loaded = artifact.load(directory, settings.model_digest)
    scorer = scoring.load(loaded)
    if problem := scoring.golden_difference(loaded, scorer(scoring.golden_rows(loaded))):
        raise artifact.BadArtifact(f"{directory}: {problem}")
    return routes.Model(loaded.schema, loaded.version, _description(loaded), scorer), tag


def _no_model(_: Any) -> Any:
    raise RuntimeError("this Bento was built without a model: set MODEL_DIR")


def _description(loaded: artifact.Artifact) -> dict[str, Any]:
    return {
        "name": artifact.NAME,
        "version": loaded.version,
        "digest": loaded.digest,
        "engine": loaded.engine,
        "schema": loaded.schema.to_json(),
        "card": loaded.card,
    }


try:
    SETTINGS = Settings.from_environment()
    MODEL, TAG = load(SETTINGS)
except Fatal as fatal:
    fatal.exit()

Scan = MODEL.schema.request_model()
Prediction = MODEL.schema.answer_model()


@bentoml.service(name=artifact.NAME, workers=1, metrics={"enabled": False})
class DefectClassifier:
    """Says which defect, if any, a parcel has."""

    if TAG is not None:
        model = bentoml.models.BentoModel(TAG)  # what `bentoml build` packs

    @bentoml.api
    async def classify(self, scan: Scan, /) -> Prediction:  # type: ignore[valid-type]
        """Classify one scan."""
        return _classify([scan])[0]

    @bentoml.api
    async def classify_batch(self, scans: list[Scan], /) -> list[Prediction]:  # type: ignore[valid-type]
        """Classify 1 to 1,024 scans."""
        return _classify(scans)

    @bentoml.on_startup
    def say_where(self) -> None:
        url = DefectClassifier.url
        if url:
            logger.info("ready: open %s/ or try\n%s", url, openapi.curl(url, MODEL.schema))


def _classify(scans: list[Any]) -> list[Any]:
    """For callers in this process; over HTTP the routes below answer first."""
    rows = MODEL.schema.rows_from_objects([scan.model_dump(by_alias=True) for scan in scans])
    return [Prediction(**answer) for answer in routes.predictions(MODEL, MODEL.score(rows.astype("float32")))]


DefectClassifier.add_asgi_middleware(
    routes.Routes,
    model=MODEL,
    openapi=openapi.document(MODEL.schema, MODEL.version),
    revision=SETTINGS.revision,
    max_body_bytes=SETTINGS.max_body_bytes,
)
