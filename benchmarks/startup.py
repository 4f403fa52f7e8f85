"""Measure how long servers take from their process's start to their first answer, and the memory they then have.

python -m benchmarks.startup

Interleaved rounds on one core, each server on its own, measured from its start to its first answer with 200. Byte code
and the page cache are warm: nothing is done about what earlier starts left there. The image that `make image` built
last is started too, as hardened as the manifests have it, with its byte code and without; and, as the floors, a
container that imports what serving needs, and one that does nothing. Prints Markdown; judges the targets.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.models import given, say, trained
from benchmarks.report import over, spread
from benchmarks.servers import SUBJECTS, ModelFiles, Subject, environment, start
from benchmarks.workloads import workloads
from defects import artifact
from defects.pages.tables import grid
from defects.training.options import positive
from tools.computer import caption
from tools.processes import ROOT, cores, end_on_sigterm, pinned
from tools.raw_http import ask, get

COMPARED = ("ours", "bentoml-serve", "fastapi", "hello")
FLOOR = "imports"
NEEDED = "import bentoml, numpy, onnxruntime, pydantic, orjson, uvicorn"  # what serving does
START_TARGET, MEMORY_TARGET = 0.65, 1.5  # of the FastAPI control
FLOOR_TARGET = 1.3  # of a container that only imports
FLOOR_SECONDS = 60
IMAGE = Path("build/image/image.json")  # what `make image` says of the image it built
CONTAINERS = {  # options and command of each
    "container": ((), ()),
    "container, without byte code": (("--env=PYTHONPYCACHEPREFIX=/nowhere",), ()),
    "container that only imports": ((), ("python", "-c", NEEDED)),
    "container that does nothing": ((), ("python", "-S", "-c", "pass")),
}


@dataclass
class Starts:
    """One subject's starts, one for each round; `phases` are the seconds that it reports itself."""

    label: str
    seconds: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)
    phases: list[Mapping[str, float]] = field(default_factory=list)


def measure(subject: Subject, model: ModelFiles, first: bytes, scratch: Path, starts: Starts) -> None:
    """Start the subject once, wait for its first answer to `first`, and end it."""
    server = start(subject, model, scratch, cores().server)
    try:
        starts.seconds.append(server.wait_ready(first))
        if subject.label not in CONTAINERS:  # whose processes are not this one's children
            starts.rss_mb.append(server.resident_bytes() / 1e6)
        with suppress(OSError, http.client.HTTPException, ValueError, KeyError):  # controls don't say
            answer = ask(server.port, get("/readyz?verbose"), timeout=10)
            starts.phases.append(json.loads(answer.body)["startup_seconds"])
    finally:
        server.stop()


def ended(command: Sequence[str], scratch: Path, starts: Starts) -> None:
    """Run a command that does what serving has to, and nothing else, to its end."""
    with pinned(cores().server):
        started = time.monotonic()
        subprocess.run(  # noqa: S603 - our own commands
            command, cwd=ROOT, env=environment(scratch, {}), timeout=FLOOR_SECONDS, capture_output=True, check=True
        )
    starts.seconds.append(time.monotonic() - started)


def containers(record: Path) -> dict[str, tuple[str, ...]]:
    """Return the commands that start each container; none where no image was built, or nothing here can run it."""
    built = json.loads(record.read_text("utf-8")) if record.exists() else {"engine": "none", "image": ""}
    engine = shutil.which("podman" if built["engine"] == "buildah" else built["engine"]) or "false"
    trial = [engine, "run", "--rm", "--pull=never", built["image"], "python", "-c", "pass"]
    if subprocess.run(trial, capture_output=True, timeout=FLOOR_SECONDS, check=False).returncode:  # noqa: S603
        say("no image is measured: `make image` builds one, with podman or docker")
        return {}
    pinned_to = [f"--cpuset-cpus={core}" for core in cores().server]
    hardened = ("run", "--rm", "--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--network=host", *pinned_to)
    settings = ("--env=HOST=127.0.0.1", "--env=PORT={port}", "--env=DEFECTS_DRAIN_SECONDS=0")
    return {
        name: (engine, *hardened, *settings, *options, str(built["image"]), *command)
        for name, (options, command) in CONTAINERS.items()
    }


