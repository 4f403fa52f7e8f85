"""Where a model can't be saved, that is one line before anything is fitted; a save that fails leaves what was there."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import BIN, ROOT, environment, run
from defects import artifact, directories
from defects.training import pipeline, saving
from defects.training.pipeline import Trained

FILES = dict.fromkeys(artifact.REQUIRED, b"{}")
MODEL = FILES | {artifact.ONNX: bytes(300_000)}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def refusal(output: Path | None) -> str:
    """Return why no model can be saved there, which is one line, and see that nothing was left or changed."""
    with pytest.raises(saving.BadPlace) as caught:
        saving.check(output)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a few things in it."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("into file").symlink_to("file/model")
    Path("full").mkdir()
    Path("full", "notes.txt").touch()
    artifact.replace(Path("model"), FILES)
    artifact.replace(Path("noted"), FILES)
    Path("noted", "notes.txt").touch()
    Path("empty").mkdir()
    return tmp_path


IMPOSSIBLE = {
    "file": "file exists and is not a model artifact; expected a new or empty directory",
    "file/model": "file: File exists; expected a place to write to",
    "into file": "file: File exists; expected a place to write to",
    "loop": "loop: Too many levels of symbolic links; expected a place to write to",
    "full": "full exists and is not a model artifact; expected a new or empty directory",
    "noted": "noted has files besides a model artifact's, such as 'notes.txt'; expected a new or empty directory",
    "model/inner": "model/inner is inside the model artifact {here}/model; expected a place outside of it",
    "model/a/b": "model/a/b is inside the model artifact {here}/model; expected a place outside of it",
    "new/" + "x" * 300: "File name too long; expected a place to write to",
    "x/" * 2_100: "File name too long; expected a place to write to",
    "a\0b": r"'a\x00b': no file can have this name; expected a place to write to",
    "a\ud800b": r"'a\ud800b': no file can have this name; expected a place to write to",
    "": ". exists and is not a model artifact; expected a new or empty directory",
    "..": ".. exists and is not a model artifact; expected a new or empty directory",
    "/": "/ exists and is not a model artifact; expected a new or empty directory",
    "/proc/model": "/proc/model: No such file or directory; expected a place to write to",
    "/proc/self/model": "expected a place to write to",
    "/dev/full": "/dev/full exists and is not a model artifact; expected a new or empty directory",
    "/dev/null/model": "/dev/null: File exists; expected a place to write to",
}


@pytest.mark.parametrize("output", IMPOSSIBLE, ids=lambda output: repr(output[:20]))
def test_an_impossible_place_is_one_line(place: Path, output: str) -> None:
    before = tree(place)
    assert IMPOSSIBLE[output].format(here=place) in refusal(Path(output))
    assert tree(place) == before


def test_the_current_directory_is_not_replaced(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that asked for it would stand in a directory that is gone."""
    for here, output in (("empty", "."), ("../model", "."), (".", str(place / "model"))):
        monkeypatch.chdir(here)
        assert refusal(Path(output)) == f"{output} is the directory that this runs in; expected another one"


@pytest.mark.parametrize("output", ["new", "new/deep/er", "empty", "model", "dangling", "linked", "näme", "-x", "a b"])
def test_a_possible_place_is_tried_and_nothing_is_left_of_it(place: Path, output: str) -> None:
    Path("dangling").symlink_to("later")
    Path("linked").symlink_to("model")
    before = tree(place)
    saving.check(Path(output))
    assert tree(place) == before
    saved = saving.save(MODEL, {}, Path(output))
    assert (saved.directory / artifact.ONNX).stat().st_size == 300_000
    assert [name for name in tree(place) if directories.SCRATCH in name] == []
    assert Path("linked").is_symlink()
    assert Path("dangling").is_symlink()


def test_a_name_that_is_no_unicode_is_a_place(place: Path) -> None:
    output = Path(os.fsdecode(b"caf\xe9"))
    saving.check(output)
    saving.save(FILES, {}, output)
    assert (place / output / artifact.DIGESTS).is_file()


