"""Every command in the documentation works, what it shows is what comes, and it names everything that there is.

What a block of commands needs is said in a comment before it, which GitHub does not show:

    (none)                         it is run here, in a copy of the checkout, beside a server; output follows it
    <!-- serves -->                it is run here until it serves, and is then interrupted
    <!-- run by: FILE[::TEST] -->  another test runs it, or a script that has the same command
    <!-- needs: cluster -->        it can't be run here; also `registry` and `minutes`
    <!-- file: NAME -->            before YAML: the commands after it find it as this file
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pandas as pd
import pytest

from conftest import BIN, MODULE, ROOT, RUN_SECONDS, WAIT_SECONDS, Command, Serve, Server, environment, free_port, until
from defects import simulator
from defects.settings import PREFIX
from defects.training import dataset
from loadtests import scenario
from loadtests.analysis.method import EXIT_CODES
from test_house import PACKAGES, graph, modules

DOCUMENTED_ADDRESS = "127.0.0.1:3000"
NAMES = ["README.md", "CONTRIBUTING.md", "kserve/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
PAGES = {name: (ROOT / name).read_text("utf-8") for name in sorted(NAMES)}
ALL = "\n".join(PAGES.values())
LANGUAGES = ("sh", "json", "text", "yaml", "mermaid")
STATIC = "/static_content/{file}"
NEEDS = ("cluster", "registry", "minutes")
NOT_OURS = ("--processes", "--prune")  # options of other people's commands


class Block(NamedTuple):
    """A fenced block: its page, first line, language, text, the comment before it, and the heading that it is under."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    heading: int

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in order."""
    found, before, heading, opened = [], "", 0, None
    lines = PAGES[page].splitlines()
    for number, line in enumerate(lines, 1):
        if opened is not None and line == "```":
            start, language, mark = opened
            found.append(Block(page, start, language, "\n".join(lines[start : number - 1]), mark, heading))
            opened = None
        elif opened is None:
            if line.startswith("```"):
                opened = (number, line.removeprefix("```"), before if before.startswith("<!--") else "")
            heading += line.startswith("#")
        before = line
    return found


EVERY_BLOCK = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in EVERY_BLOCK if block.language == "sh"]


def mark(block: Block) -> tuple[str, str]:
    """What the comment before a block says, and of what."""
    said = re.fullmatch(r"<!-- (needs|run by|serves|file)(?:: (.+))? -->", block.mark)
    assert said or not block.mark, f"{block.place}: {block.mark} is no mark; the head of tests/test_docs.py lists them"
    return (said[1], said[2] or "") if said else ("", "")


def code(text: str) -> list[str]:
    """The lines of command blocks and the pieces of code in the prose."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in COMMANDS if block.text in text for line in block.text.splitlines()]
    return re.findall(r"`([^`\n]+)`", prose) + lines


def none(found: Iterable[str], what: str) -> None:
    """Fail with what was found, which should not be there, in words for who has to mend the pages."""
    listed = "".join(f"\n  {each}" for each in sorted(set(found)))
    assert not listed, f"{what}:{listed}"


# --- the marks -----------------------------------------------------------------------------------------------------


def test_every_block_says_what_it_is() -> None:
    none((b.place for b in EVERY_BLOCK if b.language not in LANGUAGES), f"blocks that are none of {LANGUAGES}")
    for block in EVERY_BLOCK:
        kind, of = mark(block)
        if kind == "needs":
            assert of in NEEDS, f"{block.place}: needs {of}; expected one of {NEEDS}"
        elif kind == "run by":
            assert runs(of, block), f"{block.place}: {of} is not there, or does not have this command"


def runs(where: str, block: Block) -> bool:
    """Whether a test, or a script with the same commands, is there."""
    file, _, test = where.partition("::")
    if not (ROOT / file).is_file():
        return False
    text = (ROOT / file).read_text("utf-8")
    if not file.endswith(".py"):
        return all(line.partition("#")[0].strip() in text for line in block.text.splitlines())
    return not test or f"def {test}(" in text