def measured(model: ModelFiles, rounds: int, seed: int, record: Path, scratch: Path) -> dict[str, Starts]:
    """Measure every subject's starts, each round in another order."""
    first = {name: get(SUBJECTS[name].probe) for name in COMPARED}
    first["fastapi"] = workloads(seed)["classify"].requests[0]  # it has no readiness of its own
    commands: dict[str, tuple[str, ...]] = {FLOOR: (sys.executable, "-c", NEEDED), **containers(record)}
    found = {name: Starts(SUBJECTS[name].label) for name in COMPARED} | {name: Starts(name) for name in commands}
    found[FLOOR].label = f"`{NEEDED}`"
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        order = list(found)
        random.Random(seed + number).shuffle(order)  # noqa: S311 - an order, no secret
        for name in order:
            here = scratch / f"{name}-{number}"
            if name in COMPARED:
                measure(SUBJECTS[name], model, first[name], here, found[name])
            elif name != FLOOR and not CONTAINERS[name][1]:
                measure(Subject(name, commands[name]), model, get("/readyz"), here, found[name])
            else:
                ended([word.format(port=0) for word in commands[name]], here, found[name])
    return found


def markdown(found: Mapping[str, Starts], head: str) -> str:
    """Return the report: starts and memory beside FastAPI's, and our own start by phase."""
    fastapi = found["fastapi"]
    rows = []
    for starts in found.values():
        seconds = spread(over(starts.seconds, fastapi.seconds), ".2f", unit="×")
        rss = ["–", "–"]
        if starts.rss_mb:
            rss = [spread(starts.rss_mb), spread(over(starts.rss_mb, fastapi.rss_mb), ".2f", unit="×")]
        rows.append([starts.label, spread(starts.seconds, ".2f"), seconds, *rss])
    titles = ["Subject", "ready after s", "of FastAPI's", "RSS MB when ready", "of FastAPI's"]
    return "\n\n".join([head, grid("From start to ready", titles, rows), _targets(found), _phases(found)]) + "\n"


def _targets(found: Mapping[str, Starts]) -> str:
    ours, fastapi, rows = found["ours"], found["fastapi"], []
    judged = [
        ("start, ours / FastAPI", START_TARGET, over(ours.seconds, fastapi.seconds)),
        ("resident memory, ours / FastAPI", MEMORY_TARGET, over(ours.rss_mb, fastapi.rss_mb)),
    ]
    if "container" in found:
        imports = found["container that only imports"].seconds
        judged.append(
            ("start, container / the imports in one", FLOOR_TARGET, over(found["container"].seconds, imports))
        )
    for text, bound, values in judged:
        met = statistics.median(values) <= bound
        rows.append([text, spread(values, ".2f", unit="×"), f"≤ {bound:g}×", "met" if met else "**missed**"])
    return grid("Targets", ["Ours / control", "Ratio", "Target", ""], rows)


def _phases(found: Mapping[str, Starts]) -> str:
    """Return a table of what our starts are made of; `ready` counts from the start of the process."""
    with_phases = [
        starts for starts in found.values() if starts.phases and starts.label != SUBJECTS["bentoml-serve"].label
    ]
    names = list(with_phases[0].phases[0]) if with_phases else []
    rows = [
        [n, *(spread([1e3 * phases[n] for phases in starts.phases], ".0f") for starts in with_phases)] for n in names
    ]
    return grid("Ours, by phase, in ms", ["Phase", *(starts.label for starts in with_phases)], rows)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5, help="(default: %(default)s)")
    parser.add_argument("--model-dir", type=Path, help="an artifact of the built-in data, instead of training one")
    parser.add_argument("--pipeline", type=Path, help="with --model-dir: its pipeline from joblib, for FastAPI")
    parser.add_argument("--image", type=Path, default=IMAGE, help="what `make image` said (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of model and order (default: %(default)s)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        try:
            model = given(options, COMPARED) if options.model_dir else trained(10_000, options.seed, scratch)
        except (artifact.NoModel, artifact.BadArtifact) as error:
            raise SystemExit(f"--model-dir: {error}") from None
        with pinned(cores().generator):
            found = measured(model, options.rounds, options.seed, options.image, scratch)
    raw: dict[str, Any] = {"machine": machine.describe()}
    head = (
        f"# `{' '.join(['python -m benchmarks.startup', *sys.argv[1:]])}`\n\n"
        f"{caption(raw['machine'])}; {cores().text}; {options.rounds} rounds, warm (byte code and page cache); "
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC. Medians [lowest–highest], ratios within a round."
    )
    sys.stdout.write(markdown(found, head))


if __name__ == "__main__":
    main()
