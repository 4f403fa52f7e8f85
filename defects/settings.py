"""Read every setting from the environment, typed and frozen; end the process with a pinned exit code where one is bad.

`python -m defects.settings` prints the table in docs/settings.md.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from defects import files
from defects.values import is_unicode, one_line, shown

PREFIX = "DEFECTS_"
FROM_FILE = "_FILE"
MAX_FILE = 1 << 16  # bytes
MAX_SHOWN = 200  # characters of a path or a name
MAX_KNOWN = 500  # of all names of settings
# What Kubernetes adds to every pod for each Service of its namespace, such as one that is called defects-db: the ends
# of the names, and the values. Kubernetes calls these variables service links.
SERVICE_LINKS = (
    (re.compile(r"_SERVICE_HOST$|_PORT_\d+_(TCP|UDP|SCTP)_ADDR$"), re.compile(r"[0-9.]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*")),
    (re.compile(r"_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)_PORT$"), re.compile(r"\d{1,5}")),
    (re.compile(r"_PORT(_\d+_(TCP|UDP|SCTP))?$"), re.compile(r"(tcp|udp|sctp)://\S+:\d{1,5}")),
    (re.compile(r"_PORT_\d+_(TCP|UDP|SCTP)_PROTO$"), re.compile(r"tcp|udp|sctp")),
)
MAX_TIMEOUT_MS = 600_000
SANE = r"^[A-Za-z0-9._-]{1,100}$"  # goes into headers and URLs
TAG = r"^[a-z0-9._-]{1,63}(:[a-z0-9._-]{1,63})?$"
DIGEST = r"^sha256:[0-9a-f]{64}$"
PATTERNS_IN_WORDS = {
    SANE: "1 to 100 letters, digits, dots, dashes or underscores",
    TAG: "a name or name:version of lower-case letters, digits, dots, dashes and underscores, at most 63 of each",
    DIGEST: "sha256: followed by 64 lower-case hexadecimal digits",
}


class Fatal(Exception):
    """The process can't start; `exit_code` tells the platform why, the message, which is one line, tells people."""

    exit_code = 1

    def __init__(self, message: str):
        super().__init__(one_line(message))

    def exit(self) -> NoReturn:
        """End the process with one line on standard error."""
        with suppress(OSError):  # it is closed, or its disk is full
            # Unbuffered: SystemExit may be the last thing that happens.
            os.write(2, f"defects: {self}\n".encode(errors="backslashreplace"))
        raise SystemExit(self.exit_code)


class BadSetting(Fatal):
    exit_code = 78


def _setting(name: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, alias=name, description=description, **limits)


Name = Annotated[str, StringConstraints(pattern=SANE)]
Tag = Annotated[str, StringConstraints(pattern=TAG)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST)]