def test_every_command_is_one() -> None:
    """Also those that are not run here."""
    for block in COMMANDS:
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.place}\n{done.stderr}"


def test_every_make_target_is_documented_and_every_documented_one_exists() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    helped = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    there = {line.split()[0] for line in helped.splitlines()}
    commands = [piece for piece in code(ALL) if re.search(r"\bmake [a-z]", piece)]
    named = {target for piece in commands for target in re.findall(r"\bmake ([a-z][a-z-]*)", piece)}
    none(named - there, "the pages name make targets that are not there")
    none(there - named, "make targets that no page names")
    given = {name for piece in commands for name in re.findall(r"\b([A-Z_]+)=", piece.partition("make ")[2])}
    used = {name for name in given if re.search(rf"\$\({name}\)|\$\({name},|\$\(if \$\({name}\)", makefile)}
    none(given - used, "the pages give make variables that the Makefile does not read")


def test_every_module_path_and_option_that_is_named_exists() -> None:
    pieces = code(ALL)
    started = {name for piece in pieces for name in re.findall(r"python -m ([\w.]+)", piece)}
    ours = {name: name.replace(".", "/") for name in started if name.partition(".")[0] in PACKAGES}
    files = {name: (f"{path}.py", f"{path}/__main__.py") for name, path in ours.items()}
    none((n for n, made in files.items() if not any((ROOT / f).is_file() for f in made)), "modules that are not there")
    folders = (*PACKAGES, "tests", "kserve", "docs", "requirements", ".ci")
    paths = {piece for piece in pieces if re.fullmatch(rf"({'|'.join(folders)})/[\w./-]*", piece)}
    none((path for path in paths if not (ROOT / path).exists() and "NAME" not in path), "files that are not there")
    programs = {name for piece in pieces for name in re.findall(r"\.venv/bin/([\w-]+)", piece)}
    none((name for name in programs if not (BIN / name).exists()), "programs that are not in .venv/bin")
    sources = "\n".join(path.read_text("utf-8") for path in modules().values())
    options = {option for piece in pieces if piece.startswith("--") for option in re.findall(r"--[a-z-]+", piece)}
    none((o for o in options if f'"{o}"' not in sources and o not in NOT_OURS), "options that no command has")


# --- commands, and what comes of them ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Path:
    """A copy of what git has, with this virtual environment, in which a command may write."""
    copy = tmp_path_factory.mktemp("checkout")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in files.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    for lock in (copy / "requirements").iterdir():
        os.utime(lock, (0, 0))  # what is installed is what these tests run with: make installs nothing
    (copy / ".venv").symlink_to(BIN.parent)
    (copy / "build").mkdir()
    (copy / "build" / "model").symlink_to(model_dir)
    table = dataset.builtin(1_000, seed=0)
    frame = pd.DataFrame(table.features, columns=list(table.schema.names))
    frame["defect"] = [table.schema.class_names[i] for i in table.labels]
    frame[frame.defect.isin(["ok", "crushed"])].to_csv(copy / "parcels.csv", index=False)  # two classes train sooner
    return copy


Done = subprocess.CompletedProcess[str]


class Workshop:
    """Runs commands in the checkout, beside a server; the same commands only once."""

    def __init__(self, checkout: Path, home: Path, server: Server, serve: Serve):
        self._serve = serve
        self._checkout, self._home, self._address = checkout, home, server.url.removeprefix("http://")
        self._done: dict[str, Done] = {}

    def run(self, commands: str) -> Done:
        if commands not in self._done:
            self._done[commands] = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", commands.replace(DOCUMENTED_ADDRESS, self._address)],
                cwd=self._checkout,
                env=environment(self._home, PORT=self._address.rpartition(":")[2]),
                capture_output=True,
                text=True,
                timeout=RUN_SECONDS,
                check=False,
            )
        return self._done[commands]

    @contextmanager
    def serving(self, commands: str) -> Iterator[Server]:
        """A server that the commands start, until it is interrupted."""
        command: Command = ["bash", "-euo", "pipefail", "-c", commands]
        with self._serve(command=command, cwd=self._checkout, BENTOML_HOME=self._home) as server:
            yield server
            os.killpg(server.process.pid, signal.SIGINT)
            server.wait()

    def save(self, name: str, text: str) -> None:
        (self._checkout / name).write_text(text + "\n", "utf-8")


