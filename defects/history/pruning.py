"""The subcommand `prune`: drop the days that are older than what is kept."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from operator import add

from defects.history.database import Database
from defects.history.databases import upkeep_of
from defects.history.status import shown
from defects.history.upkeep import Size, Upkeep

UNITS = {"d": 1, "w": 7}  # in days
AGE = re.compile(r"([1-9][0-9]{0,4})([dw])")
NOTHING = Size(0, None, estimated=False)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "--keep", type=age, required=True, metavar="AGE", help="what is kept: 90d or 12w; whole days that are older go"
    )
    parser.add_argument("--yes", action="store_true", help="do it; without this, only say what would go")


async def run(database: Database, options: argparse.Namespace, say: Callable[[str], None]) -> str:
    """Drop the days, or say which would go; return what is to be printed. Raises what the database raises."""
    upkeep = upkeep_of(database)
    before = (datetime.now(UTC) - options.keep).date()
    days = {day: size for day, size in (await upkeep.days()).items() if day < before}
    total = f"{len(days)} {'day' if len(days) == 1 else 'days'} before {before}, {shown(sum_of(days))}"
    if not days:
        return f"nothing to drop: there is no day before {before}"
    if not options.yes:
        return "\n".join(
            [*(f"{day}  {shown(size)}" for day, size in days.items()), f"would drop {total}; --yes does it"]
        )
    began = time.monotonic()
    await _drop(upkeep, days, say)
    return f"dropped {total}, in {time.monotonic() - began:.1f} s"


async def _drop(upkeep: Upkeep, days: dict[date, Size], say: Callable[[str], None]) -> None:
    for day, size in days.items():
        began = time.monotonic()
        await upkeep.drop(day)
        say(f"{day}  {shown(size)}, dropped in {(time.monotonic() - began) * 1000:,.0f} ms")
    await upkeep.give_back()


def sum_of(days: dict[date, Size]) -> Size:
    """Return the size of all days together."""
    return reduce(add, days.values()) if days else NOTHING


def age(text: str) -> timedelta:
    """Read an age of whole days."""
    if not (found := AGE.fullmatch(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no age; expected days or weeks, such as 90d or 12w")
    return timedelta(int(found[1]) * UNITS[found[2]])
