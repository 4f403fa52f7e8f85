"""Our server with features switched off, to measure what each costs: the benchmark's own, so that no setting is needed.

python -m benchmarks.controls.ours --without metrics --without gc
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from defects import replica, serve
from defects.serving.metrics import Distribution, Metrics


class _Unobserved(Distribution):
    def observe(self, value: float) -> None:
        pass


class NoMetrics(Metrics):
    """Counts nothing."""

    def __init__(self) -> None:
        super().__init__("", "", "", ())
        self.batch_rows = _Unobserved(())

    def answered(self, route: str, code: int, seconds: float) -> None:
        pass

    def predicted(self, best: Iterable[int], *seconds: float) -> None:
        pass

    async def watch_loop(self) -> None:
        pass


def replace(name: str, value: object) -> None:
    """Replace what the application looks up by that name; ends the process where there is no such thing."""
    if not hasattr(replica, name):
        raise SystemExit(f"application.{name} does not exist; expected it to be there to be replaced")
    setattr(replica, name, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", action="append", choices=("metrics", "gc"), default=[])
    without = parser.parse_args().without
    if "metrics" in without:
        replace("METRICS", NoMetrics())
    if "gc" in without:
        replace("settle", lambda: None)
    serve.main()


if __name__ == "__main__":
    main()
