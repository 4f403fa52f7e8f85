"""Our server with features switched off, to measure what each costs: the benchmark's own, so that no setting is needed.

python -m benchmarks.controls.ours --without metrics --without gc
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from defects import serve
from defects.replica import Replica
from defects.serving.metrics import Distribution, Metrics
from defects.settings import Settings


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


class Collecting(Replica):
    """Leaves the garbage collector as Python has it."""

    def tune_gc(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--without", action="append", choices=("metrics", "gc"), default=[])
    without = parser.parse_args().without
    kind = Collecting if "gc" in without else Replica
    metrics = NoMetrics() if "metrics" in without else None
    serve.main(lambda: kind.build(Settings.from_environment(), metrics=metrics))


if __name__ == "__main__":
    main()
