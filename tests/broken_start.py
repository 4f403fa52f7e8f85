"""The service with a start that fails, after everything that is checked while it is imported."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

import service
from defects import replica, serve

DefectClassifier = service.DefectClassifier


async def broken() -> None:
    raise RuntimeError("broken on purpose")


replica.verify = broken

if __name__ == "__main__":
    serve.main()
