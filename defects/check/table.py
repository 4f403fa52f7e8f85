"""List every check, and run them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from defects.check import checks as promises
from defects.check.checks import Run
from defects.check.client import Skipped, Wrong
from defects.check.protocols import WAYS

MAX_TEXT = 240

Check = tuple[str, Callable[[Run], str]]


class Row(NamedTuple):
    state: str  # ok, FAILED or skipped
    name: str
    text: str


CHECKS: tuple[Check, ...] = (
    ("readyz", partial(promises.says, "/readyz", {"ready": True})),
    ("livez", partial(promises.says, "/livez", {"live": True})),
    ("V2 health", promises.v2_health),
    ("model", promises.model_described),
    ("artifact", promises.artifact_served),
    ("V2 server", promises.v2_server),
    ("V2 metadata", promises.v2_metadata),
    ("model ready", promises.model_ready),
    *((way.name, partial(promises.agrees, way.name)) for way in WAYS),
    ("missing values", promises.missing_values),
    ("golden answers", promises.golden_answers),
    ("400 invalid value", promises.invalid_value),
    ("400 unknown field", promises.unknown_field),
    ("400 no JSON", lambda run: promises.refusal("POST", "/classify", 400, run, b"{")),
    (
        "400 wrong deadline",
        lambda run: promises.refusal("POST", "/classify", 400, run, b"{}", x_request_timeout_ms="0"),
    ),
    ("404 not found", promises.not_found),
    ("405 wrong method", promises.wrong_method),
    ("413 too large", promises.too_large),
    ("415 wrong type", promises.wrong_type),
    ("metrics", promises.metrics),
)
OVERLOAD: tuple[Check, ...] = (
    ("overload: answers", lambda run: run.burst.answers()),
    ("overload: Retry-After", lambda run: run.burst.retry_after()),
    ("overload: at once", lambda run: run.burst.at_once()),
    ("overload: afterwards", lambda run: run.burst.afterwards()),
)
HEADERS: tuple[Check, ...] = (  # last: they look at every answer so far
    ("x-request-id", promises.request_id),
    ("x-model-version", promises.model_version),
    ("x-revision", promises.revision),
    ("Server-Timing", promises.server_timing),
)


def rows(run: Run, *, overload: bool = False) -> Iterator[Row]:
    """A row for each check, in order."""
    for name, check in (*CHECKS, *(OVERLOAD if overload else ()), *HEADERS):
        try:
            state, text = "ok", check(run)
        except Skipped as reason:
            state, text = "skipped", str(reason)
        except Wrong as problem:
            state, text = "FAILED", str(problem)
        yield Row(state, name, "".join(c if c.isprintable() else "?" for c in text)[:MAX_TEXT])
