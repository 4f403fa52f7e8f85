"""The service with a start that fails, after everything that is checked while it is built."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from defects import serve
from defects.replica import Replica


class Broken(Replica):
    async def verify(self) -> None:
        raise RuntimeError("broken on purpose")


if __name__ == "__main__":
    serve.main(Broken.from_environment)
else:
    from defects.bentoml_service import classifier

    DefectClassifier = classifier(Broken.from_environment())
