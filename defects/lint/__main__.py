"""Find traps in the manifests of InferenceServices that the webhooks of KServe and Knative let pass.

python -m defects.lint [FILE…] [--format text|json|sarif] [--fail-on error|warning|note|never] [--ignore RULE]
python -m defects.lint --rules

FILE is YAML or JSON with any Kubernetes objects; `-`, or no FILE where something is piped in, is standard input, such
as `kubectl kustomize OVERLAY | python -m defects.lint`. All files are looked at together. An annotation
`defects.lint/ignore: RULE, RULE` silences rules for one object.

Exit codes: 0 without findings at or above --fail-on, 1 with some, 2 for wrong arguments and files that cannot be read.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from defects import files
from defects.lint import report, sarif
from defects.lint.documents import MAX_BYTES, BadYAML, read
from defects.lint.resources import Options, Resource, Stream, resources
from defects.lint.rule import LEVELS, Finding
from defects.lint.table import BY_ID, RULES, findings
from defects.values import one_line, shown

STDIN, STDIN_NAME = "-", "stdin"
NEVER = "never"


def _positive(text: str) -> float:
    """Read a positive number given as an argument."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 < number < 1e9:
        return number
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def _rule_id(text: str) -> str:
    if text in BY_ID:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no rule; --rules lists them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m defects.lint", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="*", metavar="FILE", help="manifests; - is standard input")
    add("--format", choices=("text", "json", "sarif"), default="text", help="default: %(default)s")
    add(
        "--fail-on",
        choices=(*LEVELS, NEVER),
        default="warning",
        help="least level for exit code 1; default: %(default)s",
    )
    add("--ignore", action="append", type=_rule_id, default=[], metavar="RULE", help="a rule to leave out; repeatable")
    add("--rules", action="store_true", help="list the rules and exit")
    add("--default-mode", choices=("Knative", "Standard"), help="of your KServe, where a manifest does not say it")
    add("--start-seconds", type=_positive, metavar="S", help="that your server takes to start, with a full core")
    add("--capacity", type=_positive, metavar="N", help="requests per second that one replica holds")
    add("--service-seconds", type=_positive, metavar="S", help="that a request takes in a replica that is not loaded")
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    return Options(
        arguments.start_seconds, arguments.capacity, arguments.service_seconds, arguments.default_mode or None
    )


def _stdin() -> bytes:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise files.Unreadable(f"has more than {MAX_BYTES:,} bytes; expected no more")
    return content


def _read(name: str) -> Iterator[Resource]:
    """Yield the objects of a file; ends the process with one line where it can't be read."""
    label = STDIN_NAME if name == STDIN else name
    try:
        yield from resources(label, read(_stdin() if name == STDIN else files.read(name, MAX_BYTES)))
    except BadYAML as problem:
        _fail(f"{label}: {problem}")
    except files.Unreadable as problem:
        _fail(f"{shown(label)} {problem}")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(one_line(f"defects.lint: {message}").encode("ascii", "backslashreplace").decode() + "\n")
    raise SystemExit(2)


def _print(lines: str) -> None:
    """Print text, also where standard output does not take every character."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(lines.encode(encoding, "replace").decode(encoding) + "\n")


def _fails(found: list[Finding], least: str) -> bool:
    failing = () if least == NEVER else LEVELS[: LEVELS.index(least) + 1]
    return any(finding.rule.level in failing for finding in found)


def main(words: Sequence[str] | None = None) -> int:
    """Print what was found by these arguments, else by the command's; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args(words)
    if arguments.rules:
        _print(report.table(RULES))
        return 0
    if (arguments.capacity is None) != (arguments.service_seconds is None):
        parser.error("--capacity and --service-seconds: one of them is missing; expected both or none")
    piped = sys.stdin is not None and not sys.stdin.isatty()
    names = arguments.files or ([STDIN] if piped else [])
    if not names:
        parser.error("expected a FILE, or manifests on standard input")
    given = [resource for name in dict.fromkeys(names) for resource in _read(name)]
    if not given:  # as after a renderer that failed
        _fail(f"{', '.join(STDIN_NAME if name == STDIN else name for name in names)}: no objects; expected manifests")
    stream = Stream(given, _options(arguments))
    found = list(findings(stream, arguments.ignore))
    writers: dict[str, Callable[[], str]] = {
        "text": lambda: "\n".join(report.text(stream, found)),
        "json": lambda: report.as_json(stream, found),
        "sarif": lambda: sarif.as_sarif(RULES, found),
    }
    _print(writers[arguments.format]())
    return 1 if _fails(found, arguments.fail_on) else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    sys.exit(main())
