"""The subcommand `export` of `python -m defects.history`: its options, and what it says."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from defects.history.database import Database
from defects.history.export import Selection, export
from defects.values import one_line

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
AGO = re.compile(r"([1-9][0-9]{0,5})([mhdw])")
EXPECTED = "expected a time ago, such as 7d or 12h, or a time such as 2026-11-20 or 2026-11-20T08:00:00Z"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE.parquet", help="what is written; train.py --data takes it")
    add("--since", type=moment, required=True, metavar="TIME", help="predictions from then on: 7d, 12h, 2026-11-20")
    add("--until", type=moment, metavar="TIME", help="predictions before then (default: all)")
    add("--labelled", action="store_true", help="only records with an outcome, to train on")
    add("--source", metavar="NAME", help="only records of this x-source")
    add("--model", action="append", default=[], metavar="VERSION", help="only records of this model; repeatable")
    add("--details", action="store_true", help="also ids, times, sources and answers, which training leaves out")
    add("--force", action="store_true", help="replace the file where it exists")


async def run(database: Database, options: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Export from an open database, and return what is to be printed; `say` is told how far it is.

    Raises `CannotExport` and what the database raises.
    """
    began = time.monotonic()
    selection = Selection(options.since, options.until, options.labelled, tuple(options.model), options.source)
    done = await export(
        database,
        selection,
        options.file,
        lambda text: say(f"[{time.monotonic() - began:6.1f} s] {text}"),
        details=options.details,
        force=options.force,
    )
    models = "one model" if done.models == 1 else f"{done.models:,} models"
    lines = [f"{done.path}: {done.records:,} records of {models}", *(f"note: {note}" for note in done.notes)]
    if options.labelled:
        lines.append(f"train on it: {done.command}")
    return "\n".join(map(one_line, lines))


def moment(text: str) -> datetime:
    """Read a time, in UTC: so long ago, a day, or a time of RFC 3339."""
    try:
        if ago := AGO.fullmatch(text):
            return datetime.now(UTC) - int(ago[1]) * UNITS[ago[2]]
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            if len(text) > len("2026-11-20"):
                raise argparse.ArgumentTypeError(f"{text!r} has no offset; {EXPECTED}")
            found = found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no time; {EXPECTED}") from None
