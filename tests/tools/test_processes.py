"""Ports that are given to servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from conftest import ROOT
from tools import processes

ASK = """
from tools import processes
processes.PORTS = range({start}, {stop})
print(*[processes.free_port() for _ in range({count})], flush=True)
input()
"""


@contextmanager
def given(count: int, ports: range) -> Iterator[list[int]]:
    """So many ports that another process gets of these; it has no server on any of them."""
    code = ASK.format(start=ports.start, stop=ports.stop, count=count)
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        yield [int(port) for port in process.stdout.readline().split()]
        process.stdin.write("\n")
        process.stdin.flush()


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one of the processes that ask, and not while a server has it."""
    some = processes.free_port() // 100 * 100
    ports = range(some, some + 100)
    monkeypatch.setattr(processes, "PORTS", ports)
    with ExitStack() as others, socket.socket() as server:
        server.bind(("127.0.0.1", processes.free_port()))
        server.listen()
        theirs = [others.enter_context(given(10, ports)) for _ in range(2)]
        taken = [server.getsockname()[1], *(port for each in theirs for port in each)]
        ours = [processes.free_port() for _ in range(10)]
    assert len({*taken, *ours}) == 31
    assert {*taken, *ours} <= {*ports}


def test_ports_are_none_that_a_connection_may_have() -> None:
    """Of one to elsewhere, the kernel chooses the port on this side."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as opened:
        assert opened.getsockname()[1] not in processes.PORTS


def test_when_there_is_none_left_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr(processes, "PORTS", range(port, port + 1))
        with pytest.raises(RuntimeError, match=f"every port from {port} to {port} is taken"):
            processes.free_port()
