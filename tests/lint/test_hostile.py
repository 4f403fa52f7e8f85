"""No value of a wrong type, wherever it stands, makes the linter end with anything but findings."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from defects.lint.documents import Entry, Node
from defects.lint.report import as_json, text
from defects.lint.resources import Options, Stream, resources
from defects.lint.rule import Finding
from defects.lint.sarif import as_sarif
from defects.lint.table import RULES, findings
from linted import CUSTOM, IRIS, LARGE, Document, ids
from manifests import overlay, render

WRONG: list[Any] = [
    None,
    True,
    7,
    -1,
    1.5,
    10**30,
    "",
    "x",
    "1e999",
    [],
    {},
    [1],
    ["a", []],
    {"a": 1},
    [[]],
    "{{.Name}}",
]
EACH = 1  # of them, in the place of each value
OPTIONS = Options(start_seconds=1.0, default_mode="Knative")


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def node(value: Any) -> Node:
    """Return a value as the reader makes it."""
    if isinstance(value, dict):
        return Node({key: Entry(1, node(inner)) for key, inner in value.items()}, 1)
    return Node([node(inner) for inner in value], 1) if isinstance(value, list) else Node(value, 1)


@contextmanager
def replaced(documents: list[Document], path: tuple[Any, ...], value: Any) -> Iterator[None]:
    """Put another value at a path, for a while."""
    target: Any = documents
    for key in path[:-1]:
        target = target[key]
    kept, target[path[-1]] = target[path[-1]], value
    yield
    target[path[-1]] = kept


def check(documents: list[Document]) -> list[Finding]:
    """Lint documents, and return what was found once it could be printed."""
    stream = Stream(list(resources("test.yaml", [node(document) for document in documents])), OPTIONS)
    found = list(findings(stream))
    assert len(list(text(stream, found))) == 2 * len(found) + 3 * len(ids(found)) + 1
    return found


@pytest.fixture(scope="module")
def manifests_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    scratch: Path = tmp_path_factory.mktemp("hostile")
    ours = {mode: render(overlay(scratch, mode, "network-policy")) for mode in ("knative", "standard")}
    theirs = {"iris": IRIS, "large": LARGE, "custom": CUSTOM}
    return ours | {name: list(filter(None, yaml.safe_load_all(source))) for name, source in theirs.items()}


@pytest.mark.parametrize("name", ["knative", "standard", "iris", "large", "custom"])
def test_a_value_of_a_wrong_type_is_reported_or_ignored(name: str, manifests_: dict[str, list[Document]]) -> None:
    documents, found = manifests_[name], []
    chosen = random.Random(name)  # the same ones each time
    for path in [*places(documents)]:
        if len(path) > 1:  # a document itself has to be a mapping
            for value in chosen.sample(WRONG, EACH):
                with replaced(documents, path, value):
                    found += check(documents)
    assert found
    json.loads(as_json(Stream([], OPTIONS), found))
    json.loads(as_sarif(RULES, found))


def test_fields_where_none_belongs_are_no_trouble() -> None:
    for source in (IRIS, CUSTOM):
        (document,) = yaml.safe_load_all(source)
        for value in WRONG:
            for key in ("transformer", "explainer", "canary", "predictor"):
                check([document | {"spec": document["spec"] | {key: value}}])
                check([document | {"spec": document["spec"] | {key: [value]}}])
            check([document | {"metadata": value}])


def test_lists_in_lists_and_the_same_name_twice_are_no_trouble() -> None:
    (document,) = yaml.safe_load_all(IRIS)
    assert len(check([document] * 3)) == 3 * len(check([document])) > 0
    nested: Any = document
    for _ in range(30):
        nested = {"apiVersion": "v1", "kind": "List", "items": [nested]}
    assert check([nested]) == []
