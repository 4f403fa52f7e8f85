"""Every setting, typed and frozen, from the environment; and the errors that end the process with a pinned exit code.

`python -m defects.settings` prints the table in docs/settings.md.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

PREFIX = "DEFECTS_"
FROM_FILE = "_FILE"
# What Kubernetes adds to every pod for each Service of its namespace, such as one that is called defects-db.
SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")
MAX_TIMEOUT_MS = 600_000
SANE = r"^[A-Za-z0-9._-]{1,100}$"  # goes into headers and URLs


class Fatal(Exception):
    """The process can't start; `exit_code` tells the platform why, the message tells people."""

    exit_code = 1

    def exit(self) -> NoReturn:
        """End the process with one line on standard error."""
        os.write(2, f"defects: {self}\n".encode())  # unbuffered: SystemExit may be the last thing that happens
        raise SystemExit(self.exit_code)


class BadSetting(Fatal):
    exit_code = 78


def _setting(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, alias=name, description=description, **limits)


Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class Settings(BaseModel):
    """The settings of a serving process. Any `DEFECTS_` setting can be read from a file: `<NAME>_FILE`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model_dir: Path | None = _setting(
        "MODEL_DIR", None, "Directory with the artifact to serve; without it, the BentoML model store."
    )
    model: str | None = _setting(
        "DEFECTS_MODEL",
        None,
        "Tag in the BentoML model store; default: the model a Bento was built with, else `defect_classifier:latest`.",
        pattern=r"^[a-z0-9._-]+(:[a-z0-9._-]+)?$",
    )
    model_digest: Digest | None = _setting(
        "DEFECTS_MODEL_DIGEST", None, "Serve only the artifact with this digest (`sha256:…`); any other ends start-up."
    )
    model_name: str | None = _setting(
        "DEFECTS_MODEL_NAME",
        None,
        "Name of the model in V1 and V2 URLs; default: `INFERENCE_SERVICE_NAME`, else `defect-classifier`.",
        pattern=SANE,
    )
    inference_service_name: str | None = _setting(
        "INFERENCE_SERVICE_NAME", None, "Name of the InferenceService; KServe sets it.", pattern=SANE
    )
    request_timeout_ms: int = _setting(
        "DEFECTS_REQUEST_TIMEOUT_MS",
        1000,
        "Deadline of a request without `x-request-timeout-ms`; what can't be answered by then is refused at once.",
        ge=1,
        le=MAX_TIMEOUT_MS,
    )
    max_batch_rows: int = _setting("DEFECTS_MAX_BATCH_ROWS", 256, "Most rows that are scored together.", ge=1)
    max_queued_rows: int = _setting(
        "DEFECTS_MAX_QUEUED_ROWS", 8192, "Most rows that wait to be scored; at least one request's 1,024.", ge=1024
    )
    max_body_bytes: int | None = _setting(
        "DEFECTS_MAX_BODY_BYTES",
        None,
        "Largest request body, in bytes, unpacked; a larger one is answered 413. Default: enough for 1,024 rows.",
        ge=1,
    )
    host: str = _setting("HOST", "0.0.0.0", "Address that `python -m defects.serve` listens on.")  # noqa: S104
    port: int = _setting("PORT", 3000, "Port that it listens on.", ge=1, le=65535)
    drain_seconds: float = _setting(
        "DEFECTS_DRAIN_SECONDS",
        5.0,
        "How long everything is still answered after SIGTERM, while routers notice that this replica is not ready.",
        ge=0,
        le=600,
    )
    finish_seconds: float = _setting(
        "DEFECTS_FINISH_SECONDS",
        20.0,
        "How long accepted requests may take after that; with `DEFECTS_DRAIN_SECONDS` and 2 s less than the platform's "
        "grace period.",
        ge=0,
        le=600,
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "DEFECTS_LOG_LEVEL", "info", "Least level that is logged: debug, info, warning or error."
    )
    access_log_share: float = _setting(
        "DEFECTS_ACCESS_LOG_SHARE", 0.01, "Share of answers with a log line; errors always have one.", ge=0, le=1
    )
    k_revision: str | None = _setting("K_REVISION", None, "Name of the revision; Knative sets it.", pattern=SANE)
    named_revision: str = _setting(
        "DEFECTS_REVISION", "local", "Name of the revision where Knative sets none.", pattern=SANE
    )
    build: bool = _setting(
        "DEFECTS_BUILD",
        False,
        "`1` while a Bento without a model is built: the schema is the built-in data's, whatever the store has.",
    )

    @property
    def served_name(self) -> str:
        """The name of the model in V1 and V2 URLs."""
        return self.model_name or self.inference_service_name or "defect-classifier"

    @property
    def revision(self) -> str:
        return self.k_revision or self.named_revision

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises `BadSetting`, whose one line names the variable and what was expected."""
        values = {name: value for name in _names() if (value := _read(name, environment))}
        for name in environment:
            if (
                name.startswith(PREFIX)
                and name.removesuffix(FROM_FILE) not in _names()
                and not SERVICE_LINK.search(name)
            ):
                raise BadSetting(f"{name}: unknown setting{_suggestion(name)}")
        try:
            return cls(**values)
        except ValidationError as error:
            raise BadSetting("; ".join(_describe(e, values) for e in error.errors())) from None


def _names() -> list[str]:
    return [str(field.alias) for field in Settings.model_fields.values()]


def _read(name: str, environment: Mapping[str, str]) -> str:
    """The value of one setting; empty means unset, as an unset ConfigMap key or Make variable gives."""
    value, file = environment.get(name, ""), environment.get(name + FROM_FILE, "")
    if not file or not name.startswith(PREFIX):
        return value
    if value:
        raise BadSetting(f"{name}: set both directly and by {name + FROM_FILE}; expected one of them")
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"{name + FROM_FILE}: can't read {file}: {error}") from None


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name, _names(), n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(_names())}"


def _describe(error: Any, values: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    return f"{name}: {error['msg'].lower().replace('input should be', 'expected')}, got {values.get(name)!r}"


def table() -> str:
    """The settings as a Markdown table."""
    rows = ["| Setting | Default | What it does |", "| --- | --- | --- |"]
    for field in Settings.model_fields.values():
        default = (
            "" if field.default is None else f"`{int(field.default) if field.default is False else field.default}`"
        )
        rows.append(f"| `{field.alias}` | {default} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