@pytest.mark.usefixtures("place")
def test_a_disk_without_room_is_found_before_the_training() -> None:
    for output in (Path("new"), Path("model")):
        with files_of_at_most(directories.PROBE_BYTES // 2):
            assert refusal(output) == f"{output}: File too large; expected a place to write to"
        saving.check(output)


def test_a_disk_that_gets_full_leaves_the_earlier_model(place: Path) -> None:
    before = tree(place)
    with files_of_at_most(100_000), pytest.raises(saving.BadPlace, match=r"^model: File too large; expected a place"):
        saving.save(MODEL, {}, Path("model"))
    assert tree(place) == before
    saving.save(MODEL, {}, Path("model"))
    assert (place / "model" / artifact.ONNX).is_file()


def test_without_a_way_to_exchange_directories_nothing_is_lost(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_exchange", lambda *_: False)
    saving.save(MODEL, {}, Path("model"))
    assert (place / "model" / artifact.ONNX).stat().st_size == 300_000
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.ENOTEMPTY if to.exists() else errno.EIO, "no", str(to))
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(saving.BadPlace):
        saving.save(FILES, {}, Path("model"))
    assert (place / "model" / artifact.ONNX).stat().st_size == 300_000


MOUNTS = """
import sys
from pathlib import Path
from subprocess import run
from defects.training import saving

home = Path(sys.argv[1])
for name, options in (("small", "size=256k"), ("large", "size=8m"), ("fixed", "size=8m,ro")):
    (home / name).mkdir()
    run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", home / name], check=True)
(home / "bound").mkdir()
run(["mount", "--bind", home / "large", home / "bound"], check=True)
for output in ("small/model", "fixed/model", "large", "bound", "large/model"):
    try:
        saving.check(home / output)
        print("good")
    except saving.BadPlace as problem:
        print(problem)
"""


def test_full_read_only_and_mounted_disks_are_found_before_the_training(tmp_path: Path) -> None:
    command: list[str | Path] = ["unshare", "--map-root-user", "--mount", BIN / "python", "-c", MOUNTS, tmp_path]
    if subprocess.run([*command[:3], "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path}/small/model: No space left on device; expected a place to write to",
        f"{tmp_path}/fixed/model: Read-only file system; expected a place to write to",
        f"{tmp_path}/large is a mount point, which can't be replaced; expected a directory inside it",
        f"{tmp_path}/bound is a mount point, which can't be replaced; expected a directory inside it",
        "good",
    ]


def test_train_refuses_before_it_reads_anything(tmp_path: Path) -> None:
    done = run(tmp_path, "python", "train.py", "--data", "nowhere.csv", "--label", "x", "--output", "/proc/model")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "train.py: /proc/model: No such file or directory; expected a place to write to\n"


def test_two_at_the_same_place_at_once_both_end_well(place: Path) -> None:
    """There is a whole model at any moment, where the system can exchange directories; at the end one of the two."""
    can_exchange = directories._exchange(place / "full", place / "empty")
    problems, over = list[object](), threading.Event()

    def replace(content: bytes) -> None:
        try:
            for _ in range(40):
                artifact.replace(Path("model"), FILES | {artifact.ONNX: content})
        except OSError as error:
            problems.append(error)

    def look() -> None:
        while not over.is_set():
            if can_exchange and not Path("model", artifact.DIGESTS).is_file():
                problems.append("no model")

    threads = [threading.Thread(target=replace, args=(content,)) for content in (b"one", b"other")]
    looker = threading.Thread(target=look)
    for thread in (looker, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    looker.join()
    assert problems == []
    assert (place / "model" / artifact.ONNX).read_bytes() in (b"one", b"other")
    assert [name for name in os.listdir(place) if name.startswith(directories.SCRATCH)] == []  # noqa: PTH208


def test_models_of_the_same_second_have_versions_of_their_own() -> None:
    second = datetime(2026, 11, 27, 2, 15, tzinfo=UTC)
    assert len({pipeline._unique(second, b"the same model") for _ in range(100)}) == 100


# --- the model store -------------------------------------------------------------------------------------------------

IN_A_PROCESS = """
import json, os, resource, signal, sys
from pathlib import Path
import bentoml
from defects import artifact, directories, store
from defects.training import saving

def start(step, *arguments):
    sys.stdout.flush()
    if child := os.fork():
        return child
    try:
        print(step(*arguments), flush=True)
    except (saving.BadPlace, artifact.BadArtifact) as problem:
        print(problem, flush=True)
    os._exit(0)

def end(child):
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL:
        print("killed")

def do(*step):  # in a process of its own, whose imports are there
    end(start(*step))
"""
HOMES = f"""{IN_A_PROCESS}
def check(home):
    os.environ["BENTOML_HOME"] = home
    saving.check(None)
    return "good"

for home in sys.argv[1:]:
    do(check, home)
"""


def printed(home: Path, script: str, *arguments: object, cwd: Path = ROOT) -> list[str]:
    """Return the lines that a Python script prints with this BentoML home."""
    done = subprocess.run(
        [BIN / "python", "-c", script, *map(str, arguments)], cwd=cwd,
        env=environment(home) | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    return done.stdout.splitlines()


EXPECTED = "expected BENTOML_HOME to be a directory"


def test_a_store_that_can_not_be_written_to_is_one_line(place: Path) -> None:
    for name in ("a", "b", "c"):
        (place / name).mkdir()
    (place / "a" / "models").touch()
    (place / "b" / "models").mkdir()
    (place / "b" / "models" / artifact.NAME).touch()
    (place / "c" / "tmp").symlink_to("/proc")  # another disk, from which nothing can be moved into the store
    homes = ["file", "/proc/home", "loop", "x" * 300, "", "a", "b", "c", "new/home", "empty"]
    file, proc, loop, long, empty, models, versions, *good = printed(place, HOMES, *homes, cwd=place)
    assert file == f"the BentoML model store: file is not a directory; {EXPECTED}"
    assert proc == f"the BentoML model store: /proc/home: No such file or directory; {EXPECTED}"
    assert loop == f"the BentoML model store: loop: File exists; {EXPECTED}"
    assert long.endswith(f": File name too long; {EXPECTED}")
    assert empty == "BENTOML_HOME is empty; expected a directory, or no BENTOML_HOME"
    assert models == f"the BentoML model store: a/models is not a directory; {EXPECTED}"
    assert versions == (
        f"b/models/{artifact.NAME} can't be written to; expected a directory for models, or another BENTOML_HOME"
    )
    assert good == ["good"] * 3


@pytest.mark.parametrize("command", [["train.py", "--if-missing"], ["-m", "defects.serve"]], ids=str)
def test_a_store_that_can_not_be_opened_is_one_line_for_whoever_looks_for_a_model(
    command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "home").touch()
    done = run(tmp_path / "home", "python", *command)
    assert done.returncode == 78
    assert done.stderr.splitlines()[-1] == (
        f"defects: the BentoML model store: {tmp_path}/home is not a directory; {EXPECTED}"
    )
    assert "Traceback" not in done.stderr


FAILING = f"""{IN_A_PROCESS}
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def put(version, where=""):
    if where == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    elif where == "after":
        put_new = directories.put_new
        directories.put_new = lambda *paths: (put_new(*paths), kill())
    elif where:
        setattr(directories, where, kill)
    files = {{path.name: path.read_bytes() for path in Path(sys.argv[1]).iterdir() if path.name != artifact.DIGESTS}}
    return saving.save(files, json.loads(files["card.json"]) | {{"version": version}}, None).name

def stored():
    models = bentoml.models.list(artifact.NAME)
    whole = [str(model.tag.version) for model in models if artifact.load(Path(model.path))]
    return " ".join([*whole, "newest:", store.locate(None, None, Path("nowhere"))[1].partition(":")[2]])

do(put, "v1")
for where in ("no room", "sync", "put_new", "after"):
    do(put, "v2", where)
    do(stored)
do(put, "v1")
both = [start(put, version) for version in ("v3", "v4")]
for child in both:
    end(child)
do(stored)
"""


def test_a_save_that_fails_leaves_no_half_model_in_the_store(model_dir: Path, tmp_path: Path) -> None:
    """And two at once are both kept."""
    first, full, *said = printed(tmp_path, FAILING, model_dir)
    assert first == "defect_classifier:v1"
    assert full.endswith("File too large; expected a place to write to")
    assert said[:6] == [
        "v1 newest: v1", "killed", "v1 newest: v1", "killed", "v1 newest: v1", "killed",
    ]  # fmt: skip
    assert said[6] == "v1 v2 newest: v1"  # whole, but not yet the newest
    assert said[7].endswith("/v1: File exists; expected a place to write to")
    assert sorted(said[8:10]) == ["defect_classifier:v3", "defect_classifier:v4"]
    assert said[10] in ("v1 v2 v3 v4 newest: v3", "v1 v2 v3 v4 newest: v4")


def test_the_card_is_part_of_the_artifact_and_one_without_it_is_valid(trained: Trained, tmp_path: Path) -> None:
    artifact.replace(tmp_path / "model", trained.files)
    assert artifact.CARD_PAGE in json.loads((tmp_path / "model" / artifact.DIGESTS).read_text())
    without = {name: content for name, content in trained.files.items() if name != artifact.CARD_PAGE}
    artifact.replace(tmp_path / "model", without)
    assert artifact.CARD_PAGE not in artifact.load(tmp_path / "model").files
