"""List every check, and run them one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from defects.check import checks
from defects.check.checks import Run
from defects.check.client import Failed, Skipped
from defects.check.protocols import CODECS

MAX_TEXT = 240

Check = tuple[str, Callable[[Run], str]]


class Row(NamedTuple):
    state: str  # ok, FAILED or skipped
    name: str
    text: str


CHECKS: tuple[Check, ...] = (
    ("readyz", partial(checks.check_json, "/readyz", {"ready": True})),
    ("livez", partial(checks.check_json, "/livez", {"live": True})),
    ("V2 health", checks.v2_health),
    ("model", checks.model_described),
    ("artifact", checks.artifact_served),
    ("V2 server", checks.v2_server),
    ("V2 metadata", checks.v2_metadata),
    ("model ready", checks.model_ready),
    *((codec.name, partial(checks.protocol_agrees, codec.name)) for codec in CODECS),
    ("missing values", checks.missing_values),
    ("golden answers", checks.golden_answers),
    ("400 invalid value", checks.invalid_value),
    ("400 unknown field", checks.unknown_field),
    ("400 no JSON", lambda run: checks.refusal("POST", "/classify", 400, run, b"{")),
    (
        "400 wrong deadline",
        lambda run: checks.refusal("POST", "/classify", 400, run, b"{}", x_request_timeout_ms="0"),
    ),
    ("404 not found", checks.not_found),
    ("405 wrong method", checks.wrong_method),
    ("413 too large", checks.too_large),
    ("415 wrong type", checks.wrong_type),
    ("metrics", checks.metrics),
)
OVERLOAD: tuple[Check, ...] = (
    ("overload: answers", lambda run: run.burst.answers()),
    ("overload: Retry-After", lambda run: run.burst.retry_after()),
    ("overload: at once", lambda run: run.burst.at_once()),
    ("overload: afterwards", lambda run: run.burst.afterwards()),
)
HEADERS: tuple[Check, ...] = (  # last: they look at every answer so far
    ("x-request-id", checks.request_id),
    ("x-model-version", checks.model_version),
    ("x-revision", checks.revision),
    ("Server-Timing", checks.server_timing),
)


def rows(run: Run, *, overload: bool = False) -> Iterator[Row]:
    """Yield a row for each check, in order."""
    for name, check in (*CHECKS, *(OVERLOAD if overload else ()), *HEADERS):
        try:
            state, text = "ok", check(run)
        except Skipped as reason:
            state, text = "skipped", str(reason)
        except Failed as problem:
            state, text = "FAILED", str(problem)
        yield Row(state, name, "".join(c if c.isprintable() else "?" for c in text)[:MAX_TEXT])
