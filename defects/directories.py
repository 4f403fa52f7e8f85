"""Put whole directories in their place: whoever looks, at any moment, finds the old one or the new one.

Also where the process is killed, the disk gets full, or another process does the same.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SCRATCH = ".unfinished-"  # how the names of directories begin that are being written
PROBE_BYTES = 1 << 20  # that are written to see whether there is a place to write to
TRIES = 100  # of putting a directory where another process puts one, too
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of renameat2(2)


def place_of(path: Path) -> Path:
    """Return the absolute path that symbolic links lead to; raises `OSError` where it can be no directory's."""
    try:
        place = Path(os.path.realpath(path))
        os.fsencode(place)
        if place.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(place))
    except ValueError:  # a NUL, or half of a surrogate pair
        raise OSError(f"{os.fspath(path)!r}: no file can have this name; expected a place to write to") from None
    return place


def check(place: Path) -> None:
    """Raise `OSError` where no directory can be put at an absolute path: it is tried, and nothing is left of it."""
    parent = next(folder for folder in place.parents if os.path.lexists(folder))
    if not parent.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(parent))
    if is_mount(place):
        raise OSError(f"{place} is a mount point, which can't be replaced; expected a directory inside it")
    with scratch(parent) as folder:
        (folder / place.relative_to(parent)).mkdir(parents=True)
        write(folder, {"probe": bytes(PROBE_BYTES)})


def is_mount(place: Path) -> bool:
    """Whether something is mounted at a path, also a directory of the same disk."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return os.path.ismount(place)
    escaped = os.fsencode(place)
    for character in (b"\\", b" ", b"\t", b"\n"):
        escaped = escaped.replace(character, b"\\%03o" % ord(character))
    return any(line.split()[4] == escaped for line in lines)


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """Make a directory for what is not finished, and remove it at the end."""
    with tempfile.TemporaryDirectory(dir=parent, prefix=SCRATCH, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def write(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into an existing directory, down to the disk: only then is it known that there was room."""
    for name, content in contents.items():
        with (directory / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def sync(directory: Path) -> None:
    """Wait until all files of a directory are on the disk."""
    for file in directory.rglob("*"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def put(new: Path, place: Path) -> None:
    """Move a directory to `place`; what was there before is where `new` was."""
    for _ in range(TRIES):
        try:
            new.rename(place)  # on nothing, or on an empty directory
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            if not _exchange(new, place):
                _swap(new, place)
            return
        except FileNotFoundError:  # another process has moved it away
            continue
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(place))


def _swap(new: Path, place: Path) -> None:
    """Let a directory take the place of another one, in two steps; where the second fails, the first is undone."""
    old = new.with_name("old")
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise


def put_new(new: Path, place: Path) -> None:
    """Move a directory to `place`; raises `FileExistsError` where another one is."""
    try:
        new.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place)) from None
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; return whether this system can."""
    import ctypes

    exchange = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if exchange is None:
        return False
    if exchange(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))
