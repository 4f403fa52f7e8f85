r"""A load test where nobody looks on, as a Job in the cluster: run it, and keep the results until they are taken.

python -m loadtests.cluster.job --results /results -- --host http://defect-classifier-predictor --scenario scale-up

What follows `--` goes to Locust. Once the run is over, the file `done` is in the results' directory. This waits for it,
so that it can be started at any time:

mkdir -p build/load && kubectl -n NAMESPACE exec job/load-test -- sh -c \
'cd /results; until [ -e done ]; do sleep 1; printf . >&2; done; tar -cf - */ && touch taken' | tar -xf - -C build/load

Once the file `taken` is there, or after --keep-seconds, the Job ends with the run's exit code; at once where there is
nothing to take. A `taken` from before the end of the run does not count. A SIGTERM ends the run early, and the wait.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.processes import ROOT

DONE, TAKEN = "done", "taken"
LOOK_SECONDS = 0.5


class LoadTestJob:
    """One run, and the time after it."""

    def __init__(self, results: Path, keep_seconds: float, options: list[str]):
        self._results, self._keep, self._ended = results, keep_seconds, False
        command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
        self._command = [*command, "--only-summary", "--out", str(results), *options]
        self._locust: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run; return the exit code once the results have been taken, or were kept long enough."""
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        (self._results / DONE).unlink(missing_ok=True)
        self._locust = subprocess.Popen(self._command, cwd=ROOT)  # noqa: S603 - our own command
        code = self._locust.wait()
        if any(self._results.glob("*/summary.json")):
            self._wait()
        return code

    def _wait(self) -> None:
        """Wait until the results have been taken, or for as long as they are kept."""
        until = time.monotonic() + self._keep
        (self._results / TAKEN).unlink(missing_ok=True)  # what was taken while the run was on are not its results
        (self._results / DONE).touch()
        while not self._ended and not (self._results / TAKEN).exists() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)

    def _end(self) -> None:
        self._ended = True
        if self._locust and self._locust.poll() is None:
            self._locust.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("/results"), help="(default: %(default)s)")
    parser.add_argument("--keep-seconds", type=float, default=3600, help="(default: %(default)s)")
    parser.add_argument("options", nargs="*", help="for Locust, after --")
    options = parser.parse_args()
    raise SystemExit(LoadTestJob(options.results, options.keep_seconds, options.options).run())


if __name__ == "__main__":
    main()
