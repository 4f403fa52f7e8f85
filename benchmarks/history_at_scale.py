"""Fill a database with millions of records of several days, and measure what asks it afterwards.

python -m benchmarks.history_at_scale            a PostgreSQL of its own, which is removed at the end
python -m benchmarks.history_at_scale --sqlite   a SQLite file

Records are written as a replica writes them, a fifth get an outcome. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np

from benchmarks.models import say
from defects import artifact, simulator
from defects.history.database import Database, Registration
from defects.history.databases import database_of
from defects.history.record import Batch, Layout, Records
from defects.history.recorded import Recorded
from defects.identifiers import first_id
from defects.pages.tables import grid
from defects.training.options import positive
from tools.computer import caption, computer
from tools.local_postgres import LocalPostgres
from tools.processes import ROOT

BATCH = 5_000  # records that are committed together
LABELLED, WRONG = 5, 20  # one of so many records has an outcome; one of so many of these is another class
LOOKUPS = 300
SCHEMA = simulator.SCHEMA
EXPORT = (sys.executable, "-m", "defects.history")

OUTCOMES = """
INSERT INTO outcomes (prediction_id, origin, class, occurred_at, received_at)
SELECT id, 'inspection', CASE (class + CASE WHEN latency_us % {wrong} = 0 THEN 1 ELSE 0 END) % {classes} {names} END,
       $1, $1
FROM predictions WHERE latency_us % {labelled} = 0
"""


def records(layout: Layout, start: datetime, seconds: float, count: int, seed: int) -> Records:
    """Return records of the simulated tunnel that were made over so many seconds, in their order."""
    random = np.random.default_rng(seed)
    scans = simulator.Tunnel(seed=seed).scans(count)
    made = np.zeros(count, layout.dtype)
    moments = int(start.timestamp() * 1000) + np.sort(random.random(count)) * seconds * 1000
    ids = np.frombuffer(random.bytes(16 * count), np.uint8).reshape(count, 16).copy()
    ids[:, :6] = moments.astype(">u8").view(np.uint8).reshape(count, 8)[:, 2:]
    ids[:, 6] = 0x70 | ids[:, 6] & 0x0F
    ids[:, 8] = 0x80 | ids[:, 8] & 0x3F
    made["id"] = ids.view("V16")[:, 0]
    made["request_id"] = [id_.tobytes().hex().encode() for id_ in ids]
    made["request_id_bytes"] = 32
    made["source"] = random.integers(1, 4, count)
    made["class"] = scans.labels
    made["latency_us"] = random.integers(100, 100_000, count)
    made["features"] = scans.features
    made["probabilities"] = random.dirichlet(np.ones(layout.classes) / 5, count)
    return made


async def fill(database: Database, count: int, days: int) -> float:
    """Write records over the last days, and outcomes; return the seconds that writing the records took."""
    layout = Layout(SCHEMA)
    text = artifact.dump(SCHEMA.to_json()).decode()
    await database.register(Registration("20261101-000000-0000beef", "sha256:0000beef", text, "local", layout))
    start, each = datetime.now(UTC) - timedelta(days=days), timedelta(days=days) / -(-count // BATCH)
    passed = 0.0
    for number in range(-(-count // BATCH)):
        size = min(BATCH, count - number * BATCH)
        batch = records(layout, start + number * each, each.total_seconds(), size, number)
        began = time.perf_counter()
        await database.write(Batch(batch, ["", "inland", "coast", "hub"]), again=False)
        passed += time.perf_counter() - began
        if number % 50 == 0:
            say(f"{number * BATCH:,} records are written")
    names = " ".join(f"WHEN {place} THEN '{name}'" for place, name in enumerate(SCHEMA.class_names))
    async with database.transaction() as transaction:
        sql = OUTCOMES.format(wrong=LABELLED * WRONG, labelled=LABELLED, classes=len(SCHEMA.classes), names=names)
        await transaction.execute(sql, datetime.now(UTC))
    return passed


async def ids(database: Database, count: int, days: int) -> list[UUID]:
    """Return the ids of some records, from everywhere."""
    found = []
    start = datetime.now(UTC) - timedelta(days=days)
    for place in np.random.default_rng(0).random(count):
        first = first_id(start + place * timedelta(days=days * 0.99))
        async with database.transaction() as transaction:
            sql = "SELECT id FROM predictions WHERE id >= $1 ORDER BY id LIMIT 1"
            found.append((await transaction.fetch(sql, first))[0]["id"])
    return found


async def seconds(asked: Callable[[], Awaitable[Any]], times: int = 5) -> list[float]:
    """Return how long something takes, each time."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        await asked()
        found.append(time.perf_counter() - began)
    return found


