"""What is read as YAML, and what is refused with one line that says where."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

from defects.lint import documents
from defects.lint.documents import FLOAT, MAX_DEPTH, BadYAML, Node, read
from defects.lint.fields import Field


def plain(node: Node) -> Any:
    """Return the value of a node without its lines."""
    if isinstance(node.value, dict):
        return {key: plain(entry.node) for key, entry in node.value.items()}
    return [plain(item) for item in node.value] if isinstance(node.value, list) else node.value


def test_values_are_what_kubernetes_takes_them_for() -> None:
    text = """
    a: [1, -2, 1.5, 1e3, "1", 'on', on, No, true, ~, null, 007, 1:30, 2026-01-01, 0x1f, plain]
    8080: !!str 5
    true: |
      block
    """
    (document,) = read(text.encode())
    assert plain(document) == {
        "a": [
            1,
            -2,
            1.5,
            1000.0,
            "1",
            "on",
            True,
            False,
            True,
            None,
            None,
            "007",
            "1:30",
            "2026-01-01",
            "0x1f",
            "plain",
        ],
        "8080": "5",
        "true": "block\n",
    }


def test_anchors_aliases_and_merges_are_followed() -> None:
    (document,) = read(b"base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 4}]}\nsame: *b\n")
    assert plain(document) == {
        "base": {"x": 1, "y": 2},
        "more": {"x": 1, "y": 3},
        "both": {"x": 1, "y": 2, "z": 4},
        "same": {"x": 1, "y": 2},
    }


def test_every_value_has_its_line() -> None:
    (document,) = read(b"# a comment\na:\n  b:\n    - 1\n    - c: 2\n")
    root = Field(document)
    assert [root.at(*path).line for path in (("a",), ("a", "b"), ("a", "b", 0), ("a", "b", 1, "c"))] == [2, 3, 4, 5]
    missing = root.at("a", "b", 1, "nothing", 3, "there")
    assert (missing.given, missing.line, missing.path) == (False, 5, "a.b[1].nothing[3].there")


def test_json_is_yaml() -> None:
    value = {"a": [1, {"b": "é😀\u2028\n\\ud83d\\ude00"}], "c": None}
    for indent in (None, 1, "\t"):
        for ascii_ in (True, False):
            (document,) = read(json.dumps(value, indent=indent, ensure_ascii=ascii_).encode())
            assert plain(document) == value


def test_empty_documents_are_left_out() -> None:
    assert [plain(node) for node in read(b"---\n---\na: 1\n---\n# nothing\n---\nb: 2\n...\n")] == [{"a": 1}, {"b": 2}]
    assert read(b"") == read(b"\xef\xbb\xbf# only a comment\n") == []


REFUSED = {
    "not UTF-8": (b"a: 1\nb: \xff\n", "line 2: is not UTF-8"),
    "not YAML": (b"a: [1\nb: 2\n", "line 2:"),
    "a tab": (b"a:\n\t- 1\n", "line 2:"),
    "a control character": (b"a: \x07\n", "expected YAML"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is in line 1 already"),
    "a key twice below": (b"a:\n  - {b: 1, b: 2}\n", "line 2: the key 'b'"),
    "NaN": (b"a: .nan\n", "line 1: has .nan"),
    "an infinity": (b"a: {b: -.inf}\n", "line 1: has -.inf"),
    "a tag": (b"a: !vault x\n", "line 1: the tag '!vault' is unknown"),
    "an unknown alias": (b"a: *nobody\n", "line 1: the alias 'nobody'"),
    "an alias in itself": (b"a: &a [*a]\n", "line 1: the alias 'a'"),
    "a list as a key": (b"? [1]\n: 2\n", "line 1: a key is a list"),
    "a merge of text": (b"a: {<<: x}\n", "line 1: << takes mappings"),
    "too deep": (b"a: " + b"[" * 100_000, f"nested deeper than {MAX_DEPTH}"),
    "too deep in blocks": (b"".join(b" " * n + b"a:\n" for n in range(300)), f"nested deeper than {MAX_DEPTH}"),
    "a bomb": (
        b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 12)),
        "values, with what aliases stand for",
    ),
}


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_manifest_is_refused_with_one_line(content: bytes, expected: str) -> None:
    with pytest.raises(BadYAML) as caught:
        read(content)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    assert read(b"a: [" + b"1," * 900 + b"1]")
    with pytest.raises(BadYAML, match="more than 1,000 values"):
        read(b"a: [" + b"1," * 1000 + b"1]")


# Text such as 1e3 is a number to Kubernetes' tools, and PyYAML does not put it in quotes.
words = st.text().filter(lambda text: not FLOAT.fullmatch(text))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@hypothesis.given(json_values)
def test_what_a_program_wrote_is_read_as_it_was(value: Any) -> None:
    written = yaml.dump({"a": value}, Dumper=yaml.CSafeDumper)
    (document,) = read(written.encode())
    assert plain(document) == {"a": value}


@hypothesis.given(
    st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!|>'\"#%@ \n\t0.<?,~", max_size=80).map(str.encode)
)
def test_nothing_but_its_own_refusal_comes_of_anything(content: bytes) -> None:
    with suppress(BadYAML):
        assert all(node.value is not None for node in read(content))


QUANTITIES = {"500m": 0.5, "1": 1.0, "1Gi": 2**30, "1.5G": 1.5e9, "1e3": 1000.0, "128Mi": 2**27, "2k": 2000.0}


def test_quantities_are_kubernetes_own() -> None:
    for text, value in QUANTITIES.items():
        found = Field(Node(text, 1)).quantity
        assert found is not None
        assert math.isclose(found, value)
    assert Field(Node(2, 1)).quantity == 2
    for wrong in ("1GB", "x", "", "1.2.3", True, None):
        assert Field(Node(wrong, 1)).quantity is None
    assert Field(Node([], 1)).quantity is None
