"""Make the report of a run: one HTML page that needs nothing else, and a summary for a pull request.

python -m loadtests.report RUN                        writes report.html and summary.md beside the run's summary.json
python -m loadtests.report RUN --picture burst.svg    draws the panels over time alone

Both are made of `summary.json` only. The page works without scripts; with them, it shows the values at any moment.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from defects.pages.html import plain
from loadtests import results
from loadtests.analysis.method import EXIT_CODES
from loadtests.report import charts
from loadtests.report.page import write
from loadtests.report.time_series import time_series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a run")
    parser.add_argument("--picture", type=Path, help="draw the panels over time into this SVG file, and nothing else")
    options = parser.parse_args()
    try:
        summary = results.read_summary(options.run)
        if options.picture:
            options.picture.write_text(charts.picture(summary, time_series(summary)) + "\n", "utf-8")
        else:
            write(options.run if options.run.is_dir() else options.run.parent, summary)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"error: {options.run}: {plain(error)}; expected the directory of a run\n")
        raise SystemExit(EXIT_CODES["Error"]) from None


if __name__ == "__main__":
    main()
