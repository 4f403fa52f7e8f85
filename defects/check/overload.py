"""Send more than a replica can take at once, for a few seconds: the deploy check's opt-in part."""

from __future__ import annotations

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defects.check.agreement import ProtocolAnswers, largest_difference
from defects.check.client import Client, Failed, Response, Skipped, parsed, read_json
from defects.check.protocols import CODECS, post
from defects.http import openapi
from defects.serving.model import MAX_ROWS, ServedModel

CLIENTS = 32
EACH = 4  # requests, one after the other
DEADLINE_MS = 250
LATE_MS = 2 * DEADLINE_MS  # what an answer may take: estimates are not exact
QUICK_MS = DEADLINE_MS / 2  # the median of refusals; one that takes longer is no better than a late answer
TRIES = 10  # to be ready again, a second apart


def server_ms(answer: Response) -> float:
    """Return the milliseconds that the server took, by its own clock: without the network."""
    found = re.search(r"\btotal;dur=([0-9.]+)", answer.headers.get("server-timing", ""))
    return float(found[1]) if found else 1e3 * answer.seconds


class Burst:
    """Responses to `CLIENTS` at a time, who ask for as many rows as a request may have, with a short deadline.

    Every request has its rows in another order, so that an answer that went to somebody else is noticed.
    """

    def __init__(self, client: Client, model: ServedModel, answers: ProtocolAnswers):
        if answers.median is None:
            raise Skipped("no protocol answered before it")
        self._client, self._model = client, model
        self._rows, self._expected = answers.sample.rows, answers.median
        self._codec = next(codec for codec in CODECS if codec.name == "V2 binary")
        with ThreadPoolExecutor(CLIENTS) as pool:
            self._all = list(pool.map(self._send, range(CLIENTS * EACH)))

    def _tiled(self, values: NDArray[Any], number: int) -> NDArray[Any]:
        """Repeat the values, one a row, up to a request's most rows; each request begins at another one."""
        repeats = -(-MAX_ROWS // len(values))
        return np.tile(np.roll(values, number, axis=0), (repeats, 1))[:MAX_ROWS]

    def _send(self, number: int) -> Response | Failed:
        (call,) = self._codec.calls(self._model, self._tiled(self._rows, number))
        headers = call.headers | {"x_request_timeout_ms": str(DEADLINE_MS)}
        try:
            return post(self._client, call._replace(headers=headers))
        except Failed as problem:
            return problem

    def _refused(self) -> list[Response]:
        refused = [a for a in self._all if isinstance(a, Response) and a.status == 503]
        if not refused:
            raise Skipped(f"nothing was refused: {CLIENTS} clients were no overload")
        return refused

    def answers(self) -> str:
        """Check that every request is answered correctly and in time, or refused, and that some are answered."""
        answered = 0
        for number, answer in enumerate(self._all):
            if isinstance(answer, Failed):
                raise answer
            if answer.status == 503:
                parsed(openapi.Error, read_json(answer, 503))
                continue
            seen = self._codec.read(self._model, answer, MAX_ROWS)
            if problem := largest_difference(self._model, seen, self._tiled(self._expected, number)):
                raise Failed(problem)
            if (took := server_ms(answer)) > LATE_MS:
                raise Failed(f"an answer took {took:.0f} ms in the server; it had {DEADLINE_MS}, and should be refused")
            answered += 1
        if not answered:
            raise Failed(f"all {len(self._all)} were refused; expected some to be answered")
        return f"{answered} of {len(self._all)} answered rightly, the rest refused with 503"

    def retry_after(self) -> str:
        values = {answer.headers.get("retry-after", "missing") for answer in self._refused()}
        if bad := [value for value in values if not (value.isdecimal() and int(value) >= 1)]:
            raise Failed(f"a refusal's Retry-After is {bad[0]}; expected whole seconds, at least 1")
        return f"{', '.join(sorted(values, key=int))} s"

    def at_once(self) -> str:
        took = [server_ms(answer) for answer in self._refused()]
        median = statistics.median(took)
        text = f"refusals took {median:.1f} ms in the server (median), at most {max(took):.1f}"
        if median > QUICK_MS:
            raise Failed(f"{text}; expected a median of at most {QUICK_MS:g} ms")
        return text

    def afterwards(self) -> str:
        """Check that the server is ready again, and answers as before."""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(1)
            try:
                read_json(self._client.get("/readyz"))
                seen = self._codec.ask(self._client, self._model, self._rows)
            except Failed as failure:
                last = failure
                continue
            if problem := largest_difference(self._model, seen, self._expected):
                raise Failed(problem)
            return f"ready, and answers as before, at try {attempt + 1}"
        raise last
