"""Whether records can be committed: in the log at each change, and for the replica's health."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from defects.history.database import Unreachable

PATIENCE_SECONDS = 2.0  # of trouble before a replica is not ready: a new connection takes less

logger = logging.getLogger(__name__)


class State:
    """Whether the database called `name` can be written to; every change of that is logged once."""

    def __init__(self, name: str):
        self._name = name
        self.usable = True  # by this version
        self._asked_since: float | None = None
        self._trouble_since: float | None = -math.inf
        self._lost: float | None = None  # when that was logged
        self._write_failed = False  # the last one: to be asked and to answer proves nothing then, as on a full disk
        self._faults: set[str] = set()  # kinds of those that were logged since the last commit

    @property
    def problem(self) -> str | None:
        """Return why nothing can be committed, in words that anyone may see, once that has been so for a while."""
        since = self._asked_since if self._trouble_since is None else self._trouble_since
        if since is None or time.monotonic() - since < PATIENCE_SECONDS:
            return None
        if self._trouble_since is None:
            return "the database of predictions does not answer"
        return "the database of predictions can't be used now"

    def opened(self, *, retrying: bool) -> None:
        """Note that the database can be used; while something is `retrying`, only its commit ends the trouble."""
        if self._trouble_since == -math.inf and self._lost is None:
            logger.info("recording predictions into %s", self._name)
        self.usable = True
        if not self._write_failed:
            self._log_return()
        if not retrying:
            self._trouble_since = None

    def _log_return(self) -> None:
        if self._lost is not None:
            logger.info("recording predictions into %s again, after %.1f s", self._name, time.monotonic() - self._lost)
            self._lost = None

    @contextmanager
    def asking(self, *, writes: bool = False) -> Iterator[None]:
        """Note while the database is asked to do something, and in the end that it did, or was lost."""
        self._asked_since = time.monotonic()
        try:
            yield
        except Unreachable as problem:
            self._write_failed = self._write_failed or writes
            self.lost(problem)
            raise
        else:
            self._trouble_since = None
            self._faults.clear()
            if writes:
                self._write_failed = False
                self._log_return()
        finally:
            self._asked_since = None

    def lost(self, problem: Exception) -> None:
        """Note that the database can't be reached, or did not answer."""
        self._begin_trouble()
        if self._lost is None:
            self._lost = time.monotonic()
            logger.warning("%s can't be used now, trying again: %s", self._name, problem)

    def unusable(self, problem: Exception) -> None:
        """Note that this version can't use the database, so that records are dropped."""
        self._begin_trouble()
        if self.usable:
            self.usable, self._lost = False, self._lost or time.monotonic()
            logger.error("predictions are not recorded, but dropped and counted: %s", problem)

    def _begin_trouble(self) -> None:
        if self._trouble_since is None:
            self._trouble_since = self._asked_since or time.monotonic()

    def dropped(self) -> None:
        """Note that a record was dropped; where the database can't be used, that was said."""
        if self.usable:
            self.fault("dropped", "there is no room for more records: they are dropped and counted")

    def fault(self, kind: str, message: str) -> None:
        """Log a fault; each kind once, until something is committed again."""
        if kind not in self._faults:
            self._faults.add(kind)
            logger.error("%s: %s", self._name, message)
