"""What uvicorn needs of an `Exchange`, by uvicorn's own source and by its behaviour."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from served_here import listening, routes
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from conftest import WAIT_SECONDS
from defects.features import DefectClass, Feature
from defects.http.exchange import Cycle, Exchange, Task
from defects.http.fast_path import PredictionProtocol
from defects.schema import Schema

SCHEMA = Schema((Feature("a"),), (DefectClass("no"), DefectClass("yes")))
BODY = b'{"a": 1}'
REQUEST = b"POST /classify HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
# Methods of uvicorn's protocol that need more of a cycle than `Cycle`. `PredictionProtocol` overrides each, and
# calls it only where the cycle is uvicorn's own.
GUARDED = {
    "connection_lost": {"response_complete", "disconnected", "message_event"},
    "on_body": {"response_complete", "body", "message_event"},
    "on_message_complete": {"response_complete", "more_body", "message_event"},
}


def parsed(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    assert spec
    assert spec.origin
    return ast.parse(Path(spec.origin).read_text("utf-8"))


def cycles_in(method: ast.AST) -> set[str]:
    """The expressions that are `self.cycle` in a method: itself, and names that it is assigned to."""
    assigned = [node for node in ast.walk(method) if isinstance(node, ast.Assign)]
    return {"self.cycle"} | {
        ast.unparse(target) for node in assigned if ast.unparse(node.value) == "self.cycle" for target in node.targets
    }


def used_of_cycles() -> dict[str, set[str]]:
    """What each method of uvicorn's protocol reads and sets of `self.cycle`."""
    tree = parsed(HttpToolsProtocol.__module__)
    (protocol,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == HttpToolsProtocol.__name__]
    found = {}
    for method in protocol.body:
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
            names = cycles_in(method)
            attributes = [node for node in ast.walk(method) if isinstance(node, ast.Attribute)]
            if used := {node.attr for node in attributes if ast.unparse(node.value) in names}:
                found[method.name] = used
    return found


def test_uvicorns_protocol_needs_no_more_of_a_cycle() -> None:
    used, offered = used_of_cycles(), set(Cycle.__annotations__)
    assert {method: names for method, names in used.items() if not names <= offered} == GUARDED
    assert GUARDED.keys() <= vars(PredictionProtocol).keys()
    assert offered == {"response_complete", "keep_alive"} == used["shutdown"]


def task_sets() -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """Every use of the server's set of tasks in uvicorn: where, the node, and the node around it."""
    root = Path(uvicorn.__file__).parent
    for file in root.rglob("*.py"):
        for around in ast.walk(ast.parse(file.read_text("utf-8"))):
            for node in ast.iter_child_nodes(around):
                if isinstance(node, ast.Attribute) and node.attr == "tasks":
                    yield str(file.relative_to(root)), node, around


def test_uvicorns_server_needs_no_more_of_a_task() -> None:
    """It counts its tasks, and goes through them to cancel them; the protocols add their own, and take them out."""
    needed, ways = set(), set()
    for _, node, around in task_sets():
        if isinstance(around, ast.For) and around.iter is node:
            name = ast.unparse(around.target)
            attributes = [n for n in ast.walk(around) if isinstance(n, ast.Attribute)]
            needed |= {n.attr for n in attributes if ast.unparse(n.value) == name}
            calls = [n for n in ast.walk(around) if isinstance(n, ast.Call)]
            assert [ast.unparse(c.func) for c in calls] == [f"{name}.cancel"]
            assert [keyword.arg for call in calls for keyword in call.keywords] == ["msg"]
        elif isinstance(around, ast.Call):
            ways.add(ast.unparse(around.func))
        elif isinstance(around, ast.Attribute):
            ways.add(around.attr)
        else:
            assert isinstance(around, ast.Assign | ast.AnnAssign | ast.BoolOp | ast.If | ast.While), ast.unparse(around)
    assert needed == {name for name in vars(Task) if not name.startswith("_")} == {"cancel"}
    assert ways == {"len", "add", "discard"}


class Held:
    """A scorer that takes its time, and holds all batches but the first one until they may go on."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self._batches = 0

    def __call__(self, rows: Any) -> Any:
        self._batches += 1
        time.sleep(0.01)  # enough to get a thread from now on
        if self._batches > 1:
            self.may_go.wait(WAIT_SECONDS)
        return np.full((len(rows), 2), 0.5)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Let the batches go on at the end of the block, however it ends."""
        try:
            yield
        finally:
            self.may_go.set()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, Any]]:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [int(line.split(b": ")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    value: dict[str, Any] = json.loads(await reader.readexactly(length))
    return head, value


@asynccontextmanager
async def in_flight(
    **options: Any,
) -> AsyncIterator[tuple[uvicorn.Server, Exchange, asyncio.StreamReader, threading.Event]]:
    """A server with these options, and a request that is being scored in a thread, until the event is set."""
    held = Held()
    async with listening(routes(SCHEMA, held), **options) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        with closing(writer), held.going_on():
            writer.write(REQUEST)
            assert (await answer(reader))[0].startswith(b"HTTP/1.1 200")  # after this, batches go to a thread
            writer.write(REQUEST)
            while not server.server_state.tasks:
                await asyncio.sleep(0.001)
            tasks: list[Any] = [*server.server_state.tasks]
            (exchange,) = tasks
            assert isinstance(exchange, Exchange)
            yield server, exchange, reader, held.may_go
        await writer.wait_closed()


def test_a_server_that_shuts_down_waits_for_an_exchange_and_closes_its_connection() -> None:
    async def check() -> None:
        async with in_flight() as (server, exchange, reader, may_go):
            shutdown = asyncio.create_task(server.shutdown())
            while exchange.keep_alive:  # until it was told
                await asyncio.sleep(0.001)
            assert not shutdown.done()
            may_go.set()
            _, (_, value) = await asyncio.gather(shutdown, answer(reader))
            assert value["confidence"] == 0.5
            assert await reader.read() == b""
            assert (exchange.keep_alive, exchange.response_complete) == (False, True)
            assert server.server_state.tasks == set()

    asyncio.run(check())


def test_a_server_that_waits_no_longer_cancels_an_exchange() -> None:
    async def check() -> None:
        async with in_flight(timeout_graceful_shutdown=0) as (server, _, reader, may_go):
            shutdown = asyncio.create_task(server.shutdown())
            head, value = await answer(reader)
            assert head.startswith(b"HTTP/1.1 503")
            assert value["error"].startswith("shutting down: this replica takes no more requests")
            assert await reader.read() == b""
            may_go.set()  # the batch, for which nobody waits any more
            await shutdown
            assert server.server_state.tasks == set()

    asyncio.run(check())


def test_a_caller_who_goes_away_ends_its_exchange() -> None:
    async def check() -> None:
        async with in_flight() as (server, exchange, reader, may_go):
            (connection,) = server.server_state.connections
            assert isinstance(connection, PredictionProtocol)
            connection.transport.abort()
            with suppress(ConnectionResetError):
                await reader.read()
            while server.server_state.connections:
                await asyncio.sleep(0.001)
            assert (exchange.response_complete, server.server_state.tasks) == (True, set())
            may_go.set()
            await server.shutdown()

    asyncio.run(check())
