"""A load test where nobody looks on, as a Job in the cluster: run it, and keep the results until they are taken.

python -m loadtests.job --results /results -- --host http://defect-classifier-predictor --scenario scale-up --rate 100

What follows `--` goes to Locust. The results are taken once the file `taken` is in their directory:

kubectl exec job/load-test -- sh -c 'tar -c -C /results . && touch /results/taken' | tar -x -C build/load

Then, or after --keep-seconds, this ends with the run's exit code. A SIGTERM ends the run early, and the wait.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from loadtests.subjects import ROOT

TAKEN = "taken"
LOOK_SECONDS = 0.5


class Job:
    """One run, and the time after it."""

    def __init__(self, results: Path, keep_seconds: float, options: list[str]):
        self._results, self._keep, self._ended = results, keep_seconds, False
        command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
        self._command = [*command, "--only-summary", "--out", str(results), *options]
        self._locust: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """The run's exit code, once the results have been taken or had to be."""
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        self._locust = subprocess.Popen(self._command, cwd=ROOT)  # noqa: S603 - our own command
        code = self._locust.wait()
        until = time.monotonic() + self._keep
        while not self._ended and not (self._results / TAKEN).exists() and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        return code

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
    raise SystemExit(Job(options.results, options.keep_seconds, options.options).run())


if __name__ == "__main__":
    main()