@pytest.fixture(scope="module")
def documented(serve: Serve, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("history") / "history.db"
    with serve(command=MODULE, MODEL_DIR=model_dir, DEFECTS_DATABASE_URL=f"sqlite:///{file}") as server:
        yield server


@pytest.fixture(scope="module")
def workshop(checkout: Path, documented: Server, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(checkout, tmp_path_factory.mktemp("home"), documented, serve)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_work_and_what_is_shown_is_what_comes(page: str, workshop: Workshop) -> None:
    ran: tuple[Block, Done | None] | None = None
    for block in blocks(page):
        kind, of = mark(block)
        if kind == "file":
            workshop.save(of, block.text)
        elif block.language == "sh":
            ran = (block, run(block, kind, workshop))
        elif block.language in ("json", "text"):
            follows = ran is not None and ran[0].heading == block.heading
            assert follows or block.language == "text", f"{block.place}: there is no command that this is the output of"
            if follows and ran and ran[1]:
                check_output(block, ran[1])


def run(block: Block, kind: str, workshop: Workshop) -> Done | None:
    """Run what can be run here."""
    if kind in ("needs", "run by"):
        return None
    if kind == "serves":
        with workshop.serving(block.text):
            return None
    done = workshop.run(block.text)
    judged = block.text.startswith("make load") and "report: build/load/" in done.stderr  # any verdict but an error
    assert done.returncode == 0 or judged, f"{block.place}\n{block.text}\n{done.stdout}\n{done.stderr}"
    return done


def check_output(block: Block, done: Done) -> None:
    if block.language == "json":
        differs = difference(json.loads(block.text), json.loads(done.stdout))
        assert differs is None, f"{block.place}: {differs}; what came:\n{done.stdout}"
        return
    came = {without_numbers(line) for line in done.stdout.splitlines()}
    missing = [line for line in block.text.splitlines() if line and without_numbers(line) not in came]
    assert missing == [], f"{block.place}: lines that did not come; what came:\n{done.stdout}"


def without_numbers(line: str) -> str:
    line = re.sub(r"sha256:[0-9a-f]+", "sha256:#", line)
    return " ".join(re.sub(r"\d[\d.,]*(e[-+]\d+)?", "#", line).split())


def difference(shown: Any, came: Any, at: str = "it") -> str | None:
    """Where an answer is not as shown: in its keys, types, texts or whole numbers. Other numbers, ids and versions may
    differ. "…" stands for what is left out, as a key or at the end of a list."""
    if type(shown) is not type(came):
        return f"{at} is {came!r}, shown as {shown!r}"
    if isinstance(shown, dict):
        open_ = "…" in shown
        if not (shown.keys() - {"…"} <= came.keys()) or (not open_ and shown.keys() != came.keys()):
            return f"{at} has {sorted(came)}, shown are {sorted(shown)}"
        pairs = [(f"{at}.{key}", shown[key], came[key]) for key in shown if key != "…"]
    elif isinstance(shown, list):
        given = shown[:-1] if shown[-1:] == ["…"] else shown
        if len(given) > len(came) or (given is shown and len(given) < len(came)):
            return f"{at} has {len(came)} entries, shown are {len(given)}"
        pairs = [(f"{at}[{i}]", a, b) for i, (a, b) in enumerate(zip(given, came, strict=False))]
    elif isinstance(shown, str):
        varies = re.fullmatch(r"[0-9a-f-]{16,}", shown) and re.fullmatch(r"[0-9a-f-]{16,}", came)
        return None if varies or shown == came else f"{at} is {came!r}, shown as {shown!r}"
    else:
        return None if isinstance(shown, float) or shown == came else f"{at} is {came!r}, shown as {shown!r}"
    return next((found for pair in pairs if (found := difference(pair[1], pair[2], pair[0]))), None)


def test_a_difference_is_noticed() -> None:
    shown = {"a": 1, "b": 0.5, "c": ["x", "…"], "id": "019aa8e1c3f57a39b183f64ed287b956"}
    same = {"a": 1, "b": 0.7, "c": ["x", "y"], "id": "019aa8e1c3f57a39b183f64ed287b957"}
    assert difference(shown, same) is None
    changes: list[dict[str, Any]] = [{"a": 2}, {"a": "1"}, {"b": None}, {"c": []}, {"c": ["y"]}, {"d": 1}, {"id": "x"}]
    for change in changes:
        assert difference(shown, same | change) is not None, change
    assert without_numbers("29 ok, 1e-07") == without_numbers("3 ok, 0.0") != without_numbers("29 failed, 1e-07")


def test_make_serve_trains_serves_and_ends_on_an_interrupt(checkout: Path, tmp_path: Path) -> None:
    with subprocess.Popen(
        ["make", "serve", f"PORT={(port := free_port())}"],
        cwd=checkout,
        env=environment(tmp_path, DEFECTS_DRAIN_SECONDS=0.5),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout
            seen = []
            for line in process.stdout:
                seen.append(line)
                if '"try":' in line:
                    break
            text = "".join(seen)
            assert "macro-F1" in text, text
            hint = json.loads(seen[-1])
            assert hint["message"] == f"open http://127.0.0.1:{port}/"
            answer = subprocess.run(["bash", "-c", hint["try"]], capture_output=True, text=True, check=True).stdout
            assert json.loads(answer)["defect"] == "punctured"
            assert hint["history"] == "SQLite, build/history.db"
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=WAIT_SECONDS)
            with closing(sqlite3.connect(checkout / "build" / "history.db")) as history:
                until(lambda: history.execute("SELECT count(*) FROM predictions").fetchone() == (1,))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


# --- what there is, is documented ----------------------------------------------------------------------------------


def test_every_link_leads_somewhere() -> None:
    broken: list[str] = []
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)):
            if "://" in target:
                continue
            path, _, anchor = target.partition("#")
            file = (ROOT / page).parent / path if path else ROOT / page
            if not file.exists() or (anchor and anchor not in anchors(file)):
                broken.append(f"{page}: {target}")
    none(broken, "links that lead nowhere")


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"^```.*?^```", "", file.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", PAGES["README.md"])}
    none(PAGES.keys() - linked - {"README.md"}, "pages that README.md does not link")
    assert len(PAGES["README.md"].splitlines()) <= 160, "details belong into docs/"


