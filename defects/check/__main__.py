"""Check that a deployed service does everything that it promises; prints a row for each check.

python -m defects.check URL [--model-dir DIR] [--overload] [--host-header NAME]

DIR is the artifact that should run there: its golden inputs must have their golden answers. Without it, answers are
only compared with one another. While a canary has a share of the traffic two versions answer, which is
wrong here: ask each by its own name. Every answer must be complete within a timeout, and the number of requests is
fixed.

Exit codes: 0 where all is right, 1 where something is wrong, 2 for wrong arguments; and as everywhere 65 and 66 where
`--model-dir` has no usable artifact, 69 where nothing can be connected to. It needs only what serving needs.
"""

from __future__ import annotations

import argparse
import re
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from defects import artifact
from defects.check.checks import Run
from defects.check.client import Client
from defects.check.table import rows
from defects.settings import SANE, Fatal

HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?"


def _address(text: str) -> SplitResult:
    """Read a URL given as an argument."""
    try:
        url = urlsplit(text)
        plain = not (url.username or url.query or url.fragment) and re.fullmatch(r"[!-~]*", url.path)
        if plain and url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not http[s]://host[:port][/prefix]")


def _matching(pattern: str, expected: str) -> Callable[[str], str]:
    """Return a function that reads arguments that match `pattern`."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text):
            return text
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return check


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if 0.1 <= seconds <= 600:
        return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 600")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m defects.check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url", type=_address, metavar="URL", help="of the service, or of an ingress")
    parser.add_argument("--model-dir", type=Path, metavar="DIR", help="the artifact that should run there")
    parser.add_argument("--overload", action="store_true", help="also press it beyond its capacity for some seconds")
    parser.add_argument("--host-header", type=_matching(HOST, "host[:port]"), metavar="NAME", help="for an ingress")
    parser.add_argument(
        "--name", type=_matching(SANE, "a model's name"), help="of the model; default: what /model says"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        help="seconds for each answer (default: %(default)g); more where it has to start first",
    )
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    return parser.parse_args()


def _client(options: argparse.Namespace) -> Client:
    url: SplitResult = options.url
    tls = None
    if url.scheme == "https":
        tls = ssl.create_default_context()
        if options.insecure:
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    port = url.port or (443 if tls else 80)
    return Client(url.hostname or "", port, tls, url.path.rstrip("/"), options.host_header, options.timeout)


def main() -> int:
    """Print the rows as they come, and a sum; return the exit code."""
    options = _arguments()
    client = _client(options)
    try:
        loaded = artifact.load(options.model_dir) if options.model_dir else None
        client.reach()
    except Fatal as fatal:
        fatal.exit()
    states: Counter[str] = Counter()
    for row in rows(Run(client, loaded, options.name), overload=options.overload):
        states[row.state] += 1
        _print(f"{row.state:7}  {row.name:21}  {row.text}")
    _print(
        f"{states['ok']} ok, {states['FAILED']} failed, {states['skipped']} skipped; {len(client.responses)} answers"
    )
    return 1 if states["FAILED"] else 0


def _print(line: str) -> None:
    """Print a line at once, also where standard output does not take every character."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "replace").decode(encoding) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
