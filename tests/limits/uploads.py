"""Upload at once on many connections, as a process of its own: its sockets and its work are not the tests'.

python uploads.py HOST PORT CONNECTIONS < request

Each connection sends the request until it has its answer; they begin when the last one is open. Prints how often each
status came, as JSON; 0 is a connection that ended without one.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import Counter

PIECE = 1 << 16
SPARE_FILES = 64


async def upload(host: str, port: int, request: bytes, begin: asyncio.Barrier) -> int:
    """Return the status of the answer."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        await begin.wait()
        answer = asyncio.create_task(reader.readline())
        for at in range(0, len(request), PIECE):
            if answer.done():
                break
            writer.write(request[at : at + PIECE])
            await writer.drain()
        return int((await answer).split()[1])
    except (OSError, IndexError):
        return 0
    finally:
        writer.close()


async def main(host: str, port: int, connections: int) -> None:
    """Upload, and print what was answered."""
    request, begin = sys.stdin.buffer.read(), asyncio.Barrier(connections)
    statuses = await asyncio.gather(*(upload(host, port, request, begin) for _ in range(connections)))
    sys.stdout.write(json.dumps(Counter(statuses)))


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, int(sys.argv[3]) + SPARE_FILES), most))
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
