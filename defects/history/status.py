"""The subcommand `status`: what a database of history has, how large it is, and whether anything is missing."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from defects.history.database import Database, Row
from defects.history.databases import upkeep_of
from defects.history.upkeep import Size, Upkeep
from defects.identifiers import made_at

AHEAD = 2  # days whose partitions have to be there
MIGRATION = "SELECT no, name, least_server FROM history_migrations ORDER BY no DESC LIMIT 1"
NEWEST = "SELECT id FROM predictions ORDER BY id DESC LIMIT 1"
OLDEST_EARLY = "SELECT min(received_at) AS received_at FROM early_outcomes"
EXPIRED = "SELECT count(*) AS n FROM idempotency WHERE expires_at <= $1"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("--json", action="store_true", help="as one JSON object")


async def run(database: Database, options: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Return the status of an open database as text, or as JSON. Raises what the database raises."""
    say(f"looking at {database.name}")
    status = await of(database)
    return json.dumps(status, indent=1) if options.json else "\n".join(_lines(status))


async def of(database: Database) -> dict[str, Any]:
    """Return the status of an open database, as JSON."""
    upkeep, now = upkeep_of(database), datetime.now(UTC)
    async with database.transaction(reading=True) as transaction:
        (migration,) = await transaction.fetch(MIGRATION)
        newest = _instant(await transaction.fetch(NEWEST))
        (early,) = await transaction.fetch(OLDEST_EARLY)
        (expired,) = await transaction.fetch(EXPIRED, now)
    tables = await upkeep.tables()
    return {
        "database": database.name,
        "version": migration["no"],
        "migration": migration["name"],
        "least_server": migration["least_server"],
        "bytes": await upkeep.bytes(),
        "tables": {name: vars(size) for name, size in tables.items()},
        "days": await _days(upkeep),
        "newest_prediction": newest and newest.isoformat(),
        "lag_seconds": newest and round((now - newest).total_seconds(), 3),
        "early_outcomes": {
            "rows": tables["early_outcomes"].rows,
            "oldest": early["received_at"] and early["received_at"].isoformat(),
        },
        "keys": {"rows": tables["idempotency"].rows, "expired": expired["n"]},
    }


async def _days(upkeep: Upkeep) -> dict[str, Any]:
    days = [day.isoformat() for day in await upkeep.days()]
    missing = [day.isoformat() for day in await upkeep.missing(AHEAD)]
    return {
        "count": len(days),
        "oldest": min(days, default=None),
        "newest": max(days, default=None),
        "missing": missing,
    }


def _instant(rows: Sequence[Row]) -> datetime | None:
    """Return when the prediction with the id of a row was made."""
    return made_at(rows[0]["id"]) if rows else None


def _lines(status: dict[str, Any]) -> list[str]:
    days, early, keys = status["days"], status["early_outcomes"], status["keys"]
    lag = "no prediction" if status["lag_seconds"] is None else f"{status['lag_seconds']:,.1f} s ago"
    lines = [
        f"database        {status['database']}",
        f"version         {status['migration']}; servers that know {status['least_server']:04} or later can use it",
        f"size            {megabytes(status['bytes'])}",
        *(f"{name:15} {shown(Size(**size))}" for name, size in status["tables"].items()),
        f"days            {days['count']}" + (f", {days['oldest']} to {days['newest']}" if days["count"] else ""),
        f"newest          {lag}",
        f"expired keys    {keys['expired']:,}",
    ]
    if early["oldest"]:
        lines.append(f"early outcomes  waiting since {early['oldest']}")
    if days["missing"]:
        lines.append(f"missing         partitions of {', '.join(days['missing'])}; a running server makes them")
    return lines


def shown(size: Size) -> str:
    """Return a size for people."""
    rows = f"{'about ' if size.estimated else ''}{size.rows:,} {'row' if size.rows == 1 else 'rows'}"
    return rows if size.bytes is None else f"{rows}, {megabytes(size.bytes)}"


def megabytes(count: int) -> str:
    """Return bytes for people."""
    return f"{count / 1e6:,.1f} MB"
