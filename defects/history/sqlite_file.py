"""Find out from a URL where SQLite's file is, and whether a database can be kept there."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from defects.history.database import Unreachable, Unusable
from defects.settings import BadSetting

SCHEME = "sqlite:///"
MOUNTS = Path("/proc/self/mountinfo")
# SQLite's log is shared memory, which file systems of several computers don't have, and their locks can't be relied on.
NETWORK = re.compile(
    "nfs4?|cifs|smb3|smbfs|ceph|glusterfs|lustre|afs|beegfs|gpfs"
    "|fuse[.](ceph|glusterfs|sshfs|s3fs|gcsfuse|mountpoint-s3|blobfuse2?|rclone|juicefs)"
)

Files: TypeAlias = tuple[tuple[int, int], ...]  # a device and an inode each


def path_of(url: str) -> Path:
    """Return the file of `sqlite:///relative.db` or `sqlite:////absolute.db`; raises `BadSetting`."""
    name = url.removeprefix(SCHEME)
    if name == url or not name or "?" in name or "\0" in name or name.startswith(":"):
        raise BadSetting(
            "DEFECTS_DATABASE_URL: expected sqlite:///relative.db, or with four slashes sqlite:////absolute.db, "
            "without options"
        )
    return Path(name)


def check(path: Path) -> None:
    """Raise `Unusable` where no database can be kept, before SQLite says less about it."""
    try:
        if not path.parent.is_dir():
            raise Unusable(f"history: {path.parent} is no directory; expected one for {path.name}")
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise Unusable(f"history: {path} is no regular file; expected a SQLite database, or nothing")
        here = path.resolve()
    except OSError as error:
        raise Unusable(f"history: {path} can't be used: {error.strerror}") from None
    if not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK):
        raise Unusable(f"history: {path} can't be written; expected a file and a directory that this user may write")
    kind = file_system(here, mounts())
    if NETWORK.fullmatch(kind):
        raise Unusable(
            f"history: {path} is on a network file system ({kind}), where SQLite loses data; use a local disk"
        )


def identity(path: Path) -> Files:
    """Return which files a database and its log are."""
    return tuple((found.st_dev, found.st_ino) for found in (path.stat(), Path(f"{path}-wal").stat()))


def check_identity(path: Path, files: Files) -> None:
    """Raise `Unreachable` where a database or its log was removed or replaced while it is in use."""
    with suppress(FileNotFoundError):
        if identity(path) == files:
            return
    raise Unreachable("the file was removed, or replaced, while it was in use")


def mounts() -> str:
    """Return the table of mounts of this process; empty where the operating system has none."""
    try:
        return MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return ""


def file_system(path: Path, table: str) -> str:
    """Return the kind of file system that an absolute path is on, by a table as `/proc/self/mountinfo`."""
    length, found = 0, ""
    for line in table.splitlines():
        mount, _, source = line.partition(" - ")
        point = mount.split(" ")[4].replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= length:  # the last one of a point hides those before
            length, found = len(point), source.split(" ")[0]
    return found