class Settings(BaseModel):
    """The settings of a serving process. Any `DEFECTS_` setting can be read from a file: `<NAME>_FILE`.

    The value of a setting of type `SecretStr` is in no message and no table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    model_dir: Path | None = _setting(
        "MODEL_DIR", None, "Directory with the artifact to serve; without it, the BentoML model store."
    )
    model: Tag | None = _setting(
        "DEFECTS_MODEL",
        None,
        "Tag in the BentoML model store; default: the model a Bento was built with, else `defect_classifier:latest`.",
    )
    model_digest: Digest | None = _setting(
        "DEFECTS_MODEL_DIGEST", None, "Serve only the artifact with this digest (`sha256:…`); any other ends start-up."
    )
    model_uri: SecretStr | None = _setting(
        "MODEL_URI",
        None,
        "Where the artifact to serve is fetched from at the start, instead of `MODEL_DIR`: `s3://…`, `gs://…`, "
        "`az://…` or `https://…`; needs the extra `storage`.",
    )
    model_wait_seconds: float = _setting(
        "DEFECTS_MODEL_WAIT_SECONDS",
        0.0,
        "How long the start waits until the model in `MODEL_DIR`, or at `MODEL_URI`, is there and complete. The port "
        "is closed meanwhile: the startup probe has to allow for it.",
        ge=0,
        le=3600,
    )
    model_name: Name | None = _setting(
        "DEFECTS_MODEL_NAME",
        None,
        "Name of the model in V1 and V2 URLs; default: `INFERENCE_SERVICE_NAME`, else `defect-classifier`.",
    )
    inference_service_name: Name | None = _setting(
        "INFERENCE_SERVICE_NAME", None, "Name of the InferenceService; KServe sets it."
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
    max_bodies_bytes: int | None = _setting(
        "DEFECTS_MAX_BODIES_BYTES",
        None,
        "Most bytes of all bodies together that are being received; a further one is answered 503, before it is read. "
        "Default: 128 MiB, or four of the largest.",
        ge=1,
    )
    max_connections: int | None = _setting(
        "DEFECTS_MAX_CONNECTIONS",
        None,
        "Most open connections; a further one gets one answer, 503 for all but health. Default: what the limit of open "
        "files (`ulimit -n`) allows.",
        ge=1,
        le=1 << 20,
    )
    health_port: int | None = _setting(
        "DEFECTS_HEALTH_PORT",
        None,
        "A second port, only for `/livez`, `/readyz` and `/metrics`, which answers whatever happens on the first.",
        ge=1,
        le=65535,
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
    k_revision: Name | None = _setting("K_REVISION", None, "Name of the revision; Knative sets it.")
    named_revision: Name = _setting("DEFECTS_REVISION", "local", "Name of the revision where Knative sets none.")
    database_url: SecretStr | None = _setting(
        "DEFECTS_DATABASE_URL",
        None,
        "Database for predictions and outcomes: `postgresql://…`, or `sqlite:///file` for a single replica. Secret. "
        "Without it nothing is recorded.",
    )
    history: Literal["buffered", "acknowledged"] = _setting(
        "DEFECTS_HISTORY",
        "buffered",
        "`buffered`: an answer does not wait for its record, which may be dropped. `acknowledged`: it leaves when its "
        "record is committed.",
    )
    history_share: float = _setting(
        "DEFECTS_HISTORY_SHARE",
        1.0,
        "Share of requests that are recorded, chosen by request id, so that replicas agree.",
        ge=0,
        le=1,
    )
    history_features: bool = _setting(
        "DEFECTS_HISTORY_FEATURES", True, "`0` leaves the values of features out of the records."
    )
    cache_url: SecretStr | None = _setting(
        "DEFECTS_CACHE_URL",
        None,
        "Redis where replicas share probabilities of models that scikit-learn scores: `redis://…` or `rediss://…`; "
        "needs the extra `cache`. Secret.",
    )
    cache_onnx: bool = _setting(
        "DEFECTS_CACHE_ONNX",
        False,
        "`1` uses the cache for models that ONNX Runtime scores too, where it costs more than it saves.",
    )
    build: bool = _setting(
        "DEFECTS_BUILD",
        False,
        "`1` while a Bento without a model is built: the schema is the built-in data's, whatever the store has.",
    )

    @field_validator("model_dir")
    @classmethod
    def _can_be_looked_up(cls, path: Path | None) -> Path | None:
        """Refuse a path that no directory can have; whether there is one is seen when it is read."""
        try:
            if path is not None:
                path.stat()
        except ValueError:
            raise ValueError("expected a path without NUL") from None
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise ValueError(f"expected a path that can be looked up ({error.strerror})") from None
        return path

    @field_validator("database_url", "cache_url")
    @classmethod
    def _has_a_known_scheme(cls, url: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        """Refuse a URL of another kind of database; whether it can be reached is seen later."""
        schemes = ("postgresql", "postgres", "sqlite") if info.field_name == "database_url" else ("redis", "rediss")
        if url is not None and not url.get_secret_value().startswith(tuple(f"{scheme}://" for scheme in schemes)):
            raise ValueError("unknown scheme")  # the message is the description's, for the value is secret
        return url

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Refuse settings of which only one can hold."""
        if self.model_uri is not None and self.model_dir is not None:
            raise BadSetting("MODEL_URI: set beside MODEL_DIR; expected one of them")
        if self.history == "acknowledged" and self.database_url is None:
            raise BadSetting("DEFECTS_HISTORY: is acknowledged, without DEFECTS_DATABASE_URL; expected a database")
        return self

    @property
    def served_name(self) -> str:
        """The name of the model in V1 and V2 URLs."""
        return self.model_name or self.inference_service_name or "defect-classifier"

    @property
    def revision(self) -> str:
        """The name of this revision: Knative's, else the setting's."""
        return self.k_revision or self.named_revision

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings; raises `BadSetting`, whose one line names the variable and what was expected."""
        fields = {str(field.alias): field for field in cls.model_fields.values()}
        values = {name: value for name, field in fields.items() if (value := _read(name, field, environment))}
        for name, value in environment.items():
            known = not name.startswith(PREFIX) or name.removesuffix(FROM_FILE) in fields
            if not known and not _is_service_link(name, value):
                raise BadSetting(f"{_short(name)}: unknown setting{_suggestion(name, list(fields))}")
        try:
            return cls(**values)
        except ValidationError as error:
            problems = ((str(e["loc"][0]), e) for e in error.errors(include_input=False))
            raise BadSetting("; ".join(_describe(e, fields[n], values.get(n)) for n, e in problems)) from None

    @classmethod
    def or_exit(cls) -> Self:
        """Read the settings, or end the process with one line and the pinned exit code."""
        try:
            return cls.from_environment()
        except BadSetting as problem:
            problem.exit()


def is_secret(field: FieldInfo) -> bool:
    """Whether nobody may see the field's value: its type is `SecretStr`, or a union with it."""
    return SecretStr in _parts(field.annotation)


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _read(name: str, field: FieldInfo, environment: Mapping[str, str]) -> str:
    """Return the value of one setting; empty means unset, as an unset ConfigMap key or Make variable gives."""
    value, file = environment.get(name, ""), environment.get(name + FROM_FILE, "")
    if int in _parts(field.annotation) and not value.strip().isdecimal() and _is_service_link(name, value):
        value = ""  # Kubernetes has set it, for a Service with such a name
    if file and name.startswith(PREFIX):
        if value:
            raise BadSetting(f"{name}: set both directly and by {name + FROM_FILE}; expected one of them")
        return _from_file(name + FROM_FILE, file, secret=is_secret(field))
    if not is_unicode(value):
        got = "" if is_secret(field) else f", got {shown(value)}"
        raise BadSetting(f"{name}: expected text in UTF-8{got}")
    return value


