"""The house: who may import whom, that there are no circles, and how large a file, a class and a function may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGES = ("defects", "loadtests", "benchmarks", "tools")
FILE_LINES, CLASS_LINES, FUNCTION_LINES = 400, 250, 60
SERVING = (
    "defects.http",
    "defects.protocols",
    "defects.serving",
    "defects.history",
    "defects.replica",
    "defects.serve",
    "service",
    "defects.bentoml_service",
)
GROUND = (
    "defects.problems",
    "defects.files",
    "defects.values",
    "defects.kinds",
    "defects.features",
    "defects.objects",
    "defects.schema",
    "defects.settings",
    "defects.directories",
    "defects.artifact",
    "defects.locations",
    "defects.object_storage",
    "defects.pushing",
    "defects.store",
    "defects.links",
    "defects.decoding",
    "defects.sklearn_engine",
    "defects.scoring",
)

# (who, whom they never import)
NEVER = [
    (SERVING, ("defects.training", "defects.check", "defects.pages", "loadtests", "benchmarks", "tools", "train")),
    (SERVING, ("defects.image", "defects.lint", "sklearn", "scipy", "pandas")),
    (("defects.lint",), ("defects.http", "defects.training", "defects.artifact", "defects.replica", "service")),
    (("defects.training",), ("defects.http", "defects.serving", "defects.protocols", "defects.replica", "service")),
    (("defects",), ("loadtests", "benchmarks", "tools")),
    (("defects.protocols",), ("defects.http", "defects.serving")),
    (("defects.serving",), ("defects.http",)),
    (("defects.http", "defects.protocols", "defects.serving"), ("defects.history",)),  # only where there is a database
    (("defects.history",), ("defects.http",)),
    (("loadtests",), ("benchmarks",)),
    (("benchmarks",), ("loadtests",)),
    (("tools",), ("loadtests", "benchmarks")),
]
# What imports nothing of ours but what is named.
ONLY = [
    (("defects.pages",), ("defects.pages",)),
    (GROUND, (*GROUND, "defects.schema")),
]


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    files = [ROOT / "service.py", ROOT / "train.py"]
    files += [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {_name(path): path for path in files}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports, anywhere in it: modules of ours by their names, others by their package's."""
    known = modules()
    return {name: set(_imported(path, known)) for name, path in known.items()}


def _imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            owner = name if name in known else name.rpartition(".")[0]
            yield owner if owner in known else name.partition(".")[0]


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


@pytest.mark.parametrize(("who", "whom"), NEVER, ids=[f"{who[0]}-{whom[0]}" for who, whom in NEVER])
def test_wings_do_not_import(who: tuple[str, ...], whom: tuple[str, ...]) -> None:
    broken = [f"{a} imports {b}" for a, found in graph().items() if within(a, who) for b in found if within(b, whom)]
    assert broken == []


@pytest.mark.parametrize(("who", "whom"), ONLY, ids=[who[0] for who, _ in ONLY])
def test_the_ground_stands_on_nothing_above_it(who: tuple[str, ...], whom: tuple[str, ...]) -> None:
    ours = ("service", "train", *PACKAGES)
    found = [(a, b) for a, all_ in graph().items() if within(a, who) for b in all_ if within(b, ours)]
    assert [f"{a} imports {b}" for a, b in found if not within(b, whom)] == []
    assert found or len(who) == 1  # who is checked is there


def test_there_are_no_circles() -> None:
    ours = {name: {other for other in found if other in modules()} for name, found in graph().items()}
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(reversed(circle.args[1])))


def test_there_are_no_circles_of_wings() -> None:
    wings: dict[str, set[str]] = {}
    for name, found in graph().items():
        others = {_wing(other) for other in found if other in modules()}
        wings.setdefault(_wing(name), set()).update(others - {_wing(name)})
    try:
        TopologicalSorter(wings).prepare()
    except CycleError as circle:
        pytest.fail(" -> ".join(reversed(circle.args[1])))


def _wing(name: str) -> str:
    """Return the folder of a module in a wing; modules outside of wings stand for themselves."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 or modules()[name].name == "__init__.py" else name


def test_every_rule_is_about_rooms_that_exist() -> None:
    rooms = {room for who, whom in [*NEVER, *ONLY] for room in (*who, *whom)} - {"sklearn", "scipy", "pandas"}
    assert [room for room in rooms if not any(within(name, (room,)) for name in modules())] == []


def test_no_room_is_empty() -> None:
    known = modules()
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    assert [room for room in packages if not any(name.startswith(f"{room}.") for name in known)] == []


def test_files_classes_and_functions_are_small() -> None:
    large = []
    for name, path in modules().items():
        text = path.read_text("utf-8")
        if (lines := text.count("\n")) > FILE_LINES:
            large.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > (CLASS_LINES if isinstance(node, ast.ClassDef) else FUNCTION_LINES):
                    large.append(f"{name}.{node.name}: {lines} lines")
    assert large == []
