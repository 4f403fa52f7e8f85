"""JSON bodies are read exactly: every key once, NaN and infinities by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defects.problems import Constant, InvalidInput
from defects.protocols import documents
from defects.protocols.documents import NotJSON, StrayConstant


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "c"),
        ('[{"a": 1}, {"b": 1, "b": 1}]', "b"),
        ('[1, {"b": 1, "b": 1}]', "b"),
        ('{"a": [1, 2, {"b": 1, "b": 1}]}', "b"),
        ('{"a": {"b": 1}, "a": {"b": 1}}', "a"),
        ('{"a": "b:c", "a": 1}', "a"),
        ('{"a": 1, "a": "b:c"}', "a"),
        (r'{"a": "\u003a", "a": 1}', "a"),
        (r'{"\u0061": 1, "a": 1}', "a"),
        ('{"a:b": 1, "a:b": 1}', "a:b"),
        ('{"": 1, "": 1}', ""),
        ('{"Größe": 1, "Größe": 1}', "Größe"),
        ('{"a": NaN, "a": 1}', "a"),
        ('{"a": 1, "a": 1, "b": NaN}', "a"),
        ('{"a": 1, "a": ' + "9" * 30 + "}", "a"),
    ],
)
def test_a_key_that_appears_twice_is_named(text: str, key: str) -> None:
    with pytest.raises(InvalidInput, match=f"body: {key} appears twice; expected each key of an object once"):
        documents.read(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "b:c"}',
        '{"a:b": "c:d", "e": ["f:g", 1]}',
        r'{"a": "\":\\"}',
        r'{"a\u003a": [{"b": "\u003a:"}, 1, {"c": ":"}]}',
        '[1, ":", {"a": 1}]',
        '{"a": {"a": {"a": [{"a": 1}, {"a": 1}]}}}',
        '":"',
        "[]",
        "null",
        '{"a": ":", "b": 1' + "0" * 5000 + ".0e-4999}",
    ],
)
def test_colons_in_texts_are_no_keys(text: str) -> None:
    assert documents.read(text.encode()) == json.loads(text)


TEXTS = st.text(st.sampled_from('ab:"\\\u00e9\n'), max_size=3)
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXTS, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def written(value: Any, ascii_only: bool) -> tuple[str, bool]:
    """The text of a value whose objects are tuples of pairs, and whether a key of one appears twice."""
    if isinstance(value, tuple):
        inner = [written(item, ascii_only) for _, item in value]
        pairs = zip(value, inner, strict=True)
        text = ",".join(f"{json.dumps(key, ensure_ascii=ascii_only)}:{item}" for (key, _), (item, _) in pairs)
        return f"{{{text}}}", len({key for key, _ in value}) < len(value) or any(twice for _, twice in inner)
    if isinstance(value, list):
        inner = [written(item, ascii_only) for item in value]
        return f"[{','.join(item for item, _ in inner)}]", any(twice for _, twice in inner)
    return json.dumps(value, ensure_ascii=ascii_only), False


@given(VALUES, st.booleans())
def test_a_key_is_found_twice_exactly_where_it_appears_twice(value: Any, ascii_only: bool) -> None:
    text, twice = written(value, ascii_only)
    if twice:
        with pytest.raises(InvalidInput):
            documents.read(text.encode())
    else:
        assert documents.read(text.encode()) == json.loads(text)


def test_constants_come_by_name() -> None:
    text = (
        b"[NaN, Infinity, -Infinity, 1e400, -1e400, 1" + b"0" * 400 + b", -1" + b"0" * 400 + b", 18446744073709551615]"
    )
    value = documents.read(text)
    assert value == ["NaN", *["Infinity", "-Infinity"] * 3, 2**64 - 1]
    assert {type(item) for item in value[:-1]} == {Constant}
    with pytest.raises(StrayConstant):
        documents.read(b'{"a": NaN}', places=lambda _: [])


@pytest.mark.parametrize("text", [b"", b"{", b"[NaN", b'{"a": NaN, "\\ud800": 1}', b"nan", b"\xff", b"[" * 2000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(NotJSON):
        documents.read(text)


def test_a_second_reading_has_an_end_too() -> None:
    deep = b'{"a": [1, ":"], "b": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    with pytest.raises(NotJSON):
        documents.read(deep)
