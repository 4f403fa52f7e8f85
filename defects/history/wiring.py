"""Make the history of a replica: its database, and what writes into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from defects.artifact import Artifact
from defects.history.database import Database, Registration
from defects.history.databases import database_of
from defects.history.metrics import HistoryMetrics
from defects.history.record import Layout
from defects.history.writer import Writer
from defects.serving.metrics import Metrics
from defects.settings import Settings


@dataclass(frozen=True)
class History:
    """A database, and the `writer` that writes into it."""

    database: Database
    writer: Writer


def history_of(settings: Settings, artifact: Artifact, metrics: Metrics, end: Callable[[str], None]) -> History:
    """Make what the settings ask for; nothing is connected yet. `end` is told why the process can't go on.

    Raises `Fatal`.
    """
    assert settings.database_url is not None  # noqa: S101 - else nobody asks for a history
    database = database_of(settings.database_url.get_secret_value())
    registration = Registration(
        version=artifact.version,
        digest=artifact.digest,
        schema=artifact.files["schema.json"].decode(),
        revision=settings.revision,
        layout=Layout(artifact.schema, with_features=settings.history_features),
    )
    writer = Writer(
        database,
        registration,
        acknowledges=settings.history == "acknowledged",
        share=settings.history_share,
        metrics=HistoryMetrics(metrics),
        end=end,
    )
    return History(database, writer)
