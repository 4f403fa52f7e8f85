"""Fetch the model that `MODEL_URI` names, into memory, before the port is opened."""

from __future__ import annotations

import logging
import time
from functools import partial

from defects import artifact
from defects.artifact import Artifact, BadArtifact, Incomplete, NoModel, Truncated
from defects.object_storage import ObjectStorage, Patience, Unreachable, in_time, open_storage
from defects.serving import startup
from defects.serving.logs import configure_logs
from defects.settings import Settings

LOOK_SECONDS = 2.0  # between two tries to fetch a model that is not complete
# What may have another result later: somebody uploads the model, or the network comes back.
MAY_COME = (NoModel, Incomplete, Truncated, Unreachable)

logger = logging.getLogger(__name__)


def load(uri: str, settings: Settings, patience: Patience | None = None) -> Artifact:
    """Fetch and verify the artifact at `uri`; wait for one that is not complete, as long as the settings say.

    Raises `NoModel`, `BadArtifact`, `Unreachable` or `BadSetting`.
    """
    patience = patience or Patience()
    with startup.ending_on_signals():
        storage = open_storage(uri, "MODEL_URI", pinned=settings.model_digest is not None, patience=patience)
        seconds = patience.total + settings.model_wait_seconds
        fetch = partial(_fetch, storage, settings)
        found = in_time(fetch, seconds, f"{storage.location}: fetching the model")
    startup.done("model_fetch")
    return found


def _fetch(storage: ObjectStorage, settings: Settings) -> Artifact:
    began, seconds = time.monotonic(), settings.model_wait_seconds
    waits = False
    while True:
        try:
            return artifact.read(storage, settings.model_digest)
        except MAY_COME as problem:
            left = began + seconds - time.monotonic()
            if left <= 0:
                raise _waited(problem, time.monotonic() - began, seconds) if waits else problem from None
            if not waits:
                waits = True
                _log_waiting(settings, problem)
        time.sleep(min(LOOK_SECONDS, left))


def _waited(problem: NoModel | BadArtifact | Unreachable, waited: float, most: float) -> Exception:
    return type(problem)(f"{problem} (waited {waited:.1f} s for it; DEFECTS_MODEL_WAIT_SECONDS is {most:g})")


def _log_waiting(settings: Settings, problem: Exception) -> None:
    writer = configure_logs(settings.log_level, {"revision": settings.revision})
    logger.info("waiting up to %g s for the model: %s", settings.model_wait_seconds, problem)
    writer.flush()  # another one writes the lines to come
