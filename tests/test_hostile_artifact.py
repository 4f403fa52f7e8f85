"""Whatever is wrong with an artifact: a replica refuses it with one line and the pinned exit code, or answers right.

Its digests agree with its files in all of these: whoever can write the directory can make them.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import BENTOML, MODULE, Command, quiet, run
from defects import artifact, replica, scoring
from defects.artifact import BadArtifact
from defects.features import DefectClass, Feature
from defects.http import verification
from defects.kinds import BOOLEAN, INTEGER
from defects.protocols import v2
from defects.replica import Replica
from defects.schema import Schema
from defects.serving.logs import Writer
from defects.serving.metrics import Metrics
from defects.serving.model import ServedModel
from defects.settings import Fatal, Settings
from defects.training import dataset, pipeline
from defects.training.options import Recipe

DEEP = "d" * 30  # stands for a list of lists, 100,000 levels deep
BAD_TEXTS = ["", " ", "\ud800", "a\0b", "\x1b[2J", "x" * 20_000, "a\nb", "\u2028", "{0}", DEEP]
BAD_NUMBERS = [0, -1, 7, 10**30, 10**400, 1e39, -1e300, 1e-320, float("nan"), float("inf"), -float("inf")]
BAD_VALUES: list[Any] = [None, True, False, *BAD_NUMBERS, *BAD_TEXTS, [], {}, [[]], {"a": {}}, [None], ["a", "a"]]
DOCUMENTED: set[Schema] = set()  # whose documents were made
DOCUMENTS = [*artifact.REQUIRED, artifact.DIGESTS]


def written(value: Any) -> bytes:
    """Return JSON in which anything may stand."""
    return json.dumps(value).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def reseal(directory: Path) -> None:
    """Make the digests agree with what the files hold now."""
    files = [file for file in directory.iterdir() if file.name != artifact.DIGESTS]
    artifact.write(directory, {file.name: file.read_bytes() for file in files})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that loads in milliseconds."""
    trained = pipeline.train(dataset.builtin(800, seed=2), Recipe("logistic-regression", 1, 0.2), quiet)
    directory = tmp_path_factory.mktemp("small") / "model"
    artifact.replace(directory, trained.files)
    return directory


@pytest.fixture
def copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "model"))


@pytest.fixture(scope="module", autouse=True)
def _one_writer() -> Iterator[None]:
    """Have all replicas of these tests write to one log, for each would have a thread of its own."""
    writer, patch = Writer(io.StringIO()), pytest.MonkeyPatch()
    patch.setattr(replica, "configure_logs", lambda *_: writer)
    yield
    patch.undo()


# --- anything at all -------------------------------------------------------------------------------------------------