def command(url: str, *arguments: str) -> tuple[float, float, str]:
    """Run `python -m defects.history`; return its seconds, the MB that any of them needed at most, and all it said."""
    began = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [*EXPORT, *arguments], cwd=ROOT, env={"DEFECTS_DATABASE_URL": url}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    return time.perf_counter() - began, peak, done.stdout + done.stderr


async def measure(url: str, count: int, days: int, scratch: Path) -> list[Sequence[str]]:
    """Return the rows of the table."""
    rows: list[Sequence[str]] = []
    database = database_of(url)
    await database.migrate()
    await database.open()
    writing = await fill(database, count, days)
    rows.append(("write", f"{count / writing:,.0f} records/s", ""))
    async with database.transaction() as transaction:
        await transaction.execute("ANALYZE")
    history = Recorded(database)
    looked_up = []
    for id_ in await ids(database, LOOKUPS, days):
        looked_up += await seconds(lambda id_=id_: history.prediction(id_), 1)  # type: ignore[misc]
    low, middle, high = np.quantile(looked_up, (0.05, 0.5, 0.99)) * 1000
    rows.append(("GET /predictions/{id}", f"{middle:.2f} ms (5 %: {low:.2f}, 99 %: {high:.2f})", "5 ms"))
    for by in ("day", "model", "source"):
        took = await seconds(lambda by=by: history.summary(f"{days + 1}d", by, None), 3)  # type: ignore[misc]
        rows.append((f"summary by {by}", f"{statistics.median(took):.2f} s", "2 s" if by == "day" else ""))
    await database.close()
    for name, options in (("export --labelled", ["--labelled"]), ("export", [])):
        file = scratch / f"{len(options)}.parquet"
        took_, peak, _ = command(url, "export", "--since", f"{days + 1}d", *options, str(file))
        rows.append((name, f"{took_:.1f} s, at most {peak:.0f} MB of memory, {file.stat().st_size / 1e6:.0f} MB", ""))
    took_, _, said = command(url, "prune", "--keep", f"{days - 2}d", "--yes")
    dropped = ", ".join(f"{milliseconds} ms" for milliseconds in re.findall(r"dropped in ([\d,]+) ms", said))
    rows.append(("prune, for each day", f"{dropped}; the whole command {took_:.2f} s", "milliseconds"))
    return rows


@contextmanager
def database_url(sqlite: bool, scratch: Path) -> Iterator[str]:
    """Make a database, and remove it at the end."""
    if sqlite:
        yield f"sqlite:///{scratch}/history.db"
        return
    server = LocalPostgres(scratch / "postgres")
    server.start()
    try:
        yield server.url()
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=positive, default=2_000_000, help="default: %(default)s")
    parser.add_argument("--days", type=positive, default=7, help="that they were made over (default: %(default)s)")
    parser.add_argument("--sqlite", action="store_true", help="into a SQLite file instead of a PostgreSQL")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "build", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        with database_url(options.sqlite, scratch) as url:
            rows = asyncio.run(measure(url, options.records, options.days, scratch))
    kind = "SQLite" if options.sqlite else "PostgreSQL"
    title = f"{options.records:,} records over {options.days} days in {kind}"
    sys.stdout.write(f"{grid(title, ('what', 'measured', 'goal'), rows)}\n\n{caption(computer())}\n")


if __name__ == "__main__":
    main()
