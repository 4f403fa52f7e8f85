"""JSON bodies are read exactly: every key once, NaN and infinities by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defects.problems import Constant, InvalidInput
from defects.protocols import documents, v1, v2
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


def test_a_body_of_more_parts_than_allowed_is_not_read() -> None:
    assert documents.read(b'{"a": [1, 2], "b:": ":,[{,,,"}', 4) == {"a": [1, 2], "b:": ":,[{,,,"}
    for text in (b'{"a": [1, 2, 3], "b:": ","}', b'{"a": [NaN, 1, 2, 3]}', b"[[[[[", b"[" + b"1," * 4):
        with pytest.raises(InvalidInput, match="body: has 5 values, lists and objects; expected at most 4"):
            documents.read(text, 4)


# --- compared with a slow reader that is sure to be right ----------------------------------------------------------


class Twice(ValueError):
    """A key appears twice in an object."""


def slowly(text: bytes) -> Any:
    """Read JSON with Python's own reader; raises `NotJSON` or `Twice`."""
    twice = False

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len(dict(pairs)) < len(pairs)
        json.dumps(pairs, ensure_ascii=False).encode()  # of keys that appear twice, too
        return dict(pairs)

    def number(digits: str) -> float | Constant:
        value = float(digits)
        return value if math.isfinite(value) else Constant("Infinity" if value > 0 else "-Infinity")

    def integer(digits: str) -> int | float | Constant:
        short = len(digits) <= 20 and -(2**63) <= int(digits) < 2**64
        return int(digits) if short else number(digits)

    try:
        value = json.loads(
            text.decode(), parse_constant=Constant, parse_float=number, parse_int=integer, object_pairs_hook=members
        )
        json.dumps(value, ensure_ascii=False).encode()  # no half of a surrogate pair
    except ValueError as problem:
        raise NotJSON from problem
    if twice:
        raise Twice
    return value


def constants(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(map(constants, inner)) if inner else type(value) is Constant


def with_types(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: with_types(item) for key, item in value.items()}
    return [*map(with_types, value)] if isinstance(value, list) else (type(value), value)


def outcome(read: Callable[[], Any]) -> Any:
    """Return what was read, with the types of numbers, or the kind of the refusal."""
    try:
        return with_types(read())
    except (NotJSON, StrayConstant) as problem:
        return type(problem)
    except (InvalidInput, Twice):
        return Twice


def expected(text: bytes, places: documents.Places | None) -> Any:
    def read() -> Any:
        value = slowly(text)
        allowed = [([value], 0)] if places is None or type(value) is not dict else places(value)
        if constants(value) > sum(constants(holder[key]) for holder, key in allowed):
            raise StrayConstant
        return value

    return outcome(read)


ATOMS = st.sampled_from([
    "NaN", "Infinity", "-Infinity", "1e999", "-1E+999", "1e308", "1e0000400", "1e-400", "0e999", "9" * 30, "9" * 310,
    "-" + "1" * 400, "0." + "0" * 350 + "1", "1" + "0" * 310 + "e-10", "1" * 250 + "e99", "18446744073709551615",
    "18446744073709551616", "-9223372036854775809", "1.5", "-0", "-0.0", "7", "true", "false", "null", "[]", "{}",
    '""', '"NaN"', '"-Infinity"', '"1e999"', '"' + "1" * 400 + '"', '":"', '"{[,"', '"Größe"', r'"\u003a"',
    r'"\\u003a"', r'"\u003A:"', r'"\""', r'"\\"', r'"\\NaN"', r'"\"NaN\""', r'"\ud83d\ude00"', '"😀"',
])  # fmt: skip
BROKEN = st.sampled_from([
    "NaNs", "-NaN", "1NaN", "NaN1", "NaN.5", "nan", "--Infinity", "- Infinity", "+1e999", "01e999", ".5e999", "1.e999",
    "1e", "1e999x", "1e999-1", "1e5e999", "NaN NaN", '"open', '"\\', '"\x01"', "\x01", "\x03", r'"\ud800"', r'"\x"',
    "[NaN", "{NaN:1}", "{1e999:1}", "[1,]", "{,}", "\ufeff1", "\x00",
])  # fmt: skip
KEYS = st.sampled_from([
    '"a"', '"b"', r'"\u0061"', '"a:b"', '""', '"NaN"', '"1e999"', r'"\""', r'"x\\"', '"Größe"', '"inputs"', '"data"',
    '"instances"', '"parameters"', '"binary_data_size"',
])  # fmt: skip
GAPS = st.sampled_from(["", " ", "\n\t"])


def joined(items: st.SearchStrategy[str], begin: str, end: str) -> st.SearchStrategy[str]:
    return st.builds(
        lambda parts, gap: f"{begin}{gap}{(gap + ',' + gap).join(parts)}{end}", st.lists(items, max_size=4), GAPS
    )


def documents_of(atoms: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        members = st.builds(lambda key, gap, value: f"{key}{gap}:{gap}{value}", KEYS, GAPS, inner)
        return joined(inner, "[", "]") | joined(members, "{", "}")

    return st.recursive(atoms, nested, max_leaves=20)


PLACES: st.SearchStrategy[documents.Places | None] = st.sampled_from([None, v1.constant_places, v2.constant_places])


@settings(max_examples=500, deadline=None)
@given(documents_of(ATOMS) | documents_of(ATOMS | BROKEN), PLACES)
def test_constants_keys_and_escapes_are_read_as_a_slow_reader_reads_them(
    text: str, places: documents.Places | None
) -> None:
    body = text.encode()
    assert outcome(lambda: documents.read(body, places=places)) == expected(body, places)


@settings(max_examples=300, deadline=None)
@given(documents_of(ATOMS), st.data())
def test_a_broken_document_is_refused_as_by_a_slow_reader(text: str, data: st.DataObject) -> None:
    body = text.encode()
    cut = data.draw(st.integers(0, len(body)))
    rest = data.draw(st.integers(cut, min(cut + 2, len(body))))
    broken = (
        body[:cut] + data.draw(st.sampled_from([b"", b'"', b"\\", b"\xff", b"NaN", b":", b"-", b"e9999"])) + body[rest:]
    )
    assert outcome(lambda: documents.read(broken)) == expected(broken, None)


def test_the_integers_in_the_place_of_constants_are_not_among_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([1234567890123456, 1234567890123457])
    monkeypatch.setattr("random.randrange", lambda *_: next(drawn))
    assert documents.read(b"[NaN, 12345678901234561]") == ["NaN", 12345678901234561]
    assert next(drawn, None) is None


def test_constants_may_lie_as_deep_as_orjson_reads() -> None:
    text = b"[" * 1000 + b"NaN" + b"]" * 1000
    value = documents.read(text)
    for _ in range(1000):
        (value,) = value
    assert type(value) is Constant
    with pytest.raises(NotJSON):
        documents.read(b"[" * 2000 + b"NaN" + b"]" * 2000)
    with pytest.raises(StrayConstant):
        documents.read(b'{"a": ' + text + b"}", places=v1.constant_places)
