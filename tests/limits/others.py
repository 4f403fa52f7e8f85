"""Ask a server as the others do, beside an attack: a process of its own, so that no attacker holds it up.

python others.py HOST PORT < body.json

It sends `POST /classify` with `body.json` and `GET /livez` in turns, every 10 ms, each on a connection that it keeps.
The first `QUIET` of them come before "quiet" is printed, and tell how fast the server is without an attack. It goes on
until standard output is closed on its other side or SIGTERM comes, and prints what it felt as one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import time

QUIET = 30
INTERVAL = 0.01  # seconds
TIMEOUT = 60.0


class Asker:
    """Two connections to a server, and how long each answer took, in milliseconds."""

    def __init__(self, host: str, port: int, body: bytes):
        self._requests = [("POST", "/classify", body), ("GET", "/livez", None)]
        self._connections = [http.client.HTTPConnection(host, port, timeout=TIMEOUT) for _ in self._requests]
        self.milliseconds: list[float] = []
        self.failures: list[str] = []
        self.longest_gap = 0.0  # between two answers
        self._answered = time.monotonic()

    def ask(self, number: int) -> None:
        """Send one request and note its answer; a failure is noted too, and the next request connects anew."""
        turn = number % len(self._requests)
        method, path, body = self._requests[turn]
        connection, started = self._connections[turn], time.monotonic()
        # A busy machine is no failure: what matters is how long an answer takes.
        headers = {"content-type": "application/json", "x-request-timeout-ms": "60000"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                self.failures.append(f"{path}: {answer.status}")
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            self.failures.append(f"{path}: {problem!r}")
        now = time.monotonic()
        self.milliseconds.append((now - started) * 1e3)
        self.longest_gap = max(self.longest_gap, now - self._answered)
        self._answered = now


def main(host: str, port: int) -> None:
    """Ask until told to stop, and print what was felt."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    asker, number, due = Asker(host, port, sys.stdin.buffer.read()), 0, time.monotonic()
    while not stopped:
        asker.ask(number)
        number += 1
        if number == QUIET:
            asker.longest_gap = 0.0
            sys.stdout.write("quiet\n")
            sys.stdout.flush()
        due = max(due + INTERVAL, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    felt = {
        "quiet": asker.milliseconds[2:QUIET],  # without the two that connect
        "beside": asker.milliseconds[QUIET:],
        "failures": asker.failures,
        "gap": asker.longest_gap * 1e3,
    }
    sys.stdout.write(json.dumps(felt))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
