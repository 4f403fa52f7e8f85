"""The BentoML service around one replica, which `defects/replica.py` wires: what `bentoml` builds and serves."""

from __future__ import annotations

from defects import replica  # first: what can be wrong ends the process before BentoML's SDK is loaded

# isort: split
import os
import sys
from typing import Any

import bentoml
import numpy as np

from defects import artifact, pydantic_models
from defects.http import messages
from defects.replica import BATCHER, MODEL, SETTINGS, TAG
from defects.serving import model as model_

Scan = pydantic_models.request_model(MODEL.schema)
Prediction = pydantic_models.answer_model(MODEL.schema)


PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # the image has the one that trained and was tested
# Packages come from wheels that `make image` puts into the Bento, if they are there, and from no index then.
FROM_WHEELS = (
    "if [ -d env/docker/wheels ]; then"
    " python3 -m pip install --quiet --no-index --find-links env/docker/wheels --break-system-packages uv"
    " && mkdir -p /etc/uv && printf"
    ' \'no-index = true\\nfind-links = ["%s/env/docker/wheels"]\\npython-downloads = "never"\\n\' "$PWD"'
    " > /etc/uv/uv.toml; fi"
)
# BentoML installs compilers where it knows the distribution.
IMAGE = bentoml.images.Image(base_image=f"python:{PYTHON}-slim", distro="without-compilers", python_version=PYTHON)
IMAGE.run(FROM_WHEELS)


class RoutedService(bentoml.Service[Any]):
    """BentoML's service with our routes outside its middlewares, whose tracing, log and timer cost more than a
    prediction does. BentoML answers what the routes don't."""

    def to_asgi(self, is_main: bool = True) -> messages.App:  # noqa: ARG002 - there is but one service
        if bentoml.server_context.worker_index is not None:  # a worker of `bentoml serve`
            replica.DRAIN.arbiter = os.getppid()
            replica.url = self.url or replica.url
        return replica.ROUTES

    def own_app(self) -> messages.App:
        """The application that BentoML makes of this service."""
        app: messages.App = super().to_asgi()
        return app


@bentoml.service(
    name=artifact.NAME,
    image=IMAGE,
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
        """In `bentoml serve`'s arbiter: allow one worker, and let the arbiter end with it."""
        from defects.serving import arbiter

        arbiter.check_workers(artifact.NAME)
        arbiter.install()
        os.environ["BENTOML_CONTAINERIZED"] = "true"  # where nobody starts a killed worker again


async def _classify(scans: list[Any]) -> list[Any]:
    """For callers in this process; over HTTP the routes answer first."""
    rows = MODEL.schema.rows_from_objects([scan.model_dump(by_alias=True) for scan in scans])
    probabilities = await BATCHER.score(MODEL.schema.held(rows), SETTINGS.request_timeout_ms / 1000)
    MODEL.schema.check_scored(rows, np.isnan(probabilities[:, 0]))
    best = probabilities.argmax(axis=1).tolist()
    return [Prediction(**answer) for answer in model_.predictions(MODEL, probabilities.astype(np.float32), best)]
