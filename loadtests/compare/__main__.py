"""Compare two groups of runs of one scenario: is B better than A, worse, or is there no difference?

python -m loadtests.compare A… -- B…        directories of runs, or their summary.json; prints Markdown

A run that did not recover counts with the time that it had to; where a better value could change the answer, there is
none. Runs that are Invalid, or differ in scenario (its content too), rate, phases, SLO, seeds, payloads, rows or
machine are refused, or, with `--anyway`, compared under a list of what differs.

Exit codes: 0 nothing is worse, 1 something is, 2 the runs can't be compared or are too few, 3 error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from defects.pages.html import plain
from loadtests import results
from loadtests.compare.comparison import FEWEST, compare
from loadtests.compare.objections import objections
from loadtests.compare.report import report
from loadtests.results import Summary

NOT_WORSE, WORSE, CANNOT, ERROR = 0, 1, 2, 3  # exit codes


class Unusable(ValueError):
    """What was given can't be read; the message is one line."""


def read(path: str) -> Summary:
    """Return one run; raises `Unusable`."""
    try:
        return results.read_summary(Path(path))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {plain(error)}; expected the directory of a run, or its summary.json") from None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unusable(message)


def options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[Summary], list[Summary]]:
    """Return what to compare, and how; raises `Unusable`."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="A… -- B…", help="runs, as directories or summary.json")
    parser.add_argument("--anyway", action="store_true", help="compare runs that differ or are Invalid")
    parser.add_argument("--seed", type=int, default=1, help="of the resampling (default: %(default)s)")
    if not {"-h", "--help"}.isdisjoint(arguments):
        parser.parse_args(["--help"])
    if list(arguments).count("--") != 1:
        raise Unusable("expected runs, --, and the runs to compare them with")
    middle = list(arguments).index("--")
    chosen = parser.parse_args(arguments[:middle])
    if not (others := arguments[middle + 1 :]):
        raise Unusable("no runs after --; expected at least one")
    return chosen, [read(path) for path in chosen.runs], [read(path) for path in others]


def main(arguments: Sequence[str]) -> int:
    """Compare and print; return the exit code."""
    try:
        chosen, a, b = options(arguments)
    except Unusable as error:
        sys.stderr.write(f"error: {error}\n")
        return ERROR
    against = objections(a, b)
    if against and not chosen.anyway:
        sys.stderr.write("".join(f"not comparable: {plain(line)}\n" for line in against))
        return CANNOT
    rows = compare(a, b, chosen.seed)
    sys.stdout.write(report(a, b, rows, against))
    if any(r.finding == "worse" for r in rows):
        return WORSE
    return CANNOT if min(len(a), len(b)) < FEWEST else NOT_WORSE


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
