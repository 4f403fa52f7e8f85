"""Measure what a large model costs whoever serves it: memory, and time at every start."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from defects import artifact

LARGE_BYTES = 30 << 20  # of the largest file: from here on it is measured and said
SECONDS = 600  # that loading may take
# What was used at most is read from /proc: getrusage has the memory of the process that started this one, too.
LOAD = """
import json, sys, time
from pathlib import Path
from defects import artifact, scoring

began = time.process_time()
model = artifact.load(Path(sys.argv[1]))
scoring.load(model)(model.golden.rows)
seconds = time.process_time() - began
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({"memory": 1024 * int(peak), "seconds": seconds}))
"""


class Cost(NamedTuple):
    """Bytes of memory that a process takes at most to load a model and to answer, and seconds of CPU."""

    memory: int
    seconds: float


def warning(files: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Return a warning for the card where the model is large; `None` where it is not."""
    size = max(map(len, files.values()))
    if size < LARGE_BYTES:
        return None
    cost = measured(files)
    takes = "takes much memory and time to load"
    if cost is not None:
        takes = f"takes {cost.memory / 1e9:.1f} GB of memory and {_about(cost.seconds)} of CPU to load at every start"
    text = (
        f"the model has {size / 1e6:,.0f} MB and {takes}; expected memory limits and startup probes that allow for it, "
        "or fewer or smaller trees"
    )
    return {"kind": "large_model", "name": "", "text": text}


def _about(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds >= 1.5 else "about a second"


def measured(files: Mapping[str, bytes]) -> Cost | None:
    """Load the model in a process of its own, as a replica does; `None` where that can't be measured here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            artifact.write(Path(folder), files)
            done = subprocess.run(  # noqa: S603 - our own program
                [sys.executable, "-c", LOAD, folder],
                cwd=Path(artifact.__file__).parents[1], capture_output=True, timeout=SECONDS, check=True,
            )  # fmt: skip
            return Cost(**json.loads(done.stdout))
        except (OSError, subprocess.SubprocessError, ValueError):
            return None