def _from_file(name: str, file: str, *, secret: bool) -> str:
    try:
        return files.read(file, MAX_FILE).decode().strip()
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except files.Unreadable as error:
        problem = str(error)
    # Somebody may have put the secret itself where its file's name belongs.
    raise BadSetting(f"{name}: can't read {'the file that it names' if secret else _short(file)}: {problem}")


def _short(path: str) -> str:
    return path if len(path) <= MAX_SHOWN else f"{path[:MAX_SHOWN]}…"


def _is_service_link(name: str, value: str) -> bool:
    return any(names.search(name) and values.fullmatch(value) for names, values in SERVICE_LINKS)


def _suggestion(name: str, known: Sequence[str]) -> str:
    platforms = name.removeprefix(PREFIX).removesuffix(FROM_FILE)  # PORT, for who writes DEFECTS_PORT
    close = [platforms] if platforms in known else difflib.get_close_matches(name[:MAX_SHOWN], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {one_line(', '.join(known), MAX_KNOWN)}"


def _describe(error: Any, field: FieldInfo, value: str | None) -> str:
    """Say what is wrong with one setting, without pydantic's words where these may quote a secret."""
    if is_secret(field):
        return f"{field.alias}: its value, which is secret and so not shown, is not valid; {field.description}"
    if error["type"] == "string_pattern_mismatch":
        expected = f"expected {PATTERNS_IN_WORDS[error['ctx']['pattern']]}"
    else:
        expected = error["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    return f"{field.alias}: {expected[:1].lower()}{expected[1:]}, got {shown(value or '')}"


def table(settings: type[Settings] = Settings) -> str:
    """Return the settings as a Markdown table."""
    rows = ["| Setting | Default | What it does |", "| --- | --- | --- |"]
    for field in settings.model_fields.values():
        default = int(field.default) if type(field.default) is bool else field.default
        shown = "" if default is None or is_secret(field) else f"`{default}`"
        rows.append(f"| `{field.alias}` | {shown} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
