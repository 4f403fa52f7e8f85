"""The command, as it is run: what it reads, what it prints, and its exit codes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import ROOT
from defects.lint.__main__ import main
from defects.lint.documents import MAX_BYTES
from defects.lint.table import RULES
from linted import CUSTOM, IRIS, LARGE

PAGE = (ROOT / "docs" / "lint.md").read_text("utf-8")


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(*arguments: str | Path, content: str | bytes = b"") -> Done:
    """Run the linter in this process, with something on its standard input or with an empty one."""
    raw = content.encode() if isinstance(content, str) else content
    stdout, stderr, stdin = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(raw))
    try:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            code = main([*map(str, arguments)])
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.stdin = stdin
    return Done(code, stdout.getvalue(), stderr.getvalue())


COMMAND = [sys.executable, "-m", "defects.lint"]


@pytest.fixture
def iris(tmp_path: Path) -> Path:
    path = tmp_path / "iris.yaml"
    path.write_text(IRIS)
    return path


def test_text_says_where_what_why_and_what_to_do(iris: Path) -> None:
    done = run(iris)
    assert done.returncode == 1
    first, where, why, true, fix, last = done.stdout.splitlines()
    assert first.startswith(f"{iris}:4: warning: no deploymentMode")
    assert first.endswith("[mode-missing]")
    assert "InferenceService models/sklearn-iris" in where
    assert "metadata.annotations['serving.kserve.io/deploymentMode']" in where
    assert why.strip().startswith("why:")
    assert "KServe" in true
    assert "Knative or Standard" in fix
    assert last == "0 errors, 1 warning, 0 notes; 1 InferenceService in 1 objects"


def test_a_rule_is_explained_once(iris: Path, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(IRIS)
    done = run(iris, tmp_path / "again.yaml")
    assert done.stdout.count("[mode-missing]") == 2
    assert done.stdout.count("why:") == done.stdout.count("fix:") == 1


def test_standard_input_and_several_files_are_read(iris: Path, tmp_path: Path) -> None:
    for arguments in ((), ("-",)):
        done = run(*arguments, content=IRIS)
        assert done.returncode == 1
        assert done.stdout.startswith("stdin:")
    (tmp_path / "more.yaml").write_text(LARGE)
    done = run(iris, tmp_path / "more.yaml", "-", "--format=json", content=CUSTOM)
    assert json.loads(done.stdout)["inference_services"] == 3


def test_the_exit_code_is_as_bad_as_what_was_found(iris: Path) -> None:
    assert run(iris, "--fail-on=error").returncode == 0
    assert run(iris, "--fail-on=never").returncode == 0
    assert run(iris, "--ignore=mode-missing").returncode == 0
    assert run(iris, "--default-mode=Standard").returncode == 0
    assert run(content=LARGE).returncode == 0
    assert run("--fail-on=note", content=LARGE).returncode == 1
    assert run(content="a: 1\n").returncode == 0


def test_the_options_that_measurements_give_are_used() -> None:
    rate = CUSTOM.replace("containerConcurrency: 1", "scaleTarget: 10")
    few = run("--capacity=45", "--service-seconds=0.008", "--format=json", content=rate)
    many = run("--capacity=4500", "--service-seconds=0.8", "--format=json", content=rate)
    assert [[f["rule"] for f in json.loads(done.stdout)["findings"] if "kpa" in f["rule"]] for done in (few, many)] == [
        ["kpa-concurrency"],
        [],
    ]
    assert "probe-too-short" in run("--start-seconds=700", content=CUSTOM).stdout


WRONG_FILES: dict[str, tuple[bytes | None, str]] = {
    "wrong YAML": (b"a: [\n", "line 2"),
    "not UTF-8": (b"\xff\xfe", "UTF-8"),
    "a list": (b"- 1\n", "document 1 is no mapping"),
    "text": (b"a: 1\n---\nhello\n", "document 2 is no mapping"),
    "a key twice": (b"a: 1\na: 2\n", "line 2: the key 'a'"),
    "NaN": (b"a: .nan\n", "finite"),
    "a directory": (None, "is a directory; expected a regular file"),
}


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(content: bytes | None, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
        assert run(content=content).returncode == 2
    done = run(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "wrong.yaml" in done.stderr
    assert expected in done.stderr


def test_files_that_are_missing_or_huge_are_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for path, expected in (
        (huge, "expected at most"),
        (tmp_path / "none.yaml", "No such file"),
        ("/dev/zero", "device"),
    ):
        done = run(path)
        assert done.returncode == 2
        assert expected in done.stderr
    with huge.open("rb") as file:
        piped = subprocess.run(COMMAND, stdin=file, capture_output=True, cwd=ROOT, check=False)
    assert (piped.returncode, piped.stdout) == (2, b"")
    assert piped.stderr == f"defects.lint: 'stdin' has more than {MAX_BYTES:,} bytes; expected no more\n".encode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ignore=nothing"],
        ["--format=xml"],
        ["--fail-on=x"],
        ["--capacity=-1"],
        ["--capacity=1"],
        ["--start-seconds=nan"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    done = run(*arguments, content=IRIS)
    assert done.returncode == 2
    assert arguments[0].partition("=")[0] in done.stderr


def test_it_runs_as_a_command() -> None:
    done = subprocess.run(COMMAND, input=IRIS, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("stdin:4: warning: no deploymentMode")


def test_a_terminal_is_not_waited_for() -> None:
    """Without a file, where standard input is a terminal."""
    terminal, other = os.openpty()
    try:
        done = subprocess.run(COMMAND, stdin=other, capture_output=True, text=True, cwd=ROOT, check=False)
    finally:
        os.close(terminal)
        os.close(other)
    assert done.returncode == 2
    assert "expected a FILE" in done.stderr


def test_json_has_all_that_text_has() -> None:
    document = json.loads(run("--format=json", content=IRIS + "---" + LARGE).stdout)
    assert document["counts"] == {"error": 0, "warning": 1, "note": 2}
    assert document["inference_services"] == 2
    first = document["findings"][0]
    assert first | {"message": "", "reason": "", "versions": "", "fix": ""} == {
        "rule": "mode-missing",
        "level": "warning",
        "message": "",
        "reason": "",
        "versions": "",
        "fix": "",
        "file": "stdin",
        "line": 4,
        "document": 1,
        "kind": "InferenceService",
        "namespace": "models",
        "name": "sklearn-iris",
        "path": "metadata.annotations['serving.kserve.io/deploymentMode']",
        "for": {"kind": "InferenceService", "namespace": "models", "name": "sklearn-iris"},
    }
    assert all(first[key] for key in ("message", "reason", "versions", "fix"))


def test_the_page_has_the_rules_as_the_command_prints_them() -> None:
    done = run("--rules")
    assert done.returncode == 0
    printed = done.stdout.strip()
    assert printed in PAGE
    shown = [line for line in PAGE.partition("\n## Rules")[2].splitlines() if line.startswith("| `")]
    assert shown == printed.splitlines()[2:]
    assert len(shown) == len(RULES)


# --- SARIF ---------------------------------------------------------------------------------------------------------

LEVELS = {"none", "note", "warning", "error"}


def only_keys(value: dict[str, Any], required: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    assert required <= value.keys() <= required | optional, value.keys()


def check_message(value: dict[str, Any], *more: str) -> None:
    only_keys(value, {"text", *more})
    assert all(isinstance(text, str) and text.strip() for text in value.values())


def check_rule(rule: dict[str, Any]) -> None:
    """What 3.49 of the standard has, and GitHub asks for."""
    only_keys(
        rule, {"id", "shortDescription", "fullDescription", "help", "defaultConfiguration"}, {"name", "properties"}
    )
    check_message(rule["shortDescription"])
    check_message(rule["fullDescription"])
    check_message(rule["help"], "markdown")
    assert len(rule["fullDescription"]["text"]) <= 1024
    assert len(rule["shortDescription"]["text"]) <= 1024
    only_keys(rule["defaultConfiguration"], {"level"})
    assert rule["defaultConfiguration"]["level"] in LEVELS
    assert rule["properties"]["precision"] in ("very-high", "high", "medium", "low")
    assert len(rule["properties"]["tags"]) <= 20


def check_result(result: dict[str, Any], rules: list[dict[str, Any]]) -> None:
    """What 3.27 of the standard has, and GitHub asks for."""
    only_keys(result, {"ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"})
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["level"] in LEVELS
    check_message(result["message"])
    (location,) = result["locations"]
    only_keys(location, {"physicalLocation", "logicalLocations"})
    physical = location["physicalLocation"]
    only_keys(physical, {"artifactLocation", "region"})
    only_keys(physical["artifactLocation"], {"uri"})
    assert " " not in physical["artifactLocation"]["uri"]
    only_keys(physical["region"], {"startLine", "startColumn"})
    assert all(type(number) is int and number >= 1 for number in physical["region"].values())
    (logical,) = location["logicalLocations"]
    only_keys(logical, {"fullyQualifiedName", "kind"})
    assert result["partialFingerprints"]
    assert all(isinstance(text, str) for text in result["partialFingerprints"].values())


def test_sarif_is_what_the_standard_and_github_ask_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "with a space.yaml"
    file.write_text(IRIS + "---" + LARGE)
    monkeypatch.chdir(tmp_path)
    log = json.loads(run(file, "--format=sarif").stdout)
    only_keys(log, {"$schema", "version", "runs"})
    assert log["version"] == "2.1.0"
    (found,) = log["runs"]
    only_keys(found, {"tool", "results", "columnKind"})
    assert found["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    only_keys(found["tool"], {"driver"})
    driver = found["tool"]["driver"]
    only_keys(driver, {"name", "semanticVersion", "rules"})
    assert [rule["id"] for rule in driver["rules"]] == [rule.id for rule in RULES]
    for rule in driver["rules"]:
        check_rule(rule)
    assert len(found["results"]) == 3
    for result in found["results"]:
        check_result(result, driver["rules"])
    places = [r["locations"][0]["physicalLocation"] for r in found["results"]]
    assert {place["artifactLocation"]["uri"] for place in places} == {"with%20a%20space.yaml"}
    assert len({json.dumps(r["partialFingerprints"]) for r in found["results"]}) == 3


@pytest.mark.parametrize("content", ["", "\n", "---\n---\n", "# nothing\n"])
def test_nothing_to_look_at_is_no_good_manifest(content: str) -> None:
    """As what a renderer that failed leaves in a pipe."""
    assert run(content=content) == (2, "", "defects.lint: stdin: no objects; expected manifests\n")
