"""Read the URI of a place in object storage."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from defects.settings import BadSetting

CLOUDS = ("s3", "gs", "az")
EXPECTED = "expected s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or https://host/path"
BUCKET = r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"
PART = r"(?!\.{1,2}$)[A-Za-z0-9._=+@~%-]+"  # of a path; what else there may be, each cloud writes in another way
MAX_URI = 1000  # characters


@dataclass(frozen=True)
class Location:
    """A place in object storage. `parts` are those of its path; `user` is for `https://` and in no message."""

    scheme: str
    host: str  # or bucket, or container
    parts: tuple[str, ...]
    user: str = ""  # with its password, as the URI has them

    def __str__(self) -> str:
        return "/".join((f"{self.scheme}://{self.host}", *self.parts))

    @property
    def authorization(self) -> dict[str, str]:
        """The header that names the user, where there is one."""
        if not self.user:
            return {}
        return {"authorization": f"Basic {base64.b64encode(unquote(self.user).encode()).decode()}"}

    @property
    def local(self) -> bool:
        """Whether it is on this computer."""
        name = urlsplit(f"//{self.host}").hostname or ""
        try:
            return name == "localhost" or ip_address(name).is_loopback
        except ValueError:
            return False


def location_of(uri: str, setting: str) -> Location:
    """Read a URI; raises `BadSetting`, which names the setting and does not show what may be secret in it."""
    try:
        split = urlsplit(uri)
        split.port  # noqa: B018 - it is read here, because it raises
    except ValueError:
        raise BadSetting(f"{setting}: is no URI; {EXPECTED}") from None
    problem = _problem(uri, split)
    if problem:
        raise BadSetting(f"{setting}: {problem}; {EXPECTED}")
    user, _, host = split.netloc.rpartition("@")
    return Location(split.scheme, host, tuple(part for part in split.path.split("/") if part), user)


def _problem(uri: str, split: SplitResult) -> str | None:
    """Say what is wrong with a URI; `None` where nothing is."""
    web, path = split.scheme in ("http", "https"), split.path.strip("/")
    checks = [
        (
            len(uri) <= MAX_URI and re.fullmatch(r"[!-~]+", uri),
            f"is longer than {MAX_URI} characters, or has some besides ASCII letters, digits and signs",
        ),
        (split.scheme not in ("", "file"), "is no place in object storage, and a directory belongs into MODEL_DIR"),
        (web or split.scheme in CLOUDS, "has another scheme"),
        (not re.search(r"[?#]", uri), "has a query or a fragment, but more than one file is meant"),
        (web or "@" not in split.netloc, "has a user name, but credentials belong into environment variables"),
        (split.hostname if web else re.fullmatch(BUCKET, split.netloc), "names no host or bucket"),
        (
            not path or all(re.fullmatch(PART, part) for part in path.split("/")),
            "has a path with other parts than letters, digits and . _ - = + @ ~ %",
        ),
    ]
    return next((problem for holds, problem in checks if not holds), None)
