"""Look after the database of predictions and outcomes.

python -m defects.history migrate | status | prune --keep 90d | erase --prediction ID | export --since 30d FILE

The database is that of DEFECTS_DATABASE_URL, or of the file that DEFECTS_DATABASE_URL_FILE names, or of --url. What
deletes says first what would go; --yes does it. Progress is on standard error, and the result on standard output.

Exit codes: 0; 1 where it can't be done, such as an export of nothing; 2 for wrong arguments; and as everywhere 69 where
the database can't be reached or used, 78 for a bad setting.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from defects.history import erasing, export_command, pruning, sqlite_file, status
from defects.history.database import Database, Rejected, Unreachable, Unusable
from defects.history.databases import database_of
from defects.history.export import CannotExport
from defects.settings import BadSetting, Fatal, Settings
from defects.values import one_line

URL = "DEFECTS_DATABASE_URL"
STOPPED = 130  # the exit code after Ctrl+C, as shells have it

Say = Callable[[str], None]


@dataclass(frozen=True)
class Command:
    """A subcommand. `run` returns what is printed. `problems` are errors with a line for people, which exit with 1."""

    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Database, argparse.Namespace, Say], Awaitable[str]]
    opens: bool = True  # the database, before it runs
    problems: tuple[type[Exception], ...] = ()


async def _migrate(database: Database, _options: argparse.Namespace, _say: Say) -> str:
    """Apply the migrations that are missing."""
    names = await database.migrate()
    return "\n".join(f"applied {name}" for name in names) or f"{database.name} has every migration"


COMMANDS = {
    "migrate": Command("make the tables, or bring them up to date", lambda _: None, _migrate, opens=False),
    "status": Command("say what is there, how large it is, and what is missing", status.add_options, status.run),
    "prune": Command("drop whole days that are older than what is kept", pruning.add_options, pruning.run),
    "erase": Command("delete all of a prediction, a request or a source", erasing.add_options, erasing.run),
    "export": Command(
        "write what was answered, and what was true, as a table to train on",
        export_command.add_options,
        export_command.run,
        problems=(CannotExport,),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return the exit code. Raises `SystemExit` for others than 0 and 1."""
    options = _parse(arguments)
    command = COMMANDS[options.command]
    try:
        url = _url(options.url)
        database = database_of(url)
        if command.opens and url.startswith("sqlite:"):
            _check_file(sqlite_file.path_of(url))
        printed = asyncio.run(_run(command, database, options))
    except Fatal as fatal:
        fatal.exit()
    except Unreachable as problem:
        Unusable(f"{database.name}: {problem}").exit()
    except Rejected as problem:
        Unusable(f"{database.name} refused this: {problem}").exit()
    except command.problems as problem:
        _say(f"defects: {one_line(str(problem))}")
        return 1
    except KeyboardInterrupt:
        _say("defects: stopped")
        return STOPPED
    return 0 if _write(1, printed) else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m defects.history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=command.help, description=command.help)
        subparser.add_argument("--url", help="the database, instead of DEFECTS_DATABASE_URL")
        command.add_options(subparser)
    return parser.parse_args(arguments)


def _url(given: str | None) -> str:
    """Return the URL of the database; raises `BadSetting`."""
    settings = Settings.from_environment() if given is None else Settings.from_environment({URL: given})
    if settings.database_url is None:
        raise BadSetting(f"{URL}: is not set; expected a database, or the option --url")
    return settings.database_url.get_secret_value()


async def _run(command: Command, database: Database, options: argparse.Namespace) -> str:
    try:
        if command.opens:
            await database.open()
        return await command.run(database, options, _say)
    finally:
        await database.close()


def _check_file(path: Path) -> None:
    """Raise `Unusable` where there is no file: who only looks makes none."""
    if not path.exists():
        raise Unusable(f"history: there is no {path}; expected the file that a server records into")


def _say(text: str) -> None:
    _write(2, text)


def _write(descriptor: int, text: str) -> bool:
    """Write a line at once; return whether somebody takes it: who reads may be gone, or a disk full."""
    line = f"{text}\n".encode(errors="backslashreplace")
    try:
        while line:
            line = line[os.write(descriptor, line) :]
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
