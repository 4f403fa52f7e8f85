"""Wait for a model that is mounted: its directory, or some of its files, may come after this process has started.

With KServe's `oci://`, a sidecar makes the link `/mnt/models` to its own files (`/proc/N/root/models`) once it runs.
A volume may still be filled. Waiting comes before the port is opened.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from defects import artifact
from defects.artifact import Artifact, BadArtifact, Incomplete, NoModel, Truncated
from defects.serving import startup
from defects.serving.logs import configure_logs
from defects.settings import Settings

LOOK_SECONDS = 0.1
# A file with other content than `digests.json` lists is being written, or damaged. It is damaged if nothing in the
# directory has changed for so long.
STILL_SECONDS = 10.0

logger = logging.getLogger(__name__)
State = frozenset[tuple[object, ...]]  # of a directory's files; the same as long as nobody writes to them


def load(directory: Path, settings: Settings) -> Artifact:
    """Read the artifact in `directory`; wait for one in `MODEL_DIR` that is not complete, as long as the settings say.

    Raises `NoModel` or `BadArtifact`, at once where waiting can't help.
    """
    if settings.model_dir is None or not settings.model_wait_seconds:
        return artifact.load(directory, settings.model_digest)
    before = _state(directory)
    try:
        return artifact.load(directory, settings.model_digest)
    except (NoModel, BadArtifact) as problem:
        if _is_final(problem, directory):
            raise
        first = problem
    with startup.ending_on_signals():
        return _wait(directory, settings, before, first)


def _wait(directory: Path, settings: Settings, before: State, first: NoModel | BadArtifact) -> Artifact:
    seconds, began = settings.model_wait_seconds, time.monotonic()
    writer = configure_logs(settings.log_level, {"revision": settings.revision})
    logger.info("waiting up to %g s for the model: %s", seconds, first)
    writer.flush()
    try:
        found = _load_when_complete(directory, settings.model_digest, began + seconds, before, first)
    except (NoModel, BadArtifact) as problem:
        waited = f"waited {time.monotonic() - began:.1f} s for it; DEFECTS_MODEL_WAIT_SECONDS is {seconds:g}"
        raise type(problem)(f"{problem} ({waited})") from None
    logger.info("the model is there, after %.1f s", time.monotonic() - began)
    writer.flush()  # another one writes the lines to come
    return found


def _load_when_complete(
    directory: Path, digest: str | None, end: float, loaded: State, problem: NoModel | BadArtifact
) -> Artifact:
    """Load the artifact again whenever its files have changed, and are not changing any more, and a last time at `end`.

    `loaded` is the state of the directory at the first time, which gave `problem`.
    """
    seen, changed = loaded, time.monotonic()
    while True:
        time.sleep(max(0.0, min(LOOK_SECONDS, end - time.monotonic())))
        state, now = _state(directory), time.monotonic()
        quiet, seen = state == seen, state
        changed = changed if quiet else now
        still = isinstance(problem, Truncated) and now - changed >= STILL_SECONDS
        if not (now >= end or still or (quiet and state != loaded)):
            continue
        loaded = state
        try:
            found = artifact.load(directory, digest)
        except (NoModel, BadArtifact) as again:
            problem = again
            if now >= end or (still and isinstance(again, Truncated)) or _is_final(again, directory):
                raise
        else:
            startup.done("model_wait", at=now)
            return found


def _is_final(problem: NoModel | BadArtifact, directory: Path) -> bool:
    """Return whether a problem stays, whatever else is mounted or copied there."""
    if isinstance(problem, NoModel):
        return os.path.exists(directory) and not os.path.isdir(directory)  # noqa: PTH110, PTH112 - they never raise
    return not isinstance(problem, Incomplete | Truncated)


def _state(directory: Path) -> State:
    try:
        with os.scandir(directory) as entries:
            return frozenset(map(_state_of, entries))
    except OSError as error:
        return frozenset({(error.errno,)})


def _state_of(entry: os.DirEntry[str]) -> tuple[object, ...]:
    try:
        found = entry.stat()
    except OSError as error:  # a link that leads nowhere, or a file that has just been renamed
        return entry.name, error.errno
    return entry.name, found.st_ino, found.st_size, found.st_mode, found.st_mtime_ns, found.st_ctime_ns
