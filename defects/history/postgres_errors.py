"""Tell what a failure of PostgreSQL means: try again, never again, or not with this version."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import asyncpg

from defects.history.database import Rejected, Unreachable, Unusable
from defects.values import one_line

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

REJECTED = ("21", "22", "23", "44", "54", "P0")  # classes of SQLSTATE: of what was to be written
UNUSABLE = ("42", "3F")  # of statements that do not fit the tables
NO_RIGHT = "42501"
MOST = 300  # characters of a message


@contextmanager
def translated(where: str = "the database") -> Iterator[None]:
    """Raise what goes wrong in the block as `Unreachable`, `Rejected` or `Unusable`, with one line without secrets."""
    try:
        yield
    except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unreachable(f"{where} can't be reached: {_words(error)}") from error
    except asyncpg.PostgresError as error:
        raise _of_server(error) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        if isinstance(error, ValueError):  # a value that a statement can't take
            raise Rejected(one_line(str(error), MOST)) from error
        ended = str(error).startswith("cannot switch to state")  # something was sent after the server's last words
        said = "the server has ended the connection" if ended else one_line(str(error), MOST)
        raise Unreachable(f"{where} can't be used: {said}") from error


def _of_server(error: asyncpg.PostgresError) -> Exception:
    """Return what an answer of the server means. Its details are left out: they quote rows."""
    code, said = error.sqlstate or "", one_line(error.args[0] if error.args else str(error), MOST)
    if code == NO_RIGHT:
        return Unreachable(f"{said}; grant it to the user of DEFECTS_DATABASE_URL")
    if code.startswith(REJECTED):
        return Rejected(said)
    if code.startswith(UNUSABLE):
        return Unusable(f"the database's tables are not those that this version knows: {said}")
    return Unreachable(said)  # nothing is given up for an error that nobody has thought of


def forget_copy(connection: Connection) -> None:
    """Let nobody wait for a COPY that could not begin, because the server has ended the connection.

    asyncpg makes a future before it sees that, and drops it. When the connection is closed, the future gets an
    exception, and asyncio logs one that was never looked at as an error. Nothing but its referents leads to the future.
    """
    for left in gc.get_referents(connection._protocol):  # type: ignore[attr-defined]
        if isinstance(left, asyncio.Future):
            left.add_done_callback(lambda done: done.cancelled() or done.exception())


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return one_line(str(error), MOST) or type(error).__name__
