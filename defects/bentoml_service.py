"""The BentoML service around a replica: what `bentoml build` packs and `bentoml serve` starts.

Imports BentoML's SDK, so only `service.py` imports this.
"""

# Without `annotations` from `__future__`: BentoML reads the types of the APIs, which are made of the model's schema.
import os
import sys
from typing import Any

import bentoml
import numpy as np

from defects.artifact import NAME
from defects.http.messages import App
from defects.pydantic_models import answer_model, request_model
from defects.replica import Replica
from defects.serving import arbiter
from defects.serving.model import prediction_objects

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # the image has the one that trained and was tested
# Packages come from wheels that `make image` puts into the Bento, if they are there, and from no index then.
FROM_WHEELS = (
    "if [ -d env/docker/wheels ]; then"
    " python3 -m pip install --quiet --no-index --find-links env/docker/wheels --break-system-packages uv"
    " && mkdir -p /etc/uv && printf"
    ' \'no-index = true\\nfind-links = ["%s/env/docker/wheels"]\\npython-downloads = "never"\\n\' "$PWD"'
    " > /etc/uv/uv.toml; fi"
)


def image() -> bentoml.images.Image:
    """Describe the image of `bentoml containerize`."""
    # BentoML installs compilers where it knows the distribution.
    made = bentoml.images.Image(base_image=f"python:{PYTHON}-slim", distro="without-compilers", python_version=PYTHON)
    made.run(FROM_WHEELS)
    return made


def routed(replica: Replica) -> type[bentoml.Service[Any]]:
    """Make the class of a service whose application is the replica's routes, without BentoML's middlewares.

    Their tracing, log and timer cost more than a prediction does.
    """

    class RoutedService(bentoml.Service[Any]):
        def to_asgi(self, is_main: bool = True) -> App:  # noqa: ARG002 - there is but one service
            if bentoml.server_context.worker_index is not None:  # a worker of `bentoml serve`
                replica.drain.arbiter = os.getppid()
                replica.url = self.url or replica.url
            return replica.routes

    return RoutedService


def classifier(replica: Replica) -> bentoml.Service[Any]:
    """Make the service around `replica`."""
    schema = replica.model.schema
    Scan, Prediction = request_model(schema), answer_model(schema)  # noqa: N806 - types

    async def classified(scans: list[Any]) -> list[Any]:
        """Classify for callers in this process; over HTTP the routes answer first."""
        return [Prediction(**answer) for answer in await answers(replica, scans)]

    @bentoml.service(
        name=NAME,
        image=image(),
        workers=1,
        metrics={"enabled": False},
        logging={"access": {"enabled": False}},
        service_class=routed(replica),
    )
    class DefectClassifier:
        __doc__ = schema.purpose

        if replica.tag is not None:
            model = bentoml.models.BentoModel(replica.tag)  # what `bentoml build` packs

        @bentoml.api
        async def classify(self, scan: Scan, /) -> Prediction:  # type: ignore[valid-type]
            """Classify one scan."""
            return (await classified([scan]))[0]

        @bentoml.api
        async def classify_batch(self, scans: list[Scan], /) -> list[Prediction]:  # type: ignore[valid-type]
            """Classify 1 to 1,024 scans."""
            return await classified(scans)

        @bentoml.on_deployment
        @staticmethod
        def check_the_arbiter() -> None:
            """In `bentoml serve`'s arbiter: allow one worker, and let the arbiter end with it."""
            arbiter.check_workers(NAME)
            arbiter.check_health_port(replica.settings)
            arbiter.install()
            os.environ["BENTOML_CONTAINERIZED"] = "true"  # where nobody starts a killed worker again

    return DefectClassifier


async def answers(replica: Replica, scans: list[Any]) -> list[dict[str, Any]]:
    """Answer scans, given as `Scan`s, in this process; raises `InvalidInput` or `Overloaded`."""
    schema = replica.model.schema
    rows = schema.rows_from_objects([scan.model_dump(by_alias=True) for scan in scans])
    probabilities = await replica.batcher.score(schema.held(rows), replica.settings.request_timeout_ms / 1000)
    schema.check_scored(rows, np.isnan(probabilities[:, 0]))
    best = probabilities.argmax(axis=1).tolist()
    return prediction_objects(replica.model, probabilities.astype(np.float32), best)
