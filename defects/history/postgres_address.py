"""Where a PostgreSQL is: its URL, checked and without its password, and connections to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import asyncpg

from defects.history.database import Unreachable, Unusable
from defects.history.postgres_errors import MOST, Connection, translated
from defects.settings import BadSetting
from defects.values import one_line

OPEN_SECONDS = 5.0  # for all hosts together
PORT = 5432
BAD_QUERY = "DEFECTS_DATABASE_URL: what follows its question mark is not valid"


class Host(NamedTuple):
    name: str
    port: int


class Address:
    """A URL as asyncpg takes it, such as `postgresql://user:password@host:5432/database?sslmode=verify-full`.

    `name` is for people. Of several hosts, `a:5432,b:5432`, the first one is used that can be written to. Raises
    `BadSetting`.
    """

    def __init__(self, url: str):
        self._url = url
        try:
            self.hosts, database = _parse(url)
        except ValueError:  # its words may quote the password
            raise BadSetting(
                "DEFECTS_DATABASE_URL: its value, which is secret and so not shown, is not valid; expected "
                "postgresql://user:password@host:port/database, a password's @:/?#% each as % and two digits"
            ) from None
        places = ",".join(f"{host.name}:{host.port}" for host in self.hosts)
        self.name = f"PostgreSQL at {places or 'the default host'}{database}"

    async def connect(self) -> Connection:
        """Return a new connection that can write; raises `Unreachable` or `Unusable`."""
        problems = []
        hosts: Sequence[Host | None] = self.hosts or [None]
        for host in hosts:
            try:
                return await self._connect(host, OPEN_SECONDS / len(hosts))
            except Unreachable as problem:
                problems.append(problem)
        raise problems[0] if len(problems) == 1 else Unreachable("; ".join(map(str, problems)))

    async def _connect(self, host: Host | None, seconds: float) -> Connection:
        where = {"host": host.name, "port": host.port} if host else {}
        with translated(f"{host.name}:{host.port}" if host else "the database"):
            async with asyncio.timeout(seconds):
                # No statement has a name, so that pgbouncer may give each transaction another connection.
                connection = await self._open(where)
                try:
                    read_only = await connection.fetchval("SHOW transaction_read_only")
                except BaseException:
                    connection.terminate()
                    raise
        if read_only == "on":
            connection.terminate()
            raise Unreachable(f"{host.name if host else 'the database'} is read-only, as a standby is")
        return connection

    async def _open(self, where: dict[str, Any]) -> Connection:
        try:
            connected: Connection = await asyncpg.connect(
                self._url, timeout=OPEN_SECONDS, statement_cache_size=0, **where
            )
            return connected
        except OSError:  # some of these are ValueErrors, too
            raise
        except ValueError:  # its words may quote the URL
            raise Unusable(BAD_QUERY) from None
        except (asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError) as error:
            said = str(error.args[0]).partition(":")[0]  # without the value
            expected = "expected one that asyncpg or PostgreSQL knows"
            raise Unusable(f"{BAD_QUERY}: {one_line(said, MOST)}; {expected}") from None


def _parse(url: str) -> tuple[list[Host], str]:
    """Return the hosts and the path of a URL; raises `ValueError`."""
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    if parts.scheme not in {"postgres", "postgresql"} or parts.fragment or url.count("@") != len(user[:1]):
        raise ValueError(url)
    return [_host(text) for text in hosts.split(",") if text], unquote(parts.path)


def _host(text: str) -> Host:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(PORT)
    number = int(port)
    if not name or not 0 < number < 1 << 16 or (":" in name) != (name[0] == "["):
        raise ValueError(text)
    return Host(unquote(name).strip("[]"), number)
