"""Read files that somebody else has put there: regular ones, no larger than expected, and JSON that means one thing."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, NoReturn

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # opening a named pipe would wait for its writer
CHUNK = 1 << 16  # bytes
INT64, UINT64 = -(2**63), 2**64  # the integers that JSON is written with lie between them
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Unreadable(Exception):
    """A file can't be read; the message says why, without its name."""


class Missing(Unreadable):
    """There is no such file."""


class Refused(Unreadable):
    """The operating system does not let it be read, for example because of its permissions."""


def read(path: str | Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes; symbolic links are followed.

    Raises `Unreadable`, before anything is read where the file's kind or size says so.
    """
    try:
        descriptor = os.open(path, FLAGS)
        try:
            return _read(descriptor, most)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(error.strerror) from None
    except OSError as error:
        raise Refused(error.strerror or str(error)) from None
    except ValueError:  # it has a NUL, or half of a surrogate pair
        raise Unreadable("no file can have this name") from None


def _read(descriptor: int, most: int) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable(f"is {KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}; expected a regular file")
    if found.st_size > most:
        raise Unreadable(f"has {found.st_size:,} bytes; expected at most {most:,}")
    pieces: list[bytes] = []
    size = 0
    while piece := os.read(descriptor, max(found.st_size - size, CHUNK)):
        pieces.append(piece)
        size += len(piece)
        if size > most:  # it grows
            raise Unreadable(f"has more than {most:,} bytes; expected no more")
    return b"".join(pieces)


def read_json(content: bytes) -> Any:
    """Return the value of a JSON document; raises `ValueError`, whose message is one short line.

    Each key of an object may appear once. There are no `NaN` and infinities, no integers beyond 64 bits, and no halves
    of surrogate pairs: not every program could pass these on.
    """
    try:
        text = content.decode()
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=_integer)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ValueError("its text is not UTF-8") from None
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:100]!r} appears twice in an object")
    return made


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it has {name}; expected finite numbers")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not INT64 <= int(digits) < UINT64:
        raise ValueError(f"it has an integer of {len(digits.lstrip('-'))} digits; expected no more than 64 bits")
    return int(digits)