def change_somewhere(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """Return a JSON value with one change at a random place: another value, another key, or one fewer."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = draw(st.sampled_from(keys))
        changed = value.copy()
        match draw(st.sampled_from(["inside", "inside", "inside", "remove", "rename", "add"])):
            case "remove":
                del changed[key]
            case "rename" if isinstance(changed, dict):
                changed[draw(st.sampled_from(BAD_TEXTS))] = changed.pop(key)
            case "add" if isinstance(changed, list):
                changed.append(draw(st.sampled_from([value[key], *BAD_VALUES])))
            case _:
                changed[key] = change_somewhere(value[key], draw)
        return changed
    return draw(st.sampled_from(BAD_VALUES))


def change_bytes(content: bytes, draw: Callable[[st.SearchStrategy[Any]], Any]) -> bytes:
    """Return a file's content with a few bytes replaced, removed or added at a random place."""
    start = draw(st.integers(0, len(content)))
    end = min(len(content), start + draw(st.integers(0, 3)))
    added: bytes = draw(st.binary(max_size=3))
    return content[:start] + added + content[end:]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_change_is_refused_in_one_line_or_everything_is_answered(
    small: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("mutated") / "model"
    shutil.copytree(small, directory)
    name = data.draw(st.sampled_from(DOCUMENTS))
    content = (directory / name).read_bytes()
    if data.draw(st.integers(0, 3)):
        changed = written(change_somewhere(json.loads(content), data.draw))
    else:
        changed = change_bytes(content, data.draw)
    (directory / name).write_bytes(changed)
    if name != artifact.DIGESTS:
        reseal(directory)
    outcome = build(directory)
    shutil.rmtree(directory.parent)
    if isinstance(outcome, Fatal):
        assert (outcome.exit_code, str(outcome).isprintable()) == (65, True), ascii(str(outcome))
        return
    statuses = asyncio.run(ask_everything(outcome))
    assert set(statuses.values()) == {200}, (statuses, changed[:2000])


def build(directory: Path) -> Replica | Fatal:
    """Build a replica, or return why it can't be built."""
    try:
        return Replica.build(Settings.from_environment({"MODEL_DIR": str(directory)}))
    except Fatal as problem:
        return problem


async def ask_everything(built: Replica) -> dict[str, int]:
    """Return the status of each answer that a ready replica gives."""
    assert built._golden
    assert await built.replay(built._golden) is None
    built.health.set_verification("ready")
    built.log_example()
    model, golden = built.model, built._golden
    row = golden.rows[verification._allowed(model.schema, golden)[:1]].astype(np.float64)
    statuses = {}
    transport = httpx.ASGITransport(built.routes)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as client:
        paths = ["/", "/model", "/metrics", "/readyz?verbose", f"/v2/models/{model.name}"]
        if model.schema not in DOCUMENTED:  # making documents takes most of the time
            DOCUMENTED.add(model.schema)
            paths += ["/docs.json", "/schema.json"]
        for path in paths:
            statuses[path] = (await client.get(path)).status_code
        values = [None if value != value else value for value in row[0].tolist()]  # noqa: PLR0124
        named = dict(zip(model.schema.names, values, strict=True))
        tensor = {"name": "rows", "datatype": v2.datatype(model.schema), "shape": [1, len(values)], "data": [values]}
        infer = {"inputs": [tensor], "outputs": [{"name": name} for name in v2.REQUESTABLE]}
        for path, body in {
            "/classify": named,
            "/classify_batch": [named, named],
            f"/v1/models/{model.name}:predict": {"instances": [values]},
            f"/v2/models/{model.name}/infer": infer,
            f"/v2/models/{model.name}/infer?": {**infer, "parameters": {"binary_data_output": True}},
        }.items():
            statuses[path] = (await client.post(path, json=body)).status_code
    await built.batcher.close()
    return statuses


def test_an_artifact_without_a_change_is_answered(copy: Path) -> None:
    built = Replica.build(Settings.from_environment({"MODEL_DIR": str(copy)}))
    assert set(asyncio.run(ask_everything(built)).values()) == {200}


# --- what is wrong is named ------------------------------------------------------------------------------------------


def changed(directory: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change the value of a JSON file in place."""
    content = json.loads((directory / name).read_bytes())
    change(content)
    (directory / name).write_bytes(written(content))
    if name != artifact.DIGESTS:
        reseal(directory)


def feature(**change: Any) -> Callable[[Any], Any]:
    return lambda schema: schema["features"][1].update(change)


def classes(**change: Any) -> Callable[[Any], Any]:
    return lambda schema: schema["classes"][1].update(change)


def golden(**change: Any) -> Callable[[Any], Any]:
    return lambda content: content.update(change)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("schema.json", classes(name=7), r"schema\.json is not .*classes\[1\]\.name is a number; expected text"),
        ("schema.json", classes(name="\ud800"), "its text is not UTF-8"),
        ("schema.json", classes(description="\ud800"), "its text is not UTF-8"),
        ("schema.json", classes(name=""), r"classes\[1\]\.name is ''; expected a name"),
        ("schema.json", classes(name="a\0b"), r"'a\\x00b'; expected text without control characters"),
        ("schema.json", classes(name="x" * 1001), "has 1,001 characters; expected at most 1,000"),
        ("schema.json", classes(colour="red"), r"classes\[1\] has the unknown key 'colour'; expected some of name"),
        ("schema.json", feature(name=5), r"features\[1\]\.name is a number; expected text"),
        ("schema.json", feature(name=None), r"features\[1\]\.name is null; expected text"),
        ("schema.json", feature(unit=[]), r"features\[1\]\.unit is a list; expected text"),
        ("schema.json", feature(low="50"), r"features\[1\]\.low is text; expected a finite number"),
        ("schema.json", feature(low=True), r"features\[1\]\.low is a boolean; expected a finite number"),
        ("schema.json", feature(high=float("inf")), "it has Infinity; expected finite numbers"),
        ("schema.json", feature(high=10**400), "it has an integer of 401 digits"),
        ("schema.json", feature(low=3, high=2), r"features\[1\]\.low, 3, is above high, 2"),
        ("schema.json", feature(low=1e300), r"features\[1\]\.low, 1e\+300, is above high"),
        ("schema.json", feature(example=1e300), r"features\[1\]\.example is 1e\+300; expected a 32-bit number"),
        ("schema.json", feature(optional=1), r"features\[1\]\.optional is a number; expected true or false"),
        ("schema.json", feature(wide="no"), r"features\[1\]\.wide is text; expected true or false"),
        ("schema.json", golden(title=7), "title is a number; expected text"),
        ("schema.json", golden(title=DEEP), "its JSON is nested too deep"),
        ("schema.json", golden(label_type="number"), "is no label of type number"),
        ("schema.json", golden(label_type=[]), "label_type is a list; expected text"),
        ("card.json", lambda card: card.pop("data"), r"card\.json is not .*: data is missing"),
        ("card.json", golden(data={"source": 7}), r"data\.source is a number; expected text"),
        ("card.json", golden(engine=[]), "engine is a list; expected an object"),
        ("card.json", golden(engine={"name": ["a"]}), r"engine\.name is a list; expected text"),
        ("card.json", golden(version=5), "version is a number; expected text"),
        ("card.json", golden(more=DEEP), "its JSON is nested too deep"),
        ("card.json", golden(more="\ud800"), "its text is not UTF-8"),
        ("reference.json", golden(more=DEEP), r"reference\.json is not .*nested too deep"),
        ("golden.json", golden(tolerance=float("inf")), "it has Infinity; expected finite numbers"),
        ("golden.json", golden(tolerance=1.0), "tolerance is 1; expected a number above 0, at most 1e-06"),
        ("golden.json", golden(tolerance=0), "tolerance is 0; expected a number above 0"),
        ("golden.json", golden(tolerance=True), "tolerance is a boolean; expected a finite number"),
        ("golden.json", golden(tolerance=10**400), "it has an integer of 401 digits"),
        ("golden.json", lambda g: g["rows"][0].__setitem__(0, 10**400), "it has an integer of 401 digits"),
        ("golden.json", lambda g: g["rows"][0].__setitem__(0, 1e39), "rows: expected 32-bit numbers"),
        ("golden.json", lambda g: g["rows"][0].__setitem__(0, "1"), r"rows\[0\]: expected a list of \d+ numbers"),
        ("golden.json", lambda g: g["classes"].__setitem__(0, True), "classes: expected numbers of classes, from 0"),
        ("golden.json", lambda g: g["classes"].__setitem__(0, 99), "classes: expected numbers of classes, from 0"),
        ("golden.json", lambda g: g["probabilities"].reverse(), "golden answers differ by"),
        ("digests.json", golden(**{"a\0b": "sha256:" + "0" * 64}), r"digests\.json is not .*'a\\x00b' is not the name"),
        ("digests.json", golden(**{"\ud800": ""}), r"digests\.json is not .*its text is not UTF-8"),
        ("digests.json", golden(**{"../a": ""}), "'../a' is not the name of a file"),
        ("digests.json", golden(**{"digests.json": ""}), "'digests.json' is not the name of a file"),
        ("digests.json", golden(**{"card.json": 7}), r"the digest of card\.json is not valid"),
        ("digests.json", golden(**{f"f{i}": "" for i in range(101)}), "files; expected at most 100"),
        ("digests.json", golden(a=DEEP), "its JSON is nested too deep"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(copy: Path, name: str, change: Callable[[Any], Any], problem: str) -> None:
    changed(copy, name, change)
    with pytest.raises(BadArtifact, match=problem) as caught:
        Replica.build(Settings.from_environment({"MODEL_DIR": str(copy)}))
    assert str(caught.value).isprintable()


def test_a_key_that_appears_twice_is_refused(copy: Path) -> None:
    content = (copy / "card.json").read_text().rstrip().removesuffix("}")
    (copy / "card.json").write_text(content + ', "version": "other"}')
    reseal(copy)
    with pytest.raises(BadArtifact, match=r"card\.json is not .*the key 'version' appears twice"):
        artifact.load(copy)


def test_what_training_makes_is_bounded_like_what_is_read(copy: Path) -> None:
    contents = dict(artifact.load(copy).files)
    contents["card.json"] += b" " * artifact.MAX_DOCUMENT
    with pytest.raises(BadArtifact, match=r"^card\.json: has 67,\d+,\d+ bytes; expected at most 67,108,864$"):
        artifact.parse(contents, "sha256:0")


# --- golden inputs that prove nothing --------------------------------------------------------------------------------


def test_golden_inputs_of_one_answer_are_refused_where_the_model_has_others(copy: Path) -> None:
    def repeat(content: Any) -> None:
        for key in ("rows", "probabilities", "classes"):
            content[key] = content[key][:1] * 5

    changed(copy, "golden.json", repeat)
    with pytest.raises(BadArtifact, match="the golden inputs all have the same answer, and other rows another one"):
        Replica.build(Settings.from_environment({"MODEL_DIR": str(copy)}))


def test_uniform_golden_answers_are_only_those_of_a_uniform_model(copy: Path) -> None:
    loaded = artifact.load(copy)
    count = len(loaded.schema.classes)

    def make_uniform(content: Any) -> None:
        content["probabilities"] = [[1 / count] * count for _ in content["rows"]]
        content["classes"] = [0 for _ in content["rows"]]

    changed(copy, "golden.json", make_uniform)
    with pytest.raises(BadArtifact, match="golden answers differ by"):
        Replica.build(Settings.from_environment({"MODEL_DIR": str(copy)}))
    loaded = artifact.load(copy)
    uniform = scoring.verified(loaded, lambda rows: np.full((len(rows), count), 1 / count))
    assert uniform(loaded.golden.rows[:1]).shape == (1, count)


def test_a_model_that_answers_every_row_alike_is_served(tmp_path: Path) -> None:
    """Twelve rows are too few for a tree's first split."""
    file = tmp_path / "few.csv"
    file.write_text("a,b,defect\n" + "".join(f"{i},{i * i % 7},{'xy'[i % 2]}\n" for i in range(12)))
    trained = pipeline.train(dataset.read(file, "defect"), Recipe("hist-gradient-boosting", 1, 0.5), quiet)
    probabilities = np.array(json.loads(trained.files["golden.json"])["probabilities"])
    assert np.ptp(probabilities, axis=0).max() == 0
    artifact.replace(tmp_path / "model", trained.files)
    built = Replica.build(Settings.from_environment({"MODEL_DIR": str(tmp_path / "model")}))
    assert set(asyncio.run(ask_everything(built)).values()) == {200}


# --- the encoders ----------------------------------------------------------------------------------------------------


def test_what_no_codec_can_encode_is_found_before_it_is_asked_for(copy: Path) -> None:
    """The schema's own checks are passed by here: the codecs are asked."""
    loaded = artifact.load(copy)

    def problem(loaded: artifact.Artifact) -> str | None:
        model = replica.describe(loaded, "name")
        metrics = Metrics(model.version, "none", model.engine, model.schema.class_names)
        return verification.problem_with_answers(model, metrics, loaded.golden)

    assert problem(loaded) is None
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    for more in (deep, "\ud800", 10**30):
        found = problem(replace(loaded, card={**loaded.card, "more": more}))
        assert found
        assert found.startswith("/model can't be answered: ")
    odd = DefectClass("odd")
    object.__setattr__(odd, "name", "\ud800")
    found = problem(replace(loaded, schema=replace_classes(loaded.schema, odd)))
    assert found
    assert "can't be answered" in found
    none = replace(loaded.golden, rows=np.full_like(loaded.golden.rows, 3e38))
    assert problem(replace(loaded, golden=none)) == (
        "no golden row is one that the schema allows; expected rows that callers may send"
    )


def replace_classes(schema: Schema, first: DefectClass) -> Schema:
    made = Schema(schema.features, schema.classes, schema.title)
    object.__setattr__(made, "classes", (first, *schema.classes[1:]))
    return made


def test_the_golden_inputs_of_every_kind_of_schema_go_through_the_codecs() -> None:
    features = (
        Feature("epoch", wide=True), Feature("on", kind=BOOLEAN, optional=True), Feature("x", optional=True, low=-1)
    )  # fmt: skip
    schema = Schema(features, (DefectClass("-1"), DefectClass("2")), label_type=INTEGER)
    rows = np.array([[1.8e9 + 0.125, np.nan, np.nan], [3e38, 1, -1], [0, 0, np.nan]])
    inputs = artifact.Golden(rows, np.array([[0.1, 0.9], [1, 0], [0.5, 0.5]]), 1e-6)
    model = ServedModel(schema, "name", "1", "onnxruntime", {})
    metrics = Metrics("1", "none", "onnxruntime", schema.class_names)
    assert verification.problem_with_answers(model, metrics, inputs) is None


# --- real processes --------------------------------------------------------------------------------------------------


def _other_file(make: Callable[[Path], None], name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return change


def _without_probabilities(directory: Path) -> None:
    model = onnx.load_from_string((directory / "model.onnx").read_bytes())
    model.graph.output[0].name = "other"
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    reseal(directory)


def _large(file: Path) -> None:
    with file.open("wb") as sparse:
        sparse.truncate((64 << 20) + 1)


PROCESSES: list[tuple[str, Callable[[Path], None], str]] = [
    ("a class named 7", lambda d: changed(d, "schema.json", classes(name=7)), "name is a number; expected text"),
    ("a surrogate", lambda d: changed(d, "schema.json", classes(description="\ud800")), "its text is not UTF-8"),
    ("a feature named null", lambda d: changed(d, "schema.json", feature(name=None)), "name is null; expected text"),
    ("deep", lambda d: changed(d, "golden.json", golden(more=DEEP)), "its JSON is nested too deep"),
    ("10**400", lambda d: changed(d, "golden.json", golden(tolerance=10**400)), "an integer of 401 digits"),
    ("no data", lambda d: changed(d, "card.json", lambda card: card.pop("data")), "data is missing"),
    ("NUL", lambda d: changed(d, "digests.json", golden(**{"a\0": ""})), "'a\\x00' is not the name of a file"),
    ("device", _other_file(lambda f: f.symlink_to("/dev/zero"), "card.json"), "card.json: can't be read: is a device"),
    ("pipe", _other_file(os.mkfifo, "model.onnx"), "model.onnx: can't be read: is a named pipe; expected a regular"),
    ("digests as a pipe", _other_file(os.mkfifo, "digests.json"), "digests.json: can't be read: is a named pipe"),
    ("directory", _other_file(Path.mkdir, "golden.json"), "golden.json: can't be read: is a directory"),
    ("large", _other_file(_large, "schema.json"), "has 67,108,865 bytes; expected at most 67,108,864"),
    ("another output", _without_probabilities, "model.onnx: onnxruntime can't load it"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), [case[1:] for case in PROCESSES], ids=[case[0] for case in PROCESSES])
def test_the_process_ends_with_65_and_one_line(
    copy: Path, tmp_path: Path, change: Callable[[Path], None], problem: str
) -> None:
    change(copy)
    done = run(tmp_path, *MODULE, MODEL_DIR=copy)
    assert (done.returncode, done.stdout) == (65, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("defects: ")
    assert problem in line


@pytest.mark.parametrize("number", [0, 7])
def test_bentoml_serve_ends_so_too(copy: Path, tmp_path: Path, number: int) -> None:
    _, change, problem = PROCESSES[number]
    change(copy)
    command: Command = BENTOML
    done = run(tmp_path, *command, MODEL_DIR=copy)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("defects: ")]
    assert (done.returncode, problem in line, "Traceback" in done.stderr) == (65, True, False), done.stderr


def test_onnx_runtime_adds_no_lines_of_its_own(model_dir: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(model_dir, tmp_path / "trees"))
    model = onnx.load_from_string((directory / "model.onnx").read_bytes())
    targets = [a for node in model.graph.node for a in node.attribute if a.name == "leaf_targetids"]
    targets[0].ints[0] = 99
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    reseal(directory)
    done = run(tmp_path, *MODULE, MODEL_DIR=directory)
    assert (done.returncode, done.stdout) == (65, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("defects: model.onnx: onnxruntime can't load it: ")


def test_files_may_be_links_as_kubernetes_mounts_them(copy: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(copy)
    for file in copy.iterdir():
        (mounted / file.name).symlink_to(Path("..data") / file.name)
    assert artifact.load(mounted).digest == artifact.load(copy).digest