def test_the_tree_in_the_readme_names_what_there_is() -> None:
    (tree,) = (block.text for block in blocks("README.md") if block.language == "text")
    none((n for n in (line.split()[0] for line in tree.splitlines()) if not (ROOT / n).exists()), "README's tree has")


def test_the_house_has_a_line_for_every_module_and_no_other() -> None:
    sections = re.split(r"^### ", PAGES["docs/architecture.md"], flags=re.MULTILINE)[1:]
    described = set()
    for section in sections:
        folder = re.match(r"`([^`]+)`", section)
        assert folder, f"docs/architecture.md: expected a folder in the heading {section.splitlines()[0]}"
        modules = re.findall(r"^- `(\w+\.py)`: \S", section.partition("\n## ")[0], re.MULTILINE)
        described |= {(Path(folder[1]) / name).as_posix() for name in modules}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    there = {path.relative_to(ROOT).as_posix() for path in (*files, *ROOT.glob("*.py"))}
    none(there - described, "modules without a line in docs/architecture.md, under the heading of their folder")
    none(described - there, "docs/architecture.md has lines for modules that are not there")


def test_everything_is_within_four_hops_of_an_entry_point() -> None:
    """Hops are imports. What can be started is an entry point too, such as `python -m defects.check`."""
    imports = graph()
    ours = {n: path for n, path in modules().items() if path.name != "__init__.py" and not n.startswith("benchmarks.")}
    commands = {name for name, path in ours.items() if "__name__ ==" in path.read_text("utf-8")}
    near = level = {"service", "train", "loadtests.locustfile", *commands}
    for _ in range(4):
        level = {other for name in level for other in imports[name] if other in imports}
        near = near | level
    none(ours.keys() - near, "modules more than four imports away from everything that can be started")


