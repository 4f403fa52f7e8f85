"""`python -m defects.artifact push DIR URI`: upload a verified artifact to object storage.

The files come first and `digests.json` last, so a reader never takes half of it. It is read back afterwards.
Credentials and endpoints come from each cloud's usual environment variables, as for `MODEL_URI`.

Exit codes: 0 where it is there, 1 where another artifact is, 2 for wrong arguments; and as everywhere 65 and 66 where
DIR has no usable artifact, 69 where object storage can't be reached, 78 where the URI or the credentials are wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from defects import files
from defects.object_storage import ObjectStorage, Patience, in_time, open_storage
from defects.settings import Fatal

DIGESTS = "digests.json"
MAX_DIGESTS = 1 << 20  # bytes


class Artifact(Protocol):
    """What is pushed: files whose digests are right, and the digest of the whole."""

    @property
    def digest(self) -> str: ...
    @property
    def files(self) -> Mapping[str, bytes]: ...


class Occupied(Fatal):
    """Another artifact is there."""

    exit_code = 1


Load = Callable[[Path], Artifact]
Read = Callable[[ObjectStorage, str], object]


def push(storage: ObjectStorage, artifact: Artifact, digests: bytes, *, replace: bool) -> None:
    """Upload an artifact, whose `digests.json` is `digests`.

    Raises `Occupied` where another one is there, unless it is to be replaced: then there is none for a while.
    """
    try:
        there = storage.read(DIGESTS, MAX_DIGESTS)
    except files.Missing:
        there = None
    except files.Unreadable:
        there = b""  # too large to be one of ours
    if there is not None and there != digests:
        if not replace:
            raise Occupied(f"{storage.location}: another artifact is there; expected a place of its own, or --replace")
        storage.delete(DIGESTS)
    for name in storage.ordered(artifact.files):
        storage.write(name, artifact.files[name])
    storage.write(DIGESTS, digests)


def main(load: Load, read: Read, arguments: Sequence[str] | None = None) -> None:
    """Run the command; `load` and `read` are those of `defects.artifact`."""
    options = _parser().parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))
    try:
        said = _push(load, read, options)
        sys.stdout.write(said)
    except Fatal as problem:
        problem.exit()
    except KeyboardInterrupt:
        sys.exit("defects: interrupted; what is there may be incomplete, and then nobody takes it")
    finally:
        signal.signal(signal.SIGTERM, before)


def _push(load: Load, read: Read, options: argparse.Namespace) -> str:
    artifact = load(options.directory)
    digests = files.read(options.directory / DIGESTS, MAX_DIGESTS)
    storage = open_storage(options.uri, "URI", pinned=True)
    upload = partial(push, storage, artifact, digests, replace=options.replace)
    in_time(upload, options.timeout, f"{storage.location}: uploading the model")
    in_time(partial(read, storage, artifact.digest), options.timeout, f"{storage.location}: reading it back")
    size = sum(map(len, artifact.files.values()))
    done = f"{len(artifact.files) + 1} files, {size + len(digests):,} bytes, are there and were read back"
    return f"{done}\nMODEL_URI={storage.location}\nDEFECTS_MODEL_DIGEST={artifact.digest}\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m defects.artifact", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command = parser.add_subparsers(required=True, metavar="push").add_parser(
        "push", help="upload a verified artifact to object storage", description=__doc__
    )
    command.add_argument("directory", type=Path, metavar="DIR", help="an artifact, as train.py --output writes it")
    command.add_argument("uri", metavar="URI", help="s3://…, gs://…, az://… or https://…, where PUT is understood")
    command.add_argument("--replace", action="store_true", help="in place of another artifact that is there")
    command.add_argument(
        "--timeout", type=float, default=Patience.total, metavar="SECONDS", help="default: %(default)g"
    )
    return parser
