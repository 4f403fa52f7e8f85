"""A replica is built, of what settings ask for or of parts that are given; nothing is built by an import."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import run

PARTS = """
import asyncio
from defects import scoring
from defects.artifact import BadArtifact
from defects.replica import Replica, find_artifact
from defects.settings import Settings

def settings(name):
    return Settings.from_environment({"MODEL_DIR": %r, "DEFECTS_MODEL_NAME": name})

artifact, _ = find_artifact(settings("a"))
healthy = scoring.load(artifact)
"""


def test_importing_builds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from defects import replica, serve;"
        "lazy = {'bentoml', 'onnxruntime', 'obstore', 'redis', 'defects.object_storage', 'defects.serving.cache'};"
        "print({'pydantic_core', *lazy} & set(sys.modules))"
    )
    done = run(tmp_path, "python", "-c", code, DEFECTS_TYPO=1, MODEL_DIR="/nowhere")
    assert (done.returncode, done.stdout.strip()) == (0, "{'pydantic_core'}"), done.stderr


def test_two_replicas_live_side_by_side(model_dir: Path, tmp_path: Path) -> None:
    # Each line is written at once: log lines go to the same stream, from a thread, and `print` writes words.
    code = PARTS + (
        "import sys\n"
        "def say(*words):\n"
        "    sys.stdout.write(' '.join(map(str, words)) + '\\n')\n"
        "one = Replica.build(settings('one'))\n"
        "two = Replica.build(settings('two'), artifact=artifact, scorer=lambda rows: healthy(rows))\n"
        "async def verify():\n"
        "    await one.verify()\n"
        "    say(one.health.ready, two.health.ready)\n"
        "    await two.verify()\n"
        "    say(one.health.ready, two.health.ready)\n"
        "asyncio.run(verify())\n"
        "for replica in (one, two):\n"
        "    say(*sorted(path for path in replica.routes.table if path.endswith(':predict')))\n"
    )
    done = run(tmp_path, "python", "-c", code % str(model_dir))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert said == ["True False", "True True", "/v1/models/one:predict", "/v1/models/two:predict"]


def test_history_is_imported_only_where_there_is_a_database(model_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from defects.replica import Replica; Replica.from_environment();"
        "print(sorted({name.partition('.')[2] for name in sys.modules if name.startswith('defects.history')}"
        " | {'asyncpg', 'sqlite3'} & set(sys.modules)))"
    )
    without = run(tmp_path, "python", "-c", code, MODEL_DIR=model_dir)
    assert (without.returncode, without.stdout.strip()) == (0, "[]"), without.stderr
    url = f"sqlite:///{tmp_path}/history.db"
    recording = run(tmp_path, "python", "-c", code, MODEL_DIR=model_dir, DEFECTS_DATABASE_URL=url)
    assert recording.returncode == 0, recording.stderr
    assert "history.writer" in recording.stdout
    assert "asyncpg" not in recording.stdout


def test_a_scorer_that_is_given_is_verified_too(model_dir: Path, tmp_path: Path) -> None:
    code = PARTS + (
        "try:\n"
        "    Replica.build(settings('a'), artifact=artifact, scorer=lambda rows: healthy(rows)[:, ::-1])\n"
        "except BadArtifact as problem:\n"
        "    print(problem.exit_code, problem)\n"
    )
    done = run(tmp_path, "python", "-c", code % str(model_dir))
    assert done.stdout.startswith("65 golden answers differ by "), done.stderr


def test_a_model_of_a_time_to_come_is_said_to_hide_later_ones(model_dir: Path, tmp_path: Path) -> None:
    code = PARTS + (
        "from dataclasses import replace\n"
        "for created in ('2026-01-01T00:00:00Z', '2930-01-01T00:00:00Z'):\n"
        "    dated = replace(artifact, card=artifact.card | {'created': created})\n"
        "    Replica.build(settings('a'), artifact=dated, scorer=healthy).log_example()\n"
    )
    done = run(tmp_path, "python", "-c", code % str(model_dir))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    warnings = [line for line in lines if line["level"] == "warning"]
    assert [line["created"] for line in warnings] == ["2930-01-01T00:00:00Z"]
    assert warnings[0]["message"] == "the model is of a time to come, so it hides later ones"