def test_every_route_is_documented_and_every_documented_one_answers(documented: Server) -> None:
    model = httpx.get(f"{documented.url}/model").json()
    shown = set(re.findall(r"`(GET|POST) (/[^`]*)`", PAGES["docs/http-api.md"].partition("\n## One")[0]))
    paths = httpx.get(f"{documented.url}/docs.json").json()["paths"]
    there = {(method.upper(), path_in_table(path, model)) for path, methods in paths.items() for method in methods}
    none((f"{m} {p}" for m, p in there - shown), "routes of /docs.json that docs/http-api.md does not have")
    id_ = httpx.post(f"{documented.url}/classify", json=simulator.SCHEMA.example).headers["x-prediction-id"]
    until(lambda: httpx.get(f"{documented.url}/predictions/{id_}").status_code == 200)
    for method, path in shown - {("GET", STATIC)}:
        url = path.replace("{name}", model["name"]).replace("{version}", model["version"]).replace("{id}", id_)
        status = httpx.request(method, f"{documented.url}{url}", content=b"" if method == "POST" else None).status_code
        assert status == (400 if method == "POST" else 200), f"docs/http-api.md: {method} {path} is answered {status}"


def path_in_table(path: str, model: dict[str, str]) -> str:
    """A path as the table of routes has it, with names for what depends on the model."""
    path = path.replace(model["name"], "{name}").replace(model["version"], "{version}")
    return STATIC if path.startswith("/static_content/") else path


def test_every_metric_is_documented_and_every_documented_one_is_there(documented: Server) -> None:
    httpx.post(f"{documented.url}/classify", content=b"")  # so that there is an answer to count
    text = httpx.get(f"{documented.url}/metrics").text
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE))
    there = types.keys()
    shown = dict(re.findall(rf"^\| `({PREFIX.lower()}\w+)` \| (\w+) \|", PAGES["docs/operations.md"], re.MULTILINE))
    page = PAGES["docs/operations.md"]
    none((name for name in there if f"`{name}`" not in page), "metrics that docs/operations.md does not have")
    none(shown.keys() - there, "docs/operations.md has metrics that /metrics does not have")
    none((f"{n}: {types[n]}" for n, kind in shown.items() if types[n] != kind), "docs/operations.md has other types")


def test_every_scenario_and_every_verdict_is_documented() -> None:
    load, scaling = PAGES["docs/load-testing.md"], PAGES["docs/scaling-tests.md"]
    table = re.compile(r"^\| `([a-z][a-z-]*)` \|", re.MULTILINE)
    shown = {name for page in (load, scaling) for name in table.findall(page.partition("\n## Scenarios")[2])}
    assert shown == set(scenario.names()), "the tables of scenarios, and loadtests/scenarios, differ"
    verdicts = {name: int(code) for name, code in re.findall(r"^\| ([A-Z]\w+) \| (\d) \|", load, re.MULTILINE)}
    assert verdicts == EXIT_CODES
