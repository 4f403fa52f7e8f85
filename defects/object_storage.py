"""Read and write files in object storage: `s3://…`, `gs://…`, `az://…` and `https://…`, by the library `obstore`.

It is imported only here, and only when asked for. Credentials and endpoints come from each cloud's usual environment
variables. What the library or a server says is in no message: it can hold credentials, signatures and whole pages.
"""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from defects import files
from defects.locations import Location, location_of
from defects.settings import BadSetting, Fatal

CHUNK = 1 << 20  # bytes
MAX_REQUEST_SECONDS = 3600.0
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
    "gs": "GOOGLE_SERVICE_ACCOUNT, GOOGLE_APPLICATION_CREDENTIALS or a role",
    "az": "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or a role",
}
ENDPOINTS = {  # the library ends in a panic where one of these is no URL
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
PLAIN_HTTP = {"s3": "AWS_ALLOW_HTTP=true", "gs": "GOOGLE_ALLOW_HTTP=true", "az": "AZURE_ALLOW_HTTP=true"}
METADATA = re.compile(
    r"://169\.254\.|fd00:ec2|/latest/api/token|token request"
)  # where the credentials of roles come from
CONNECTIONS = {  # what the library says, and we
    "ConnectionRefused": "the connection is refused",
    "dns error": "its name can't be resolved",
    "ertificate": "its certificate is not trusted",
    "kind: Timeout": "it does not answer in time",
    "kind: Connect": "no connection can be made",
}

Result = TypeVar("Result")


class Unreachable(Fatal):
    """Object storage can't be reached, or does not give what it has."""

    exit_code = 69


class _Passing(Exception):
    """A request failed in a way that may pass; the message says how."""


@dataclass(frozen=True)
class Patience:
    """How long object storage may take, in seconds."""

    connect: float = 5.0
    stall: float = 10.0  # without a byte
    retry: float = 20.0  # from the first try of a request until the last one begins
    total: float = 300.0  # for everything


class ObjectStorage:
    """The files at one place in object storage. Every method raises `Unreachable` or `BadSetting`."""

    def __init__(self, location: Location, patience: Patience | None = None):
        self.location = location
        self.patience = patience or Patience()
        with self._translated():
            self._library: Any = _library()
            self._store: Any = self._open()

    def read(self, name: str, most: int) -> bytes:
        """Return the content of a file of at most `most` bytes; raises `files.Unreadable`."""
        return self._patiently(lambda: self._read(name, most))

    def _read(self, name: str, most: int) -> bytes:
        content = io.BytesIO()  # whose value is no copy
        found = self._store.get(name)
        if (size := found.meta["size"]) > most:
            raise files.Unreadable(f"has {size:,} bytes; expected at most {most:,}")
        for piece in found.stream(min_chunk_size=CHUNK):
            content.write(piece)
        return content.getvalue()

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one that may be there; whoever reads it gets one of the two."""
        options = {"use_multipart": False} if self.location.scheme.startswith("http") else {}
        self._patiently(lambda: self._library.put(self._store, name, content, **options))

    def delete(self, name: str) -> None:
        """Delete a file, which need not be there."""
        try:
            self._patiently(lambda: self._store.delete(name))
        except files.Missing:
            return

    def full_name(self, name: str) -> str:
        """Return a file's name with its place, for messages."""
        return f"{self.location}/{name}"

    def absence(self) -> str:
        """Say that there is no artifact, for a message."""
        return f"{self.location} has no digests.json; expected a model artifact (python -m defects.artifact push)"

    def ordered(self, names: Iterable[str]) -> list[str]:
        """Return the names of files in the order to read them: the model, which is large, last."""
        return sorted(names, key=lambda name: (name.startswith("model."), name))

    def _open(self) -> Any:
        """Make the library's store, with one try for each request: what is tried again, and when, is decided here."""
        from obstore import store

        # A whole request is bounded by `in_time`; the library's own bound of 30 s would cut large models off.
        seconds = {"timeout": MAX_REQUEST_SECONDS, "read_timeout": self.patience.stall}
        client = {name: timedelta(seconds=each) for name, each in seconds.items()}
        client["connect_timeout"] = timedelta(seconds=self.patience.connect)
        given: dict[str, Any] = {"retry_config": {"max_retries": 0, "retry_timeout": client["timeout"]}}
        at = self.location
        if at.scheme in ("http", "https"):
            options: Any = {**client, "allow_http": at.scheme == "http", "default_headers": at.authorization}
            return store.HTTPStore.from_url(str(at), client_options=options, **given)
        kind: Any = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[at.scheme]
        # Not as its `client_options`: these would go over all that the environment says of the client.
        client_settings = {name: f"{value.total_seconds() * 1000:.0f}ms" for name, value in client.items()}
        return kind(at.host, prefix="/".join(at.parts) or None, **client_settings, **given)

    def _patiently(self, action: Callable[[], Result]) -> Result:
        """Do something, again and again where what fails may pass."""
        end, pause, tries = time.monotonic() + self.patience.retry, 0.1, 0
        while True:
            tries += 1
            try:
                with self._translated():
                    return action()
            except _Passing as problem:
                if time.monotonic() + pause > end:
                    raise Unreachable(f"{self.location}: {problem} (tried {tries} times)") from None
            time.sleep(pause)
            pause = min(2 * pause, 3.0)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise our own error, in our own words, where the library raises one."""
        try:
            yield
        except (files.Unreadable, Fatal):
            raise
        except FileNotFoundError:
            raise files.Missing("there is no such file") from None
        except Exception as error:
            raise self._error(str(error)) from None
        except BaseException as error:  # a panic of the library is no `Exception`
            if type(error).__name__ != "PanicException":
                raise
            raise BadSetting(f"{self.location}: {self._bad_environment()}") from None

    def _error(self, said: str) -> Exception:
        """Return the error that what the library said stands for."""
        place, scheme = self.location, self.location.scheme
        found = re.search(r"status code: (\d{3})", said)
        status = int(found[1]) if found else None
        credentials = f"expected {CREDENTIALS[scheme]}" if scheme in CREDENTIALS else "expected a user that may"
        if METADATA.search(said.partition(" - ")[0]):
            problem = f"there are no valid credentials, and no role gives some; {credentials}"
            return _Passing(problem) if status is None or status >= 500 else BadSetting(f"{place}: {problem}")
        return self._error_without_status(said) if status is None else self._error_of_status(status, credentials)

    def _error_of_status(self, status: int, credentials: str) -> Exception:
        place = self.location
        if status in (401, 403):
            return BadSetting(f"{place}: access is refused (status {status}); {credentials}")
        if status in (404, 410):
            return files.Missing("there is no such file")
        if status >= 500 or status in (408, 429):
            return _Passing(f"it answers with status {status}")
        return BadSetting(f"{place}: it answers with status {status}; expected another URI, {self._region()}")

    def _error_without_status(self, said: str) -> Exception:
        place = self.location
        final: dict[str, Exception] = {  # by what is in it, the first that fits
            "without LOCATION": BadSetting(f"{place}: it is in another place; expected another URI, {self._region()}"),
            "TooManyRedirects": Unreachable(f"{place}: it redirects in a circle"),
            "MissingContentLength": files.Unreadable("is sent without its length; expected Content-Length"),
            "BadScheme": BadSetting(
                f"{place}: its endpoint is plain http; expected https, or {PLAIN_HTTP.get(place.scheme, 'http://')}"
            ),
            "source: Header": BadSetting(
                f"{place}: it does not answer as such storage does; expected another endpoint"
            ),
        }
        if error := next((ours for theirs, ours in final.items() if theirs in said), None):
            return error
        if "Http(" in said or "HttpError" in said:
            return _Passing(next((ours for theirs, ours in CONNECTIONS.items() if theirs in said), "it was cut off"))
        return BadSetting(f"{place}: {self._bad_environment()}")

    def _region(self) -> str:
        return {"s3": "another AWS_REGION or AWS_ENDPOINT_URL"}.get(self.location.scheme, "or another endpoint")

    def _bad_environment(self) -> str:
        variables = {"s3": "AWS_…", "gs": "GOOGLE_…", "az": "AZURE_…"}.get(self.location.scheme, "URI")
        known = CREDENTIALS.get(self.location.scheme)
        return f"the library obstore can't use its {variables}" + (f"; expected {known}" if known else "")


def _library() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise BadSetting(f"object storage needs the extra 'storage', which is not installed here ({error})") from None
    return obstore


def open_storage(
    uri: str,
    setting: str,
    *,
    pinned: bool,
    patience: Patience | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ObjectStorage:
    """Return the files at a URI; raises `BadSetting`.

    `pinned`: only files with a digest that is known are taken from there, so that plain http to another computer can
    change nothing.
    """
    location = location_of(uri, setting)
    if location.scheme == "http" and not location.local and not (pinned and not location.user):
        raise BadSetting(
            f"{setting}: is plain http to another computer; expected https, or DEFECTS_MODEL_DIGEST and no user name"
        )
    for name in ENDPOINTS.get(location.scheme, ()):
        if (given := environment.get(name)) and not re.fullmatch(r"https?://[!-~]+", given):
            raise BadSetting(f"{name}: is not a URL; expected http[s]://host[:port]")
    return ObjectStorage(location, patience)


def in_time(action: Callable[[], Result], seconds: float, what: str) -> Result:
    """Return what `action` returns; raises `Unreachable`, which says `what`, where it takes longer.

    It is done in a thread of its own, so that signals are handled meanwhile, and nobody waits for it at the end.
    """
    results: list[Result] = []
    problems: list[BaseException] = []

    def work() -> None:
        try:
            results.append(action())
        except BaseException as problem:  # it is raised again
            problems.append(problem)

    thread = threading.Thread(target=work, name="object-storage", daemon=True)
    thread.start()
    thread.join(seconds)
    if problems:
        raise problems[0]
    if not results:
        raise Unreachable(f"{what} took longer than {seconds:g} s")
    return results[0]
